#!/usr/bin/env python3
"""Runs flat system tests: tests/guest/flat/NAME.asm, ROM images without an
operating system.

    run_flat.py [--vireo PROGRAM] [--engine NAME] [--lockstep] [--at-once]
                [--peer qemu|bochs] [FILE.asm ...]

Each is assembled with nasm and run on Vireo, or by hand on a peer for a third
opinion. A test passes when it prints PASS on port 0xE9 and writes 0 to the
debug-exit port; with --lockstep when the engine and the interpreter do not
differ up to there. With --at-once the JIT translates all code before it is
first executed: most of a test runs but once. Lines in a test's source say what
else it wants:

    ; vireo: OPTIONS          more options for Vireo
    ; qemu: OPTIONS           more options for QEMU
    ; bochs: KEY=VALUE        another model= or cpus= for Bochs
    ; status: N               another exit status (3: triple fault)
    ; says: REGEX             must be in Vireo's output; may be repeated

Where a peer is known not to do what the manual says, the source leaves the
check out under %ifndef PEER_QEMU, PEER_BOCHS or PEER (both), and says why.
"""
import argparse
import glob
import os
import re
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FLAT = os.path.join(HERE, "flat")
TIMEOUT_S = 250  # slow under sanitizers and load
PEER_TIMEOUT_S = 60
BASE = 0x10000


BOCHS = """romimage: file={image}, address=0xffff0000
megs: 128
cpu: model={model}, count={cpus}, ips=50000000, reset_on_triple_fault=0
port_e9_hack: enabled=1
display_library: rfb, options="timeout=0"
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
boot: disk
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
plugin_ctrl: biosdev=0, speaker=0, gameport=0, parallel=0, extfpuirq=0
config_interface: textconfig
"""


def wishes(path):
    found = {"vireo": [], "qemu": [], "bochs": {}, "status": 1, "says": []}
    with open(path, encoding="utf-8") as source:
        for line in source:
            match = re.match(r"; (vireo|qemu|bochs|status|says): (.*)", line)
            if not match:
                continue
            key, value = match.groups()
            if key in ("vireo", "qemu"):
                found[key] += shlex.split(value)
            elif key == "bochs":
                found[key].update(item.split("=", 1) for item in value.split())
            elif key == "status":
                found[key] = int(value)
            else:
                found[key].append(value)
    return found


def command(arguments, image, want):
    if arguments.peer == "qemu":
        return [
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max,vendor=GenuineIntel", "-m", "128",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios", image,
            "-display", "none", "-debugcon", "stdio", "-no-reboot",
        ] + want["qemu"]
    if arguments.peer == "bochs":
        settings = {"model": "corei7_skylake_x", "cpus": 1, **want["bochs"]}
        with open(image + ".rc", "w", encoding="utf-8") as rc:
            rc.write(BOCHS.format(image=image, log=image + ".log", **settings))
        return ["bochs", "-q", "-f", image + ".rc"]
    return [
        arguments.vireo, "lockstep" if arguments.lockstep else "run", "--firmware", image,
        "--device", "debug-exit", "--serial", "none", "--memory", "128M", "--no-reboot", "--net", "none",
        "--engine", arguments.engine, "--log", "firmware=debug",
    ] + (["--jit-threshold", "0"] if arguments.at_once else []) + want["vireo"]


def assemble(arguments, path, image, more=()):
    peer = ["-DPEER", f"-DPEER_{arguments.peer.upper()}"] if arguments.peer else []
    return subprocess.run(["nasm", "-f", "bin", "-Wall", "-Werror", "-I", FLAT + "/", path, "-o",
                           image, *peer, *more], capture_output=True, text=True, check=False)


def where(arguments, path, image, output):
    """The source line of the check that failed, from the assembler's listing."""
    found = re.search(r"FAIL.* at (?:0x)?([0-9A-F]{8,16})", output)
    if not found:
        return ""
    target = int(found.group(1), 16) - BASE - 1
    listing = image + ".lst"
    assemble(arguments, path, os.devnull, ["-l", listing])
    with open(listing, encoding="utf-8", errors="replace") as lines:
        text = lines.read()
    source = current = ""
    for line in text.splitlines():
        parts = re.match(r" *(\d+) (?:([0-9A-F]{8}) \S+)? *(<\d+>)?(.*)", line)
        if not parts:
            continue
        if not parts[3] and parts[4].strip():
            current = f"line {parts[1]}: {parts[4].strip()}"
        if parts[2]:
            if int(parts[2], 16) > target:
                break
            source = current
    return source


def run(arguments, path, folder):
    """None, or what is wrong."""
    want = wishes(path)
    image = os.path.join(folder, os.path.basename(path) + ".bin")
    made = assemble(arguments, path, image)
    if made.returncode:
        return made.stderr
    try:
        done = subprocess.run(command(arguments, image, want), input="c\nquit\n",
                              capture_output=True, text=True, errors="replace",
                              timeout=PEER_TIMEOUT_S if arguments.peer else TIMEOUT_S,
                              check=False)
    except subprocess.TimeoutExpired as late:
        return f"no end after {late.timeout} s\n{late.stdout}{late.stderr}"
    output = done.stdout + done.stderr
    if arguments.peer:
        if arguments.peer == "bochs":
            output = re.sub(r"(?s).*<bochs:1> c|^\(0\).*|^=====.*", "", output, flags=re.M)
        return None if "PASS" in output else f"status {done.returncode}\n{output}{where(arguments, path, image, output)}"
    if arguments.lockstep:
        same = done.returncode == 0 and "no difference" in output
        return None if same else f"status {done.returncode}\n{output}"
    if done.returncode != want["status"]:
        return f"status {done.returncode}, not {want['status']}\n{output}{where(arguments, path, image, output)}"
    for pattern in want["says"] or ["PASS"]:
        if not re.search(pattern, output):
            return f"no {pattern!r} in\n{output}"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vireo", default="build/vireo")
    parser.add_argument("--engine", default=os.environ.get("ENGINE", "auto"))
    parser.add_argument("--lockstep", action="store_true")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--peer", choices=["qemu", "bochs"])
    parser.add_argument("tests", nargs="*")
    arguments = parser.parse_args()
    failed = 0

    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.tests or sorted(glob.glob(os.path.join(FLAT, "*.asm"))):
            name = os.path.basename(path)
            if arguments.peer and wishes(path)["status"] != 1:
                print(f"{name}: only for Vireo")
                continue
            problem = run(arguments, path, folder)
            if problem is None:
                print(f"{name}: pass")
            else:
                print(f"{name}: FAIL: {problem}")
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
