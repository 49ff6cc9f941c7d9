"""What runs the guest program: Vireo's engines, QEMU's TCG, and the host itself.

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


class Result:
    def __init__(self):
        self.rows = {}      # name: (ns of the best, ns of the median, checksum, note)
        self.copies = {}    # name: (seconds of one, seconds of two)
        self.programs = {}  # name: (seconds, status)
        self.lost = {}      # name: why
        self.boots = []     # seconds from the start of the machine to the program
        self.lines = []     # all that it printed
        self.ended = False

    def take(self, line, started):
        self.lines.append(line)
        if "BENCH START" in line:
            self.boots.append(time.monotonic() - started)
        elif "BENCH END" in line:
            self.ended = True
        elif match := re.search(r"\bROW (\S+) (\S+) (\S+) ([0-9a-f]{16}) (\S+)", line):
            self.rows[match[1]] = (float(match[2]), float(match[3]), match[4], match[5])
        elif match := re.search(r"\bCOPIES (\S+) (\S+) (\S+)", line):
            self.copies[match[1]] = (float(match[2]), float(match[3]))
        elif match := re.search(r"\bPROGRAM (\S+) (\S+) (\d+)", line):
            self.programs[match[1]] = (float(match[2]), int(match[3]))
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
                "--no-reboot", "--kernel", KERNEL, "--initrd", initrd, "--append", append, *self.extra]

    def rows(self, engine, names, patience_s, milliseconds=200, repeats=3):
        """Runs rows; a machine that dies or hangs loses one row, not all."""
        result = Result()
        left = [row.name for row in ROWS if row.name in names]
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

    def once(self, result, engine, settings, patience_s, cpus=1, initrd=INITRD, memory=MEMORY):
        """One start, into result. Why it stopped, where it did not end."""
        words = ["%s=%s" % item for item in settings.items()]
        if engine == "native":
            command, environment = [PROGRAM], {**os.environ, **{k: str(v) for k, v in settings.items()}}
        else:
            append = " ".join(["console=ttyS0 quiet", *words])
            command, environment = self.command(engine, initrd, append, memory, cpus), None
        log = os.path.join(WORK, "log-%s.txt" % engine)
        result.ended = False
        with open(log, "wb") as errors:
            started = time.monotonic()
            process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
            try:
                timely = read_lines(process, lambda line: result.take(line, started),
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
