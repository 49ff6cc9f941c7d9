#!/usr/bin/env python3
"""Machines that boot from a user network.

usage: test_netboot.py ipxe MODEL FIRMWARE  iPXE, the card's ROM, runs a script that
                                            comes by TFTP
       test_netboot.py grub MODEL FIRMWARE  GRUB comes by TFTP; with the firmware's
                                            network it then asks for an address itself,
                                            and has files by TFTP and HTTP
       test_netboot.py http                 OVMF's HTTP boot of GRUB, from a boot entry

MODEL: virtio or e1000; FIRMWARE: bios or uefi. GRUB is loaded by iPXE, which has
the card's UNDI or SNP for it afterwards; but OVMF has drivers of its own for
virtio, and uses those. Skipped (77) where a package is missing.
"""

import hashlib
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

from harness import Failure
from test_net import SKIPPED, Server, run

MAC = "02:00:00:00:00:07"
FILE_BYTES = 4 << 20
GREETING = b"a file of the host's\n"
GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

# What the firmware has still to write of GRUB's welcome comes meanwhile. The address
# that came with the boot is forgotten first.
GRUB_CFG = """\
sleep 1
serial --unit=0 --speed=115200
terminal_output serial
net_del_addr %(card)s
echo without:
net_ls_addr
net_bootp
echo with:
net_ls_addr
cat (tftp,10.0.2.2)/greeting
sha256sum (http,10.0.2.2:%(port)d)/file
echo GRUB is done
halt
"""
# What GRUB calls a platform, its first card, and the files it needs.
GRUBS = {"bios": ("i386-pc-pxe", "pxe", ["pxe"]), "uefi": ("x86_64-efi", "efinet0", ["efinet"])}
MODULES = ["net", "tftp", "http", "serial", "terminal", "cat", "echo", "hashsum", "gcry_sha256",
           "halt", "sleep"]


def needs(path, package):
    if not os.path.exists(path):
        print("skipped: %s is not installed" % package)
        sys.exit(SKIPPED)


def needs_grub(firmware):
    needs("/usr/lib/grub/" + {"bios": "i386-pc", "uefi": "x86_64-efi"}[firmware],
          {"bios": "grub-pc-bin", "uefi": "grub-efi-amd64-bin"}[firmware])
    if firmware == "uefi":
        needs("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf")


def ipxe(model, firmware):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "boot.ipxe"), "w", encoding="ascii") as f:
            f.write("#!ipxe\necho script of ${net0/ip} by ${net0/chip} ${net0/mac}\n")

        def talk(machine):
            machine.expect(r"script of 10\.0\.2\.15 by [-\w]+ " + MAC, 120)

        run([("firmware", firmware), ("memory", "256M"), ("no-reboot", None),
             ("net", "user,model=%s,tftp=%s,bootfile=boot.ipxe,mac=%s" % (model, folder, MAC))],
            talk)


# ---- GRUB ----

def make_grub(folder, firmware, port, digest):
    """Puts GRUB and a file for it into the folder; returns what its words must
    look like."""
    platform, card, modules = GRUBS[firmware]
    config = os.path.join(folder, "grub.cfg")
    with open(config, "w", encoding="ascii") as f:
        f.write(GRUB_CFG % {"card": card, "port": port})
    with open(os.path.join(folder, "greeting"), "wb") as f:
        f.write(GREETING)
    subprocess.run(["grub-mkimage", "-O", platform, "-p", "/none", "-c", config, "-o",
                    os.path.join(folder, "grub.efi"), *modules, *MODULES], check=True)
    address = "%s:dhcp %s 10.0.2.15" % (card, MAC)
    return [r"without:(?:(?!%s).)*with:\s+" % card + re.escape(address), re.escape(GREETING.decode().strip()),
            re.escape(digest), r"GRUB is done"]


def served_file():
    data = random.Random(7).randbytes(FILE_BYTES)
    return {"file": data}, hashlib.sha256(data).hexdigest()


def grub(model, firmware):
    needs_grub(firmware)
    files, digest = served_file()
    server = Server(files)
    with tempfile.TemporaryDirectory() as folder:
        words = make_grub(folder, firmware, server.port, digest)

        def talk(machine):
            if (model, firmware) == ("virtio", "uefi"):
                machine.expect(r"Start PXE over IPv4", 120)
            else:
                machine.expect(r"iPXE 1\.", 120)
            for word in words:
                machine.expect(word, 120)

        net = "user,model=%s,tftp=%s,bootfile=grub.efi,mac=%s" % (model, folder, MAC)
        if (model, firmware) == ("virtio", "uefi"):
            net += ",rom=none"
        run([("firmware", firmware), ("memory", "256M"), ("no-reboot", None), ("net", net)], talk)


# ---- OVMF's HTTP boot ----

def node(kind, subkind, data):
    """Of a device path (UEFI 2.10, section 10.3)."""
    return struct.pack("<BBH", kind, subkind, 4 + len(data)) + data


def boot_entry(uri):
    """EFI_LOAD_OPTION (UEFI 2.10, section 3.1.3) of the card at 00:03.0."""
    path = (node(2, 1, struct.pack("<II", 0x0A0341D0, 0)) +      # ACPI PNP0A03, 0
            node(1, 1, bytes((0, 3))) +                          # PCI function, device
            node(3, 11, bytes.fromhex(MAC.replace(":", "")).ljust(32, b"\0") + b"\1") +
            node(3, 12, bytes(23)) +                             # IPv4, by DHCP
            node(3, 24, uri.encode()) +
            node(0x7F, 0xFF, b""))
    return struct.pack("<IH", 1, len(path)) + "h\0".encode("utf-16-le") + path


def http():
    """A machine without a network, which OVMF would try for minutes, keeps the entry;
    the next one boots from it."""
    needs_grub("uefi")
    files, digest = served_file()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(files, folder)
        words = make_grub(folder, "uefi", server.port, digest)
        entry = boot_entry("http://10.0.2.2:%d/grub.efi" % server.port)

        def keep(machine):
            machine.expect(r"Press .*?ESC.*?seconds to skip", 120)
            machine.send("\x1b")
            for name, value in (("Boot0042", entry), ("BootNext", b"\x42\0")):
                machine.expect(r"Shell> ", 60)
                machine.send("setvar %s -guid %s -bs -rt -nv =H%s\r"
                             % (name, GLOBAL_VARIABLE, value.hex()))
            machine.expect(r"Shell> ", 60)
            machine.send("reset -s\r")
            machine.exits(0)

        def talk(machine):
            machine.expect(r"URI: http://10\.0\.2\.2:", 120)
            for word in words:
                machine.expect(word, 120)

        options = [("firmware", "uefi"), ("memory", "256M"),
                   ("uefi-vars", os.path.join(folder, "vars.fd"))]
        run(options, keep)
        run([*options, ("net", "user,model=virtio,rom=none,tftp=%s,mac=%s" % (folder, MAC))], talk)


if __name__ == "__main__":
    needs("/usr/lib/ipxe/qemu/efi-e1000.rom", "ipxe-qemu")
    {"ipxe": ipxe, "grub": grub, "http": http}[sys.argv[1]](*sys.argv[2:])
    print("passed")
