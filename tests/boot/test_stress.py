#!/usr/bin/env python3
"""stress-ng in the guest, with --verify: many programs that check their own
results while they load processor, memory management and scheduler.

usage: test_stress.py CPUS [SECONDS]   (a stressor; default 2)
"""

import os
import subprocess
import sys

from harness import Failure, GUESTS, Machine, ROOT, dialogue, fetch, guest, initramfs, no_complaints

cpus = int(sys.argv[1])
seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 2

STRESSORS = ["cpu", "matrix", "vecmath", "qsort", "bsearch", "hash", "crypt", "atomic", "futex",
             "switch", "pipe", "fork", "vm", "mmap", "sigsegv", "sigfpe", "memcpy", "clock",
             "timer", "tlb-shootdown", "branch", "lockbus", "icache", "mutex"]

subprocess.run([os.path.join(ROOT, "scripts", "guest-programs.sh"), "stress-ng"], check=True)
fetch("cloud", "busybox")
image = initramfs(name="stress.cpio", layers=[os.path.join(GUESTS, "layers", "stress-ng")])


def talk(m):
    m.expect(r"vireo:~# ", 300)
    wrong = []
    for name in STRESSORS:
        output, status = m.command_output(
            "stress-ng --verify --temp-path /tmp --%s %d --timeout %d --metrics-brief 2>&1"
            % (name, cpus, seconds), 120 + 30 * seconds)
        # 3: out of resources or not possible here; 4: not implemented here.
        print("%-16s status %d" % (name, status), flush=True)
        if status != 0 or "fail:" in output:
            wrong.append("%s: status %d\n%s" % (name, status, output[-1500:]))
    if wrong:
        raise Failure("\n".join(wrong))
    m.send("poweroff -f\n")
    m.exits(0)
    no_complaints(m)


dialogue(Machine([("kernel", guest("vmlinuz-cloud")), ("initrd", image),
                  ("append", "console=ttyS0 quiet"), ("memory", "768M"), ("cpus", str(cpus))]),
         talk)
