#!/usr/bin/env python3
"""A hand-written boot sector prints, loads the rest of itself, and goes through
the BIOS's modes; what the screen shows is compared as text, and as pictures
with what the modes must look like, pixel by pixel."""

import os
import signal
import subprocess
import tempfile
import time

from harness import Failure, Machine, dialogue
from screen import Screen, read_png, set_size

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = tempfile.TemporaryDirectory()
DISK = os.path.join(FOLDER.name, "screen.img")
PNG = os.path.join(FOLDER.name, "shot.png")

# The 16 colours of text modes and of mode 12H.
EGA = [(r, g, b) for r, g, b in (
    (0, 0, 0), (0, 0, 170), (0, 170, 0), (0, 170, 170), (170, 0, 0), (170, 0, 170), (170, 85, 0),
    (170, 170, 170), (85, 85, 85), (85, 85, 255), (85, 255, 85), (85, 255, 255), (255, 85, 85),
    (255, 85, 255), (255, 255, 85), (255, 255, 255))]
BLACK = EGA[0]


def shoot(m):
    if os.path.exists(PNG):
        os.unlink(PNG)
    m.process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + 20
    while not os.path.exists(PNG):
        if time.monotonic() > end:
            raise Failure("no screenshot came")
        m.rest(0.05)
    return read_png(PNG)


def six(n):
    return n << 2 | n >> 4


def palette(n):
    return six(n >> 2), six(63 ^ n >> 2), six(n & 63)


def compare(m, name, width, height, expected, seconds=40):
    """expected(x, y) -> (r, g, b)"""
    want = b"".join(bytes(expected(x, y)) for y in range(height) for x in range(width))
    end = time.monotonic() + seconds
    while True:
        got_width, got_height, got = shoot(m)
        if (got_width, got_height) == (width, height) and got == want:
            return
        if time.monotonic() > end:
            break
        m.rest(0.2)
    if (got_width, got_height) != (width, height):
        raise Failure("%s: %u x %u, not %u x %u" % (name, got_width, got_height, width, height))
    at = next(i for i in range(len(want)) if want[i] != got[i]) // 3
    raise Failure("%s: pixel (%u, %u) is %r, not %r" % (
        name, at % width, at // width, tuple(got[3 * at:3 * at + 3]),
        tuple(want[3 * at:3 * at + 3])))


class Shown:
    def __init__(self, m):
        self.m, self.fed, self.screen = m, 0, Screen()

    def wait(self, words, seconds=40):
        end = time.monotonic() + seconds
        while True:
            new = self.m.transcript[self.fed:]
            while new and (new[-1] & 0xC0) == 0x80 or new and new[-1] >= 0xC0:
                new = new[:-1]  # a character that may be cut in two
            self.fed += len(new)
            self.screen.feed(new)
            if words in self.screen.text():
                return
            if time.monotonic() > end:
                raise Failure("no %r on the screen, but:\n%s" % (words, self.screen.text()))
            self.m.rest(0.1)


def talk(m):
    shown = Shown(m)
    shown.wait("second line")
    shown.wait("┌──┐ ░▒▓")
    lines = shown.screen.text().split("\n")
    if lines[0] != "Hello from INT 10H" or lines[1] != "second line":
        raise Failure("the text is elsewhere: %r" % lines[:3])
    if lines[3] != " " * 5 + "═" * 20 or shown.screen.styles[3][5] != "0;93;44":
        raise Failure("row 3: %r in %r" % (lines[3], shown.screen.styles[3][5]))
    if lines[5][:9] != "┌──┐ ░▒▓█" or shown.screen.styles[5][0] != "0;97;41":
        raise Failure("row 5: %r in %r" % (lines[5], shown.screen.styles[5][0]))
    if shown.screen.styles[24][0] != "0;30;42":
        raise Failure("row 24 is %r" % shown.screen.styles[24][0])
    if (shown.screen.x, shown.screen.y) != (12, 10) or not shown.screen.cursor_visible:
        raise Failure("the cursor is at %d, %d" % (shown.screen.x, shown.screen.y))
    width, height, pixels = shoot(m)
    if (width, height) != (720, 400) or pixels[3 * (720 * 399):3 * (720 * 399) + 3] != b"\0\xaa\0":
        raise Failure("the picture of text is %u x %u" % (width, height))

    m.send(" ")
    shown.wait("forty columns")
    width, height, _ = shoot(m)
    if (width, height) != (720, 400):
        raise Failure("40 columns are %u x %u" % (width, height))

    m.send(" ")
    cga = [BLACK, (85, 255, 255), (255, 85, 255), (255, 255, 255)]
    compare(m, "mode 4", 640, 400,
            lambda x, y: cga[x // 2 % 4] if y // 2 == x // 4 else BLACK)

    m.send(" ")

    def mode_12(x, y):
        if 564 <= x < 568:
            return EGA[y % 16]
        return EGA[x % 16] if x == y else BLACK
    compare(m, "mode 12H", 640, 480, mode_12)

    m.send(" ")
    compare(m, "mode 13H", 640, 400, lambda x, y: palette((x // 2 ^ y // 2) & 255))

    m.send(" ")

    def banks(x, y):
        n = (640 * y + x) & 0xFFFF
        return palette((n + (n >> 8)) & 255)
    compare(m, "mode 101H", 640, 480, banks)

    m.send(" ")
    compare(m, "mode 112H", 640, 480, lambda x, y: ((x ^ y) & 255, y & 255, x & 255))

    m.send(" ")
    shown.wait("back in text mode")
    m.send("\x01x")
    m.exits(0)
    m.terminal_is_restored()


subprocess.run(["nasm", "-f", "bin", "-o", DISK, os.path.join(HERE, "guest", "screen.asm")],
               check=True)
with open(DISK, "ab") as image:
    image.truncate(1 << 20)
MACHINE = Machine([("disk", DISK + ",readonly"), ("memory", "64M"), ("display", "terminal"),
                   ("screenshot", PNG)])
set_size(MACHINE.master, 80, 25)
dialogue(MACHINE, talk)
