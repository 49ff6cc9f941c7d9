"""The part `bochs`: guest loops (tests/bench/loops.c) and a boot of Debian's
cloud kernel on Vireo's interpreter and on Bochs in turns, so that whatever else
the machine does strikes both.

Time is the processor time of the process with its children, less what starting
and ending a machine takes (the loop `null`). Instructions are those which the
machine retired: both say how many, and for the loops both have to say the same.
"""
import os
import re
import shutil
import statistics
import subprocess

from common import GUESTS, HERE, KERNEL, ROOT, WORK, fail, first_line, make_initramfs, package, say, tool

ENGINE = "interp"

# Row: compiler options of loops.c, what it stands for.
LOOPS = {
    "null": (["-DLOOP=null"], "start and end"),
    "integer": (["-DLOOP=int"], "sieve, checksum, hash table, heap sort"),
    "SSE2": (["-DLOOP=float"], "bodies under gravity, Mandelbrot set, in scalar doubles"),
    "x87": (["-DLOOP=float", "-mfpmath=387"], "the same on the x87"),
    "branchy": (["-DLOOP=branch"], "recursion, a bytecode interpreter, binary search"),
}
SIZES = ["-DFLOAT_STEPS=40000", "-DFLOAT_SIZE=420"]
# Nothing that would make the loops depend on the host's compiler's moods.
CFLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-function", "-ffreestanding",
          "-fno-pic", "-no-pie", "-mno-red-zone", "-fno-stack-protector", "-fcf-protection=none",
          "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-fno-tree-loop-distribute-patterns",
          "-fwrapv", "-march=x86-64", "-nostdlib", "-static", "-Wl,--build-id=none",
          "-Wl,-T," + os.path.join(HERE, "loops.ld")]

BOCHS = """megs: {megs}
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
clock: sync=none
port_e9_hack: enabled=1
display_library: rfb, options="timeout=0"
log: {name}.log
panic: action=fatal
error: action=ignore
info: action=ignore
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
plugin_ctrl: biosdev={bios}, speaker=0, gameport=0, parallel=0, extfpuirq=0
config_interface: textconfig
"""
BOCHS_ROM = """romimage: file={image}, address=0xffff0000
boot: disk
"""
BOCHS_LINUX = """romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={image}, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
"""
ISOLINUX = """SERIAL 0 115200
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL /linux
 INITRD /initrd
 APPEND {append}
"""
APPEND = "console=ttyS0 quiet"
# What the boot does once it has a shell: processes, pipes, files.
AUTORUN = """#!/bin/sh
i=0
while [ $i -lt 200 ]; do
    i=$((i + 1))
    echo $i | sed s/1/2/ >>/tmp/lines
done
sort -r /tmp/lines | md5sum
exec /bench_end
"""


# ---- running machines ----

def timed(words, give=b""):
    """Output, and seconds of processor time of the process and its children."""
    output = os.path.join(WORK, "output")
    with open(output, "wb") as out:
        process = subprocess.Popen(words, cwd=WORK, stdin=subprocess.PIPE, stdout=out,
                                   stderr=subprocess.STDOUT)
        process.stdin.write(give)
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    with open(output, encoding="utf-8", errors="replace") as text:
        return text.read(), usage.ru_utime + usage.ru_stime


def run_vireo(vireo, options):
    """Instructions, seconds, output."""
    output, seconds = timed([vireo, "run", "--engine", ENGINE, "--device", "debug-exit", "--log", "cpu=info", *options])
    retired = re.search(r"processor 0 retired (\d+) instructions", output)
    if not retired:
        fail("Vireo did not end as it should:\n" + output)
    return int(retired[1]), seconds, output


def run_bochs(name, settings):
    with open(os.path.join(WORK, name + ".rc"), "w", encoding="utf-8") as rc:
        rc.write(settings)
    # Debian's has the debugger built in, which wants to be told to start.
    output, seconds = timed(["bochs", "-q", "-f", name + ".rc"], b"c\nquit\n")
    with open(os.path.join(WORK, name + ".log"), encoding="utf-8", errors="replace") as log:
        ticks = re.search(r"^(\d+)p.*Shutdown port", log.read(), re.M)
    if not ticks:
        fail("Bochs did not end as it should: see %s/%s.log\n%s" % (WORK, name, output))
    return int(ticks[1]), seconds, output


# ---- guests ----

def build_loop(name):
    image = os.path.join(WORK, name + ".rom")
    tool("gcc", *CFLAGS, *SIZES, *LOOPS[name][0], "-o", name + ".elf", os.path.join(HERE, "loops.c"))
    tool("objcopy", "-O", "binary", "-j", ".text", "-j", ".rodata", "-j", ".data", name + ".elf",
         name + ".bin")
    tool("nasm", "-f", "bin", "-I", os.path.join(ROOT, "tests", "guest", "flat") + "/",
         '-DLOOP_IMAGE="%s.bin"' % name, "-o", image, os.path.join(HERE, "loops.asm"))
    return image


def said(output):
    """Instructions between two RDTSC, where the TSC counts them, and the sum."""
    found = re.search(r"TSC ([0-9A-F]{16}) SUM ([0-9A-F]{16})", output)
    if not found:
        fail("the loop did not end:\n" + output)
    return int(found[1], 16), found[2]


class Loop:
    def __init__(self, program, name, null):
        self.program, self.name, self.null = program, name, null
        self.image = build_loop(name)
        self.vireo_options = ["--firmware", self.image, "--memory", "64M", "--serial", "none",
                              "--log", "firmware=info"]
        _, _, output = run_vireo(self.program, self.vireo_options + ["--deterministic"])
        self.instructions, self.sum = said(output)

    def vireo(self):
        _, seconds, output = run_vireo(self.program, self.vireo_options)
        if said(output)[1] != self.sum:
            fail("%s: Vireo's sum is wrong: %s" % (self.name, output))
        return seconds

    def bochs(self):
        settings = BOCHS.format(megs=64, name=self.name, bios=0) + BOCHS_ROM.format(image=self.image)
        _, seconds, output = run_bochs(self.name, settings)
        if said(output) != (self.instructions, self.sum):
            fail("%s: Bochs and Vireo do not agree on the sum or the number of instructions: "
                 "%x %s and %s" % (self.name, self.instructions, self.sum, said(output)))
        return seconds

    def round(self):
        """(instructions a second of Vireo, of Bochs)"""
        rates = []
        for run, null in ((self.vireo, self.null.vireo), (self.bochs, self.null.bochs)):
            seconds = run() - null()
            rates.append(self.instructions / seconds)
        return rates


class Linux:
    """The same kernel, initial RAM disk and command line; Bochs comes to it
    through its BIOS and a boot loader, whose instructions count too."""

    def __init__(self, program):
        self.program = program
        layer, iso = os.path.join(WORK, "layer"), os.path.join(WORK, "iso")
        for folder in (layer, iso):
            shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(layer)
        os.makedirs(os.path.join(iso, "isolinux"))
        tool("gcc", "-O2", "-Wall", "-Wextra", "-static", "-o", os.path.join(layer, "bench_end"),
             os.path.join(HERE, "bench_end.c"))
        with open(os.path.join(layer, "autorun"), "w", encoding="utf-8") as script:
            script.write(AUTORUN)
        os.chmod(os.path.join(layer, "autorun"), 0o755)
        self.kernel = KERNEL
        self.initrd = make_initramfs("bench.cpio.gz", layer)
        shutil.copy(self.kernel, os.path.join(iso, "linux"))
        shutil.copy(self.initrd, os.path.join(iso, "initrd"))
        for loader in ("/usr/lib/ISOLINUX/isolinux.bin", "/usr/lib/syslinux/modules/bios/ldlinux.c32"):
            shutil.copy(loader, os.path.join(iso, "isolinux"))
        with open(os.path.join(iso, "isolinux", "isolinux.cfg"), "w", encoding="utf-8") as config:
            config.write(ISOLINUX.format(append=APPEND))
        tool("xorriso", "-as", "mkisofs", "-quiet", "-o", "bench.iso", "-b", "isolinux/isolinux.bin",
             "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
             iso)
        self.instructions = {"vireo": [], "bochs": []}
        self.seconds = {"vireo": [], "bochs": []}

    def round(self):
        count, seconds, _ = run_vireo(self.program, ["--kernel", self.kernel, "--initrd", self.initrd, "--append",
                                       APPEND, "--memory", "256M", "--serial", "file:serial-vireo.txt"])
        self.instructions["vireo"].append(count)
        self.seconds["vireo"].append(seconds)
        vireo = count / seconds
        settings = BOCHS.format(megs=256, name="linux", bios=1) + BOCHS_LINUX.format(image="bench.iso")
        count, seconds, _ = run_bochs("linux", settings)
        self.instructions["bochs"].append(count)
        self.seconds["bochs"].append(seconds)
        return vireo, count / seconds


class Contest:
    """The rows of loops and the boot, round by round."""

    def __init__(self, program):
        if not shutil.which("bochs"):
            fail("no bochs: apt-get install bochs")
        null = Loop(program, "null", None)
        self.rows = [(name, what, Loop(program, name, null), [])
                     for name, (_, what) in LOOPS.items() if name != "null"]
        self.linux = Linux(program)
        self.rows.append(("Linux boot", "Debian's kernel and BusyBox", self.linux, []))

    def round(self, number):
        for name, _, contest, rates in self.rows:
            rates.append(contest.round())
            say("round %d, %s: Vireo %s, Bochs %s" % (number + 1, name, per_second(rates[-1][0]),
                                                      per_second(rates[-1][1])))

    def wrong(self):
        return []  # what is wrong ends the run

    def section(self, rounds):
        lines = ["Millions of instructions a second; medians of %d rounds, in turns, and a ratio is that of"
                 % rounds,
                 "one round. Vireo runs `--engine %s`, Bochs is Debian's %s," % (ENGINE, package("bochs")),
                 "`corei7_skylake_x`; the loops' compiler is %s." % first_line("gcc", "--version"), "",
                 "| guest | what it does | instructions | Vireo | Bochs | ratio | least, most |",
                 "|---|---|---|---|---|---|---|"]
        for name, what, contest, rates in self.rows:
            instructions = contest.instructions
            if contest is self.linux:
                instructions = statistics.median(instructions["vireo"])
            ratios = sorted(v / b for v, b in rates)
            lines.append("| %s | %s | %.0f M | %s | %s | %.1f | %.1f, %.1f |" % (
                name, what, instructions / 1e6, per_second(statistics.median(v for v, _ in rates)),
                per_second(statistics.median(b for _, b in rates)), statistics.median(ratios),
                ratios[0], ratios[-1]))
        seconds = {name: statistics.median(values) for name, values in self.linux.seconds.items()}
        return lines + [
            "",
            "A loop is a 64 KiB ROM image (`tests/bench/loops.c`) that both machines run. Its number of",
            "instructions is what its time stamp counter says, which counts instructions in Bochs and",
            "in `vireo --deterministic`: the two have to agree to the instruction, and so has the sum",
            "that the loop computes. Time is processor time, less what starting and ending a machine",
            "takes.", "",
            "The Linux boot is Debian's cloud kernel with BusyBox, from the start of the program until",
            "a script of 200 pipelines is through: %.1f s of processor time in Vireo, %.1f s in Bochs,"
            % (seconds["vireo"], seconds["bochs"]),
            "which also runs its BIOS and a boot loader (%.0f M instructions in all)."
            % (statistics.median(self.linux.instructions["bochs"]) / 1e6)]


def per_second(rate):
    return "%.0f" % (rate / 1e6)
