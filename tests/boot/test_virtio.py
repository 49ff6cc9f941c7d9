#!/usr/bin/env python3
"""Linux with all virtio devices: disks, entropy, console, balloon, a shared folder.

usage: test_virtio.py CPUS [msi|ioapic]
       test_virtio.py options     what the command line refuses

Copies between disks with checksums, discards, past the guest's cache and through
it; random bytes; a line through hvc0 both ways; memory taken by the balloon and
given back; files of the folder both ways, and none from outside of it.
"""

import hashlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading

from harness import (Failure, Machine, VIREO_RUN, fetch, guest, initramfs, no_complaints)

DISK_MIB = 48
DELIVERY = {
    "msi": ("", "PCI-MSI"),
    "ioapic": (" pci=nomsi", "IO-APIC"),
}


def expect_output(m, command, words, status=0, seconds=120):
    text, code = m.command_output(command, seconds)
    if code != status or not all(word in text for word in words):
        raise Failure("%r: status %d, said %r; wanted %d and %r"
                      % (command, code, text, status, words))
    return text


class Console:
    """The other end of --console socket:PATH."""

    def __init__(self, path):
        self.server = socket.socket(socket.AF_UNIX)
        self.path = path
        self.text = b""

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self.path)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            data = self.socket.recv(4096)
            if not data:
                return
            self.text += data


def make_folder(folder):
    share = os.path.join(folder, "share")
    outside = os.path.join(folder, "outside")
    os.mkdir(share)
    os.mkdir(outside)
    with open(os.path.join(outside, "secret"), "w") as f:
        f.write("secret\n")
    with open(os.path.join(share, "big"), "wb") as f:
        f.write(random.randbytes(9 << 20))
    os.symlink("../outside", os.path.join(share, "up"))
    os.symlink(os.path.join(outside, "secret"), os.path.join(share, "abs"))
    return share, outside


def disks(m, data, says):
    expect_output(m, "for n in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vdb ] && break; sleep 1; done; "
                  "cat /sys/block/vda/serial /sys/block/vdb/serial /sys/block/vda/ro "
                  "/sys/block/vdc/ro", ["VIREO-0000", "THE-SECOND", "0\n", "1\n"])
    sums = [hashlib.md5(x).hexdigest() for x in (data, bytes(DISK_MIB << 20), bytes(409600))]
    expect_output(m, "dd if=/dev/vda of=/dev/vdb bs=1M conv=fsync && "
                  "echo 3 >/proc/sys/vm/drop_caches && md5sum /dev/vdb", [sums[0]], seconds=300)
    expect_output(m, "dd if=/dev/zero of=/dev/vdb bs=4k count=100 seek=7 oflag=direct && "
                  "dd if=/dev/vdb bs=512 skip=56 count=800 iflag=direct | md5sum", [sums[2]])
    expect_output(m, "cat /sys/block/vdb/queue/discard_max_bytes "
                  "/sys/block/vdb/queue/write_zeroes_max_bytes", ["2147483648"])
    expect_output(m, "blkdiscard -o 4194304 -l 1048576 /dev/vdb; "
                  "dd if=/dev/zero of=/dev/vdc bs=512 count=1 oflag=direct", [], status=1)
    expect_output(m, "grep virtio /proc/interrupts", [says])
    # Eight at once, to and fro.
    expect_output(m, "for n in 0 1 2 3 4 5 6 7; do (dd if=/dev/vda bs=64k skip=$((n*32)) count=32 "
                  "iflag=direct | dd of=/dev/vdb bs=64k seek=$((n*32+300)) oflag=direct "
                  "iflag=fullblock) 2>/dev/null & done; wait; sync; "
                  "dd if=/dev/vdb bs=64k skip=300 count=256 iflag=direct | md5sum",
                  [hashlib.md5(data[:16 << 20]).hexdigest()])


def small(m, console):
    expect_output(m, "cat /sys/class/misc/hw_random/rng_current", ["virtio_rng.0"])
    a = expect_output(m, "dd if=/dev/hwrng bs=512 count=8 2>/dev/null | md5sum", ["-"])
    b = expect_output(m, "dd if=/dev/hwrng bs=512 count=8 2>/dev/null | md5sum", ["-"])
    if a == b:
        raise Failure("the random bytes are the same twice")
    expect_output(m, "[ -c /dev/hvc0 ] && stty -F /dev/hvc0 raw -echo; "
                  "(head -n1 /dev/hvc0 >/tmp/line &) ; echo to the host >/dev/hvc0; sleep 1", [])
    console.socket.sendall(b"to the guest\n")
    expect_output(m, "for n in 1 2 3 4 5 6 7 8 9 10; do [ -s /tmp/line ] && break; sleep 1; done; "
                  "cat /tmp/line", ["to the guest"])
    if b"to the host" not in console.text:
        raise Failure("the console said %r" % console.text)
    # 64 MiB are gone, or the balloon is not at work.
    expect_output(m, "grep -q balloon /proc/interrupts; for n in 1 2 3 4 5 6 7 8 9 10; do "
                  "i=$(sed -n 's/^balloon_inflate //p' /proc/vmstat); "
                  "[ \"$i\" -ge 16384 ] && break; sleep 1; done; echo inflated $i",
                  ["inflated 16384"])


def folder_test(m, share, big):
    expect_output(m, "mkdir -p /a /b; mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 "
                  "rw /a && mount -t 9p -o trans=virtio,version=9p2000.L ro /b", [])
    expect_output(m, "md5sum /a/big", [hashlib.md5(big).hexdigest()])
    expect_output(m, "cp /a/big /a/copy && mkdir -p /a/d/e && mv /a/copy /a/d/e/copy && sync && "
                  "md5sum /b/d/e/copy", [hashlib.md5(big).hexdigest()])
    expect_output(m, "for n in $(seq 1 200); do echo $n >/a/d/f$n; done; ls /a/d | wc -l; "
                  "cat /b/d/f* | wc -l", ["201\n", "200\n"])
    expect_output(m, "ln /a/d/f1 /a/d/hard; ln -s f2 /a/d/soft; cat /a/d/soft; chmod 600 /a/d/f3; "
                  "stat -c '%a %h' /a/d/f3 /a/d/hard; truncate -s 100000 /a/d/f4; "
                  "stat -c %s /a/d/f4; readlink /a/up",
                  ["2\n", "600 1\n", "644 2\n", "100000\n", "../outside"])
    expect_output(m, "cat /a/up/secret /a/abs; cat /a/../outside/secret", [], status=1)
    expect_output(m, "touch /b/x", ["Read-only"], status=1)
    expect_output(m, "mknod /a/d/null c 1 3", ["not permitted"], status=1)
    expect_output(m, "df /a | tail -n1; rm -r /a/d/f* /a/d/hard /a/d/soft; umount /b; umount /a", [])
    with open(os.path.join(share, "d", "e", "copy"), "rb") as f:
        if f.read() != big:
            raise Failure("the copy in the folder is not what was copied")
    if sorted(os.listdir(os.path.join(share, "d"))) != ["e"]:
        raise Failure("left in the folder: %r" % os.listdir(os.path.join(share, "d")))


def linux(folder, cpus, words, says):
    fetch("amd64", "virtio", "busybox")
    images = [os.path.join(folder, name) for name in ("a.img", "b.img", "c.img")]
    data = random.randbytes(DISK_MIB << 20)
    for path, content_of in zip(images, (data, bytes(DISK_MIB << 20), bytes(1 << 20))):
        with open(path, "wb") as f:
            f.write(content_of)
    share, outside = make_folder(folder)
    with open(os.path.join(share, "big"), "rb") as f:
        big = f.read()
    console = Console(os.path.join(folder, "console"))
    name = "initramfs-virtio-%s.cpio.gz" % os.getpid()

    def talk(m):
        m.expect(r"Welcome to Linux", 240)
        m.expect(r"# ", 60)
        console.connect()
        expect_output(m, "for n in $(cat /modules/order); do insmod /modules/$n.ko || echo no $n; "
                      "done; ls /dev/vd?", ["/dev/vda", "/dev/vdb", "/dev/vdc"])
        disks(m, data, says)
        small(m, console)
        folder_test(m, share, big)
        m.send("poweroff -f\n")
        m.exits(0, 120)
        no_complaints(m)

    m = Machine([("kernel", guest("vmlinuz-amd64")),
                 ("initrd", initramfs(name=name, layers=[guest(os.path.join("layers", "virtio"))])),
                 ("append", "console=ttyS0 quiet panic=-1" + words), ("cpus", cpus),
                 ("disk", images[0] + ",bus=virtio"),
                 ("disk", images[1] + ",bus=virtio,serial=THE-SECOND"),
                 ("disk", images[2] + ",bus=virtio,readonly"),
                 ("rng", None), ("console", "socket:" + console.path),
                 ("balloon", "64M,stats=1"), ("share", share + ",tag=rw"),
                 ("share", share + ",tag=ro,readonly")])
    try:
        talk(m)
    except Failure as failure:
        m.report(failure)
        sys.exit(1)
    finally:
        m.kill()
        os.unlink(guest(name))
    with open(images[1], "rb") as f:
        copy = f.read()
    expected = bytearray(data)
    expected[7 * 4096:107 * 4096] = bytes(409600)
    expected[4 << 20:5 << 20] = bytes(1 << 20)
    expected[300 << 16:(300 << 16) + (16 << 20)] = data[:16 << 20]
    if copy != expected:
        print("FAILED: the second image is not what the guest wrote")
        sys.exit(1)
    if os.listdir(outside) != ["secret"]:
        print("FAILED: what is outside of the folder has changed")
        sys.exit(1)


def refused(options, words):
    r = subprocess.run([*VIREO_RUN, "--firmware", "bios", *options], stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=60)
    text = r.stderr.decode()
    if r.returncode != 1 or words not in text or text.count("\n") != 1:
        print("FAILED: %r: status %d, said %r, not one line with %r"
              % (options, r.returncode, text, words))
        sys.exit(1)


def options(folder):
    refused(["--share", folder], "DIR,tag=NAME")
    refused(["--share", folder + ",tag="], "no option")
    refused(["--share", folder + ",tag=" + "x" * 40], "1 to 31")
    refused(["--share", folder + ",tag=a,rw"], "no option 'rw'")
    refused(["--share", folder + ",tag=a", "--share", folder + ",tag=a"], "the tag 'a'")
    refused(["--share", os.path.join(folder, "none") + ",tag=a"], "No such file")
    refused(["--balloon", "much"], "a size first")
    refused(["--balloon", "2G"], "less memory")
    refused(["--balloon", "64M,stats=0"], "stats=SECONDS")
    refused(["--console", "stdio", "--serial", "stdio"], "--serial none")
    refused(["--console", "pty"], "socket:PATH")


def main():
    with tempfile.TemporaryDirectory(prefix="vireo-virtio-") as folder:
        if sys.argv[1] == "options":
            options(folder)
        else:
            linux(folder, sys.argv[1], *DELIVERY[sys.argv[2] if len(sys.argv) > 2 else "msi"])
    print("passed")


main()
