#!/usr/bin/env python3
"""Keeps the rules of the house.

Includes run one way only (docs/DESIGN.md); every source file is in the build;
the library has no mutable state of file scope, so that two machines in one
process never meet.

usage: check_tree.py SOURCE_ROOT [LIBRARY.a]
"""

import os
import re
import subprocess
import sys

root = sys.argv[1]
library = sys.argv[2] if len(sys.argv) > 2 else None
failures = []

# Which rooms a room may look into, besides itself.
MAY_INCLUDE = {
    "base": [],
    "vm": ["base"],
    "cpu": ["base", "vm"],
    "engine": ["base", "vm", "cpu"],
    "dev": ["base", "vm", "backend"],
    "backend": ["base", "vm"],
    "boot": ["base", "vm", "cpu"],
    "board": ["base", "vm", "cpu", "dev", "backend", "boot"],
    "debug": ["base", "vm", "cpu"],
    "cli": ["base", "vm", "cpu", "dev", "backend", "boot", "board", "debug", "engine"],
}
# A header of vm, cpu or dev shows none of these: a freestanding build uses it.
HOSTED_HEADERS = {"stdio.h", "stdlib.h", "uv.h", "malloc.h"}
# A device is handed a line and sees no interrupt controller.
INTERRUPT_CONTROLLERS = ("dev/irq/",)
# Belongs to the process and not to a machine: who takes a signal, and what it did before.
PROCESS_WIDE = {"host_signal_seam"}


def sources():
    for room in MAY_INCLUDE:
        for folder, _, names in os.walk(os.path.join(root, room)):
            for name in names:
                if name.endswith((".c", ".h", ".S")):
                    yield room, os.path.relpath(os.path.join(folder, name), root)


listed = set()
with open(os.path.join(root, "meson.build")) as build:
    listed.update(re.findall(r"'([\w/.]+\.[cS])'", build.read()))

for room, path in sources():
    with open(os.path.join(root, path)) as f:
        text = f.read()
    for include in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M):
        if "/" not in include:
            continue  # made by the build
        other = include.split("/")[0]
        if other != room and other not in MAY_INCLUDE[room]:
            failures.append("%s includes %s: %s/ may not look into %s/" % (path, include, room, other))
        if room == "dev" and include.startswith(INTERRUPT_CONTROLLERS) and \
                not path.startswith(INTERRUPT_CONTROLLERS):
            failures.append("%s includes %s: a device is handed a line" % (path, include))
    if room in ("vm", "cpu", "dev") and path.endswith(".h"):
        for include in re.findall(r"^\s*#\s*include\s+<([^>]+)>", text, re.M):
            if include in HOSTED_HEADERS:
                failures.append("%s includes <%s>: not in a freestanding build" % (path, include))
    if path.endswith((".c", ".S")) and path not in listed:
        failures.append("%s is not in meson.build" % path)
    if not text.lstrip().startswith("/*"):
        failures.append("%s does not open with a comment that says what it is" % path)

if library:
    # d, D: initialised data; b, B: zeroed; C: common. Thread-locals are told
    # apart by their section.
    table = subprocess.run(["objdump", "-t", library], check=True, capture_output=True).stdout.decode()
    member = ""
    for line in table.splitlines():
        if line.endswith("file format elf64-x86-64"):
            member = line.split(":")[0]
        parts = re.match(r"[0-9a-f]{16} (.{7}) (\S+)\t([0-9a-f]{16})\s+(?:\.hidden\s+)?(\S+)$", line)
        if not parts or "d" in parts.group(1) and "O" not in parts.group(1):
            continue
        section, size, name = parts.group(2), int(parts.group(3), 16), parts.group(4)
        writable = re.match(r"\.(data|bss)(\.|$)", section) and not section.startswith(".data.rel.ro")
        if name.split(".")[0] in PROCESS_WIDE:
            continue
        if size and (writable or section == "*COM*"):
            # Sanitizers and coverage add their own.
            if not name.startswith(("__asan", "__ubsan", "__odr_asan", "_ZL", ".Lubsan", "__gcov")):
                failures.append("%s: %s is mutable state of file scope (%s)" % (member, name, section))

for failure in failures:
    print(failure)
print("%d failures" % len(failures))
sys.exit(1 if failures else 0)
