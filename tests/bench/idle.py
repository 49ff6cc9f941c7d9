"""The parts `idle` and `memory`: the processor time that Linux at its shell's
prompt takes, and the memory of a guest of 512M."""
import os
import re
import subprocess
import time

from common import KERNEL, fail, make_initramfs

IDLE_SETTLE_S = 10
IDLE_SECONDS = 30


class Guest:
    """Linux at its shell's prompt, on a pipe."""

    def __init__(self, vireo, *options, small_pages=False):
        words = [vireo, "run", "--kernel", KERNEL, "--initrd",
                 make_initramfs("idle.cpio.gz"), "--append", "console=ttyS0 quiet", *options]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL,
                                        preexec_fn=no_huge_pages if small_pages else None)
        said_so_far = b""
        while b"vireo:~#" not in said_so_far:
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                fail("the idle guest did not come to its shell")
            said_so_far += more

    def cpu_seconds(self):
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self, ram_bytes):
        """KiB of the guest's RAM that are resident, and of all the rest."""
        ram = rest = 0
        with open("/proc/%d/smaps" % self.process.pid, encoding="utf-8") as smaps:
            for line in smaps:
                mapping = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if mapping:
                    size = int(mapping[2], 16) - int(mapping[1], 16)
                elif line.startswith("Rss:"):
                    if size >= ram_bytes // 4:
                        ram += int(line.split()[1])
                    else:
                        rest += int(line.split()[1])
        return ram, rest

    def end(self):
        self.process.kill()
        self.process.wait()


def no_huge_pages():
    """Then what is resident of a guest's RAM is what it touched, to the page."""
    import ctypes
    PR_SET_THP_DISABLE = 41
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def measure_idle(vireo, cpus):
    guest = Guest(vireo, "--cpus", str(cpus))
    time.sleep(IDLE_SETTLE_S)
    before, start = guest.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    share = (guest.cpu_seconds() - before) / (time.monotonic() - start)
    guest.end()
    return share


def measure_memory(vireo):
    """MiB: guest memory touched, resident beyond it without and with huge pages."""
    megabytes = 512
    small = Guest(vireo, "--memory", "%dM" % megabytes, small_pages=True)
    time.sleep(IDLE_SETTLE_S)
    touched, rest = small.resident(megabytes << 20)
    small.end()
    large = Guest(vireo, "--memory", "%dM" % megabytes)
    time.sleep(IDLE_SETTLE_S)
    large_ram, large_rest = large.resident(megabytes << 20)
    large.end()
    return touched / 1024, rest / 1024, (large_ram + large_rest - touched) / 1024


def idle_section(vireo):
    lines = ["Linux at its shell's prompt, the engine of `--engine auto`, %d s, processor time in %% of one"
             % IDLE_SECONDS, "core:", "", "| processors | use |", "|---|---|"]
    return lines + ["| %d | %.2f %% |" % (cpus, measure_idle(vireo, cpus) * 100) for cpus in (1, 2)]


def memory_section(vireo):
    touched, rest, large = measure_memory(vireo)
    return ["A 512M guest at its shell's prompt, with the engine of `--engine auto`, has touched %.0f MiB."
            % touched,
            "Beyond them the process takes **%.1f MiB** (code caches, tables, libraries), and %.1f MiB where"
            % (rest, large), "the host backs guest memory with huge pages."]
