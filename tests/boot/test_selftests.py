#!/usr/bin/env python3
"""The x86 selftests of Linux as guest programs: what the kernel's authors check
of system calls, signal frames, segments, single steps, I/O rights and the FPU
from user space.

usage: test_selftests.py 64|32 CPUS [all | PROGRAM...]

Every program has to end with status 0 and without a line of [FAIL], and may
skip only what the table below gives a reason for.

On this kernel in QEMU (7.2, tcg) mov_ss_trap_64 and sigreturn_32 fail, which
pass here; on an AMD host syscall_arg_fault skips SYSENTER, where we, as an
Intel processor, have SYSENTER and no 32-bit SYSCALL.
"""

import os
import re
import subprocess
import sys

from harness import (Failure, GUESTS, Machine, ROOT, WITH_QEMU, dialogue, fetch, guest, initramfs,
                     no_complaints)

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

# Program, kernel (or either), what it may say it skips, and why.
MAY_SKIP = [
    ("entry_from_vm86_32", None, "vm86 not supported", "no CONFIG_X86_LEGACY_VM86 in either kernel"),
    ("sigreturn_32", "64", "16-bit (CS|SS)", "no CONFIG_X86_16BIT in the cloud kernel"),
    ("sigreturn_64", "64", "16-bit (CS|SS)", "no CONFIG_X86_16BIT in the cloud kernel"),
    ("sigreturn_32", "32", "unavailable for 64-bit CS", "there is none under a 32-bit kernel"),
    ("syscall_arg_fault_32", None, "Illegal instruction", "SYSCALL outside 64-bit mode is #UD on Intel"),
]
if cpus == 1:
    MAY_SKIP += [
        ("ldt_gdt_32", None, "Cannot set affinity to CPU 1", "there is no processor 1"),
        ("ldt_gdt_64", None, "Cannot set affinity to CPU 1", "there is no processor 1"),
        ("test_vsyscall_32", None, "failed to force CPU 1", "there is no processor 1"),
        ("test_vsyscall_64", None, "failed to force CPU 1", "there is no processor 1"),
    ]

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
    skipped = sorted(set(re.findall(r"\[SKIP\]\s*([^\n]*)", output)))
    reasons = [(words, why) for program, kernel_width, words, why in MAY_SKIP
               if program == name and kernel_width in (None, width)]
    print("%-28s status %d%s" % (name, status, "".join("; skipped: " + s for s in skipped)), flush=True)
    if status != 0 or "[FAIL]" in output:
        return "%s: status %d\n%s" % (name, status, output[-2000:])
    for line in skipped:
        if not WITH_QEMU and not any(re.search(words, line) for words, _ in reasons):
            return "%s skips what it should not: %s" % (name, line)
    return None


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
