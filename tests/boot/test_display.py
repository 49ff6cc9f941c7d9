#!/usr/bin/env python3
"""--display terminal: SeaBIOS' screen in a terminal, its boot menu by keyboard,
the terminal as it was afterwards, however the machine ends."""

import os
import signal
import subprocess
import sys
import tempfile

from harness import Failure, Machine, ROOT, dialogue, fetch, guest, initramfs
from screen import Screen, Shown, compare_picture, set_size


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


def mouse(m):
    """Ctrl-A m: what a terminal tells of its mouse reaches the BIOS's mouse calls."""
    SHOWN.wait("buttons 0 x 0000 y 0000")
    m.send("\x1b[<0;40;12M")  # not wanted yet: lost
    m.send("\x01m")
    m.expect(r"\x1b\[\?1003h\x1b\[\?1006h", 10)
    m.send("\x1b[<35;10;10M")  # here it is
    m.send("\x1b[<35;14;9M")
    SHOWN.wait("buttons 0 x 0020 y 0010")
    m.send("\x1b[<0;14;9M")
    SHOWN.wait("buttons 1 x 0020 y 0010")
    m.send("\x1b[<32;4;19M")  # further than one packet holds at once
    SHOWN.wait("buttons 1 x FFD0 y FF70")
    m.send("\x1b[<2;4;19M")
    SHOWN.wait("buttons 3 x FFD0 y FF70")
    m.send("\x1b[<0;4;19m\x1b[<2;4;19m")
    SHOWN.wait("buttons 0 x FFD0 y FF70")
    m.send("\x01m")
    m.expect(r"\x1b\[\?1003l", 10)
    m.send("\x1b[<35;80;25M")
    m.rest(0.5)
    SHOWN.wait("buttons 0 x FFD0 y FF70")
    m.send("\x01x")
    m.exits(0)
    after(m, SHOWN)


def bochs():
    """Linux' own driver finds the adapter and the monitor's EDID, sets its preferred
    mode, and shows what is written to the frame buffer."""
    width, height = 1280, 800
    want = b"".join(bytes((x & 255, y & 255, (x ^ y) & 255))
                    for y in range(height) for x in range(width))
    memory = bytearray(4 * width * height)
    memory[0::4], memory[1::4], memory[2::4] = want[2::3], want[1::3], want[0::3]
    fetch("amd64", "busybox")
    name = "initramfs-bochs-%d.cpio.gz" % os.getpid()
    with tempfile.TemporaryDirectory(prefix="vireo-display-") as folder:
        layer, png = os.path.join(folder, "layer"), os.path.join(folder, "shot.png")
        subprocess.run([os.path.join(ROOT, "scripts", "guest-modules.py"),
                        guest("unpacked/linux-image-amd64"), layer, "bochs"], check=True)
        with open(os.path.join(layer, "picture"), "wb") as f:
            f.write(memory)
        image = initramfs(name=name, layers=[layer])

        def talk(m):
            m.expect(r"vireo:~# ", 120)
            m.command_output("for n in $(cat /modules/order); do insmod /modules/$n.ko; done")
            text, _ = m.command_output("dmesg | grep drm; cd /sys/class/drm/card0-Virtual-1; "
                                       "cat modes; strings edid; cd")
            for words in ("Found EDID data blob", "\n1280x800\n1920x1080\n", "\nVireo\n"):
                if words not in text:
                    raise Failure("no %r in %r" % (words, text))
            m.command_output("cat /picture >/dev/fb0")
            # The console's cursor is in its first line.
            compare_picture(m, png, "the frame buffer", width, height, want, skip=16)
            m.send("poweroff -f\n")
            m.exits(0)

        try:
            dialogue(Machine([("kernel", guest("vmlinuz-amd64")), ("initrd", image),
                              ("append", "console=ttyS0 quiet"), ("memory", "256M"),
                              ("screenshot", png)]), talk)
        finally:
            os.unlink(image)


WAYS = {"menu": menu, "killed": killed, "crash": crash, "stopped": stopped, "linux": linux,
        "mouse": mouse}
OPTIONS = [("firmware", "bios"), ("memory", "64M")]
if sys.argv[1] == "bochs":
    bochs()
    sys.exit(0)
if sys.argv[1] == "linux":
    fetch("cloud", "busybox")
    OPTIONS = [("kernel", guest("vmlinuz-cloud")), ("initrd", initramfs()), ("memory", "256M"),
               ("append", "console=tty0")]
FOLDER = tempfile.TemporaryDirectory(prefix="vireo-display-")
if sys.argv[1] == "mouse":
    DISK = os.path.join(FOLDER.name, "mouse.img")
    subprocess.run(["nasm", "-f", "bin", "-o", DISK,
                    os.path.join(ROOT, "tests", "boot", "guest", "mouse.asm")], check=True)
    os.truncate(DISK, 1 << 20)
    OPTIONS += [("disk", DISK + ",readonly")]
MACHINE, SHOWN = start(OPTIONS)
dialogue(MACHINE, WAYS[sys.argv[1]])
