#!/usr/bin/env python3
"""A hand-written boot sector prints, loads the rest of itself, and goes through
the BIOS's modes; what the screen shows is compared as text, and as pictures
with what the modes must look like, pixel by pixel."""

import os
import subprocess
import tempfile
import time

from harness import Failure, Machine, dialogue
from screen import Shown, compare_picture, shoot

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


def six(n):
    return n << 2 | n >> 4


def palette(n):
    return six(n >> 2), six(63 ^ n >> 2), six(n & 63)


def compare(m, name, width, height, expected):
    """expected(x, y) -> (r, g, b)"""
    want = b"".join(bytes(expected(x, y)) for y in range(height) for x in range(width))
    compare_picture(m, PNG, name, width, height, want)


class Blocks(Shown):
    def blocks(self, name, width, height, expected, seconds=20):
        """The same picture as half blocks, drawn while it came about: every
        cell must end with the colours of nine pixels of its halves."""
        columns, rows = 80, 50
        if width * rows > height * columns:
            rows = height * columns // width
        else:
            columns = width * rows // height

        def mean(x, y):
            total = [0, 0, 0]
            for n in range(9):
                pixel = expected((x * 3 + n % 3) * width // (columns * 3),
                                 (y * 3 + n // 3) * height // (rows * 3))
                total = [t + p for t, p in zip(total, pixel)]
            return tuple(t // 9 for t in total)

        def style(ink, paper):
            words = ["0"]
            for colour, base in ((ink, 30), (paper, 40)):
                if colour in EGA:
                    n = EGA.index(colour)
                    words.append(str(base + (0, 4, 2, 6, 1, 5, 3, 7)[n & 7] + (60 if n & 8 else 0)))
                else:
                    words.append("%d;2;%d;%d;%d" % ((base + 8,) + colour))
            return ";".join(words)

        want = {(x, y): style(mean(x, 2 * y), mean(x, 2 * y + 1))
                for y in range(rows // 2) for x in range(columns)}
        end = time.monotonic() + seconds
        while True:
            self.look()
            wrong = [at for at, words in want.items() if self.screen.styles[at[1]][at[0]] != words or
                     self.screen.cells[at[1]][at[0]] != "▀"]
            if not wrong:
                return
            if time.monotonic() > end:
                x, y = wrong[0]
                raise Failure("%s: %d cells; cell (%d, %d) is %r in %s, not in %s" % (
                    name, len(wrong), x, y, self.screen.cells[y][x], self.screen.styles[y][x],
                    want[x, y]))
            self.machine.rest(0.2)


def talk(m):
    shown = Blocks(m)

    def picture(name, width, height, expected):
        compare(m, name, width, height, expected)
        shown.blocks(name, width, height, expected)

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
    width, height, pixels = shoot(m, PNG)
    if (width, height) != (720, 400) or pixels[3 * (720 * 399):3 * (720 * 399) + 3] != b"\0\xaa\0":
        raise Failure("the picture of text is %u x %u" % (width, height))

    m.send(" ")
    shown.wait("forty columns")
    width, height, _ = shoot(m, PNG)
    if (width, height) != (720, 400):
        raise Failure("40 columns are %u x %u" % (width, height))

    m.send(" ")
    cga = [BLACK, (85, 255, 255), (255, 85, 255), (255, 255, 255)]
    picture("mode 4", 640, 400,
            lambda x, y: cga[x // 2 % 4] if y // 2 == x // 4 else BLACK)

    def mode_12(x, y):
        if 564 <= x < 568:
            return EGA[y % 16]
        return EGA[x % 16] if x == y else BLACK
    m.send(" ")
    picture("mode 12H", 640, 480, mode_12)
    m.send(" ")
    picture("mode 13H", 640, 400, lambda x, y: palette((x // 2 ^ y // 2) & 255))

    def banks(x, y):
        n = (640 * y + x) & 0xFFFF
        return palette((n + (n >> 8)) & 255)
    m.send(" ")
    picture("mode 101H", 640, 480, banks)
    m.send(" ")
    picture("mode 112H", 640, 480, lambda x, y: ((x ^ y) & 255, y & 255, x & 255))

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
dialogue(MACHINE, talk)
