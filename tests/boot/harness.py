"""Runs a machine on a pseudo-terminal and holds a dialogue with it.

A boot test is a script which starts Machine(...), says what it expects and
what it types, and ends with machine.exits(status). On failure the tail of the
transcript is printed and the script ends with status 1.

Environment:
  VIREO                the program under test (build/vireo)
  ENGINE               which engine runs it: interp, jit or auto (auto)
  BOOT_TEST_WITH=qemu  runs the same dialogue on QEMU instead: is the test right?
  BOOT_TEST_PATIENCE   multiplies all timeouts (sanitizers, loaded machines)
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUESTS = os.path.join(ROOT, "build", "guests")
VIREO = os.environ.get("VIREO", os.path.join(ROOT, "build", "vireo"))
ENGINE = os.environ.get("ENGINE", "auto")
VIREO_RUN = [VIREO, "run", "--engine", ENGINE]
WITH_QEMU = os.environ.get("BOOT_TEST_WITH") == "qemu"
PATIENCE = float(os.environ.get("BOOT_TEST_PATIENCE", "1"))
TAIL_BYTES = 6000
# The last words of a Linux that then stands still.
PANIC = b"---[ end Kernel panic"


class Failure(Exception):
    pass


def fetch(*guests):
    """Makes sure that guests (names of scripts/guest-kernels.sh) are there."""
    subprocess.run([os.path.join(ROOT, "scripts", "guest-kernels.sh"), *guests], check=True)


def guest(name):
    return os.path.join(GUESTS, name)


def initramfs(busybox="busybox", name="initramfs.cpio.gz", layers=()):
    """The path of a fresh initramfs; made aside and moved, so that tests that
    run side by side never see half of it."""
    out = guest(name)
    subprocess.run([os.path.join(ROOT, "scripts", "make-initramfs.sh"), guest(busybox),
                    "%s.%d" % (out, os.getpid()), *layers], check=True)
    os.rename("%s.%d" % (out, os.getpid()), out)
    return out


def qemu_command(options):
    """The same machine in QEMU's words."""
    words = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-display", "none",
             "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line", "-monitor", "none",
             "-nodefaults", "-no-user-config"]
    initrds = [value for name, value in options if name == "initrd"]
    for name, value in options:
        if name in ("kernel", "append"):
            words += ["-" + name, value]
        elif name == "initrd" and initrds:
            words += ["-initrd", ",".join(initrds)]
            initrds = []
        elif name == "memory":
            words += ["-m", value]
        elif name == "cpus":
            words += ["-smp", value]
        elif name == "no-reboot":
            words += ["-no-reboot"]
        elif name == "device" and value == "debug-exit":
            words += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        elif name == "firmware" and value != "bios":
            words += ["-bios", value]
        elif name == "firmware":
            words += ["-fw_cfg", "name=etc/sercon-port,file=" + sercon_port_file(),
                      "-fw_cfg", "name=etc/show-boot-menu,file=" + boot_menu_file()]
    return words


def _small_file(name, content):
    path = os.path.join(GUESTS, name)
    with open(path, "wb") as f:
        f.write(content)
    return path


def sercon_port_file():
    return _small_file("sercon-port", (0x3f8).to_bytes(8, "little"))


def boot_menu_file():
    return _small_file("show-boot-menu", (1).to_bytes(8, "little"))


def vireo_command(options):
    words = list(VIREO_RUN)
    if not any(name == "net" for name, _ in options):
        words += ["--net", "none"]
    for name, value in options:
        words.append("--" + name)
        if value is not None:
            words.append(value)
    return words


class Machine:
    """options: a list of (name, value) pairs of `vireo run`, without dashes;
    value None for flags. The guest's serial line is our end of the terminal;
    standard error is kept apart in .errors, or else goes to the terminal too.
    Signals that we ignore (under nohup, or in the background of a simple shell)
    it does not, except for those in `ignored`."""

    def __init__(self, options, command=None, errors_apart=True, ignored=()):
        self.transcript = b""
        self.seen = 0  # of the transcript, by expect()
        self.errors = b""
        self.command = command or (qemu_command(options) if WITH_QEMU else vireo_command(options))
        self.master, slave = pty.openpty()
        self.modes = termios.tcgetattr(slave)
        self.slave = slave
        self.ignored = ignored
        self.process = subprocess.Popen(self.command, stdin=slave, stdout=slave,
                                        stderr=subprocess.PIPE if errors_apart else slave,
                                        preexec_fn=self._own_terminal, close_fds=True)
        self.outputs = [self.master]
        if errors_apart:
            os.set_blocking(self.process.stderr.fileno(), False)
            self.outputs.append(self.process.stderr.fileno())
        self.started = time.monotonic()

    def _own_terminal(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN if number in self.ignored else signal.SIG_DFL)
        os.setsid()
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _take(self, seconds):
        """Reads what there is within seconds; False when nothing came."""
        ready, _, _ = select.select(self.outputs, [], [], max(seconds, 0))
        for fd in ready:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if fd == self.master:
                self.transcript += data
            elif data:
                self.errors += data
            else:
                self.outputs.remove(fd)
        return bool(ready)

    def expect(self, pattern, seconds=60):
        """Waits for a regular expression in what comes after the last match."""
        regex = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.S)
        end = time.monotonic() + seconds * PATIENCE
        while True:
            match = regex.search(self.transcript, self.seen)
            if match:
                self.seen = match.end()
                return match
            if PANIC in self.transcript[self.seen:]:
                raise Failure("the guest's kernel panicked before %r came" % pattern)
            if time.monotonic() > end:
                raise Failure("no %r within %g seconds" % (pattern, seconds * PATIENCE))
            if self.process.poll() is not None and not self._take(0.2):
                raise Failure("ended with status %d before %r came"
                              % (self.process.returncode, pattern))
            self._take(min(0.5, end - time.monotonic()))

    def send(self, text):
        """Types; slowly enough for a UART without flow control."""
        data = text.encode() if isinstance(text, str) else text
        for i in range(0, len(data), 8):
            os.write(self.master, data[i:i + 8])
            self._take(0.01)

    def rest(self, seconds):
        """Lets the guest go on for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._take(end - time.monotonic())

    def command_output(self, command, seconds=60):
        """Types a shell command and returns what it prints. The marks are
        written so that the echo of what is typed does not match."""
        self.send("echo BEG''IN; %s; echo E''ND=$?\n" % command)
        self.expect(r"BEGIN\r*\n", seconds)
        match = self.expect(r"(.*?)END=(\d+)\r*\n", seconds)
        return match.group(1).decode(errors="replace").replace("\r", ""), int(match.group(2))

    def exits(self, status, seconds=60):
        end = time.monotonic() + seconds * PATIENCE
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise Failure("does not end within %g seconds" % (seconds * PATIENCE))
            self._take(0.1)
        while self._take(0.1):
            pass
        if self.process.returncode != status:
            raise Failure("exit status %d, not %d" % (self.process.returncode, status))

    def terminal_is_restored(self):
        now = termios.tcgetattr(self.slave)
        if now != self.modes:
            raise Failure("terminal modes are not as before: %r, not %r" % (now, self.modes))

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def report(self, why):
        print("FAILED: %s" % why)
        print("command: %s" % " ".join(self.command))
        print("after %.1f seconds; the end of the transcript:" % (time.monotonic() - self.started))
        print(self.transcript[-TAIL_BYTES:].decode(errors="replace").replace("\r", ""))
        if self.errors:
            print("standard error:")
            print(self.errors[-TAIL_BYTES:].decode(errors="replace").replace("\r", ""))


def dialogue(machine, talk):
    """Runs talk(machine); ends the process with a status for the test runner."""
    try:
        talk(machine)
    except Failure as failure:
        machine.report(failure)
        sys.exit(1)
    finally:
        machine.kill()
    print("passed in %.1f seconds" % (time.monotonic() - machine.started))


# What a guest or a host says when something went wrong unnoticed.
COMPLAINTS = re.compile(
    rb"(BUG:|Oops|WARNING: CPU|WARNING: .*(Sanitizer|at )|kernel panic|Kernel panic|Call Trace|"
    rb"rcu: INFO: rcu_\w+ (detected|self-detected)|soft lockup|hard LOCKUP|"
    rb"clocksource: .*unstable|nobody cared|runtime error:|APIC calibration|FIRMWARE BUG|Firmware Bug)")


def no_complaints(machine):
    match = COMPLAINTS.search(machine.transcript) or COMPLAINTS.search(machine.errors)
    if match:
        text = machine.transcript + machine.errors
        start = text.find(match.group(0))
        raise Failure("complaint: %s" % text[start - 80:start + 300].decode(errors="replace"))
