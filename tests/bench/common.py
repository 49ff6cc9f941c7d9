"""What the parts of the benchmark share: where things are, running tools, what
the machine is, and the store of what was measured."""
import collections
import os
import platform
import re
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WORK = os.path.join(ROOT, "build", "bench")
GUESTS = os.environ.get("BENCH_GUESTS", os.path.join(ROOT, "build", "guests"))
KERNEL = os.path.join(GUESTS, "vmlinuz-cloud")


def fail(why):
    sys.exit("bench: " + why)


def say(what):
    print(what, file=sys.stderr, flush=True)


def tool(*words, cwd=WORK):
    done = subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        fail("%s: status %d\n%s%s" % (" ".join(words), done.returncode, done.stdout, done.stderr))


def first_line(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def make_initramfs(name, *layers):
    """BusyBox with a shell, and layers over it: scripts/make-initramfs.sh."""
    out = os.path.join(WORK, name)
    tool(os.path.join(ROOT, "scripts", "make-initramfs.sh"), os.path.join(GUESTS, "busybox"), out,
         *layers)
    return out


def newer(target, sources):
    """Whether target is there and newer than all sources."""
    return os.path.exists(target) and all(
        os.path.getmtime(source) < os.path.getmtime(target) for source in sources)


# ---- the machine ----

def package(name):
    return "%s %s" % (name, first_line("dpkg-query", "-W", "-f=${Version}\n", name))


def host():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        text = cpuinfo.read()
    found = re.search(r"model name\s*: (.*)", text)
    if found:
        model = found[1]
    virtual = re.search(r"\bhypervisor\b", text)
    return "%s, %d processors%s, Linux %s" % (model, os.cpu_count(),
                                              " of a virtual machine" if virtual else "",
                                              platform.release())


def vireo_version(vireo):
    commit = first_line("git", "-C", ROOT, "log", "-1", "--format=%h of %cs")
    return "%s, commit %s" % (first_line(vireo, "--version"), commit)


class Load:
    """The host's load while something was measured."""

    def __init__(self):
        self.values = []
        self.note()

    def note(self):
        self.values.append(os.getloadavg()[0])

    def __str__(self):
        return "%.1f to %.1f" % (min(self.values), max(self.values))


# ---- what was measured ----

class Samples:
    """row -> engine -> a value for each round, None where it was lost.

    A page gives medians; with best, the least of all rounds counts instead,
    which a busy machine disturbs less."""

    def __init__(self, values=None, best=False):
        self.best = best
        self.values = collections.defaultdict(lambda: collections.defaultdict(list))
        for row, engines in (values or {}).items():
            for engine, samples in engines.items():
                self.values[row][engine] = list(samples)

    def put(self, round_number, row, engine, value):
        samples = self.values[row][engine]
        samples += [None] * (round_number + 1 - len(samples))
        samples[round_number] = value

    def rounds(self, row, engine):
        return self.values[row][engine] if row in self.values and engine in self.values[row] else []

    def value(self, row, engine):
        there = [value for value in self.rounds(row, engine) if value is not None]
        if not there:
            return None
        return min(there) if self.best else statistics.median(there)

    def ratio(self, row, above, below):
        """Of medians it is the median of the rounds' ratios: what strikes the
        machine for a while strikes both."""
        if self.best:
            a, b = self.value(row, above), self.value(row, below)
            return a / b if a is not None and b else None
        ratios = [a / b for a, b in zip(self.rounds(row, above), self.rounds(row, below))
                  if a is not None and b]
        return statistics.median(ratios) if ratios else None

    def engines(self):
        return {engine for engines in self.values.values() for engine in engines}


class Sums:
    """Checksums of results. An engine whose sum differs has no time: the first
    of TRUST that ran says what is right."""

    TRUST = ["native", "tcg", "interp", "jit"]

    def __init__(self):
        self.right, self.wrong = {}, {}

    def agrees(self, row, engine, checksum):
        by, expected = self.right.setdefault(row, (engine, checksum))
        if checksum == expected:
            return True
        self.wrong[row, engine] = "its result is wrong: %s, not %s as on %s" % (checksum, expected, by)
        return False


def geometric_mean(values):
    values = [value for value in values if value]
    return statistics.geometric_mean(values) if values else None


def number(value, digits=3):
    """A number for a table: three digits that count, no exponents."""
    if value is None:
        return "-"
    for power in range(digits):
        if abs(value) < 10 ** power:
            return "%.*f" % (digits - power, value)
    return "%.0f" % value
