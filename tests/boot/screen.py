"""A terminal just clever enough for what `--display terminal` writes: cursor
positions, colours, clearing, the alternate screen."""

import fcntl
import re
import struct
import termios

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
        """data: bytes. What ends in the middle of a sequence is kept."""
        text = self._rest + data.decode("utf-8", "surrogateescape")
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
