"""The part `images`: `vireo img convert` beside `qemu-img convert`, in turns, on the
same source: a third of it text, a third noise, a third holes. Elapsed time and
processor time; neither waits until the host has written to its disk (QEMU's
convert does not by default, Vireo with `-t unsafe`). What both make is compared once."""
import os
import random
import resource
import statistics
import subprocess
import time

from common import WORK, fail, number

MIB = 1 << 20
SIZE = 384 * MIB
OURS, THEIRS = "Vireo", "qemu-img"

# Row: options of convert, the source, the format of the result.
ROWS = {
    "raw to qcow2": ([], "raw", "qcow2"),
    "qcow2 to raw": ([], "qcow2", "raw"),
    "raw to qcow2, -c": (["-c"], "raw", "qcow2"),
    "raw to qcow2, -c, zstd": (["-c", "-o", "compression_type=zstd"], "raw", "qcow2"),
    "compressed qcow2 to raw": ([], "packed", "raw"),
}


def path(name):
    return os.path.join(WORK, "image-" + name)


def run(*words):
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        fail("%s: %s" % (" ".join(words), result.stdout.decode(errors="replace")))


def make_sources():
    source = random.Random(1)
    text = b"".join(b"%d: a line of a log with %d in it\n" % (n, source.randrange(9999))
                    for n in range(40000))[:MIB]
    with open(path("raw"), "wb") as out:
        for n in range(SIZE // MIB):
            if n % 3 == 2:
                out.seek(MIB, os.SEEK_CUR)
            else:
                out.write(source.randbytes(MIB) if n % 3 else text)
        out.truncate(SIZE)
    run("qemu-img", "convert", "-O", "qcow2", path("raw"), path("qcow2"))
    run("qemu-img", "convert", "-c", "-O", "qcow2", path("raw"), path("packed"))


class Contest:
    def __init__(self, vireo):
        self.programs = {OURS: [vireo, "img", "convert", "-q", "-t", "unsafe"],
                         THEIRS: ["qemu-img", "convert"]}
        self.times = {(row, who): [] for row in ROWS for who in self.programs}
        self.problems = []
        make_sources()

    def measure(self, who, row):
        options, source, form = ROWS[row]
        target = path("new-" + who)
        # Once before: memory that a host's host has to give first takes several times as long.
        for _ in range(2):
            if os.path.exists(target):
                os.unlink(target)
            took = self.convert(who, options, form, source, target)
        self.times[row, who].append(took)

    def convert(self, who, options, form, source, target):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        run(*self.programs[who], *options, "-O", form, path(source), target)
        took = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def round(self, round_number):
        for row in ROWS:
            for who in list(self.programs)[::-1 if round_number % 2 else 1]:
                self.measure(who, row)
            if round_number == 0:
                result = subprocess.run(["qemu-img", "compare", path("raw"), path("new-" + OURS)],
                                        stdout=subprocess.DEVNULL, check=False)
                if result.returncode:
                    self.problems.append("images: %s is not the same disk" % row)

    def wrong(self):
        for name in ("raw", "qcow2", "packed", "new-" + OURS, "new-" + THEIRS):
            if os.path.exists(path(name)):
                os.unlink(path(name))
        return self.problems

    def section(self, rounds):
        lines = ["`vireo img convert` and `qemu-img convert` of a disk of %d MiB (a third text, a third"
                 % (SIZE // MIB), "noise, a third holes), medians of %d rounds; seconds, and in brackets"
                 % rounds, "processor seconds.", "", "| | Vireo | qemu-img | Vireo needs |", "|---|---|---|---|"]
        for row in ROWS:
            both = {who: [statistics.median(kind) for kind in zip(*self.times[row, who])]
                    for who in self.programs}
            lines.append("| %s | %s (%s) | %s (%s) | %s of the time |" % (
                row, *(number(value) for who in (OURS, THEIRS) for value in both[who]),
                number(both[OURS][0] / both[THEIRS][0], 2)))
        return lines
