"""The part `disks`: a guest reads and writes an image past its cache, through each
bus that both machines have; microseconds an operation."""
import os
import re
import shutil
import subprocess

from common import GUESTS, HERE, ROOT, WORK, Samples, fail, geometric_mean, number, say, tool
from machines import CFLAGS, Result
from rows import Row
from table import NAMES

FOLDER = os.path.join(WORK, "disk")
IMAGE = os.path.join(WORK, "disk.img")
IMAGE_MIB = 256
KERNEL = os.path.join(GUESTS, "vmlinuz-amd64")
MODULES = os.path.join(GUESTS, "layers", "disk", "modules")
PATIENCE_S = 120
KINDS = [
    ("read-1m", "reads of 1 MiB in sequence"),
    ("write-1m", "writes of 1 MiB in sequence"),
    ("read-1m-32", "the reads, 32 at a time"),
    ("read-4k", "reads of 4 KiB anywhere"),
    ("write-4k", "writes of 4 KiB anywhere"),
    ("read-4k-32", "the reads, 32 at a time"),
    ("write-4k-32", "the writes, 32 at a time"),
]
# What QEMU's device is called, and Linux' disk.
BUSES = {
    "ahci": ("ide-hd,bus=ide.0,drive=d", "/dev/sda"),
    "nvme": ("nvme,serial=bench,drive=d", "/dev/nvme0n1"),
    "virtio": ("virtio-blk-pci,drive=d", "/dev/vda"),
}
ROWS = [Row("%s-%s" % (bus, kind), label, "us", set()) for bus in BUSES for kind, label in KINDS]


def build():
    """The guest's program with the kernel's modules as an initramfs, and the image."""
    program, source = os.path.join(FOLDER, "init"), os.path.join(HERE, "disk", "disk.c")
    if not os.path.exists(KERNEL) or not os.path.isdir(MODULES):
        fail("no %s: run scripts/guest-kernels.sh amd64" % KERNEL)
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(os.path.join(FOLDER, "dev"))
    os.makedirs(os.path.join(FOLDER, "proc"))
    tool("gcc", *CFLAGS, "-o", program, source)
    shutil.copytree(MODULES, os.path.join(FOLDER, "modules"))
    names = subprocess.run(["find", "."], cwd=FOLDER, check=True, capture_output=True).stdout
    with open(os.path.join(WORK, "disk.cpio"), "wb") as out:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], input=names, stdout=out, cwd=FOLDER,
                       check=True)
    if not os.path.exists(IMAGE) or os.path.getsize(IMAGE) != IMAGE_MIB << 20:
        with open(IMAGE, "wb") as image:
            for _ in range(IMAGE_MIB):
                image.write(os.urandom(1 << 20))


class Disks:
    def __init__(self, machines, engines, names, milliseconds=1000, best=False):
        build()
        self.machines, self.engines = machines, [e for e in engines if e != "native"]
        self.names, self.milliseconds = names, milliseconds
        self.samples, self.lost = Samples(best=best), {}

    def command(self, engine, bus, append):
        if engine == "tcg":
            return ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "512M",
                    "-display", "none", "-nodefaults", "-no-user-config", "-monitor", "none", "-serial",
                    "stdio", "-no-reboot", "-kernel", KERNEL, "-initrd", os.path.join(WORK, "disk.cpio"),
                    "-append", append, "-drive", "file=%s,format=raw,if=none,id=d" % IMAGE,
                    "-device", BUSES[bus][0]]
        return [self.machines.vireo, "run", "--engine", engine, "--memory", "512M", "--no-reboot",
                "--kernel", KERNEL, "--initrd", os.path.join(WORK, "disk.cpio"), "--append", append,
                "--disk", "%s,bus=%s" % (IMAGE, bus), *self.machines.extra]

    def round(self, round_number):
        for bus in BUSES:
            kinds = [kind for kind, _ in KINDS if "%s-%s" % (bus, kind) in self.names]
            for engine in self.engines if kinds else []:
                say("round %d, disks, %s, %s" % (round_number + 1, bus, NAMES[engine]))
                result = Result()
                why = self.machines.once(
                    result, engine, {"BENCH_DISK": BUSES[bus][1], "BENCH_MS": self.milliseconds,
                                     "BENCH_ROWS": ",".join(kinds)}, PATIENCE_S,
                    command=lambda append, e=engine, b=bus: self.command(e, b, append))
                for kind in kinds:
                    name = "%s-%s" % (bus, kind)
                    if kind in result.rows:
                        self.samples.put(round_number, name, engine, result.rows[kind][0] / 1000)
                    else:
                        self.lost[name, engine] = why or result.lost.get("all", "it failed")

    def wrong(self):
        return ["%s on %s: %s" % (name, engine, why) for (name, engine), why in self.lost.items()]

    def section(self, rounds):
        lines = ["One processor, 512 MiB, a raw image of %d MiB in the host's cache, which both machines" %
                 IMAGE_MIB, "use too (cache=writeback); the guest reads and writes past its own cache.",
                 "Microseconds an operation, medians of %d rounds." % rounds, "",
                 "| bus | what | %s | tcg / jit |" % " | ".join(NAMES[e] for e in self.engines),
                 "|---|---|" + "---|" * (len(self.engines) + 1)]
        gains = []
        for row in ROWS:
            if row.name not in self.samples.values:
                continue
            gains.append(self.samples.ratio(row.name, "tcg", "jit"))
            lines.append("| %s | %s | %s | %s |" % (
                re.match("[a-z]+", row.name)[0], row.label,
                " | ".join(number(self.samples.value(row.name, e)) for e in self.engines),
                number(gains[-1], 2)))
        lines += ["", "- Geometric mean: %s times TCG's speed." % number(geometric_mean(gains), 2)]
        return lines + ["- " + line + "." for line in self.wrong()]
