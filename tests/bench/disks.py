"""The part `disks`: Debian's fio in the guest on an image through each bus and in each
format that both machines have; microseconds for each request."""
import os
import re
import shutil
import subprocess

import fio
from common import (GUESTS, HERE, ROOT, WORK, Samples, geometric_mean, make_initramfs, newer, number,
                    say, tool)
from machines import Result
from rows import Row
from table import NAMES

IMAGE_MIB = 256
FRESH_MIB = 512
KERNEL = os.path.join(GUESTS, "vmlinuz-amd64")
PATIENCE_S = 60  # three times what a run takes
# QEMU's NVMe stands still now and then: it is started again, so often.
TRIES = 3
# Jobs of tests/bench/disk/rows.fio.
JOBS = [
    ("read", "sequential read, 1 MiB"),
    ("write", "sequential write, 1 MiB"),
    ("randread-1", "random read, 4 KiB, depth 1"),
    ("randwrite-1", "random write, 4 KiB, depth 1"),
    ("randread-32", "random read, 4 KiB, depth 32"),
    ("randwrite-32", "random write, 4 KiB, depth 32"),
]
ALLOCATE = ("allocate", "write of new clusters, 64 KiB")
# What QEMU's devices are called.
BUSES = {
    "ahci": "ide-hd,bus=ide.%d,drive=d%d",
    "nvme": "nvme,serial=bench%d,drive=d%d",
    "virtio": "virtio-blk-pci,serial=bench%d,drive=d%d",
}
JOBS_OF = {"raw": JOBS, "qcow2": [*JOBS, ALLOCATE]}
ROWS = [Row("%s-%s-%s" % (bus, form, job), label, "us", set())
        for bus in BUSES for form, jobs in JOBS_OF.items() for job, label in jobs]


def image_of(form):
    """256 MiB of data, so that no read finds a hole and no write allocates."""
    return os.path.join(WORK, "disk." + form)


def fresh_of(form):
    return os.path.join(WORK, "fresh." + form)


def build():
    """The initial RAM disk with fio and the kernel's modules, and the images."""
    subprocess.run([os.path.join(ROOT, "scripts", "guest-kernels.sh"), "amd64", "busybox"], check=True)
    subprocess.run([os.path.join(ROOT, "scripts", "guest-programs.sh"), "fio"], check=True)
    layer = os.path.join(WORK, "disk-layer")
    shutil.rmtree(layer, ignore_errors=True)
    os.makedirs(layer)
    for name in ("autorun", "rows.fio"):
        shutil.copy(os.path.join(HERE, "disk", name), layer)
    initrd = make_initramfs("disk.cpio", os.path.join(GUESTS, "layers", "disk"),
                            os.path.join(GUESTS, "layers", "fio"), layer)
    raw = image_of("raw")
    if not os.path.exists(raw) or os.path.getsize(raw) != IMAGE_MIB << 20:
        with open(raw, "wb") as image:
            for _ in range(IMAGE_MIB):
                image.write(os.urandom(1 << 20))
    if not newer(image_of("qcow2"), [raw]):
        tool("qemu-img", "convert", "-O", "qcow2", raw, image_of("qcow2"))
    return initrd


class DiskResult(Result):
    """Takes what tests/bench/disk/rows.fio says: BEGIN JOB, DONE, and at the end terse lines."""

    def __init__(self):
        super().__init__()
        self.job, self.share = None, {}

    def take(self, line, started, clock):
        super().take(line, started, clock)
        if match := re.search(r"\bBEGIN (\S+)", line):
            self.job = match[1]
        elif "DONE" in line and self.job:
            self.share[self.job] = self.ran(clock, self.job)

    def microseconds(self):
        found = fio.microseconds("\n".join(self.lines))
        return {job: us * self.share.get(job, 1) for job, us in found.items()}


class Disks:
    def __init__(self, machines, engines, names, milliseconds=1500, best=False):
        self.initrd = build()
        self.machines, self.engines = machines, [e for e in engines if e != "native"]
        self.names, self.milliseconds = names, milliseconds
        self.samples, self.lost = Samples(best=best), {}

    def command(self, engine, bus, form, append):
        images = (image_of(form), fresh_of(form))
        common = ["--kernel", KERNEL, "--initrd", self.initrd, "--append", append]
        if engine == "tcg":
            words = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "512M",
                     "-display", "none", "-nodefaults", "-no-user-config", "-monitor", "none",
                     "-serial", "stdio", "-no-reboot", *[w.replace("--", "-", 1) for w in common]]
            for n, image in enumerate(images):
                words += ["-drive", "file=%s,format=%s,if=none,cache=writeback,id=d%d" % (image, form, n),
                          "-device", BUSES[bus] % (n, n)]
            return words
        words = [self.machines.vireo, "run", "--engine", engine, "--memory", "512M", "--net", "none",
                 "--no-reboot", *common]
        for image in images:
            words += ["--disk", "%s,format=%s,bus=%s,cache=writeback" % (image, form, bus)]
        return words + self.machines.extra

    def round(self, round_number):
        for bus in BUSES:
            for form, jobs in JOBS_OF.items():
                wanted = [job for job, _ in jobs if "%s-%s-%s" % (bus, form, job) in self.names]
                # Who is first: what the host has to do after the one's writes is not always the other's.
                for engine in self.engines[::-1 if round_number % 2 else 1] if wanted else []:
                    say("round %d, disks, %s on %s, %s" % (round_number + 1, form, bus, NAMES[engine]))
                    self.run(round_number, engine, bus, form, wanted)

    def once(self, engine, bus, form, wanted):
        result, fresh = DiskResult(), fresh_of(form)
        if os.path.exists(fresh):
            os.unlink(fresh)
        tool("qemu-img", "create", "-q", "-f", form, fresh, "%dM" % FRESH_MIB)
        why = self.machines.once(
            result, engine, {"BENCH_ROWS": ",".join(wanted), "BENCH_MIB": IMAGE_MIB,
                             "BENCH_MS": self.milliseconds, "BENCH_RAMP_MS": self.milliseconds // 3,
                             "BENCH_FRESH_MIB": FRESH_MIB}, PATIENCE_S,
            command=lambda append: self.command(engine, bus, form, append))
        return result, why

    def run(self, round_number, engine, bus, form, wanted):
        for _ in range(TRIES if engine == "tcg" else 1):
            result, why = self.once(engine, bus, form, wanted)
            if not why:
                break
        with open(os.path.join(WORK, "lines-%s.txt" % engine), "w", encoding="utf-8") as out:
            out.write("\n".join(result.lines) + "\n")
        found = result.microseconds()
        for job in wanted:
            row = "%s-%s-%s" % (bus, form, job)
            if job in found:
                self.samples.put(round_number, row, engine, found[job])
            else:
                self.lost[row, engine] = why or "it failed: see build/bench/lines-%s.txt" % engine

    def wrong(self):
        return ["%s on %s: %s" % (name, engine, why) for (name, engine), why in self.lost.items()]

    def section(self, rounds):
        lines = ["Debian's fio, direct and by libaio, in an initial RAM disk with Debian's kernel; one",
                 "processor, 512 MiB. The image has %d MiB of data, all of it in the host's cache" % IMAGE_MIB,
                 "(cache=writeback); sequential requests at depth 4. New clusters are those of an empty",
                 "qcow2 image of %d MiB, written once, one after the other at depth 1. Microseconds for each"
                 % FRESH_MIB, "request, that is 1 / IOPS; medians of %d rounds." % rounds, "",
                 "| bus | format | fio | %s | tcg / jit |" % " | ".join(NAMES[e] for e in self.engines),
                 "|---|---|---|" + "---|" * (len(self.engines) + 1)]
        gains = []
        for row in ROWS:
            if row.name not in self.samples.values:
                continue
            gains.append(self.samples.ratio(row.name, "tcg", "jit"))
            bus, form, _ = row.name.split("-", 2)
            lines.append("| %s | %s | %s | %s | %s |" % (
                bus, form, row.label,
                " | ".join(number(self.samples.value(row.name, e)) for e in self.engines),
                number(gains[-1], 2)))
        lines += ["", "- Geometric mean: %s times TCG's speed; rows slower than TCG: %d (wanted: none)."
                  % (number(geometric_mean(gains), 2), sum(gain is not None and gain < 1 for gain in gains))]
        return lines + ["- " + line + "." for line in self.wrong()]
