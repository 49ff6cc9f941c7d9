"""Writes a FAT16 image: a boot volume for UEFI firmware, without tools.

fat_image(path, {"EFI/BOOT/BOOTX64.EFI": bytes, "startup.nsh": bytes}, megabytes)

Names are 8.3 and upper case. The volume fills the image; there is no partition
table. Microsoft's FAT specification 1.03, section numbers in comments.
"""

import struct

SECTOR = 512
SECTORS_A_CLUSTER = 8
CLUSTER = SECTOR * SECTORS_A_CLUSTER
ROOT_ENTRIES = 512
RESERVED = 1
LAST = 0xFFFF


def short_name(name):
    stem, _, extension = name.upper().partition(".")
    if len(stem) > 8 or len(extension) > 3:
        raise ValueError("'%s' is no 8.3 name" % name)
    return stem.ljust(8).encode() + extension.ljust(3).encode()


def directory_entry(name, attribute, cluster, size):
    # section 6
    return struct.pack("<11sBBBHHHHHHHI", name, attribute, 0, 0, 0, 0x5A21, 0x5A21, 0, 0, 0x5A21,
                       cluster, size)


class Volume:
    def __init__(self, megabytes):
        self.sectors = megabytes * 2048
        self.fat_sectors = -(-(self.sectors // SECTORS_A_CLUSTER + 2) * 2 // SECTOR)
        self.fat = [0xFFF8, LAST]
        self.data = bytearray()

    def add(self, content):
        """Puts content into clusters; returns the first, 0 for nothing."""
        count = -(-len(content) // CLUSTER)
        if not count:
            return 0
        first = len(self.fat)
        self.fat += [first + n + 1 for n in range(count - 1)] + [LAST]
        self.data += content + bytes(count * CLUSTER - len(content))
        return first

    def tree(self, entries, own=None, parent=0):
        """Entries of a directory; own: the cluster it will be in, None: the root."""
        out = b""
        if own is not None:
            out += directory_entry(b".".ljust(11), 0x10, own, 0)
            out += directory_entry(b"..".ljust(11), 0x10, parent, 0)
        for name, content in sorted(entries.items()):
            if isinstance(content, dict):
                cluster = self.add(bytes(CLUSTER))  # one cluster a directory
                inner = self.tree(content, cluster, own or 0)
                at = (cluster - 2) * CLUSTER
                self.data[at:at + len(inner)] = inner
                out += directory_entry(short_name(name), 0x10, cluster, 0)
            else:
                out += directory_entry(short_name(name), 0x20, self.add(content), len(content))
        return out

    def write(self, path, entries):
        root = self.tree(entries)
        if len(root) > ROOT_ENTRIES * 32:
            raise ValueError("too many files")
        start = RESERVED + 2 * self.fat_sectors + ROOT_ENTRIES * 32 // SECTOR
        if (start * SECTOR) + len(self.data) > self.sectors * SECTOR:
            raise ValueError("the volume is too small")
        boot = bytearray(SECTOR)  # section 3
        struct.pack_into("<3s8sHBHBHHBHHHII", boot, 0, b"\xeb\x3c\x90", b"VIREO   ", SECTOR,
                         SECTORS_A_CLUSTER, RESERVED, 2, ROOT_ENTRIES, 0, 0xF8, self.fat_sectors,
                         63, 16, 0, self.sectors)
        struct.pack_into("<BBBI11s8s", boot, 36, 0x80, 0, 0x29, 0x56495245, b"VIREO      ",
                         b"FAT16   ")
        boot[510:] = b"\x55\xaa"
        fat = struct.pack("<%dH" % len(self.fat), *self.fat)
        fat += bytes(self.fat_sectors * SECTOR - len(fat))
        with open(path, "wb") as f:
            f.write(boot + fat + fat + root + bytes(ROOT_ENTRIES * 32 - len(root)))
            f.write(self.data)
            f.truncate(self.sectors * SECTOR)


def fat_image(path, files, megabytes):
    entries = {}
    for name, content in files.items():
        *folders, last = name.split("/")
        place = entries
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = content
    Volume(megabytes).write(path, entries)
