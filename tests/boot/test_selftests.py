#!/usr/bin/env python3
"""The x86 selftests of Linux as guest programs: what the kernel's authors check
of system calls, signal frames, segments, single steps, I/O rights and the FPU
from user space.

usage: test_selftests.py 64|32 CPUS [all | PROGRAM...]

Every program has to end with status 0 and without a line of [FAIL], but for
those left out below, each with its reason.
"""

import os
import re
import sys

from harness import (Failure, GUESTS, Machine, ROOT, WITH_QEMU, dialogue, fetch, guest, initramfs,
                     no_complaints)
import subprocess

width, cpus = sys.argv[1], int(sys.argv[2])
only = sys.argv[3:]

subprocess.run([os.path.join(ROOT, "scripts", "guest-programs.sh"), "selftests"], check=True)
LAYER = os.path.join(GUESTS, "layers", "selftests")

if width == "64":
    fetch("cloud", "busybox")
    kernel = guest("vmlinuz-cloud")
    image = initramfs(name="selftests.cpio", layers=[LAYER])
else:
    fetch("686-pae", "busybox-i386")
    kernel = guest("vmlinuz-686-pae")
    image = initramfs("busybox-i386", "selftests-i386.cpio", layers=[LAYER])

# Seconds a program may take; some are built to take long on a processor which
# executes every instruction by software.
PATIENCE_S = 400

# Not run: what they test is not advertised by any of our processors.
ABSENT = {"amx_64"}
# Tens of millions of system calls under ptrace: only with `all`.
LONG = {"syscall_numbering_64"}

programs = [name for name in sorted(os.listdir(os.path.join(LAYER, "selftests")))
            if name not in ABSENT]
if width == "32":
    programs = [name for name in programs if name.endswith("_32")]
if only == ["all"]:
    only = []
else:
    programs = [name for name in programs if name not in LONG]


def run(m, name):
    """None, or what is wrong with the program."""
    output, status = m.command_output("timeout -s KILL %d /selftests/%s 2>&1" % (PATIENCE_S, name),
                                      PATIENCE_S + 30)
    skipped = re.findall(r"\[SKIP\][^\n]*", output)
    print("%-28s status %d%s" % (name, status, ", ".join([""] + skipped)), flush=True)
    if status == 0 and "[FAIL]" not in output:
        return None
    return "%s: status %d\n%s" % (name, status, output[-2000:])


def talk(m):
    m.expect(r"vireo:~# ", 300)
    wrong = [problem for problem in (run(m, name) for name in only or programs) if problem]
    if wrong:
        raise Failure("\n".join(wrong))
    m.send("poweroff -f\n")
    m.exits(0)
    no_complaints(m)


dialogue(Machine([("kernel", kernel), ("initrd", image),
                  ("append", "console=ttyS0 quiet vsyscall=emulate"), ("memory", "512M"),
                  ("cpus", str(cpus))]), talk)
