"""docs/BENCHMARKS.md: a section for each part, with the day's machine, load and
versions in it. A run replaces the sections that it measured and leaves the
others, and what people wrote between them, alone."""
import os
import re

from common import ROOT, host

TITLES = {
    "tcg": "One guest on all engines",
    "programs": "Programs of Debian in the guest",
    "debian": "Debian from its disk",
    "smp": "Two processors",
    "disks": "Disks",
    "images": "Images",
    "networks": "Networks",
    "bochs": "The interpreter beside Bochs",
    "idle": "An idle guest",
    "memory": "Memory",
}
PATH = os.path.join(ROOT, "docs", "BENCHMARKS.md")
HEAD = """# Benchmarks

`make bench` measures again and prints such a page; `tests/bench/run --write` puts it here. Each
section says when and where it was measured.
"""


def section(part, lines, version, load):
    measured = ["*%s; %s; load of the host %s.*" % (version, host(), load), ""]
    return "## %s\n\n%s\n" % (TITLES[part], "\n".join(measured + lines))


def read():
    """Head and {title: text} of the page in the tree."""
    try:
        with open(PATH, encoding="utf-8") as page:
            text = page.read()
    except FileNotFoundError:
        return HEAD, {}
    head, *parts = re.split(r"(?m)^(?=## )", text)
    return head, {part.split("\n")[0][3:].strip(): part.rstrip() + "\n" for part in parts}


def whole(sections):
    """The page with the sections {part: text}, the parts in their order, and
    after them what has no part."""
    _, there = read()
    there.update((TITLES[part], text) for part, text in sections.items())
    known = [title for title in TITLES.values() if title in there]
    texts = [there[title] for title in known + [title for title in there if title not in known]]
    return "\n".join([HEAD, *texts])
