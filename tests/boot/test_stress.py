#!/usr/bin/env python3
"""stress-ng in the guest, with --verify: many programs that check their own
results while they load processor, memory management and scheduler.

usage: test_stress.py CPUS [short | long | STRESSOR...]

short, which `make check` runs, gives each of a few dozen a second or two; long
runs several times as many, for longer, and all processors with each.
"""

import os
import subprocess
import sys

from harness import COMPLAINTS, Failure, GUESTS, Machine, ROOT, dialogue, fetch, guest, initramfs

cpus = int(sys.argv[1])
wanted = sys.argv[2:] or ["short"]

# Stressor: seconds, in the short run.
SHORT = {
    # arithmetic that verifies itself
    "cpu": 4, "matrix": 1, "vecmath": 1, "vecfp": 1, "fp": 1, "qsort": 1, "hash": 1, "zlib": 1,
    "crypt": 1, "memcpy": 1, "ipsec-mb": 1,
    # the processor's rarer ways
    "opcode": 2, "x86syscall": 1, "vdso": 1, "branch": 1, "lockbus": 1, "icache": 1, "misaligned": 1,
    "priv-instr": 1, "regs": 1, "pkey": 1, "fp-error": 1,
    # the kernel's: faults, switches, processors that wait for each other
    "vm": 2, "mmap": 2, "fork": 1, "switch": 1, "futex": 1, "sigsegv": 1, "atomic": 1, "mcontend": 1,
    "pipe": 1, "clock": 1, "timer": 1, "tlb-shootdown": 1,
}
LONG_SECONDS = 10
LONG = [
    *SHORT, "usersyscall", "syscall", "sysbadaddr", "far-branch", "vecwide", "vecshuf", "fpunch",
    "rseq", "rdrand", "x86cpuid", "waitcpu", "tsc", "dekker", "peterson", "membarrier", "userfaultfd",
    "ptrace", "signal", "signest", "sigfpe", "sigtrap", "sigabrt", "bad-altstack", "context", "goto",
    "funccall", "funcret", "timerfd", "hrtimers", "nanosleep", "itimer", "alarm", "vfork", "clone",
    "matrix-3d", "jpeg", "judy", "longjmp", "str", "wcs", "stream", "sparsematrix", "rotate", "nop",
    "prefetch", "cache", "l1cache", "cacheline", "flushcache", "memthrash", "memrate", "mremap",
    "mprotect", "mincore", "mlock", "stack", "stackmmap", "malloc", "bigheap", "fault", "madvise",
    "remap", "sem", "mutex", "pthread", "schedpolicy", "yield", "epoll", "eventfd",
    "poll", "msg", "sockpair", "fifo", "splice", "vm-rw", "vm-addr", "vm-segv", "seccomp", "ioport",
    "mergesort", "heapsort", "radixsort", "shellsort", "bsearch", "hsearch", "lsearch",
    "tsearch", "tree", "list", "skiplist", "getrandom", "exec", "spawn", "zombie", "kill",
]
# A stressor may come to its end late, where one round of it takes long.
PATIENCE_S = 300

subprocess.run([os.path.join(ROOT, "scripts", "guest-programs.sh"), "stress-ng"], check=True)
fetch("cloud", "busybox")
image = initramfs(name="stress.cpio", layers=[os.path.join(GUESTS, "layers", "stress-ng")])


def run(m, name, seconds):
    """None, or what is wrong."""
    output, status = m.command_output("stress-ng --verify --temp-path /tmp --%s %d --timeout %d 2>&1"
                                      % (name, cpus, seconds), PATIENCE_S + 10 * seconds)
    print("%-16s status %d" % (name, status), flush=True)
    if status != 0 or "fail:" in output:
        return "%s: status %d\n%s" % (name, status, output[-1500:])
    complaint = COMPLAINTS.search(m.transcript)
    if complaint:
        return "%s: %s" % (name, m.transcript[complaint.start():][:1500].decode(errors="replace"))
    return None


def talk(m):
    m.expect(r"vireo:~# ", 300)
    if wanted == ["short"]:
        work = list(SHORT.items())
    else:
        work = [(name, LONG_SECONDS) for name in (LONG if wanted == ["long"] else wanted)]
    wrong = [problem for problem in (run(m, *item) for item in work) if problem]
    if wrong:
        raise Failure("\n".join(wrong))
    m.send("poweroff -f\n")
    m.exits(0)


dialogue(Machine([("kernel", guest("vmlinuz-cloud")), ("initrd", image),
                  ("append", "console=ttyS0 quiet"), ("memory", "768M"), ("cpus", str(cpus))]),
         talk)
