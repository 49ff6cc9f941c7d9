#!/usr/bin/env python3
"""The host code of guest idioms, kept as text, so that a change of the JIT shows
its effect in review.

usage: listing.py LISTING_PROGRAM [--engine NAME] [--write]

idioms.txt has the idioms, one a line, instructions with ; between them: of
64-bit code, or behind a line [32] or [16] of that. listing.txt has what the
engine made of each. Without --write the two are compared: status 0 or 1, and 77
where the engine makes no host code or the file is from another processor.
"""

import argparse
import difflib
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = os.path.join(HERE, "listing.txt")
SKIPPED = 77


def idioms():
    bits = 64
    with open(os.path.join(HERE, "idioms.txt"), encoding="utf-8") as lines:
        for line in lines:
            line = line.split("#")[0].strip()
            if line.startswith("["):
                bits = int(line.strip("[]"))
            elif line:
                yield bits, line


def assemble(folder):
    """A program of nasm for all, each between its size and its end."""
    source, blob = os.path.join(folder, "idioms.asm"), os.path.join(folder, "idioms.bin")
    with open(source, "w", encoding="utf-8") as out:
        for number, (bits, text) in enumerate(idioms()):
            out.write("bits %d\nidiom%d:\ndd %d, .end - .begin\n.begin:\n" % (bits, number, bits))
            out.write("%s\n.end:\n" % text.replace(";", "\n"))
    done = subprocess.run(["nasm", "-f", "bin", "-Ox", "-o", blob, source],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return blob


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--engine", default="jit")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([arguments.program, arguments.engine, assemble(folder)],
                              capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
        return done.returncode
    host, *parts = done.stdout.split("@")
    names = ["%d: %s" % idiom for idiom in idioms()]
    text = host + "".join("\n%s\n%s" % (name, part.split("\n", 1)[1])
                          for name, part in zip(names, parts))
    if arguments.write:
        with open(EXPECTED, "w", encoding="utf-8") as out:
            out.write(text)
        return 0
    if not os.path.exists(EXPECTED):
        print("there is no listing.txt yet: listing.py --write makes it")
        return SKIPPED
    with open(EXPECTED, encoding="utf-8") as kept:
        expected = kept.read()
    if expected.split("\n", 1)[0] != host.strip():
        print("listing.txt is of another processor (%s here)" % host.strip())
        return SKIPPED
    if expected == text:
        print("%d idioms as before" % len(names))
        return 0
    sys.stdout.writelines(difflib.unified_diff(expected.splitlines(True), text.splitlines(True),
                                               "listing.txt", "now", n=6))
    print("if that is what you want: %s" % " ".join([*sys.argv, "--write"]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
