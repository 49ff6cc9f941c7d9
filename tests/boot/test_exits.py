#!/usr/bin/env python3
"""How a guest ends the program, with small Multiboot kernels: debug-exit, a
reset (which starts the kernel again), a triple fault with its report."""

import os
import subprocess
import sys
import tempfile

from harness import Failure, Machine, ROOT, WITH_QEMU, dialogue

SOURCES = os.path.join(ROOT, "tests", "boot", "guest")


def assembled(folder, name):
    out = os.path.join(folder, name)
    subprocess.run(["nasm", "-f", "bin", "-I", SOURCES + "/", "-o", out,
                    os.path.join(SOURCES, name + ".asm")], check=True)
    return out


def debug_exit(m):
    m.expect("about to exit", 30)
    m.exits(43)


def triple_fault(m):
    m.expect("about to fault", 30)
    if WITH_QEMU:
        m.exits(0)
        return
    m.exits(3)
    m.terminal_is_restored()
    report = m.errors.decode().replace("\r", "")
    print(report)
    for words in ("triple fault on processor 0", "first fault: vector 13 #GP",
                  "error code 1234H (selector 1234H, LDT entry 582)", "mov ds, ax",
                  "IDT entry 13", "0008:00105678, DPL 2, NOT PRESENT", "second fault: vector 11 #NP",
                  "makes a double fault (vector 8 #DF)", "IDT entry 8 at", "third fault: vector 11 #NP", "RAX 0000000000001234", "RBX 00000000cafe0001",
                  "RSP 0000000000200000", "code32 readable", "data32 writable", "IDTR"):
        if words not in report:
            raise Failure("the report does not say %r" % words)


def triple_fault_reset(m):
    """Without --no-reboot the machine starts again, for ever."""
    m.expect("about to fault", 30)
    m.expect("about to fault", 30)
    if not WITH_QEMU:
        m.send("\x01x")
        m.exits(0)
        m.terminal_is_restored()


def reset(m):
    for _ in range(3):
        m.expect("started", 30)
    m.exits(7)


def reset_ends(m):
    m.expect("started", 30)
    m.exits(0)


TESTS = {
    "debug-exit": ("debug_exit", debug_exit, []),
    "triple-fault": ("triple_fault", triple_fault, [("no-reboot", None)]),
    "triple-fault-reset": ("triple_fault", triple_fault_reset, []),
    "reset": ("reset", reset, []),
    "reset-no-reboot": ("reset", reset_ends, [("no-reboot", None)]),
}

name, talk, more = TESTS[sys.argv[1]]
with tempfile.TemporaryDirectory() as folder:
    dialogue(Machine([("kernel", assembled(folder, name)), ("memory", "16M"),
                      ("device", "debug-exit"), *more]), talk)
