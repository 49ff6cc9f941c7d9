"""The part `debian`: Debian's disk on Vireo's JIT and on QEMU's TCG, on AHCI: from
the start of the program to the login prompt, through SeaBIOS and through OVMF;
then fio on a second disk, and lines of text on the screen."""
import os
import re
import select
import shutil
import subprocess
import time

import fio
from common import GUESTS, HERE, ROOT, WORK, Samples, fail, number, say, tool
from machines import Clock, stop
from rows import Row
from table import NAMES

IMAGE = os.path.join(GUESTS, "debian.img")
SCRATCH = os.path.join(WORK, "scratch.img")
SCRATCH_BYTES = 512 << 20
# By its port: the names sda and sdb are given to who answers first.
SCRATCH_IN_GUEST = "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"
OVMF = "/usr/share/OVMF/OVMF_%s_4M.fd"
MEMORY = "1G"
PATIENCE_S = 400
FIO_SECONDS = 4
CONSOLE_LINES = 3000
TELETYPE_LINES = 6000

ROWS = [
    Row("boot-bios", "boot to the login prompt, SeaBIOS", "s", {"boot"}),
    Row("boot-uefi", "boot to the login prompt, OVMF", "s", {"boot"}),
    Row("fio-read", "fio, sequential read, 1 MiB", "us", {"fio"}),
    Row("fio-write", "fio, sequential write, 1 MiB", "us", {"fio"}),
    Row("fio-randread-1", "fio, random read, 4 KiB, depth 1", "us", {"fio"}),
    Row("fio-randread-32", "fio, random read, 4 KiB, depth 32", "us", {"fio"}),
    Row("fio-randwrite-1", "fio, random write, 4 KiB, depth 1", "us", {"fio"}),
    Row("fio-randwrite-32", "fio, random write, 4 KiB, depth 32", "us", {"fio"}),
    Row("console", "text on Debian's console, line", "us", {"text"}),
    Row("teletype", "text by INT 10H, line", "us", {"text"}),
]


def fio_command(name):
    """fio's words, for a row's name."""
    _, direction, *depth = name.split("-")
    size, depth = ("4k", depth[0]) if depth else ("1M", "4")
    return ("fio --name=%s --filename=$(readlink -f %s) --direct=1 --ioengine=libaio --rw=%s --bs=%s"
            " --iodepth=%s --time_based --ramp_time=1 --runtime=%d --randseed=5 --output-format=terse"
            " --terse-version=3" % (name[4:], SCRATCH_IN_GUEST, direction, size, depth, FIO_SECONDS))


class Guest:
    """A machine whose serial line is a pipe; ends with the block."""

    def __init__(self, words, log):
        self.text, self.log = b"", log
        with open(log, "wb") as errors:
            self.started = time.monotonic()
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=errors, start_new_session=True)
        self.clock = Clock(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)

    def until(self, pattern, seconds=PATIENCE_S):
        """What came before pattern and its match, taken away; TimeoutError."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise TimeoutError("no %r: see %s; it last said %r" % (pattern, self.log, self.text[-300:]))
            self.text += data
        before, self.text = self.text[:found.end()], self.text[found.end():]
        return before.decode(errors="replace").replace("\r", "")

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def boot(self):
        """Seconds to the login prompt, less what the machine waited for a processor."""
        self.until(rb"vireo login: ")
        return (time.monotonic() - self.started) * (1 - self.clock.waited(""))

    def log_in(self):
        self.type("root\n")
        self.until(rb"Password: ")
        self.type("vireo\n")
        self.until(rb"# ")
        # What still starts behind the prompt is not of the rows.
        self.run("systemctl is-system-running --wait; sleep 2")

    def run(self, line):
        """What a command says, and the share of its time that the machine ran."""
        self.clock.mark(line)
        self.type("echo BEG''IN; %s; echo E''ND\n" % line)
        self.until(rb"BEGIN\r*\n")
        return self.until(rb"END\r*\n"), 1 - self.clock.waited(line)


class Debian:
    def __init__(self, machines, engines, names):
        subprocess.run([os.path.join(ROOT, "scripts", "guest-debian.sh")], check=True)
        if not os.path.exists(OVMF % "CODE"):
            fail("no OVMF: apt-get install ovmf")
        self.machines, self.engines = machines, [e for e in engines if e in ("jit", "interp", "tcg")]
        self.names = names
        self.samples = Samples()
        self.lost = {}
        # Written, so that no read finds a hole, and in the host's cache.
        with open(SCRATCH, "wb") as scratch:
            block = os.urandom(1 << 20)
            for _ in range(SCRATCH_BYTES // len(block)):
                scratch.write(block)

    def command(self, engine, firmware, disks, cpus=1, serial="stdio"):
        """disks: (path, snapshot)"""
        store = os.path.join(WORK, "vars-%s.fd" % engine)
        if engine == "tcg":
            words = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", MEMORY,
                     "-smp", str(cpus), "-display", "none", "-nodefaults", "-no-user-config",
                     "-monitor", "none", "-serial", serial, "-device", "VGA", "-no-reboot",
                     "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
            if firmware == "uefi":
                shutil.copy(OVMF % "VARS", store)
                words += ["-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + OVMF % "CODE",
                          "-drive", "if=pflash,format=raw,unit=1,file=" + store]
            else:
                words += ["-boot", "menu=on,splash-time=1000"]
                if serial == "stdio":
                    port = os.path.join(WORK, "sercon-port")
                    with open(port, "wb") as out:
                        out.write((0x3f8).to_bytes(8, "little"))
                    words += ["-fw_cfg", "name=etc/sercon-port,file=" + port]
            for n, (path, snapshot) in enumerate(disks):
                words += ["-drive", "if=none,format=raw,id=disk%d,file=%s,snapshot=%s"
                          % (n, path, "on" if snapshot else "off"),
                          "-device", "ide-hd,drive=disk%d,bus=ide.%d" % (n, n)]
            return words
        words = [self.machines.vireo, "run", "--engine", engine, "--memory", MEMORY, "--cpus", str(cpus),
                 "--firmware", firmware, "--serial", serial, "--vga", "std", "--no-reboot",
                 "--device", "debug-exit"]
        if firmware == "uefi":
            if os.path.exists(store):
                os.unlink(store)
            words += ["--uefi-vars", store]
        for path, snapshot in disks:
            words += ["--disk", path + (",snapshot" if snapshot else "")]
        return words + self.machines.extra

    def round(self, round_number):
        for firmware in ("bios", "uefi"):
            for engine in self.engines:
                wanted = self.wanted(firmware)
                if wanted:
                    say("round %d, Debian by %s, %s" % (round_number + 1, firmware, NAMES[engine]))
                    self.boot(round_number, engine, firmware, wanted)
        if "teletype" in self.names:
            for engine in self.engines:
                say("round %d, text by INT 10H, %s" % (round_number + 1, NAMES[engine]))
                us = (self.scroll(engine, TELETYPE_LINES) - self.scroll(engine, 0)) / TELETYPE_LINES * 1e6
                self.samples.put(round_number, "teletype", engine, us)

    def wanted(self, firmware):
        """The rows that a boot by this firmware gives: all others by SeaBIOS's."""
        if firmware == "uefi":
            return [name for name in self.names if name == "boot-uefi"]
        return [name for name in self.names if name not in ("boot-uefi", "teletype")]

    def boot(self, round_number, engine, firmware, wanted):
        log = os.path.join(WORK, "log-debian-%s-%s.txt" % (firmware, engine))
        words = self.command(engine, firmware, [(IMAGE, True), (SCRATCH, False)])
        row = "boot-" + firmware
        try:
            with Guest(words, log) as guest:
                seconds = guest.boot()
                if row in wanted:
                    self.samples.put(round_number, row, engine, seconds)
                if wanted == [row]:
                    return
                guest.log_in()
                for row in wanted:
                    if row.startswith("boot"):
                        continue
                    us = self.console(guest) if row == "console" else self.fio(guest, row)
                    self.samples.put(round_number, row, engine, us)
        except TimeoutError as why:
            self.lost[row, engine] = str(why)

    @staticmethod
    def fio(guest, row):
        text, ran = guest.run(fio_command(row))
        us = fio.microseconds(text).get(row[4:])
        return us and us * ran

    @staticmethod
    def console(guest):
        guest.run("yes 'The quick brown fox jumps over the lazy dog, again and again' |"
                  " head -n %d >/tmp/text; systemctl stop getty@tty1" % CONSOLE_LINES)
        text, ran = guest.run("TIMEFORMAT='took %R'; time cat /tmp/text >/dev/tty1")
        found = re.search(r"took ([0-9.]+)", text)
        return float(found[1]) / CONSOLE_LINES * 1e6 * ran if found else None

    def scroll(self, engine, lines):
        """Seconds of a machine that prints lines through its BIOS and ends."""
        sector = os.path.join(WORK, "scroll-%d.img" % lines)
        tool("nasm", "-f", "bin", "-DLINES=%d" % lines, "-o", sector, os.path.join(HERE, "disk", "scroll.asm"))
        os.truncate(sector, 1 << 20)
        words = self.command(engine, "bios", [(sector, True)], serial="none")
        log = os.path.join(WORK, "log-scroll-%s.txt" % engine)
        with Guest(words, log) as guest:
            status = guest.process.wait(PATIENCE_S)
            seconds = time.monotonic() - guest.started
        if status != 0x21:
            fail("the boot sector on %s: status %d, see %s" % (engine, status, log))
        return seconds

    def wrong(self):
        return ["%s on %s: lost: %s" % (name, engine, why) for (name, engine), why in self.lost.items()]

    def section(self, rounds):
        lines = ["The disk of `scripts/guest-debian.sh` with writes thrown away (`snapshot`), one processor, 1 GiB,",
                 "a standard VGA, AHCI; SeaBIOS and GRUB on the screen and on the serial line, with a second for",
                 "SeaBIOS's menu in both machines. fio is Debian's in the guest, direct and by libaio, at depth 4",
                 "where nothing is said, on a raw second disk of %d MiB that is in the host's cache; microseconds"
                 % (SCRATCH_BYTES >> 20),
                 "for each request, that is 1 / IOPS. Debian's console is the framebuffer of 1024x768 that its",
                 "kernel makes of the VGA, the one of INT 10H a text screen. Medians of %d rounds." % rounds, "",
                 "| row | unit | %s | tcg / jit |" % " | ".join(NAMES[e] for e in self.engines),
                 "|---|---|" + "---|" * (len(self.engines) + 1)]
        slower = 0
        for row in ROWS:
            if row.name not in self.samples.values:
                continue
            gain = self.samples.ratio(row.name, "tcg", "jit")
            slower += gain is not None and gain < 1
            lines.append("| %s | %s | %s | %s |" % (
                row.label, row.unit, " | ".join(number(self.samples.value(row.name, e)) for e in self.engines),
                number(gain, 2)))
        lines += ["", "- Rows slower than TCG: %d (wanted: none)." % slower]
        return lines + ["- " + line + "." for line in self.wrong()]
