#!/usr/bin/env python3
"""Nothing touches the host's vector registers while they hold the guest's.

The rule is in docs/VECTOR.md. This looks at the object files: no instruction
of those compiled without vector registers has such an operand, and whatever
the processor's functions can reach by direct calls is either in one of those
objects, or known to leave the registers alone, or called by a function that
has called vec_leave() before.

usage: check_vector.py LIBRARY.a
"""

import collections
import re
import subprocess
import sys

# The C library's and the compiler's, by what they are: a system call, a
# division of integers, or the end of the process.
HARMLESS = {
    "syscall", "__errno_location", "__divti3", "__udivti3", "__assert_fail", "__stack_chk_fail",
}
# What may use vector registers, or leads to code that may: devices, the log,
# locks that sleep, timers, the queue of stale code, random numbers.
AFTER_LEAVE = {
    "as_load", "as_read", "as_store", "log_write", "timer_arm", "timer_cancel", "vcpu_code_told",
    "vcpu_code_written", "vcpu_drain_code", "vec_flush", "vec_needs_flush", "vm_lock", "vm_random",
    "vm_unlock",
}
# In vec/, and doing what they must themselves.
VECTOR_UNIT = {
    "vec_registers_enter", "vec_registers_store", "vec_reset", "vec_sync", "vec_x87_load",
}
# A processor's life, what others' threads and the loader call, and decoding:
# no guest code is running on the thread, or vec_leave() comes before the call.
# (jit_forms_*, for --stats, count integers; jit_perf_* are the translator's.)
OUTSIDE = {
    "lapic_create", "lapic_destroy", "op_destroy", "port_send", "apic_bus_create",
    "apic_bus_destroy", "apic_timer_create", "x86_vcpu_create", "x86_mmu_create",
    "x86_mmu_destroy", "before_save", "after_load", "cache_create", "cache_destroy", "engine_find",
    "jit_create", "jit_destroy", "fastest", "jit_forms_count", "jit_forms_note",
    "jit_perf_close", "jit_perf_note", "jit_perf_open", "vec_binder_for",
}
# Compiled with all registers: meson.build, engine_report_src.
REPORTS = {"engine_jit_perf.c.o", "engine_jit_stats.c.o"}
OUTSIDE_FILES = {
    "cpu_x86_decode.c.o", "cpu_x86_host.c.o", "cpu_x86_model.c.o",
    # A signal's handler, around which the kernel keeps the registers, and its setting up.
    "engine_jit_fault.c.o",
    # What jit_translate() emits with, after vec_leave().
    "engine_jit_branch.c.o", "engine_jit_flags.c.o", "engine_jit_general.c.o",
    "engine_jit_group.c.o", "engine_jit_loop.c.o", "engine_jit_stack.c.o",
    "engine_jit_stream.c.o", "engine_jit_vector.c.o",
    "engine_jit_vector_encode.c.o", "engine_jit_x87.c.o",
}
# For clocks without a host TSC to rely on: x86_clock_leave() comes before.
CLOCK = {"host_monotonic_ns"}

VECTOR = re.compile(r"%([xyz]?mm\d|st\b|st\()|\b(fxsave|fxrstor|xsave|xrstor|emms)")
# leave.c hands the x87 unit back with these.
VECTOR_ALLOWED = re.compile(r"\b(fxsave64|fninit|stmxcsr|ldmxcsr)\b")

failures = []


class Function:
    def __init__(self, member, name):
        self.member, self.name = member, name
        self.calls = []  # names, in the order of addresses


def parse(library):
    functions, member, function = {}, "", None
    text = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", library], check=True,
                          capture_output=True).stdout.decode()
    wanted = False
    for line in text.splitlines():
        if "file format" in line:
            member = line.split(":")[0].split("/")[-1]
            wanted = member.startswith(("base_", "vm_", "cpu_", "engine_")) and \
                member not in REPORTS and \
                (not member.startswith("cpu_x86_vec_") or member == "cpu_x86_vec_leave.c.o")
            continue
        if not wanted:
            continue
        start = re.match(r"[0-9a-f]+ <([^>]+)>:", line)
        if start:
            # A part that the compiler split off belongs to its function.
            name = re.sub(r"\.(cold|part|constprop|isra).*", "", start.group(1))
            function = functions.setdefault((member, name), Function(member, name))
            continue
        if function is None:
            continue
        if VECTOR.search(line) and not VECTOR_ALLOWED.search(line):
            failures.append("%s: %s: %s" % (member, function.name, line.strip()))
        # Calls and tail calls: within the section by name, else by relocation.
        target = re.search(r"\b(?:call|jmp)\s+[0-9a-f]+ <([^+>]+)", line) or \
            re.search(r"R_X86_64_(?:PLT32|GOTPCREL|GOTPCRELX|REX_GOTPCRELX|PC32)\s+([A-Za-z_]\w*)", line)
        if target:
            name = re.sub(r"\.(cold|part|constprop|isra).*", "", target.group(1))
            if name != function.name:
                function.calls.append(name)
    return functions


functions = parse(sys.argv[1])
if len(functions) < 500:
    failures.append("only %d functions found: is this the library?" % len(functions))
by_name = collections.defaultdict(list)
for f in functions.values():
    by_name[f.name].append(f)


def resolve(caller, name):
    own = functions.get((caller.member, name))
    return [own] if own else by_name.get(name, [])


data = set()  # what a relocation names that is no function
todo = [f for f in functions.values()
        if f.member.startswith(("cpu_", "engine_")) and f.member not in OUTSIDE_FILES and f.name not in OUTSIDE
        and not f.name.startswith("bind_")]
seen = set(id(f) for f in todo)
symbols = subprocess.run(["nm", sys.argv[1]], check=True, capture_output=True).stdout.decode()
for kind, name in re.findall(r"^[0-9a-f]+ (\w) (\S+)$", symbols, re.M):
    if kind in "rRdDbB":
        data.add(name)

while todo:
    f = todo.pop()
    left = False
    for name in f.calls:
        if name == "vec_leave":
            left = True
        elif name in AFTER_LEAVE:
            if not left:
                failures.append("%s: %s calls %s without vec_leave" % (f.member, f.name, name))
        elif name in HARMLESS or name in VECTOR_UNIT or name in OUTSIDE or name in CLOCK or \
                name in data:
            continue
        elif resolve(f, name):
            for g in resolve(f, name):
                if g.member in OUTSIDE_FILES or g.name.startswith("bind_"):
                    continue
                if id(g) not in seen:
                    seen.add(id(g))
                    todo.append(g)
        else:
            failures.append("%s: %s calls %s, of which nothing is known" % (f.member, f.name, name))

for failure in failures:
    print(failure)
print("%d functions, %d failures" % (len(seen), len(failures)))
sys.exit(1 if failures else 0)
