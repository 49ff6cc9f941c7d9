"""What runs the guest program: Vireo's engines, QEMU's TCG, and the host itself.

A host with other work lets a machine wait, and the guest's clock goes on. So
the time that the machine's busiest thread was ready to run and did not run is
taken off what the guest measured, where there is much of it (WAITED_MUCH).

A run starts a machine whose first process is tests/bench/guest, reads what it
prints on its serial line until it ends or is out of time, and keeps what is
there. Machines that die in the middle of a row are started again for the rest.
"""
import glob
import os
import re
import select
import shutil
import signal
import subprocess
import time

from common import HERE, KERNEL, WORK, fail, newer, say, tool
from rows import ROWS

FOLDER = os.path.join(WORK, "guest")
PROGRAM = os.path.join(FOLDER, "init")
INITRD = os.path.join(FOLDER, "initramfs.cpio")
# Static code as a distribution would build it. No contraction: a sum of
# products rounds the same way everywhere.
CFLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Werror", "-D_GNU_SOURCE",
          "-static", "-fno-pie", "-no-pie", "-ffp-contract=off"]
MEMORY = "512M"
ENGINES = ["native", "jit", "interp", "tcg"]
RESTARTS = 4
# The native program's units are shorter than the slices of a busy host's
# processor: the best of many short measurements is undisturbed.
NATIVE_MS = 6
WAITED_MUCH = 0.03


def build():
    """The program, and the initramfs that holds it and nothing else."""
    sources = glob.glob(os.path.join(HERE, "guest", "*.[ch]"))
    os.makedirs(FOLDER, exist_ok=True)
    if not newer(PROGRAM, sources):
        tool("gcc", *CFLAGS, "-o", PROGRAM, *sorted(s for s in sources if s.endswith(".c")), "-lz", "-lm")
    if not newer(INITRD, [PROGRAM]):
        with open(INITRD, "wb") as out:
            subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], input=b"init\n", stdout=out,
                           cwd=FOLDER, check=True)


class Clock:
    """What the host's scheduler did to the threads of a process:
    Documentation/scheduler/sched-stats of Linux, /proc/PID/schedstat."""

    def __init__(self, pid):
        self.pid, self.marks = pid, {}
        self.mark("")

    def threads(self):
        """{thread: (ns that it ran, ns that it waited for a processor)}"""
        there = {}
        for path in glob.glob("/proc/%d/task/*/schedstat" % self.pid):
            try:
                with open(path, encoding="ascii") as stat:
                    ran, waited, _ = stat.read().split()
            except (OSError, ValueError):
                continue
            there[path] = (int(ran), int(waited))
        return there

    def mark(self, name):
        self.marks[name] = (time.monotonic(), self.threads())

    def waited(self, name):
        """Share of the time since mark(name) that the busiest thread waited."""
        if name not in self.marks:
            return 0
        started, before = self.marks[name]
        now = self.threads()
        if not now or time.monotonic() <= started:
            return 0
        spent = [[a - b for a, b in zip(times, before.get(path, (0, 0)))] for path, times in now.items()]
        share = max(spent)[1] / 1e9 / (time.monotonic() - started)
        return min(share, 0.99) if share > WAITED_MUCH else 0


class Unhindered:
    """The clock of a program of the host, which is left as it is."""

    def mark(self, name):
        pass

    def waited(self, _name):
        return 0


class Result:
    def __init__(self):
        self.rows = {}      # name: (ns, checksum, note)
        self.copies = {}    # name: (seconds of one, seconds of two)
        self.programs = {}  # name: (seconds, status)
        self.lost = {}      # name: why
        self.boots = []     # seconds from the start of the machine to the program
        self.waits = []     # shares of the time of all rows and programs
        self.lines = []     # all that it printed
        self.ended = False

    def ran(self, clock, name):
        """What is left of the time since BEGIN, as a share."""
        self.waits.append(clock.waited(name))
        return 1 - self.waits[-1]

    def take(self, line, started, clock):
        self.lines.append(line)
        if "BENCH START" in line:
            self.boots.append((time.monotonic() - started) * self.ran(clock, ""))
        elif "BENCH END" in line:
            self.ended = True
        elif match := re.search(r"\bBEGIN (\S+)", line):
            clock.mark(match[1])
        elif match := re.search(r"\bROW (\S+) (\S+) (\S+) ([0-9a-f]{16}) (\S+)", line):
            ran = self.ran(clock, match[1])
            ns = float(match[2]) if ran == 1 else float(match[3]) * ran
            self.rows[match[1]] = (ns, match[4], match[5])
        elif match := re.search(r"\bCOPIES (\S+) (\S+) (\S+)", line):
            self.copies[match[1]] = (float(match[2]), float(match[3]))
        elif match := re.search(r"\bPROGRAM (\S+) (\S+) (\d+)", line):
            self.programs[match[1]] = (float(match[2]) * self.ran(clock, match[1]), int(match[3]))
        elif match := re.search(r"\bLOST (\S+) (.*)", line):
            self.lost.setdefault(match[1], match[2].strip())


class Machines:
    """How to start each engine; extra: options for Vireo."""

    def __init__(self, vireo, extra=()):
        self.vireo, self.extra = vireo, list(extra)

    def check(self, engines):
        if {"jit", "interp"} & set(engines) and not os.access(self.vireo, os.X_OK):
            fail("no %s: run make build, or name one with --vireo" % self.vireo)
        if "tcg" in engines and not shutil.which("qemu-system-x86_64"):
            fail("no qemu-system-x86_64: apt-get install qemu-system-x86")
        if set(engines) - {"native"} and not os.path.exists(KERNEL):
            fail("no %s: run scripts/guest-kernels.sh cloud busybox" % KERNEL)

    def command(self, engine, initrd, append, memory, cpus):
        if engine == "tcg":
            return ["qemu-system-x86_64", "-accel", "tcg" + (",thread=multi" if cpus > 1 else ""),
                    "-M", "q35", "-cpu", "max", "-m", memory, "-smp", str(cpus), "-display", "none",
                    "-nodefaults", "-no-user-config", "-monitor", "none", "-serial", "stdio",
                    "-no-reboot", "-kernel", KERNEL, "-initrd", initrd, "-append", append]
        return [self.vireo, "run", "--engine", engine, "--memory", memory, "--cpus", str(cpus),
                "--net", "none", "--no-reboot", "--kernel", KERNEL, "--initrd", initrd, "--append", append,
                *self.extra]

    def rows(self, engine, names, patience_s, milliseconds=200, repeats=3):
        """Runs rows; a machine that dies or hangs loses one row, not all."""
        result = Result()
        left = [row.name for row in ROWS if row.name in names]
        if engine == "native":
            milliseconds, repeats = NATIVE_MS, milliseconds * repeats // NATIVE_MS
        end = time.monotonic() + patience_s
        for _ in range(RESTARTS):
            settings = {"BENCH_MS": milliseconds, "BENCH_REPEATS": repeats,
                        "BENCH_ROWS": ",".join(left) or "none"}
            why = self.once(result, engine, settings, end - time.monotonic())
            left = [name for name in left if name not in result.rows and name not in result.lost]
            if result.ended or time.monotonic() >= end:
                break
            if not left or not result.boots:
                say("%s: %s; it last printed:\n  %s" % (engine, why, "\n  ".join(result.lines[-8:])))
                break
            result.lost[left.pop(0)] = why
        for name in left:
            result.lost.setdefault(name, "not reached")
        return result

    def copies(self, engine, names, patience_s):
        result = Result()
        self.once(result, engine, {"BENCH_ROWS": "none", "BENCH_COPIES": ",".join(names)}, patience_s,
                  cpus=2)
        return result

    def once(self, result, engine, settings, patience_s, cpus=1, initrd=INITRD, memory=MEMORY,
             command=None):
        """One start, into result. Why it stopped, where it did not end. command(append):
        what is started instead."""
        words = ["%s=%s" % item for item in settings.items()]
        if engine == "native":
            command, environment = [PROGRAM], {**os.environ, **{k: str(v) for k, v in settings.items()}}
        else:
            append = " ".join(["console=ttyS0 quiet", *words])
            command = command(append) if command else self.command(engine, initrd, append, memory, cpus)
            environment = None
        log = os.path.join(WORK, "log-%s.txt" % engine)
        result.ended = False
        with open(log, "wb") as errors:
            started = time.monotonic()
            process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
            try:
                clock = Unhindered() if engine == "native" else Clock(process.pid)
                timely = read_lines(process, lambda line: result.take(line, started, clock),
                                    lambda: result.ended, started + patience_s)
                if timely:
                    process.wait(10)
            except subprocess.TimeoutExpired:
                pass
            finally:
                stop(process)
        with open(log, "rb") as errors:
            result.errors = errors.read().decode(errors="replace")
        if result.ended:
            return None
        if not timely:
            return "out of time"
        return "the machine ended with status %s: %s" % (process.returncode,
                                                         result.errors.strip()[-300:] or "-")


def read_lines(process, take, ended, deadline):
    """Hands over lines until ended() or the end of the output; False when the
    deadline passed before that."""
    pending = b""
    while not ended():
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            if pending:
                take(pending.decode(errors="replace"))
            return True
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            take(line.decode(errors="replace").rstrip())
    # The rest of the output is nothing to wait for, but must not block the end.
    os.set_blocking(process.stdout.fileno(), False)
    return True


def stop(process):
    """Ends the process and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    process.stdin.close()
    process.stdout.close()
