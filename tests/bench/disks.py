"""The part `disks`: a guest reads and writes an image past its cache, through each
bus that both machines have; microseconds an operation."""
import collections
import os
import shutil
import subprocess

from common import GUESTS, HERE, ROOT, WORK, Samples, fail, geometric_mean, newer, number, say, tool
from machines import CFLAGS, Result
from rows import Row
from table import NAMES

FOLDER = os.path.join(WORK, "disk")
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
# Which image, on which bus, what QEMU's device is called, and Linux' disk.
Disk = collections.namedtuple("Disk", "format bus device node")
DISKS = {
    "ahci": Disk("raw", "ahci", "ide-hd,bus=ide.0,drive=d", "/dev/sda"),
    "nvme": Disk("raw", "nvme", "nvme,serial=bench,drive=d", "/dev/nvme0n1"),
    "virtio": Disk("raw", "virtio", "virtio-blk-pci,drive=d", "/dev/vda"),
    "qcow2": Disk("qcow2", "nvme", "nvme,serial=bench,drive=d", "/dev/nvme0n1"),
}
ROWS = [Row("%s-%s" % (disk, kind), label, "us", set()) for disk in DISKS for kind, label in KINDS]


def image_of(form):
    return os.path.join(WORK, "disk.img" if form == "raw" else "disk." + form)


def build():
    """The guest's program with the kernel's modules as an initramfs, and the images."""
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
    raw = image_of("raw")
    if not os.path.exists(raw) or os.path.getsize(raw) != IMAGE_MIB << 20:
        with open(raw, "wb") as image:
            for _ in range(IMAGE_MIB):
                image.write(os.urandom(1 << 20))
    if not newer(image_of("qcow2"), [image_of("raw")]):
        tool("qemu-img", "convert", "-O", "qcow2", image_of("raw"), image_of("qcow2"))


class Disks:
    def __init__(self, machines, engines, names, milliseconds=1000, best=False):
        build()
        self.machines, self.engines = machines, [e for e in engines if e != "native"]
        self.names, self.milliseconds = names, milliseconds
        self.samples, self.lost = Samples(best=best), {}

    def command(self, engine, disk, append):
        if engine == "tcg":
            return ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "512M",
                    "-display", "none", "-nodefaults", "-no-user-config", "-monitor", "none", "-serial",
                    "stdio", "-no-reboot", "-kernel", KERNEL, "-initrd", os.path.join(WORK, "disk.cpio"),
                    "-append", append, "-drive",
                    "file=%s,format=%s,if=none,id=d" % (image_of(disk.format), disk.format),
                    "-device", disk.device]
        return [self.machines.vireo, "run", "--engine", engine, "--memory", "512M", "--no-reboot",
                "--kernel", KERNEL, "--initrd", os.path.join(WORK, "disk.cpio"), "--append", append,
                "--disk", "%s,format=%s,bus=%s" % (image_of(disk.format), disk.format, disk.bus),
                *self.machines.extra]

    def round(self, round_number):
        for name, disk in DISKS.items():
            kinds = [kind for kind, _ in KINDS if "%s-%s" % (name, kind) in self.names]
            for engine in self.engines if kinds else []:
                say("round %d, disks, %s, %s" % (round_number + 1, name, NAMES[engine]))
                result = Result()
                why = self.machines.once(
                    result, engine, {"BENCH_DISK": disk.node, "BENCH_MS": self.milliseconds,
                                     "BENCH_ROWS": ",".join(kinds)}, PATIENCE_S,
                    command=lambda append, e=engine, d=disk: self.command(e, d, append))
                for kind in kinds:
                    row = "%s-%s" % (name, kind)
                    if kind in result.rows:
                        self.samples.put(round_number, row, engine, result.rows[kind][0] / 1000)
                    else:
                        self.lost[row, engine] = why or result.lost.get("all", "it failed")

    def wrong(self):
        return ["%s on %s: %s" % (name, engine, why) for (name, engine), why in self.lost.items()]

    def section(self, rounds):
        lines = ["One processor, 512 MiB, an image of %d MiB in the host's cache (raw; qcow2 on NVMe)," %
                 IMAGE_MIB, "which both machines use (cache=writeback); the guest goes past its own cache.",
                 "Microseconds an operation, medians of %d rounds." % rounds, "",
                 "| disk | what | %s | tcg / jit |" % " | ".join(NAMES[e] for e in self.engines),
                 "|---|---|" + "---|" * (len(self.engines) + 1)]
        gains = []
        for row in ROWS:
            if row.name not in self.samples.values:
                continue
            gains.append(self.samples.ratio(row.name, "tcg", "jit"))
            lines.append("| %s | %s | %s | %s |" % (
                row.name.split("-")[0], row.label,
                " | ".join(number(self.samples.value(row.name, e)) for e in self.engines),
                number(gains[-1], 2)))
        lines += ["", "- Geometric mean: %s times TCG's speed." % number(geometric_mean(gains), 2)]
        return lines + ["- " + line + "." for line in self.wrong()]
