#!/usr/bin/env python3
"""OVMF from the reset vector to its shell on the serial line.

usage: test_uefi.py shell|reset|variables

shell: what the firmware found: PCI, ACPI, SMBIOS, memory; reset: the shell's
reset brings it all back; variables: one that is set is there after the machine
was started anew, and where a second machine cannot have the same file. Skipped
(77) where OVMF is not installed.
"""

import os
import re
import sys
import tempfile

from harness import Failure, Machine, WITH_QEMU, dialogue

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


if not os.path.exists(VARS):
    print("OVMF is not installed")
    sys.exit(77)
if sys.argv[1] == "variables":
    with tempfile.TemporaryDirectory() as directory:
        variables(os.path.join(directory, "vars.fd"))
else:
    dialogue(Machine([("firmware", "uefi"), ("memory", "256M")]),
             {"shell": shell, "reset": reset}[sys.argv[1]])
