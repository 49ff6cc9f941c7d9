"""The part `programs`: Debian's openssl, xz, python3, sqlite3 and gcc in the
guest, and on the host in the same root; seconds, and what they compute has to
be the same everywhere."""
import os
import re
import shutil
import subprocess
import time

from common import GUESTS, HERE, ROOT, WORK, Samples, Sums, geometric_mean, make_initramfs, number, say, tool
from machines import PROGRAM, Result, Unhindered, read_lines, stop
from rows import Row
from table import NAMES

PROGRAMS = [
    Row("openssl-sha256", "openssl speed sha256", "s per GB", set()),
    Row("openssl-aes", "openssl speed aes-256-gcm", "s per GB", set()),
    Row("openssl-chacha", "openssl speed chacha20-poly1305", "s per GB", set()),
    Row("openssl-rsa", "openssl speed rsa2048", "s per 1000 signatures", set()),
    Row("xz", "xz -3 of 2 MiB", "s", set()),
    Row("unxz", "xz -d of it, 4 times", "s", set()),
    Row("python", "python3, a script", "s", set()),
    Row("python-start", "python3, 5 starts", "s", set()),
    Row("sqlite", "sqlite3, 40000 rows", "s", set()),
    Row("gcc", "gcc -O2 of a file", "s", set()),
    Row("gcc-link", "gcc and static link", "s", set()),
]
MEMORY = "1G"
PATIENCE_S = 300


class ProgramsResult(Result):
    """Takes the lines of tests/bench/userland/programs.sh."""

    def __init__(self):
        super().__init__()
        self.seconds, self.sums, self.why = {}, {}, None

    def take(self, line, started, clock):
        super().take(line, started, clock)
        if match := re.search(r"\bSPEED openssl-rsa rsa 2048 bits ([0-9.]+)s", line):
            self.seconds["openssl-rsa"] = float(match[1]) * 1000 * self.ran(clock, "openssl-rsa")
        elif match := re.search(r"\bSPEED (\S+) .*?([0-9.]+)k$", line):
            self.seconds[match[1]] = 1e6 / float(match[2]) * self.ran(clock, match[1])
        elif match := re.search(r"\bSUM (\S+) ([0-9a-f]{16})", line):
            self.sums[match[1]] = match[2]
        for name, (seconds, status) in self.programs.items():
            if status == 0:
                self.seconds[name] = seconds


class Programs:
    def __init__(self, machines, engines, names):
        subprocess.run([os.path.join(ROOT, "scripts", "guest-programs.sh"), "bench"], check=True)
        self.machines, self.engines = machines, list(engines)
        self.names = [row.name for row in PROGRAMS if row.name in names]
        self.samples = Samples()
        self.sums, self.lost = Sums(), {}
        layer = os.path.join(WORK, "programs-layer")
        shutil.rmtree(layer, ignore_errors=True)
        os.makedirs(os.path.join(layer, "work"))
        shutil.copy(PROGRAM, os.path.join(layer, "bench"))
        for name, where in (("programs.sh", "autorun"), ("programs.py", "work/programs.py"),
                            ("programs.sql", "work/programs.sql"), ("sort.c", "work/sort.c")):
            shutil.copy(os.path.join(HERE, "userland", name), os.path.join(layer, where))
        os.chmod(os.path.join(layer, "autorun"), 0o755)
        self.initrd = make_initramfs("programs.cpio", os.path.join(GUESTS, "layers", "bench"), layer)
        self.root = os.path.join(WORK, "programs-root")
        # Another root needs privileges; without them there is no native column.
        if "native" in self.engines and os.geteuid() != 0:
            self.engines.remove("native")
        if "native" in self.engines:
            shutil.rmtree(self.root, ignore_errors=True)
            os.makedirs(self.root)
            tool("sh", "-c", "cpio --quiet -idm --no-absolute-filenames <" + self.initrd, cwd=self.root)

    def round(self, round_number):
        results, settings = {}, {"BENCH_PROGRAMS": ",".join(self.names)}
        for engine in self.engines:
            say("round %d, programs, %s" % (round_number + 1, NAMES[engine]))
            results[engine] = result = ProgramsResult()
            if engine == "native":
                result.why = self.native(result, settings)
            else:
                result.why = self.machines.once(result, engine, settings, PATIENCE_S,
                                                initrd=self.initrd, memory=MEMORY)
            with open(os.path.join(WORK, "lines-%s.txt" % engine), "w", encoding="utf-8") as out:
                out.write("\n".join(result.lines) + "\n")
        for engine in sorted(results, key=Sums.TRUST.index):
            self.take(round_number, engine, results[engine])

    def take(self, round_number, engine, result):
        for name in self.names:
            if name not in result.seconds:
                self.lost[name, engine] = result.why or "it failed: see build/bench/lines-%s.txt" % engine
            elif name not in result.sums or self.sums.agrees(name, engine, result.sums[name]):
                self.samples.put(round_number, name, engine, result.seconds[name])

    def native(self, result, settings):
        inside = ("mount --bind /dev {0}/dev && mount -t proc proc {0}/proc && mount -t tmpfs tmp {0}/tmp"
                  " && exec chroot {0} /bin/busybox sh /autorun").format(self.root)
        started = time.monotonic()
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", inside], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   start_new_session=True,
                                   env={**os.environ, **settings, "BENCH_NATIVE": "1"})
        try:
            read_lines(process, lambda line: result.take(line, started, Unhindered()),
                       lambda: result.ended, started + PATIENCE_S)
        finally:
            stop(process)
        return None if result.ended else "it did not end"

    def wrong(self):
        return ["%s on %s: %s" % (name, engine, why)
                for (name, engine), why in {**self.lost, **self.sums.wrong}.items()]

    def section(self, rounds):
        lines = ["One processor, 1 GiB of memory, everything in an initial RAM disk; natively the same root,",
                 "by chroot, and processor time. Seconds, medians of %d rounds; where a program gives another"
                 % rounds, "result than on the host, no time.", "",
                 "| program | unit | %s | jit / native | tcg / jit |" % " | ".join(
                     NAMES[e] for e in self.engines), "|---|---|" + "---|" * (len(self.engines) + 2)]
        gains = []
        for row in PROGRAMS:
            if row.name not in self.samples.values:
                continue
            gains.append(self.samples.ratio(row.name, "tcg", "jit"))
            lines.append("| %s | %s | %s | %s | %s |" % (
                row.label, row.unit,
                " | ".join(number(self.samples.value(row.name, e)) for e in self.engines),
                number(self.samples.ratio(row.name, "jit", "native"), 2), number(gains[-1], 2)))
        lines += ["", "- Geometric mean: %s times TCG's speed." % number(geometric_mean(gains), 2)]
        return lines + ["- " + line + "." for line in self.wrong()]
