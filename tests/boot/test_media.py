#!/usr/bin/env python3
"""What people boot from CD, and firmware of others.

usage: test_media.py rescue bios|uefi   a GRUB rescue ISO: its menu, a picture by
                                        GRUB, then Linux from the CD to a shell
       test_media.py memtest bios|uefi  memtest86+ passes its tests
       test_media.py ipxe               iPXE's ISO to its command line
       test_media.py u-boot x86|x86_64  U-Boot's ROM to its prompt

Text modes are compared as text, graphics modes as pictures. Skipped (77) where
OVMF is not installed.
"""

import hashlib
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

from harness import (PATIENCE, Failure, Machine, ROOT, dialogue, fetch, guest, initramfs,
                     no_complaints)
from screen import Glyphs, Shown, compare_picture, shoot

OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
MENU = ["Linux from this CD", "A picture", "Nothing"]
GRUB_CFG = """\
set timeout=-1
if [ $grub_platform = efi ]; then set console=ttyS0; else set console=tty0; fi
menuentry '%s' {
    linux /linux/vmlinuz quiet console=$console
    initrd /linux/initrd.gz
}
menuentry '%s' {
    insmod all_video
    insmod gfxterm
    insmod tga
    loadfont unicode
    set gfxmode=640x480x32
    set gfxpayload=text
    terminal_output gfxterm
    background_image /picture.tga
    clear
    sleep --interruptible 1000
    terminal_output console
}
menuentry '%s' {
    true
}
""" % tuple(MENU)


def fetch_media(*media):
    subprocess.run([os.path.join(ROOT, "scripts", "guest-media.sh"), *media], check=True)


def medium(name):
    return guest(os.path.join("media", name))


# ---- the rescue CD ----

PICTURE = b"".join(bytes(((x ^ y) & 255, (x * 3 + y) // 8 & 255, x * y // 1200 & 255))
                   for y in range(480) for x in range(640))


def picture_file():
    """TGA: uncompressed true colour, 24 bits, from the top, blue first."""
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 640, 480, 24, 0x20)
    pixels = bytearray(PICTURE)
    pixels[0::3], pixels[2::3] = PICTURE[2::3], PICTURE[0::3]
    return header + bytes(pixels)


def grub_iso(folder, files):
    """GRUB's own tool makes it: El Torito for BIOS and for UEFI."""
    tree, iso = os.path.join(folder, "tree"), os.path.join(folder, "grub.iso")
    for name, content in files.items():
        path = os.path.join(tree, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content)
    subprocess.run(["grub-mkrescue", "--locales=", "--themes=", "-o", iso, tree], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return iso


def content(path):
    with open(path, "rb") as f:
        return f.read()


def rescue_iso(folder):
    """The path, and what a file on it has as its sum."""
    fetch("amd64", "busybox")
    name = "initramfs-media-%d.cpio.gz" % os.getpid()
    data = random.randbytes(3 << 20)
    initrd = content(initramfs(name=name, layers=[guest(os.path.join("layers", "disk"))]))
    os.unlink(guest(name))
    iso = grub_iso(folder, {
        "boot/grub/grub.cfg": GRUB_CFG.encode(),
        "linux/vmlinuz": content(guest("vmlinuz-amd64")),
        "linux/initrd.gz": initrd,
        "picture.tga": picture_file(),
        "data.bin": data,
    })
    return iso, hashlib.md5(data).hexdigest()


def in_linux(command, checksum):
    """command(line, seconds) -> what it prints."""
    command("for n in $(cat /modules/order); do insmod /modules/$n.ko; done 2>/dev/null", 120)
    command("for n in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sr0 ] && break; sleep 1; done", 60)
    text = command("mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd && md5sum /cd/data.bin", 60)
    if checksum not in text:
        raise Failure("the CD has other bytes: %r" % text)


def menu_lines(text):
    """The entries between the box's borders, the selected one marked by GRUB."""
    return [line.strip(" │*") for line in text.split("\n") if line.strip().startswith("│")]


def rescue_bios(m, iso_sum, png):
    shown = Shown(m)
    shown.wait(r"GNU GRUB +version 2\.", 60)
    shown.wait("Nothing")
    text = shown.look()
    lines = [line for line in menu_lines(text) if line]
    if lines != MENU or "┌" + "─" * 76 + "┐" not in text:
        raise Failure("the menu is\n%s" % text)
    # The selected one is inverse, and the cursor keys move it.
    row = next(n for n, line in enumerate(text.split("\n")) if MENU[0] in line)
    if shown.screen.styles[row][10] == shown.screen.styles[row + 1][10]:
        raise Failure("no entry is selected")
    m.send("\x1b[B")
    shown.wait(r"\*%s" % MENU[1])
    if "*" + MENU[0] in shown.screen.text():
        raise Failure("two entries are selected:\n%s" % shown.screen.text())
    m.send("\r")
    compare_picture(m, png, "GRUB's picture", 640, 480, PICTURE, skip=16)
    m.send("\x1b")
    shown.wait("Nothing")
    m.send("\x1b[A" * 3 + "\r")
    shown.wait("vireo:~#", 120)

    def command(line, seconds):
        command.count += 1
        m.send("clear; %s; echo 'E''ND' %u\r" % (line, command.count))
        shown.wait("(?m)^END %u$" % command.count, seconds)
        return shown.screen.text()

    command.count = 0
    in_linux(command, iso_sum)
    m.send("poweroff -f\r")
    m.exits(0)


def rescue_uefi(m, iso_sum, png):
    # The firmware's console is the serial line, too.
    m.expect(r"GNU GRUB +version 2\.", 200)
    m.expect(MENU[-1], 60)
    m.rest(0.5)
    m.send("\x1b[B")
    m.expect(r"\*%s" % MENU[1], 30)
    m.send("\r")
    compare_picture(m, png, "GRUB's picture", 640, 480, PICTURE, seconds=60, skip=16)
    m.send("\x1b")
    m.expect(MENU[-1], 60)
    m.rest(0.5)
    m.send("\x1b[A\r")
    m.expect(r"vireo:~# ", 240)
    in_linux(lambda line, seconds: m.command_output(line, seconds)[0], iso_sum)
    text, _ = m.command_output("ls /sys/firmware/efi")
    if "runtime" not in text:
        raise Failure("Linux did not come by EFI: %r" % text)
    no_complaints(m)
    m.send("poweroff -f\r")
    m.exits(0)


def rescue(folder, firmware):
    iso, checksum = rescue_iso(folder)
    png = os.path.join(folder, "shot.png")
    options = [("firmware", firmware), ("cdrom", iso), ("memory", "512M"), ("cpus", "2"),
               ("screenshot", png)]
    if firmware == "bios":
        dialogue(Machine([*options, ("display", "terminal")]),
                 lambda m: rescue_bios(m, checksum, png))
    else:
        dialogue(Machine(options), lambda m: rescue_uefi(m, checksum, png))


# ---- memtest86+ ----

def passed(m, text_of):
    """Until tests 0 to 9 are done, without an error at any look. Test 10 looks
    whether bits fade, with minutes of waiting."""
    end = time.monotonic() + 240 * PATIENCE
    text = ""
    while time.monotonic() < end:
        text = text_of()
        errors = re.search(r"Errors: *(\d+)", text)
        if errors and int(errors.group(1)):
            raise Failure("errors:\n%s" % text)
        if errors and "Test #10" in text:
            return text
        m.rest(0.2)
    raise Failure("test 10 was not reached:\n%s" % text)


def memtest_bios(m, _png):
    shown = Shown(m)
    shown.wait(r"Memtest86\+ v6", 60)
    text = passed(m, shown.look)
    for words in ("Vireo Virtual Processor", "Memory  :   16MB", "Status: Testing"):
        if words not in text:
            raise Failure("no %r in\n%s" % (words, text))


# Fixed words that teach all letters which matter.
MEMTEST_WORDS = {(0, 6): "Memtest86+ v6.10", (1, 0): "CLK/Temp:", (2, 0): "L1 Cache:",
                 (3, 0): "L2 Cache:", (4, 0): "L3 Cache:", (5, 0): "Memory  :", (3, 30): "Test #",
                 (7, 0): "CPU:", (7, 44): "Time:", (8, 44): "Pass:", (8, 60): "Errors:"}


def memtest_uefi(m, png):
    """The same on a linear framebuffer: 25 lines in the middle of 640 x 480."""
    def look():
        width, height, pixels = shoot(m, png)
        if (width, height) != (640, 480):
            return ""
        glyphs = Glyphs(width, 400, pixels[3 * 640 * 40:], 8, 16)
        return glyphs.text() if glyphs.learn(MEMTEST_WORDS) else ""

    m.expect(r"Welcome to GRUB", 200)
    passed(m, look)


def memtest(folder, firmware):
    fetch_media("memtest")
    png = os.path.join(folder, "shot.png")
    if firmware == "bios":
        dialogue(Machine([("cdrom", medium("memtest86+x64.iso")), ("memory", "16M"),
                          ("display", "terminal")]), lambda m: memtest_bios(m, png))
        return
    # It is a kernel for boot loaders that know EFI, no program for the shell.
    iso = grub_iso(folder, {
        "boot/grub/grub.cfg": b"insmod all_video\nset gfxpayload=640x480x32\nlinux /memtest.efi\nboot\n",
        "memtest.efi": content(medium("memtest86+x64.efi")),
    })
    dialogue(Machine([("firmware", "uefi"), ("cdrom", iso), ("memory", "64M"),
                      ("screenshot", png)]), lambda m: memtest_uefi(m, png))


# ---- iPXE, U-Boot ----

def ipxe(m):
    shown = Shown(m)
    shown.wait(r"iPXE initialising devices\.\.\.ok", 60)
    shown.wait(r"iPXE 1\.\d\.\d\+\S+ -- Open Source Network Boot Firmware", 30)
    shown.wait("Press Ctrl-B for the iPXE command line", 30)
    m.send("\x02")
    shown.wait("iPXE>", 30)
    m.send("cpuid --ext 29 && echo long mode || echo none\r")
    shown.wait("(?m)^long mode", 30)
    m.send("\x01x")
    m.exits(0)


def u_boot(m, bits):
    """It waits for legacy IDE's BSY to clear, which is set where there are no such
    ports, as on any computer: a minute by its own reckoning, 25 to 40 seconds.
    With a network it would then try to boot from there."""
    m.expect(r"U-Boot 20\d\d\.", 60)
    m.expect(r"AHCI 0001\.0301 32 slots 6 ports", 60)
    m.expect(r"=> ", 400)
    m.send("scsi scan\r")
    m.expect(r"Vendor: ATA +Prod\.: VIREO HARDDISK", 60)
    m.expect(r"=> ", 30)
    m.send("scsi read 1000000 0 8\r")
    m.expect(r"8 blocks read: OK", 60)
    m.expect(r"=> ", 30)
    m.send("md.b 1000000 10\r")
    m.expect(r"01000000: " + " ".join("%02x" % n for n in range(16)), 30)
    m.expect(r"=> ", 30)  # md looks for a Ctrl-C after each line and eats what it finds
    m.send("reset\r")
    m.expect(r"U-Boot 20\d\d\.", 60)


def main():
    what, how = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    if how == "uefi" and not os.path.exists(OVMF):
        print("OVMF is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="vireo-media-") as folder:
        if what == "rescue":
            rescue(folder, how)
        elif what == "memtest":
            memtest(folder, how)
        elif what == "ipxe":
            fetch_media("ipxe")
            dialogue(Machine([("cdrom", medium("ipxe.iso")), ("memory", "64M"),
                              ("display", "terminal")]), ipxe)
        elif what == "u-boot":
            fetch_media("u-boot")
            disk = os.path.join(folder, "disk.img")
            with open(disk, "wb") as f:
                f.write(bytes(n & 255 for n in range(4096)))
                f.truncate(8 << 20)
            dialogue(Machine([("firmware", medium("u-boot-qemu-%s.rom" % how)), ("memory", "256M"),
                              ("disk", disk + ",readonly"), ("net", "none")]),
                     lambda m: u_boot(m, how))


main()
