#!/usr/bin/env python3
"""Debian's Xen, a Multiboot kernel: without a module until it looks for dom0,
and with Linux as dom0 until it has brought up both processors, built the domain
and handed the console over."""

import sys

from harness import Machine, dialogue, fetch, guest, initramfs

fetch("xen", "cloud", "busybox")
APPEND = "console=com1 com1=115200,8n1 loglvl=all noreboot"


def looks_for_dom0(m):
    m.expect(r"Xen version 4\.17", 120)
    m.expect(r"dom0 kernel not specified", 60)


def builds_dom0(m):
    m.expect(r"Xen version 4\.17", 120)
    m.expect(r"ACPI: RSDP", 60)
    m.expect(r"Using MCFG for segment 0000", 60)
    m.expect(r"Brought up 2 CPUs", 120)
    m.expect(r"\*\*\* Building a PV Dom0 \*\*\*", 60)
    m.expect(r"\*\*\* Serial input to DOM0", 180)


if sys.argv[1] == "alone":
    dialogue(Machine([("kernel", guest("xen")), ("append", APPEND), ("memory", "512M")]),
             looks_for_dom0)
else:
    dialogue(Machine([("kernel", guest("xen")), ("append", APPEND),
                      ("initrd", guest("vmlinuz-cloud") + " console=hvc0"), ("initrd", initramfs()),
                      ("memory", "512M"), ("cpus", "2")]), builds_dom0)
