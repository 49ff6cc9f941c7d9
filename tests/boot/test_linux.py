#!/usr/bin/env python3
"""Debian's kernels to a shell, and a dialogue with it.

usage: test_linux.py 64|32 CPUS
"""

import hashlib
import sys

from harness import (Failure, Machine, PATIENCE, WITH_QEMU, dialogue, fetch, guest, initramfs,
                     no_complaints)

width, cpus = sys.argv[1], int(sys.argv[2])
if width == "64":
    fetch("cloud", "busybox")
    kernel, image = guest("vmlinuz-cloud"), initramfs()
    machine_name = "x86_64"
else:
    fetch("686-pae", "busybox-i386")
    kernel, image = guest("vmlinuz-686-pae"), initramfs("busybox-i386", "initramfs-i386.cpio.gz")
    machine_name = "i686"


def check(condition, message):
    if not condition:
        raise Failure(message)


def talk(m):
    m.expect(r"Run /init as init process", 240)
    m.expect(r"Welcome to Linux .* on %s" % machine_name, 60)
    m.expect(r"vireo:~# ", 60)

    output, status = m.command_output("echo $((6 * 7)) and 'a b'")
    check(output == "42 and a b\n" and status == 0, "echo: %r" % output)

    output, _ = m.command_output("cat /proc/cpuinfo")
    check(output.count("processor\t:") == cpus, "processors: %s" % output)
    if not WITH_QEMU:
        check("GenuineIntel" in output, "vendor: %s" % output)

    # A command that fails, a pipe, many processes, files.
    output, status = m.command_output("false")
    check(status == 1, "false gives %d" % status)
    output, _ = m.command_output("seq 1 1000 | awk '{ s += $1 } END { print s }'")
    check(output == "500500\n", "sum: %r" % output)
    output, _ = m.command_output(
        "(for i in $(seq 1 40); do (echo $i > /tmp/$i) & done; wait); cat /tmp/* | sort -n | md5sum",
        120)
    check(output.startswith(hashlib.md5(b"".join(b"%d\n" % i for i in range(1, 41))).hexdigest()),
          "md5sum: %r" % output)
    output, _ = m.command_output("head -c 300000 /dev/zero | sha256sum")
    check(output.startswith(hashlib.sha256(bytes(300000)).hexdigest()), "sha256sum: %r" % output)

    # Job control: Ctrl-C ends what runs, not the shell.
    m.send("sleep 1000\n")
    m.expect(r"sleep 1000\r*\n")
    m.rest(1)
    m.send("\x03")
    m.expect(r"vireo:~# ")
    output, status = m.command_output("echo alive")
    check(output == "alive\n", "after Ctrl-C: %r" % output)

    # Time passes, and about as fast as outside.
    output, _ = m.command_output("a=$(date +%s); sleep 2; echo $(($(date +%s) - a))")
    # No promise about a host that is busy: never less, and not hours.
    check(2 <= int(output) <= 20 * PATIENCE, "sleep 2 took %r seconds" % output)

    if cpus > 1:
        # Every processor has been brought up, runs programs and takes interrupts.
        output, _ = m.command_output(
            "for i in $(seq 0 %d); do taskset -c $i sh -c 'i=0; while [ $i -lt 2000 ]; do "
            "i=$((i + 1)); done; echo done'; done" % (cpus - 1), 120)
        check(output.count("done") == cpus, "taskset: %r" % output)
        output, _ = m.command_output("cat /sys/devices/system/cpu/online")
        check(output == "0-%d\n" % (cpus - 1), "online: %r" % output)

    if width == "64" and not WITH_QEMU:
        vulnerabilities(m)

    m.send("poweroff\n")
    m.expect(r"reboot: Power down|Power down", 60)
    m.exits(0)
    m.terminal_is_restored()
    no_complaints(m)


def vulnerabilities(m):
    """Linux has to choose enhanced IBRS and neither KPTI nor retpolines."""
    output, _ = m.command_output("cd /sys/devices/system/cpu/vulnerabilities; grep . *; cd")
    print(output)
    found = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
    check(found.get("meltdown") == "Not affected", "meltdown: %s" % found.get("meltdown"))
    spectre = found.get("spectre_v2", "")
    check("Enhanced" in spectre and "IBRS" in spectre and "etpoline" not in spectre,
          "spectre_v2: %s" % spectre)
    # No line tells of a hole that is left open.
    for name, text in found.items():
        check(not text.startswith("Vulnerable"), "%s: %s" % (name, text))
    output, _ = m.command_output("dmesg | grep -iE 'page tables isolation|retpoline|spectre'; true")
    check("Kernel/User page tables isolation: enabled" not in output, output)
    check("Mitigation: Retpolines" not in output, output)
    output, _ = m.command_output("grep -cw pti /proc/cpuinfo; true")
    check(output.strip() == "0", "pti among the processor's flags")
    # Linux needs no calibration: it trusts CPUID and keeps the TSC.
    output, _ = m.command_output(
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource; dmesg | grep -i tsc")
    check(output.startswith("tsc\n"), "clock source: %s" % output)
    check("unstable" not in output and "calibration" not in output, output)


dialogue(Machine([("kernel", kernel), ("initrd", image), ("append", "console=ttyS0"),
                  ("memory", "512M"), ("cpus", str(cpus))]), talk)
