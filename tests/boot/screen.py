"""A terminal just clever enough for what `--display terminal` writes: cursor
positions, colours, clearing, the alternate screen."""

import codecs
import fcntl
import re
import struct
import termios
import zlib

SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


def set_size(fd, columns, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Screen:
    def __init__(self, columns=80, rows=25):
        self.columns, self.rows = columns, rows
        self.alternate = False
        self.cursor_visible = True
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
        elif parameters != "?7":
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
