#!/usr/bin/env python3
"""Two engines in lockstep over whole systems: no difference.

usage: test_lockstep.py bios CPUS           SeaBIOS through its boot menu
       test_lockstep.py part WIDTH CPUS N   Linux (64 or 32), N million instructions
       test_lockstep.py linux WIDTH CPUS    to a shell, user programs, and power-off

ENGINE (jit) is compared with the interpreter.
"""

import os
import re
import sys

from harness import Failure, Machine, VIREO, dialogue, fetch, guest, initramfs, no_complaints

MOST_S = 1800
LOCKSTEP = [VIREO, "lockstep", "--engine", os.environ.get("ENGINE", "jit")]


def linux(width, cpus):
    if width == "64":
        fetch("cloud", "busybox")
        kernel, image = guest("vmlinuz-cloud"), initramfs()
    else:
        fetch("686-pae", "busybox-i386")
        kernel, image = guest("vmlinuz-686-pae"), initramfs("busybox-i386", "initramfs-i386.cpio.gz")
    return ["--kernel", kernel, "--initrd", image, "--append", "console=ttyS0", "--memory", "256M",
            "--cpus", cpus]


def no_difference(m):
    m.exits(0, MOST_S)
    text = m.errors.decode(errors="replace")
    print(text, end="")
    if not re.search(r"lockstep: no difference in \d+ instructions", text):
        raise Failure("does not say that there is no difference")
    no_complaints(m)


def bios(m):
    m.expect(r"SeaBIOS \(version ", 60)
    m.expect(r"Press ESC for boot menu", 60)
    m.send("\x1b")
    m.expect(r"Select boot device|No bootable device", 60)
    m.rest(1)
    m.send("\x01x")
    no_difference(m)


# Integers, floats and vectors, processes, pipes, files, signals, time.
COMMANDS = [
    ("seq 1 2000 | awk '{ s += 1 / $1 } END { printf \"%.9f\\n\", s }'", r"8\.178368104"),
    ("head -c 400000 /dev/urandom > /tmp/r; gzip -c /tmp/r | gunzip -c | cmp - /tmp/r && echo same",
     "same"),
    ("for s in md5sum sha1sum sha256sum sha512sum; do head -c 200000 /dev/zero | $s; done | wc -l",
     "4"),
    ("(for i in $(seq 1 40); do (echo $i > /tmp/$i) & done; wait); cat /tmp/[0-9]* | sort -n | "
     "tail -1", "40"),
    ("sleep 5 & kill $!; wait; ls -lR /sys/class | wc -l", r"\d+"),
    ("echo 'scale=60; 4*a(1)' | bc -l", r"3\.14159"),
    ("a=$(date +%s); sleep 1; echo $(($(date +%s) - a))", r"[1-3]"),
    ("dd if=/dev/zero of=/tmp/z bs=64k count=200 2>/dev/null; sync; wc -c /tmp/z", "13107200"),
    ("grep -c processor /proc/cpuinfo; cat /proc/interrupts /proc/vmstat | wc -l", r"\d+"),
]


def to_a_shell(cpus):
    def talk(m):
        m.expect(r"vireo:~# ", MOST_S)
        for command, answer in COMMANDS:
            output, _ = m.command_output(command, MOST_S)
            if not re.search(answer, output):
                raise Failure("%s: %r" % (command, output))
        for cpu in range(int(cpus)):
            output, _ = m.command_output("taskset -c %d sh -c 'i=0; while [ $i -lt 3000 ]; do "
                                         "i=$((i + 1)); done; echo $i'" % cpu, MOST_S)
            if output != "3000\n":
                raise Failure("processor %d: %r" % (cpu, output))
        m.send("poweroff -f\n")
        m.expect(r"Power down", MOST_S)
        no_difference(m)
        m.terminal_is_restored()

    return talk


def main(kind, *words):
    if kind == "bios":
        dialogue(Machine([], LOCKSTEP + ["--firmware", "bios", "--memory", "64M", "--cpus",
                                         words[0]]), bios)
    elif kind == "part":
        dialogue(Machine([], LOCKSTEP + linux(*words[:2]) + ["--instructions",
                                                             words[2] + "000000"]), no_difference)
    else:
        dialogue(Machine([], LOCKSTEP + linux(*words)), to_a_shell(words[1]))


main(*sys.argv[1:])
