#!/usr/bin/env python3
"""The command line: help, versions, every mistake one line, the terminal and
the exit status on every way out.

usage: test_cli.py errors|ways-out
"""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

from harness import Failure, GUESTS, Machine, PANIC, VIREO, VIREO_RUN, fetch, guest, initramfs

failures = []


def check(condition, message):
    if not condition:
        failures.append(message)
        print("FAILED: " + message)


def run(*words, **more):
    return subprocess.run([VIREO, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120, **more)


def error(words, *patterns):
    """One line on standard error which matches all patterns, status 1."""
    result = run(*words)
    text = result.stderr.decode(errors="replace")
    what = "vireo %s: status %d, %r" % (" ".join(words), result.returncode, text)
    check(result.returncode == 1, "status: " + what)
    check(result.stdout == b"", "says something on standard output: " + what)
    check(text.startswith("vireo: ") and text.count("\n") == 1 and text.endswith("\n"),
          "not one line: " + what)
    for pattern in patterns:
        check(re.search(pattern, text), "does not say %r: %s" % (pattern, what))


def errors():
    for words, pattern in ((["--help"], "vireo run"), (["run", "--help"], "--kernel FILE"),
                           (["doctor", "--help"], "vireo doctor"), (["--version"], r"^vireo \d"),
                           (["doctor"], "interp")):
        result = run(*words)
        check(result.returncode == 0 and result.stderr == b"" and
              re.search(pattern, result.stdout.decode()), "vireo %s: %r" % (words, result))
        check(max(map(len, result.stdout.decode().splitlines())) <= 200, "%s: long lines" % words)
    text = run("run", "--help").stdout.decode()
    for option in ("kernel", "initrd", "append", "firmware", "memory", "cpus", "engine", "serial",
                   "no-reboot", "deterministic", "log", "cpu", "device", "seed"):
        check("--" + option in text, "run --help does not tell of --" + option)

    fetch("cloud")
    kernel = guest("vmlinuz-cloud")
    with tempfile.TemporaryDirectory() as folder:
        def file(name, content):
            path = os.path.join(folder, name)
            with open(path, "wb") as f:
                f.write(content)
            return path

        noise = file("noise", bytes(range(256)) * 64)
        empty = file("empty", b"")
        short = file("short", b"\x7fELF")
        big = file("big", b"")
        os.truncate(big, 700 << 20)
        good = ["run", "--kernel", kernel]

        error([], "--help")
        error(["walk"], "walk", "run")
        error(["--frobnicate"], "frobnicate")
        error(["doctor", "now"], "now")
        error(["run"], "--kernel", "--firmware")
        error(["run", "--kernal", kernel], "unknown option", "--kernel")
        error(["run", "--frobnicate"], "--frobnicate", "--help")
        error(["run", "-k", kernel], "-k")
        error(["run", "--kernel"], "--kernel", "value")
        error([*good, "--vga", "cirrus"], "cirrus", "std or none")
        error([*good, "--display", "window"], "window", "none or terminal")
        error([*good, "--display", "terminal"], "needs a terminal")
        error([*good, "--display", "terminal", "--serial", "stdio"], "--serial none")
        error([*good, "--display", "terminal", "--vga", "none"], "--vga std")
        error([*good, "--screenshot", "shot.png", "--vga", "none"], "--vga std")
        error(["run", "--no-reboot=yes"], "--no-reboot")
        error(["run", "--kernel", folder + "/absent"], "absent", "No such file")
        error(["run", "--kernel", folder], "directory")
        error(["run", "--kernel", noise], "noise")
        error(["run", "--kernel", empty], "empty")
        error(["run", "--kernel", short], "short")
        error(["run", "--kernel", kernel, "--firmware", "bios"], "--kernel", "--firmware")
        error(["run", "--initrd", noise], "--kernel")
        error(["run", "--append", "x", "--firmware", "bios"], "--kernel")
        error(good + ["--initrd", folder + "/absent"], "absent", "No such file")
        error(good + ["--initrd", big], "--memory|memory")
        error(good + ["--memory", "4M"], "memory")
        for size in ("", "0", "1K", "x", "12Q", "-5M", "1e9", "99999999999999999999G", "0x", "64T"):
            error(good + ["--memory", size], "--memory", "512M")
        for number in ("", "0", "65", "two", "-1", "1.5"):
            error(good + ["--cpus", number], "--cpus", "1 to 64")
        error(good + ["--engine", "steam"], "steam", "interp")
        error(good + ["--cpu", "8086"], "8086", "max")
        error(good + ["--cpu", "max,+warp"], "warp")
        error(good + ["--cpu", "max,sse"], "sse")
        error(good + ["--serial", "pigeon"], "pigeon", "stdio")
        error(good + ["--serial", "file:"], "file:PATH")
        error(good + ["--serial", "file:" + folder + "/no/such"], "No such file")
        error(good + ["--serial", "socket:" + "x" * 200], "too long")
        error(good + ["--serial", "socket:" + noise], "exists")
        error(good + ["--log", "weather"], "weather")
        error(good + ["--log", "cpu=loud"], "loud")
        error(good + ["--device", "toaster"], "toaster", "debug-exit")
        error(good + ["--device", "debug-exit,colour=red"], "colour")
        error(good + ["--seed", "7"], "--deterministic")
        error(good + ["--deterministic", "--seed", "x"], "--seed")
        error(["run", "--firmware", folder + "/absent"], "absent", "No such file")
        error(["run", "--firmware", empty], "empty")
        error(["run", "--firmware", short], "short")

    # Nobody can read what we say: not a success.
    with open("/dev/full", "wb") as full:
        result = subprocess.run([VIREO, "--help"], stdout=full, stderr=subprocess.PIPE)
        check(result.returncode == 1 and b"standard output" in result.stderr, "help to a full disk")


def machine(*more):
    return Machine([("kernel", guest("vmlinuz-cloud")), ("initrd", initramfs()),
                    ("append", "console=ttyS0"), *more])


def guarded(name, talk):
    print("ways out: " + name)
    try:
        talk()
    except Failure as failure:
        check(False, "%s: %s" % (name, failure))


def started(m):
    m.expect(r"Linux version", 120)


def by_signal(number):
    def talk():
        m = machine()
        try:
            started(m)
            m.process.send_signal(number)
            m.exits(-number, 30)
            m.terminal_is_restored()
        except Failure as failure:
            m.report(failure)
            raise
        finally:
            m.kill()
    return talk


def by_ignored_signal():
    """nohup: what was ignored stays so, and the machine goes on."""
    m = Machine([("kernel", guest("vmlinuz-cloud")), ("initrd", initramfs()),
                 ("append", "console=ttyS0")], ignored=(signal.SIGHUP,))
    try:
        started(m)
        m.process.send_signal(signal.SIGHUP)
        m.expect(r"vireo:~# ", 300)
        m.send("\x01x")
        m.exits(0, 30)
    except Failure as failure:
        m.report(failure)
        raise
    finally:
        m.kill()


def by_escape():
    m = machine()
    try:
        started(m)
        m.send("\x01h")
        m.expect("this help", 30)
        m.send("\x01x")
        m.exits(0, 30)
        m.terminal_is_restored()
    except Failure as failure:
        m.report(failure)
        raise
    finally:
        m.kill()


def by_stop_and_continue():
    """SIGTSTP gives the terminal back and SIGCONT takes it again. A shell with
    job control is between, for a job without one is never stopped."""
    command = ["bash", "-mc", '"$0" "$@"; echo "job stopped"; stty -a; fg >/dev/null; '
               'echo "job ended $?"', *VIREO_RUN, "--kernel", guest("vmlinuz-cloud"), "--initrd",
               initramfs(), "--append", "console=ttyS0"]
    m = Machine([], command, errors_apart=False)
    try:
        started(m)
        with open("/proc/%d/task/%d/children" % (m.process.pid, m.process.pid)) as f:
            vireo = int(f.read().split()[0])
        os.kill(vireo, signal.SIGTSTP)
        m.expect("job stopped", 30)
        m.expect(r" icanon .* echo ", 30)
        m.expect(r"\[ +\d+\.\d+\] |Welcome", 60)
        modes = termios.tcgetattr(m.slave)
        if modes[3] & termios.ICANON:
            raise Failure("the terminal is not raw after SIGCONT")
        m.send("\x01x")
        m.expect("job ended 0", 30)
        m.exits(0, 30)
        m.terminal_is_restored()
    except Failure as failure:
        m.report(failure)
        raise
    finally:
        m.kill()


def by_crash():
    """A crash of the program restores the terminal and dies as a crash does."""
    m = machine()
    try:
        started(m)
        m.process.send_signal(signal.SIGSEGV)
        # A sanitizer may turn the signal into a status of its own.
        end = time.monotonic() + 60
        while m.process.poll() is None and time.monotonic() < end:
            m.rest(0.1)
        if m.process.returncode in (0, None):
            raise Failure("status %r after SIGSEGV" % m.process.returncode)
        m.terminal_is_restored()
    except Failure as failure:
        m.report(failure)
        raise
    finally:
        m.kill()


def with_pipes():
    """No terminal: bytes are passed on as they are, Ctrl-A included, and the
    end of the input is not the end of the machine."""
    p = subprocess.Popen([*VIREO_RUN, "--kernel", guest("vmlinuz-cloud"), "--initrd",
                          initramfs(), "--append", "console=ttyS0 quiet"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output = b""
    lines = [(b"vireo:~# ", b"read line\n"), (b"read line", b"a\x01xb\n"),
             (b"xb", b"echo length=${#line}; sleep 1; poweroff -f\n")]
    try:
        end = time.monotonic() + 300
        while True:
            if select.select([p.stdout], [], [], 1)[0]:
                data = os.read(p.stdout.fileno(), 65536)
                if not data:
                    break
                output += data
            if lines and lines[0][0] in output:
                time.sleep(1)
                p.stdin.write(lines.pop(0)[1])
                p.stdin.flush()
            elif not lines and not p.stdin.closed:
                p.stdin.close()
            if PANIC in output or time.monotonic() > end:
                raise Failure("does not end: %r" % output[-2000:])
        if p.wait(timeout=30) != 0 or b"length=4" not in output:
            raise Failure("status %d: %r" % (p.returncode, output[-2000:]))
    finally:
        p.kill()


def with_file_and_null():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "serial")
        p = subprocess.Popen([*VIREO_RUN, "--kernel", guest("vmlinuz-cloud"),
                              "--append", "console=ttyS0 panic=-1", "--no-reboot",
                              "--serial", "file:" + path], stdin=subprocess.DEVNULL)
        try:
            status = p.wait(timeout=400)
        finally:
            p.kill()
        with open(path, "rb") as f:
            text = f.read()
        # No root file system: Linux panics and asks for a reset.
        if status != 0 or b"Linux version" not in text or b"panic" not in text:
            raise Failure("status %r: %r" % (status, text[-2000:]))


def with_socket():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "line")
        p = subprocess.Popen([*VIREO_RUN, "--kernel", guest("vmlinuz-cloud"), "--initrd",
                              initramfs(), "--append", "console=ttyS0", "--serial",
                              "socket:" + path], stdin=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            while not os.path.exists(path):
                if time.monotonic() > end or p.poll() is not None:
                    raise Failure("no socket")
                time.sleep(0.05)
            text = b""
            for words, stop in ((b"", b"Linux version"), (b"", b"vireo:~# "),
                                (b"poweroff -f\n", b"Power down")):
                # Each time a new client: the line stays.
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                client.send(words)
                end = time.monotonic() + 300
                while stop not in text:
                    if PANIC in text or time.monotonic() > end:
                        raise Failure("no %r: %r" % (stop, text[-2000:]))
                    if select.select([client], [], [], 1)[0]:
                        data = client.recv(65536)
                        if not data:
                            break
                        text += data
                client.close()
            if p.wait(timeout=60) != 0:
                raise Failure("status %d" % p.returncode)
            if os.path.exists(path):
                raise Failure("the socket's file is left behind")
        finally:
            p.kill()


def ways_out():
    fetch("cloud", "busybox")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        guarded(signal.Signals(number).name, by_signal(number))
    guarded("SIGHUP, ignored", by_ignored_signal)
    guarded("Ctrl-A x", by_escape)
    guarded("SIGTSTP", by_stop_and_continue)
    guarded("SIGSEGV", by_crash)
    guarded("pipes", with_pipes)
    guarded("file", with_file_and_null)
    guarded("socket", with_socket)


assert GUESTS
{"errors": errors, "ways-out": ways_out}[sys.argv[1]]()
print("%d failures" % len(failures))
sys.exit(1 if failures else 0)
