#!/usr/bin/env python3
"""Assembles the small kernels and starts each: do Multiboot and PVH kernels
find their command line, modules and memory map, and do all ways out work?

usage: run_kernels.py VIREO [--qemu]   (--qemu: the same on QEMU, as a check of
                                        the kernels themselves)
Environment: ENGINE  interp, jit or auto (auto)
"""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
VIREO = sys.argv[1]
ENGINE = os.environ.get("ENGINE", "auto")
WITH_QEMU = "--qemu" in sys.argv
TIMEOUT = 60
DEBUG_EXIT = 0x10 << 1 | 1

# name, source, definitions, title
KERNELS = [
    ("multiboot-elf32", "multiboot.asm", [], "multiboot kernel"),
    ("multiboot-raw", "multiboot.asm", ["-DRAW"], "multiboot kernel"),
    ("pvh-elf32", "pvh.asm", [], "pvh kernel 00000001"),
    ("pvh-elf64", "pvh.asm", ["-DELF64"], "pvh kernel 00000001"),
]
failures = 0


def check(condition, name, message, output=""):
    global failures
    if not condition:
        failures += 1
        print("FAILED: %s: %s\n%s" % (name, message, output))


def run(kernel, append, modules, *more):
    if WITH_QEMU:
        words = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "64", "-display", "none",
                 "-monitor", "none", "-serial", "stdio", "-no-reboot", "-device",
                 "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel, "-append", append]
        if modules:
            words += ["-initrd", ",".join(modules)]
    else:
        words = [VIREO, "run", "--engine", ENGINE, "--memory", "64M", "--device", "debug-exit",
                 "--no-reboot", "--net", "none", "--kernel", kernel, "--append", append, *more]
        for module in modules:
            words += ["--initrd", module]
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    return (result.returncode, result.stdout.decode(errors="replace").replace("\r", ""),
            result.stderr.decode(errors="replace"))


def memory_map(output):
    ranges = re.findall(r"^memory ([0-9A-F]{16}) ([0-9A-F]{16}) ([0-9A-F]{8})$", output, re.M)
    return [tuple(int(field, 16) for field in r) for r in ranges]


def check_kernel(name, kernel, title, folder):
    first, second = os.path.join(folder, "first"), os.path.join(folder, "second")
    with open(first, "w") as f:
        f.write("the first module")
    with open(second, "w") as f:
        f.write("the second")
    multiboot = name.startswith("multiboot")
    modules = [first + " with words", second] if multiboot else [first]

    status, output, errors = run(kernel, "alpha beta=1", modules)
    check(status == DEBUG_EXIT, name, "status %d, not %d" % (status, DEBUG_EXIT), output + errors)
    for line in [title, "end"]:
        check(re.search("^%s$" % re.escape(line), output, re.M), name, "no line %r" % line, output)
    check("bad" not in output and "dirty" not in output and "unaligned" not in output, name,
          "found something bad", output)
    command_line = (kernel + " " if multiboot else "") + "alpha beta=1"
    check("cmdline %s\n" % command_line in output, name, "command line", output)
    if multiboot:
        check("module 00000010 %s with words = the first module\n" % first in output and
              "module 0000000A %s = the second\n" % second in output, name, "modules", output)
        check("lower 0000027F upper 0000F" in output, name, "memory sizes", output)
    else:
        check("module 00000010 = the first module\n" in output, name, "module", output)
        check("rsdp RSD PTR \n" in output, name, "RSDP", output)
    ranges = memory_map(output)
    ram = sum(size for base, size, kind in ranges if kind == 1)
    check(60 << 20 < ram < 64 << 20, name, "memory map", output)
    check((0, 0x9fc00, 1) in ranges, name, "low memory", output)
    ends = [base + size for base, size, kind in ranges]
    check(all(end <= start[0] for end, start in zip(ends, ranges[1:])), name, "overlaps", output)


def check_ways_out(name, kernel):
    for word, wanted in (("poweroff", 0), ("reboot", 0), ("triple", 0 if WITH_QEMU else 3)):
        status, output, errors = run(kernel, word, [])
        check(status == wanted, name, "%s: status %d" % (word, status), output + errors)
        if word == "triple" and not WITH_QEMU:
            check("triple fault" in errors, name, "no report of the triple fault", errors)
    if not WITH_QEMU:
        hashes = {run(kernel, "poweroff", [], "--deterministic")[:2] for _ in range(2)}
        check(len(hashes) == 1, name, "two deterministic runs differ")


with tempfile.TemporaryDirectory() as folder:
    for name, source, definitions, title in KERNELS:
        kernel = os.path.join(folder, name)
        subprocess.run(["nasm", "-w+error", "-f", "bin", "-I", HERE + "/", *definitions, "-o",
                        kernel, os.path.join(HERE, source)], check=True)
        check_kernel(name, kernel, title, folder)
        check_ways_out(name, kernel)

print("%s: %d kernels, %d failures" % ("FAILED" if failures else "ok", len(KERNELS), failures))
sys.exit(1 if failures else 0)
