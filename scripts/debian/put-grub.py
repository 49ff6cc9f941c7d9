#!/usr/bin/env python3
"""Writes GRUB for BIOS to a disk image: boot.img into the MBR, core.img into
its partition. GRUB's own installer does the same, but wants devices.

usage: put-grub.py DISK BOOT.IMG CORE.IMG FIRST_SECTOR
"""
import sys

SECTOR = 512
CODE_BYTES = 440  # of an MBR: a disk's signature and partitions follow
# In boot.img: the sector of core.img; a jump that is taken where the BIOS passes
# a boot drive that is to be believed.
KERNEL_SECTOR, DRIVE_CHECK = 0x5C, 0x66
# In core.img's first sector, which loads the others: where and how many.
LIST_SECTOR, LIST_LENGTH = 0x1F4, 0x1FC

disk, boot, core = sys.argv[1:4]
first = int(sys.argv[4])
with open(boot, "rb") as f:
    boot = bytearray(f.read()[:CODE_BYTES])
with open(core, "rb") as f:
    core = bytearray(f.read())
core += bytes(-len(core) % SECTOR)
core[LIST_SECTOR:LIST_SECTOR + 8] = (first + 1).to_bytes(8, "little")
core[LIST_LENGTH:LIST_LENGTH + 2] = (len(core) // SECTOR - 1).to_bytes(2, "little")
boot[KERNEL_SECTOR:KERNEL_SECTOR + 8] = first.to_bytes(8, "little")
boot[DRIVE_CHECK:DRIVE_CHECK + 2] = b"\x90\x90"
with open(disk, "r+b") as f:
    f.write(boot)
    f.seek(first * SECTOR)
    f.write(core)
