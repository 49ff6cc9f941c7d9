#!/usr/bin/env python3
"""SeaBIOS from the reset vector to its boot menu: on the serial line, which it
finds through fw_cfg's etc/sercon-port, and in words on its debug port."""

from harness import Failure, Machine, WITH_QEMU, dialogue


def talk(m):
    m.expect(r"SeaBIOS \(version ", 60)
    # Nothing to boot from: SeaBIOS says so and offers its menu first.
    m.expect(r"Press ESC for boot menu|No bootable device|Select boot device", 120)
    if not m.transcript.count(b"Select boot device"):
        m.send("\x1b")
        m.rest(1)
        m.expect(r"Select boot device|No bootable device", 60)
    if not WITH_QEMU:
        log = m.errors.decode(errors="replace")
        for words in ("SeaBIOS (version", "ACPI", "boot menu"):
            if words.lower() not in log.lower():
                raise Failure("%r is not on the debug port" % words)
    # Ctrl-A x leaves at any time.
    if not WITH_QEMU:
        m.send("\x01x")
        m.exits(0)
        m.terminal_is_restored()


dialogue(Machine([("firmware", "bios"), ("memory", "128M"), ("log", "firmware=info")]), talk)
