#!/usr/bin/env python3
"""OVMF from the reset vector to its shell on the serial line.

usage: test_uefi.py shell|reset|variables|linux

shell: what the firmware found: PCI, ACPI, SMBIOS, memory; reset: the shell's
reset brings it all back; variables: one that is set is there after the machine
was started anew, and where a second machine cannot have the same file; linux: a
kernel and its initramfs, from a FAT volume on AHCI by the firmware's services,
to its shell. Skipped (77) where OVMF is not installed.
"""

import os
import re
import sys
import tempfile

from fat import fat_image
from harness import (Failure, Machine, WITH_QEMU, dialogue, fetch, guest, initramfs, no_complaints)

VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
# The shell colours what it writes and moves the cursor between lines.
CONTROLS = re.compile(rb"\x1b\[[0-9;=?]*[A-Za-z]")
PATIENT = 400


def text_of(data):
    return CONTROLS.sub(b"", data).decode(errors="replace").replace("\r", "")


def to_shell(m, seconds=PATIENT):
    m.expect(r"Press .*?ESC.*?seconds to skip", seconds)
    m.send("\x1b")
    prompt(m)


def prompt(m, seconds=90):
    """Waits for the prompt; returns what came before it."""
    return text_of(m.expect(r"(.*?)Shell> ", seconds).group(1))


def command(m, line, *patterns):
    """Types a command; its output has all the patterns."""
    m.send(line + "\r")
    output = prompt(m)
    for pattern in patterns:
        if not re.search(pattern, output, re.S):
            raise Failure("%r does not say %r but %r" % (line, pattern, output[-1500:]))
    return output


def dump_of(output):
    """The bytes of what dmem prints: address, 16 bytes with a dash, text."""
    data = b""
    for row in re.findall(r"[0-9A-F]{8}: ((?:[0-9A-F]{2}[ -]+){16})", output):
        data += bytes.fromhex(row.replace("-", " "))
    return data


def shell(m):
    to_shell(m)
    command(m, "ver", r"UEFI v2\.", r"EDK II")
    # Host bridge, LPC bridge, and nothing that is not there.
    output = command(m, "pci", r"Bridge Device - Host/PCI bridge", r"Bridge Device - PCI/ISA bridge")
    for identity in ("29C0", "2918"):
        if identity not in output:
            raise Failure("no %s in %r" % (identity, output))
    # Our tables, where the firmware placed them: system table, RSDP, XSDT.
    output = command(m, "dmem", r"ACPI 2.0 Table\s+[0-9A-F]+")
    rsdp = re.search(r"ACPI 2.0 Table\s+([0-9A-F]+)", output).group(1)
    output = command(m, "dmem %s 30" % rsdp, r"RSD PTR")
    if not WITH_QEMU:
        xsdt = int.from_bytes(dump_of(output)[24:32], "little")
        header = dump_of(command(m, "dmem %X 60" % xsdt, r"XSDT"))
        first = int.from_bytes(header[36:44], "little")
        command(m, "dmem %X 40" % first, r"FACP|APIC")
    command(m, "smbiosview -t 0", r"BIOS Information|Type=0")
    command(m, "memmap", r"Total Memory\s*:\s*\d+ MB")
    command(m, "date", r"\d\d/\d\d/20\d\d")
    if not WITH_QEMU:
        m.send("\x01x")
        m.exits(0)
        m.terminal_is_restored()


def reset(m):
    to_shell(m)
    m.send("reset -w\r")
    to_shell(m)
    m.send("reset -s\r")
    m.exits(0)


def variables(vars_file):
    def first(m):
        to_shell(m)
        command(m, "setvar Vireo -guid 9d4a8c1e-1b6d-4a54-9f0c-6a4e3b1f2d10 -nv -bs =0x1122334455")
        # While it runs nobody else may have the file.
        other = Machine([("firmware", "uefi"), ("uefi-vars", vars_file), ("serial", "none")])
        other.exits(1, 20)
        if b"in use by another machine" not in other.errors:
            raise Failure("a second machine says %r" % other.errors)
        m.send("reset -s\r")
        m.exits(0)

    def second(m):
        to_shell(m)
        command(m, "dmpstore Vireo -guid 9d4a8c1e-1b6d-4a54-9f0c-6a4e3b1f2d10",
                r"11 22 33 44 55|55 44 33 22 11")
        m.send("reset -s\r")
        m.exits(0)

    options = [("firmware", "uefi"), ("uefi-vars", vars_file), ("memory", "256M"), ("cpus", "2")]
    dialogue(Machine(options), first)
    if os.path.getsize(vars_file) != os.path.getsize(VARS):
        raise Failure("the variable store has another size")
    dialogue(Machine(options), second)


def linux(directory):
    def talk(m):
        m.expect(r"Run /init as init process", PATIENT)
        m.expect(r"vireo:~# ", 120)
        output, _ = m.command_output("dmesg | grep -E ' efi: |ACPI: (RSDP|XSDT|FACP|MCFG)|MMCONFIG'")
        for pattern in (r"efi: EFI v2\.\d+ by", r"ACPI: RSDP .*VIREO", r"MCFG .*VIREO",
                        r"MMCONFIG .* at \[mem 0x"):
            if not re.search(pattern, output):
                raise Failure("no %r in %s" % (pattern, output))
        output, _ = m.command_output("ls /sys/firmware/efi; cat /sys/firmware/efi/fw_platform_size")
        if "runtime" not in output or "64" not in output:
            raise Failure("/sys/firmware/efi: %r" % output)
        # The root ports as the firmware numbered them, and their MSIs.
        output, _ = m.command_output("dmesg | grep -E '1c.[01]: PCI bridge to|bridge config'")
        for pattern in (r"1c\.0: PCI bridge to \[bus 01", r"1c\.1: PCI bridge to \[bus 02"):
            if not re.search(pattern, output) or "invalid" in output:
                raise Failure("no %r in %s" % (pattern, output))
        output, _ = m.command_output("cat /proc/interrupts /sys/bus/pci/devices/0000:00:1c.0/class")
        if "PCI-MSI" not in output or "0x060400" not in output:
            raise Failure("no MSI of the root ports: %s" % output)
        output, _ = m.command_output("grep -c ^processor /proc/cpuinfo")
        if output.strip() != "2":
            raise Failure("processors: %r" % output)
        no_complaints(m)
        m.send("poweroff -f\n")
        m.exits(0)

    fetch("cloud", "busybox")
    disk = os.path.join(directory, "esp.img")
    with open(guest("vmlinuz-cloud"), "rb") as kernel, open(initramfs(), "rb") as image:
        fat_image(disk, {
            "LINUX.EFI": kernel.read(),
            "INITRD.GZ": image.read(),
            "STARTUP.NSH": b"fs0:\r\nlinux.efi initrd=\\initrd.gz console=ttyS0\r\n",
        }, 64)
    dialogue(Machine([("firmware", "uefi"), ("disk", disk), ("memory", "512M"), ("cpus", "2"),
                      ("device", "root-ports,count=2")]), talk)


if not os.path.exists(VARS):
    print("OVMF is not installed")
    sys.exit(77)
if sys.argv[1] in ("variables", "linux"):
    with tempfile.TemporaryDirectory() as directory:
        if sys.argv[1] == "variables":
            variables(os.path.join(directory, "vars.fd"))
        else:
            linux(directory)
else:
    dialogue(Machine([("firmware", "uefi"), ("memory", "256M")]),
             {"shell": shell, "reset": reset}[sys.argv[1]])
