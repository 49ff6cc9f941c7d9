#!/usr/bin/env python3
"""Disks on AHCI and NVMe, CDs on AHCI.

usage: test_disk.py sector      SeaBIOS boots a 512-byte sector, which reads and
                                writes its disk through INT 13H
       test_disk.py nvme-sector, virtio-sector
                                the same from NVMe or virtio, first in order
                                whatever the bus
       test_disk.py cd          SeaBIOS boots the sector from an ISO image
       test_disk.py options     readonly, snapshot, serial numbers, wrong input
       test_disk.py full        the host has no more room: Linux hears of it
       test_disk.py linux CPUS [msi|ioapic|8259]
                                Linux finds two disks and a CD, copies from one to
                                the other with checksums; the last word is how
                                AHCI's interrupt arrives (msi)
       test_disk.py qcow2 CPUS  the sector from a qcow2 image, and Linux with two of
                                them, one compressed below another
       test_disk.py kills COUNT Linux writes to a qcow2 image and flushes; at so many
                                points of it the machine could be killed, and at
                                the last it is: nothing that was flushed is lost
       test_disk.py nvme CPUS [msi|ioapic|8259]
                                Linux copies from AHCI to NVMe and back, discards,
                                reads the temperature
"""

import hashlib
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile

from harness import (ENGINE, Failure, Machine, ROOT, VIREO, VIREO_RUN, fetch, guest, initramfs,
                     no_complaints, vireo_command)

# How Linux is told, and what /proc/interrupts says then.
DELIVERY = {
    "msi": ("", "PCI-MSI"),
    "ioapic": (" pci=nomsi", "IO-APIC"),
    "8259": (" pci=nomsi noapic", "XT-PIC"),
}
FAR_LBA = 100000
SECTORS = 120000


def words_sum(data):
    return sum(struct.unpack("<%dH" % (len(data) // 2), data)) & 0xffff


def sector_image(path):
    """A sparse disk with the boot sector and numbers that it knows the sum of."""
    code = path + ".bin"
    subprocess.run(["nasm", "-f", "bin", "-o", code,
                    os.path.join(ROOT, "tests", "boot", "guest", "sector.asm")], check=True)
    with open(code, "rb") as f:
        sector = bytearray(f.read())
    os.unlink(code)
    random.seed(5)
    near, far = random.randbytes(8 * 512), random.randbytes(32 * 512)
    struct.pack_into("<HH", sector, 506, words_sum(near), words_sum(far))
    with open(path, "wb") as f:
        f.write(sector + near)
        f.seek(FAR_LBA * 512)
        f.write(far)
        f.truncate(SECTORS * 512)


def cd_image(path):
    """The least that boots by El Torito without emulation: a boot record, its
    catalog, and the sector (ECMA-119 8.2; El Torito 1.0, 2.0)."""
    disk = path + ".disk"
    sector_image(disk)
    with open(disk, "rb") as f:
        sector = f.read(512)
    os.unlink(disk)
    catalog = bytearray(2048)
    catalog[0:4] = b"\x01\0\0\0"
    catalog[30:32] = b"\x55\xaa"
    struct.pack_into("<H", catalog, 28, -sum(struct.unpack("<16H", catalog[:32])) & 0xffff)
    struct.pack_into("<BBHBBHI", catalog, 32, 0x88, 0, 0, 0, 0, 1, 20)
    with open(path, "wb") as f:
        f.seek(16 * 2048)
        f.write((b"\x01CD001\x01").ljust(2048, b"\0"))
        f.write((b"\0CD001\x01" + b"EL TORITO SPECIFICATION".ljust(64, b"\0") +
                 struct.pack("<I", 19)).ljust(2048, b"\0"))
        f.write((b"\xffCD001\x01").ljust(2048, b"\0"))
        f.write(catalog)
        f.write(sector.ljust(2048, b"\0"))
        f.truncate(1 << 20)


def boots(image, says=r"sectors are right", status=0x21, more=()):
    def talk(m):
        m.expect(r"boot sector\r*\n", 60)
        m.expect(says, 60)
        m.exits(status)

    disk = [("disk", image)] if image else []
    m = Machine([*disk, ("memory", "64M"), ("device", "debug-exit"), *more])
    try:
        talk(m)
    except Failure as failure:
        m.report(failure)
        sys.exit(1)
    finally:
        m.kill()


def refused(options, words):
    r = subprocess.run([*VIREO_RUN, *options], stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=60)
    text = r.stderr.decode()
    if r.returncode != 1 or words not in text or text.count("\n") != 1:
        print("FAILED: %r: status %d, said %r, not one line with %r"
              % (options, r.returncode, text, words))
        sys.exit(1)


def content(path):
    with open(path, "rb") as f:
        return f.read()


def options(folder):
    image = os.path.join(folder, "disk, with comma.img")
    name = image.replace(",", ",,")
    sector_image(image)
    before = content(image)
    boots(name + ",snapshot")
    if content(image) != before:
        print("FAILED: snapshot wrote to the image")
        sys.exit(1)
    boots(name + ",readonly", says=r"INT 13H failed", status=0x41)
    if content(image) != before:
        print("FAILED: readonly wrote to the image")
        sys.exit(1)
    boots(name + ",cache=unsafe,serial=ABC,bus=ahci")
    if content(image)[FAR_LBA * 512:FAR_LBA * 512 + 2] != b"\xef\xbe":
        print("FAILED: what the guest wrote is not in the image")
        sys.exit(1)
    sector_image(image)
    boots(name, more=[("deterministic", None)])
    # Both engines see the same disk at the same times.
    sector_image(image)
    if ENGINE != "interp":
        r = subprocess.run([VIREO, "lockstep", name, "--memory", "64M", "--device", "debug-exit"],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        if r.returncode != 0 or b"sectors are right" not in r.stdout or \
                content(image)[FAR_LBA * 512:FAR_LBA * 512 + 2] == b"\xef\xbe":
            print("FAILED: lockstep: status %d, %r %r" % (r.returncode, r.stdout, r.stderr))
            sys.exit(1)

    empty = os.path.join(folder, "empty.img")
    open(empty, "wb").close()
    refused([os.path.join(folder, "none.img")], "No such file")
    refused([empty], "empty")
    refused([folder], "give a file or a block device")
    refused(["--disk", name + ",cache=fast"], "writeback, none or unsafe")
    refused(["--disk", name + ",bus=floppy"], "one of ahci")
    refused(["--disk", name + ",serial=" + "x" * 21], "serial number")
    refused(["--disk", image], "has no option ' with comma.img'")
    refused(["--disk", ",readonly"], "name of an image")
    refused(["--cdrom", empty], "empty")
    refused([name, name], "used by another machine")
    refused([name] * 7, "too many")


# ---- Linux ----

DISK_MIB = 64


def expect_output(m, command, words, status=0, seconds=120):
    text, code = m.command_output(command, seconds)
    if code != status or not all(word in text for word in words):
        raise Failure("%r: status %d, said %r; wanted %d and %r"
                      % (command, code, text, status, words))
    return text


def load_modules(m):
    m.expect(r"Welcome to Linux", 240)
    m.expect(r"# ", 60)
    m.command_output("for n in $(cat /modules/order); do insmod /modules/$n.ko; done", 120)
    m.command_output("for n in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sda ] && break; sleep 1; done")


def full(folder):
    """Past 300 MiB of a file the host refuses writes (EFBIG, as ENOSPC would come);
    then the file is cut short, and what was behind that cannot be read."""
    fetch("amd64", "busybox")
    image = os.path.join(folder, "disk.img")
    with open(image, "wb") as f:
        f.truncate(512 << 20)
    name = "initramfs-full-%s.cpio.gz" % os.getpid()
    options = [("kernel", guest("vmlinuz-amd64")), ("disk", image), ("append", "console=ttyS0 quiet"),
               ("initrd", initramfs(name=name, layers=[guest(os.path.join("layers", "disk"))]))]

    def talk(m):
        load_modules(m)
        expect_output(m, "dd if=/dev/zero of=/dev/sda bs=1M count=1 seek=10 oflag=direct", [])
        text, status = m.command_output("dd if=/dev/urandom of=/dev/sda bs=1M count=1 seek=400 "
                                        "oflag=direct", 200)
        if status == 0 or "error" not in text.lower():
            raise Failure("a write that the host refused went well: %r" % text)
        text, _ = m.command_output("dmesg")
        if "I/O error, dev sda" not in text:
            raise Failure("Linux did not hear of the error")
        # The rest works on, and what failed reads as it was.
        expect_output(m, "dd if=/dev/sda bs=1M count=1 skip=400 iflag=direct | md5sum",
                      [hashlib.md5(bytes(1 << 20)).hexdigest()])
        os.truncate(image, 200 << 20)
        text, status = m.command_output("dd if=/dev/sda of=/dev/null bs=4k count=1 skip=76800 "
                                        "iflag=direct", 200)
        if status == 0 or "error" not in text.lower():
            raise Failure("a read that the host could not do went well: %r" % text)
        text, _ = m.command_output("dmesg | tail -20")
        if "UNC" not in text or "I/O error, dev sda, sector 614400" not in text:
            raise Failure("Linux was not told which sector: %r" % text)
        os.truncate(image, 512 << 20)
        expect_output(m, "dd if=/dev/sda of=/dev/null bs=4k count=1 skip=76800 iflag=direct", [])
        expect_output(m, "echo all is well | dd of=/dev/sda bs=512 conv=sync oflag=direct", [])
        m.send("poweroff -f\n")
        m.exits(0, 120)
        for words in (b"disk.img: write of", b"File too large", b"disk.img: read of"):
            if words not in m.errors:
                raise Failure("%r is not in the log" % words)

    m = Machine(options, command=["sh", "-c", "trap '' XFSZ; ulimit -f 614400; exec \"$@\"", "sh",
                                  *vireo_command(options)])
    try:
        talk(m)
    except Failure as failure:
        m.report(failure)
        sys.exit(1)
    finally:
        m.kill()
        os.unlink(guest(name))
    if not content(image).startswith(b"all is well\n"):
        print("FAILED: the last write is not in the image")
        sys.exit(1)


def img(*words):
    r = subprocess.run([VIREO, "img", *words], stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=300)
    if r.returncode:
        print("FAILED: vireo img %s: status %d, %r %r" % (" ".join(words), r.returncode, r.stdout, r.stderr))
        sys.exit(1)


def qcow2_sector(folder):
    """A small backing file below a larger image, booted and written to."""
    raw, base, top = (os.path.join(folder, name) for name in ("sector.img", "base.qcow2", "top.qcow2"))
    sector_image(raw)
    img("convert", "-q", "-c", "-O", "qcow2", raw, base)
    img("create", "-q", "-f", "qcow2", "-b", base, "-o", "cluster_size=4K", top)
    boots(top + ",snapshot,format=qcow2")
    boots(top, more=[("deterministic", None)])
    img("check", top)
    img("convert", "-q", top, raw)
    if content(raw)[FAR_LBA * 512:FAR_LBA * 512 + 2] != b"\xef\xbe":
        print("FAILED: what the guest wrote is not in the image")
        sys.exit(1)


def to_qcow2(folder, images):
    """The first as a compressed image below an empty one, the second from nothing."""
    base, first, second = (os.path.join(folder, name) for name in ("base", "a.qcow2", "b.qcow2"))
    img("convert", "-q", "-c", "-O", "qcow2", images[0], base)
    img("create", "-q", "-f", "qcow2", "-b", base, first)
    img("create", "-q", "-f", "qcow2", second, "%dM" % DISK_MIB)
    return [first, second, images[2]]


def linux(folder, cpus, words, says, qcow2=False):
    fetch("amd64", "busybox")
    layer = guest(os.path.join("layers", "disk"))
    images = [os.path.join(folder, name) for name in ("a.img", "b.img", "cd.iso")]
    data = random.randbytes(DISK_MIB << 20)
    cd = random.randbytes(5 << 20)
    for path, content_of in zip(images, (data, bytes(DISK_MIB << 20), cd)):
        with open(path, "wb") as f:
            f.write(content_of)
    raw = images
    if qcow2:
        images = to_qcow2(folder, images)

    def talk(m):
        m.expect(r"Welcome to Linux", 240)
        m.expect(r"# ", 60)
        # Some need code that is built in.
        m.command_output("for n in $(cat /modules/order); do insmod /modules/$n.ko; done", 120)
        expect_output(m, "for n in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sr0 ] && [ -b /dev/sdb ] "
                      "&& break; sleep 1; done; ls /dev/sd? /dev/sr?",
                      ["/dev/sda", "/dev/sdb", "/dev/sr0"])
        text, _ = m.command_output("dmesg | grep -E 'ahci|ata[0-9]|sd |sr '", 60)
        for words in ("AHCI 0001.0301", "6 ports 6 Gbps", "NCQ (depth 32)", "VIREO HARDDISK", "VIREO DVD-ROM"):
            if words not in text:
                raise Failure("%r is not in %r" % (words, text))
        sums = [hashlib.md5(x).hexdigest() for x in (data, cd)]
        # Which is which: Linux probes them side by side.
        expect_output(m, "for d in sda sdb; do grep -q VIREO-0000 /sys/block/$d/device/vpd_pg80 "
                      "&& A=/dev/$d || B=/dev/$d; done; echo $A $B", ["/dev/sda", "/dev/sdb"])
        expect_output(m, "md5sum /dev/sr0", [sums[1]], seconds=240)
        expect_output(m, "dd if=$A of=$B bs=1M conv=fsync && "
                      "echo 3 >/proc/sys/vm/drop_caches && md5sum $B", [sums[0]], seconds=400)
        # Part of it again, past the guest's cache; looked at from here, too.
        expect_output(m, "dd if=/dev/zero of=$B bs=4k count=100 seek=7 oflag=direct && "
                      "dd if=$B bs=512 skip=56 count=800 iflag=direct | md5sum",
                      [hashlib.md5(bytes(409600)).hexdigest()])
        expect_output(m, "grep ahci /proc/interrupts", [says])
        m.send("poweroff -f\n")
        m.exits(0, 120)
        no_complaints(m)

    m = Machine([("kernel", guest("vmlinuz-amd64")),
                 ("initrd", initramfs(name="initramfs-disk-%s.cpio.gz" % os.getpid(),
                                      layers=[layer])),
                 ("append", "console=ttyS0 quiet panic=-1" + words), ("cpus", cpus),
                 ("disk", images[0]),
                 ("disk", images[1]), ("cdrom", images[2])])
    try:
        talk(m)
    except Failure as failure:
        m.report(failure)
        sys.exit(1)
    finally:
        m.kill()
        os.unlink(guest("initramfs-disk-%s.cpio.gz" % os.getpid()))
    expected = bytearray(data)
    expected[7 * 4096:107 * 4096] = bytes(409600)
    if qcow2:
        for image, to in zip(images[:2], raw):
            img("check", image)
            img("convert", "-q", image, to)
    if content(raw[1]) != expected or content(raw[0]) != data:
        print("FAILED: the second image is not what the guest wrote")
        sys.exit(1)


# Three jobs; each block says who wrote it when, and is told of when it is flushed.
KILL_BLOCKS = 2000
KILL_JOBS = r"""w() { n=0; while :; do n=$((n+1)); echo "r$n j$1 " | dd of=/dev/sda bs=4k \
seek=$((n*7919%BLOCKS*4+$1)) conv=sync,notrunc,fsync 2>/dev/null; echo "K$1:$n."; done; }
w 0 & w 1 & w 2 &
""".replace("BLOCKS", str(KILL_BLOCKS))


def check_killed(image, flushed, raw):
    """Both programs find no damage, and what was told to be flushed is there, or
    what the same job has written to that block later."""
    for words in ([VIREO, "img", "check", image], ["qemu-img", "check", image]):
        r = subprocess.run(words, capture_output=True, check=False)
        if r.returncode not in (0, 3):  # 3: leaks
            raise Failure("%r: status %d, %r" % (words, r.returncode, r.stdout[-2000:]))
    img("convert", "-q", "-t", "unsafe", image, raw)
    with open(raw, "rb") as source:
        for (job, index), number in flushed.items():
            source.seek((index * 4 + job) * 4096)
            match = re.match(rb"r(\d+) j(\d) \n\0", source.read(64))
            if not match or int(match[1]) < number or int(match[2]) != job:
                raise Failure("job %d was told that write %d is on the disk, and it is not" % (job, number))


def kills(folder, count):
    """A machine that is stopped leaves in its image what one that is killed leaves: a
    copy of it is looked at, and the machine goes on. At the end it is killed."""
    fetch("amd64", "busybox")
    image, copy, raw = (os.path.join(folder, name) for name in ("disk.qcow2", "copy.qcow2", "raw"))
    img("create", "-q", "-f", "qcow2", "-o", random.choice(("cluster_size=64K", "cluster_size=4K",
                                                            "cluster_size=16K,extended_l2=on")), image, "64M")
    name = "initramfs-kills-%s.cpio.gz" % os.getpid()
    m = Machine([("kernel", guest("vmlinuz-amd64")), ("append", "console=ttyS0 quiet"), ("disk", image),
                 ("initrd", initramfs(name=name, layers=[guest(os.path.join("layers", "disk"))]))])
    flushed = {}

    def note():
        for match in re.finditer(rb"K(\d):(\d+)\.", m.transcript[m.seen:]):
            number = int(match[2])
            flushed[int(match[1]), number * 7919 % KILL_BLOCKS] = number

    try:
        load_modules(m)
        m.send(KILL_JOBS)
        m.expect(r"K0:3\.", 60)
        for _ in range(count):
            m.rest(random.random() * .2)
            note()
            os.kill(m.process.pid, signal.SIGSTOP)
            os.waitpid(m.process.pid, os.WUNTRACED)  # all of its threads
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
            os.kill(m.process.pid, signal.SIGCONT)
            check_killed(copy, flushed, raw)
        m.rest(random.random())
        note()
        m.kill()
        check_killed(image, flushed, raw)
        if len(flushed) < count + 10:
            raise Failure("%d flushes only: the test says little" % len(flushed))
        print("%d flushed writes, %d points" % (len(flushed), count + 1))
    except Failure as failure:
        m.report(failure)
        sys.exit(1)
    finally:
        m.kill()
        os.unlink(guest(name))


def bus_sector(folder, bus):
    image, other = (os.path.join(folder, name) for name in ("disk.img", "other.img"))
    sector_image(image)
    boots(image + ",bus=" + bus)
    if content(image)[FAR_LBA * 512:FAR_LBA * 512 + 2] != b"\xef\xbe":
        print("FAILED: what the guest wrote is not in the image")
        sys.exit(1)
    # The first disk boots, whichever bus has it: the other one's sums are wrong.
    sector_image(image)
    sector_image(other)
    with open(other, "r+b") as f:
        f.seek(512)
        f.write(bytes(512))
    for first in ("ahci", bus):
        second = bus if first == "ahci" else "ahci"
        boots("%s,snapshot,bus=%s" % (image, first),
              more=[("disk", "%s,snapshot,bus=%s" % (other, second))])
        boots("%s,snapshot,bus=%s" % (other, first), says=r"wrong bytes", status=0x41,
              more=[("disk", "%s,snapshot,bus=%s" % (image, second))])
    boots(image + ",snapshot,bus=" + bus, more=[("deterministic", None)])
    if ENGINE != "interp":
        r = subprocess.run([VIREO, "lockstep", image + ",bus=" + bus, "--memory", "64M", "--device",
                            "debug-exit"], stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=300)
        if r.returncode != 0 or b"sectors are right" not in r.stdout:
            print("FAILED: lockstep: status %d, %r %r" % (r.returncode, r.stdout, r.stderr))
            sys.exit(1)


def nvme(folder, cpus, words, says):
    fetch("amd64", "busybox")
    images = [os.path.join(folder, name) for name in ("a.img", "b.img")]
    data = random.randbytes(DISK_MIB << 20)
    for path, content_of in zip(images, (data, bytes(DISK_MIB << 20))):
        with open(path, "wb") as f:
            f.write(content_of)

    def talk(m):
        load_modules(m)
        expect_output(m, "for n in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/nvme0n1 ] && break; sleep 1; "
                      "done; cat /sys/block/nvme0n1/device/model /sys/block/nvme0n1/device/serial",
                      ["VIREO NVME", "VIREO-0001"])
        text, _ = m.command_output("dmesg | grep nvme")
        if "%s/0/0 default/read/poll queues" % cpus not in text:
            raise Failure("not a queue for each processor: %r" % text)
        text, _ = m.command_output("cat /sys/class/nvme/nvme0/hwmon*/temp1_input")
        if not 39000 < int(text.split()[0]) < 41000:
            raise Failure("the temperature is %r" % text)
        total = hashlib.md5(data).hexdigest()
        expect_output(m, "dd if=/dev/sda of=/dev/nvme0n1 bs=1M conv=fsync && "
                      "echo 3 >/proc/sys/vm/drop_caches && md5sum /dev/nvme0n1", [total], seconds=400)
        expect_output(m, "dd if=/dev/nvme0n1 of=/dev/sda bs=1M seek=1 count=8 skip=20 oflag=direct "
                      "iflag=direct", [])
        # Small ones, several at a time, on all queues.
        expect_output(m, "for n in 0 1 2 3; do dd if=/dev/zero of=/dev/nvme0n1 bs=4k count=200 "
                      "seek=$((n * 200)) oflag=direct & done; wait; "
                      "dd if=/dev/nvme0n1 bs=512 count=6400 iflag=direct | md5sum",
                      [hashlib.md5(bytes(800 * 4096)).hexdigest()])
        expect_output(m, "blkdiscard -o 33554432 -l 1048576 /dev/nvme0n1 && "
                      "dd if=/dev/nvme0n1 bs=1M skip=32 count=1 iflag=direct | md5sum",
                      [hashlib.md5(bytes(1 << 20)).hexdigest()])
        expect_output(m, "grep nvme0q /proc/interrupts", [says])
        m.send("poweroff -f\n")
        m.exits(0, 120)
        no_complaints(m)

    name = "initramfs-nvme-%s.cpio.gz" % os.getpid()
    m = Machine([("kernel", guest("vmlinuz-amd64")),
                 ("initrd", initramfs(name=name, layers=[guest(os.path.join("layers", "disk"))])),
                 ("append", "console=ttyS0 quiet panic=-1" + words), ("cpus", cpus),
                 ("disk", images[0]), ("disk", images[1] + ",bus=nvme")])
    try:
        talk(m)
    except Failure as failure:
        m.report(failure)
        sys.exit(1)
    finally:
        m.kill()
        os.unlink(guest(name))
    expected = bytearray(data)
    expected[:800 * 4096] = bytes(800 * 4096)
    expected[32 << 20:33 << 20] = bytes(1 << 20)
    first = bytearray(data)
    first[1 << 20:9 << 20] = data[20 << 20:28 << 20]
    if content(images[1]) != expected or content(images[0]) != first:
        print("FAILED: the images are not what the guest wrote")
        sys.exit(1)


def main():
    with tempfile.TemporaryDirectory(prefix="vireo-disk-") as folder:
        if sys.argv[1] == "sector":
            image = os.path.join(folder, "disk.img")
            sector_image(image)
            boots(image)
        elif sys.argv[1] in ("nvme-sector", "virtio-sector"):
            bus_sector(folder, sys.argv[1].split("-")[0])
        elif sys.argv[1] == "nvme":
            nvme(folder, sys.argv[2], *DELIVERY[sys.argv[3] if len(sys.argv) > 3 else "msi"])
        elif sys.argv[1] == "cd":
            image = os.path.join(folder, "cd.iso")
            cd_image(image)
            # The sector knows disks of 512 bytes a sector: it is told that this is none.
            boots(None, says=r"INT 13H failed|wrong bytes", status=0x41, more=[("cdrom", image)])
            # A disk that does not boot comes first.
            empty = os.path.join(folder, "empty.img")
            with open(empty, "wb") as f:
                f.truncate(1 << 20)
            boots(empty, says=r"INT 13H failed|wrong bytes", status=0x41, more=[("cdrom", image)])
        elif sys.argv[1] == "options":
            options(folder)
        elif sys.argv[1] == "full":
            full(folder)
        elif sys.argv[1] == "qcow2":
            qcow2_sector(folder)
            linux(folder, sys.argv[2], *DELIVERY["msi"], qcow2=True)
        elif sys.argv[1] == "kills":
            kills(folder, int(sys.argv[2]))
        elif sys.argv[1] == "linux":
            linux(folder, sys.argv[2], *DELIVERY[sys.argv[3] if len(sys.argv) > 3 else "msi"])
    print("passed")


main()
