#!/usr/bin/env python3
"""Debian 12 from its disk (scripts/guest-debian.sh) on AHCI: firmware, GRUB,
its own kernel and initramfs, systemd, to the login prompt on the serial line.

usage: test_debian.py bios|uefi CPUS [copy] [nvme|virtio]

The root file system is due for a check, which the guest makes at boot; after a
clean shutdown the host checks it once more. copy: 256 MiB go from a second disk
to a file on a third, and the checksums are compared, by the guest after it has
forgotten the file, and by the host. nvme, virtio: the root is there, the other two
disks are on the other two buses, and a folder is shared both ways.
"""

import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile

from harness import Failure, Machine, ROOT, dialogue, guest, no_complaints

# Where scripts/guest-debian.sh puts the root file system.
ROOT_OFFSET = 69632 * 512
COPY_BYTES = 256 << 20
SMALL = 1 << 20
PATIENT = 400


def tool(name, *words, good=(0,)):
    """Runs one of e2fsprogs; returns all that it says."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    done = subprocess.run([name, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PATH": path, "LC_ALL": "C"}, check=False)
    text = done.stdout.decode(errors="replace")
    if done.returncode not in good:
        raise Failure("%s %s: status %d: %s" % (name, " ".join(words), done.returncode, text[-2000:]))
    return text


def debian():
    """The disk, made where it is missing."""
    subprocess.run([os.path.join(ROOT, "scripts", "guest-debian.sh")], check=True)
    return guest("debian.img")


def copied(image, folder):
    """A disk of one's own, whose root is due for a check."""
    disk = os.path.join(folder, "disk.img")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, disk], check=True)
    # Mounted more often than is allowed without a check.
    tool("tune2fs", "-c", "1", "-C", "2", "%s?offset=%d" % (disk, ROOT_OFFSET))
    return disk


def random_disk(path):
    """256 MiB that do not repeat within a megabyte, and are told apart after it."""
    random.seed(12)
    block, checksum = bytearray(random.randbytes(SMALL)), hashlib.sha256()
    with open(path, "wb") as f:
        for number in range(COPY_BYTES // SMALL):
            for at in range(0, SMALL, 4096):
                block[at:at + 4] = number.to_bytes(4, "little")
            checksum.update(block)
            f.write(block)
    return checksum.hexdigest()


def output(m, line, seconds=120):
    text, status = m.command_output(line, seconds)
    if status != 0:
        raise Failure("%r ends with status %d: %s" % (line, status, text))
    # What bash tells the terminal about pasting.
    return re.sub(r"\x1b\[\?2004[hl]", "", text).strip()


def expect_output(m, line, pattern, seconds=120):
    text = output(m, line, seconds)
    if not re.search(pattern, text):
        raise Failure("%r does not say %r but %r" % (line, pattern, text))


# Buses of the root, and of the disks that are copied from and to; the root's
# partition and these disks, as Linux calls them. On AHCI by their ports: who is
# sda is a matter of who answers first.
PORT = "/dev/disk/by-path/pci-0000:00:1f.2-ata-%d"
DISKS = {
    "ahci": ("ahci", "ahci", "ahci", "/dev/sd[a-c]3", PORT % 2, PORT % 3),
    "nvme": ("nvme", "ahci", "virtio", "/dev/nvme0n1p3", "/dev/sda", "/dev/vda"),
    "virtio": ("virtio", "nvme", "ahci", "/dev/vda3", "/dev/nvme0n1", "/dev/sda"),
}


def copy(m, checksum, source, target):
    """A second disk's bytes into a file on a third."""
    output(m, "mkfs.ext4 -q %s && mount %s /mnt" % (target, target))
    output(m, "cp %s /mnt/copy && umount /mnt" % source, 300)
    # Mounted again, so that it comes from the disk.
    output(m, "mount %s /mnt" % target)
    for name in (source, "/mnt/copy"):
        expect_output(m, "sha256sum " + name, checksum, 300)
    output(m, "umount /mnt && e2fsck -fn " + target, 300)


def sum_of(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def use_folder(m, folder):
    """A file of the host's, which the guest reads, and one of the guest's."""
    with open(os.path.join(folder, "host's"), "wb") as f:
        f.write(random.randbytes(8 * SMALL))
    output(m, "mount -t 9p -o trans=virtio,version=9p2000.L folder /mnt")
    expect_output(m, "sha256sum \"/mnt/host's\"", sum_of(os.path.join(folder, "host's")))
    output(m, "mkdir /mnt/new && head -c %d /dev/urandom > /mnt/new/guest" % (8 * SMALL))
    said = output(m, "sha256sum /mnt/new/guest && umount /mnt")
    if sum_of(os.path.join(folder, "new", "guest")) not in said:
        raise Failure("the guest's file is another one to the host")


def talk_with(firmware, cpus, checksum, disks, folder):
    def talk(m):
        m.expect(r"Linux version 6\.1\.", PATIENT)
        # The initramfs checks the root before it is mounted.
        m.expect(r"vireo-root.*check forced", PATIENT)
        m.expect(r"vireo login: ", PATIENT)
        m.send("root\n")
        m.expect(r"Password: ", 120)
        m.send("vireo\n")
        m.expect(r"root@vireo:~# ", 120)
        expect_output(m, "nproc", r"^%s$" % cpus)
        expect_output(m, "findmnt -no SOURCE,FSTYPE,OPTIONS /", r"^%s +ext4 +rw\b" % disks[3])
        expect_output(m, "test -d /sys/firmware/efi && echo uefi || echo bios", "^%s$" % firmware)
        expect_output(m, "cat /sys/bus/pci/drivers/ahci/0000:00:1f.2/class", "^0x010601$")
        expect_output(m, "systemctl is-system-running --wait || systemctl --failed", r"^running$", 200)
        # Files of firmware that Debian has in packages of their own are no matter.
        expect_output(m, "dmesg --level=emerg,alert,crit,err | grep -vi firmware || true", r"^$")
        if checksum:
            copy(m, checksum, *disks[4:])
        if folder:
            use_folder(m, folder)
        m.send("poweroff\n")
        m.expect(r"reboot: Power down", PATIENT)
        m.exits(0, 120)
        no_complaints(m)
    return talk


def test(firmware, cpus, wants_copy, bus, folder):
    image, disks, shared = debian(), DISKS[bus], None
    root = copied(image, folder)
    options = [("memory", "1G"), ("cpus", cpus), ("firmware", firmware),
               ("disk", "%s,bus=%s" % (root, disks[0]))]
    checksum = None
    if firmware == "uefi":
        options.append(("uefi-vars", os.path.join(folder, "vars.fd")))
    if wants_copy:
        source, target = (os.path.join(folder, name) for name in ("source.img", "target.img"))
        checksum = random_disk(source)
        with open(target, "wb") as f:
            f.truncate(COPY_BYTES + (64 << 20))
        options += [("disk", "%s,bus=%s" % both) for both in zip((source, target), disks[1:3])]
    if bus != "ahci":
        shared = os.path.join(folder, "shared")
        os.mkdir(shared)
        options.append(("share", shared + ",tag=folder"))
    dialogue(Machine(options), talk_with(firmware, cpus, checksum, disks, shared))
    text = tool("e2fsck", "-fn", "%s?offset=%d" % (root, ROOT_OFFSET))
    if "recovering journal" in text or "not cleanly" in text:
        raise Failure("the shutdown was not clean: %s" % text)
    if wants_copy:
        tool("e2fsck", "-fn", target)
        tool("debugfs", "-R", "dump /copy %s/copy" % folder, target)
        if sum_of(os.path.join(folder, "copy")) != checksum:
            raise Failure("the copy is another one to the host")


# Not /tmp, which may be memory: it is 2 GiB.
with tempfile.TemporaryDirectory(dir=os.path.join(ROOT, "build")) as directory:
    try:
        test(sys.argv[1], sys.argv[2], "copy" in sys.argv[3:],
             ([word for word in sys.argv[3:] if word in DISKS] or ["ahci"])[0], directory)
    except Failure as failure:
        print("FAILED: %s" % failure)
        sys.exit(1)
