"""What a guest shows: a terminal just clever enough for what `--display terminal`
writes (cursor positions, colours, clearing, the alternate screen), and the
pictures of --screenshot."""

import codecs
import fcntl
import os
import re
import signal
import struct
import termios
import time
import zlib

from harness import PATIENCE, Failure

SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


def set_size(fd, columns, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Screen:
    def __init__(self, columns=80, rows=25):
        self.columns, self.rows = columns, rows
        self.alternate = False
        self.cursor_visible = True
        self.mouse = False  # is told of its motion
        self.x = self.y = 0
        self.style = "0"
        self.unknown = []
        self._clear()
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def _clear(self):
        self.cells = [[" "] * self.columns for _ in range(self.rows)]
        self.styles = [["0"] * self.columns for _ in range(self.rows)]

    def _sequence(self, parameters, final):
        if final == "H":
            row, column = (parameters.split(";") + ["1"])[:2] if parameters else ("1", "1")
            self.y, self.x = int(row) - 1, int(column) - 1
        elif final == "J":
            self._clear()
        elif final == "m":
            self.style = parameters or "0"
        elif parameters == "?1049":
            self.alternate = final == "h"
        elif parameters == "?25":
            self.cursor_visible = final == "h"
        elif parameters == "?1003":
            self.mouse = final == "h"
        elif parameters not in ("?7", "?1006"):
            self.unknown.append(parameters + final)

    def feed(self, data):
        """data: bytes. What ends in the middle of a character or sequence is kept."""
        text = self._rest + self._decoder.decode(data)
        i = 0
        while i < len(text):
            if text[i] == "\x1b":
                match = SEQUENCE.match(text, i)
                if not match:
                    if len(text) - i < 24:
                        break
                    self.unknown.append(text[i:i + 8])
                    i += 1
                    continue
                self._sequence(match.group(1), match.group(2))
                i = match.end()
                continue
            if text[i] >= " " and self.y < self.rows and self.x < self.columns:
                self.cells[self.y][self.x] = text[i]
                self.styles[self.y][self.x] = self.style
                self.x += 1
            i += 1
        self._rest = text[i:]

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.cells)


class Shown:
    """A machine's terminal, looked at through a Screen."""

    def __init__(self, machine, columns=80, rows=25):
        self.machine, self.fed = machine, 0
        self.screen = Screen(columns, rows)
        set_size(machine.master, columns, rows)

    def look(self):
        new = self.machine.transcript[self.fed:]
        self.fed += len(new)
        self.screen.feed(new)
        return self.screen.text()

    def wait(self, pattern, seconds=40):
        """Until the screen's text has what the regular expression says."""
        end = time.monotonic() + seconds * PATIENCE
        while True:
            match = re.search(pattern, self.look())
            if match:
                return match
            if self.machine.process.poll() is not None or time.monotonic() > end:
                raise Failure("no %r on the screen, but:\n%s" % (pattern, self.screen.text()))
            self.machine.rest(0.1)


def shoot(machine, path, seconds=20):
    """A screenshot as it is now: (width, height, bytes of RGB)."""
    if os.path.exists(path):
        os.unlink(path)
    machine.process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + seconds * PATIENCE
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise Failure("no screenshot came")
        machine.rest(0.05)
    return read_png(path)


def compare_picture(machine, path, name, width, height, want, seconds=40, skip=0):
    """Waits for a picture of RGB bytes; skip: of the first lines, for a cursor."""
    end = time.monotonic() + seconds * PATIENCE
    skip *= 3 * width
    while True:
        got_width, got_height, got = shoot(machine, path)
        if (got_width, got_height) == (width, height) and got[skip:] == want[skip:]:
            return
        if time.monotonic() > end:
            break
        machine.rest(0.2)
    if (got_width, got_height) != (width, height):
        raise Failure("%s: %u x %u, not %u x %u" % (name, got_width, got_height, width, height))
    at = next(i for i in range(skip, len(want)) if want[i] != got[i]) // 3
    raise Failure("%s: pixel (%u, %u) is %r, not %r" % (
        name, at % width, at // width, tuple(got[3 * at:3 * at + 3]),
        tuple(want[3 * at:3 * at + 3])))


def read_png(path):
    """(width, height, bytes of RGB) of a PNG of 8-bit RGB without interlacing."""
    with open(path, "rb") as f:
        data = f.read()
    at, parts, width, height = 8, b"", 0, 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour, body[12]) == (8, 2, 0)
        elif kind == b"IDAT":
            parts += body
        at += 12 + length
    raw, stride = zlib.decompress(parts), width * 3
    before, out = bytes(stride), bytearray()
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        if kind == 2:
            line = bytearray((a + b) & 255 for a, b in zip(line, before))
        elif kind:
            for i in range(stride):
                a, b = line[i - 3] if i >= 3 else 0, before[i]
                c = before[i - 3] if i >= 3 else 0
                if kind == 1:
                    guess = a
                elif kind == 3:
                    guess = (a + b) // 2
                else:
                    guess = min((abs(b - c), 0, a), (abs(a - c), 1, b),
                                (abs(a + b - 2 * c), 2, c))[2]
                line[i] = (line[i] + guess) & 255
        before = bytes(line)
        out += before
    return width, height, bytes(out)


class Glyphs:
    """Text in a picture: cells of one size, letters that known words teach."""

    def __init__(self, width, height, pixels, cell_width, cell_height):
        self.columns, self.rows = width // cell_width, height // cell_height
        self.letters = {}
        self.cells = []
        for row in range(self.rows):
            line = []
            for column in range(self.columns):
                at = (row * cell_height * width + column * cell_width) * 3
                cell = [pixels[at + y * width * 3:at + y * width * 3 + cell_width * 3]
                        for y in range(cell_height)]
                paper = cell[0][:3]
                line.append(bytes(row[x:x + 3] != paper for row in cell
                                  for x in range(0, cell_width * 3, 3)))
            self.cells.append(line)

    def learn(self, known):
        """known: {(row, column): text}. False where one letter would have two
        shapes, or two letters one: those words are not there."""
        shapes = {}
        for (row, column), text in known.items():
            for n, letter in enumerate(text):
                cell = self.cells[row][column + n]
                if shapes.setdefault(cell, letter) != letter:
                    return False
        self.letters = shapes
        return len(set(shapes.values())) == len(shapes)

    def text(self):
        return "\n".join("".join(self.letters.get(cell, "?") for cell in line).rstrip()
                         for line in self.cells)
