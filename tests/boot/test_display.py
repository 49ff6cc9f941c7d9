#!/usr/bin/env python3
"""--display terminal: SeaBIOS' screen in a terminal, its boot menu by keyboard,
the terminal as it was afterwards, however the machine ends."""

import os
import signal
import sys

from harness import Failure, Machine, dialogue, fetch, guest, initramfs
from screen import Screen, Shown, set_size


def start(options):
    m = Machine([*options, ("display", "terminal")])
    return m, Shown(m)


def after(m, shown):
    shown.look()
    if shown.screen.alternate or not shown.screen.cursor_visible:
        raise Failure("the terminal was not given back: %r" % m.transcript[-80:])
    if shown.screen.unknown:
        raise Failure("sequences that no terminal was asked for: %r" % shown.screen.unknown[:5])
    m.terminal_is_restored()


def menu(m):
    shown = SHOWN
    shown.wait(r"SeaBIOS \(version ")
    if not shown.screen.alternate:
        raise Failure("not on the alternate screen")
    shown.wait("Press ESC for boot menu")
    m.send("\x1b")
    shown.wait("Select boot device")
    m.rest(2)  # SeaBIOS takes no second ESC for 1.5 seconds
    m.send("\x1b")
    shown.wait("No bootable device")
    # A smaller terminal shows the part with the cursor.
    set_size(m.master, 40, 6)
    shown.screen = Screen(40, 6)
    shown.wait("No bootable device")
    m.send("\x01h")
    shown.wait("Ctrl-A x: leave")
    m.send("\x01x")
    m.exits(0)
    after(m, shown)


def killed(m):
    SHOWN.wait(r"SeaBIOS \(version ")
    m.process.send_signal(signal.SIGTERM)
    m.exits(-signal.SIGTERM)
    after(m, SHOWN)


def crash(m):
    SHOWN.wait(r"SeaBIOS \(version ")
    m.process.send_signal(signal.SIGSEGV)
    m.exits(-signal.SIGSEGV)
    after(m, SHOWN)


def stopped(m):
    """SIGTSTP gives the terminal back; then all is drawn anew. (Without a shell
    above it a process goes on at once.)"""
    SHOWN.wait(r"SeaBIOS \(version ")
    os.kill(m.process.pid, signal.SIGTSTP)
    m.expect(r"\x1b\[\?1049l", 10)
    m.expect(r"\x1b\[\?1049h", 10)
    SHOWN.fed, SHOWN.screen = m.seen, Screen()
    SHOWN.wait(r"SeaBIOS \(version ")
    m.send("\x01x")
    m.exits(0)
    after(m, SHOWN)


def linux(m):
    """A kernel that is started directly has a text screen and a keyboard."""
    SHOWN.wait("vireo:~#", 120)
    m.send("echo $((6 * 7))'<>|\\_'\r")
    SHOWN.wait(r"42<>\|\\_")
    m.send("echo wrong\x1b[1;5D\x1b[Hx\x7f\x1b[F\x7f\x7f\x7f\x7f\x7f'ri''ght'\r")
    SHOWN.wait("right")
    m.send("\x03poweroff -f\r")
    m.exits(0)
    after(m, SHOWN)


WAYS = {"menu": menu, "killed": killed, "crash": crash, "stopped": stopped, "linux": linux}
OPTIONS = [("firmware", "bios"), ("memory", "64M")]
if sys.argv[1] == "linux":
    fetch("cloud", "busybox")
    OPTIONS = [("kernel", guest("vmlinuz-cloud")), ("initrd", initramfs()), ("memory", "256M"),
               ("append", "console=tty0")]
MACHINE, SHOWN = start(OPTIONS)
dialogue(MACHINE, WAYS[sys.argv[1]])
