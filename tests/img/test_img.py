#!/usr/bin/env python3
"""vireo img beside qemu-img: each opens what the other makes.

usage: test_img.py interop|errors|chains|parts|units|repair|sparse|ends

  interop  images of all kinds made, converted, checked and compared both ways, with
           snapshots, compressed clusters and what a killed QEMU leaves
  errors   one line and status 1 for what cannot be
  chains   backing files: relative, short, circles, formats that lie
  parts    convert's -l and -B: a snapshot, and what differs from a backing file
  units    extended L2 entries: QEMU writes subclusters, on backing files, too
  repair   spoiled refcounts: what check says, its status, and both programs after -r
  sparse   holes stay holes, discards give space back, and a terminal has a bar
  ends     a conversion that is interrupted or fails leaves nothing, and a file that
           was there as it was

Environment: VIREO, the program under test (build/vireo).
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VIREO = os.environ.get("VIREO", os.path.join(ROOT, "build", "vireo"))
KINDS = [
    "cluster_size=64K", "cluster_size=64K,compat=0.10", "cluster_size=512", "cluster_size=2M",
    "cluster_size=4K,refcount_bits=1", "cluster_size=8K,refcount_bits=64",
    "cluster_size=64K,lazy_refcounts=on", "cluster_size=64K,compression_type=zstd",
    "cluster_size=256K", "cluster_size=1M,compression_type=zstd",
    "cluster_size=64K,extended_l2=on", "cluster_size=16K,extended_l2=on,compression_type=zstd",
    "cluster_size=2M,extended_l2=on",
]


def fail(text):
    print(text)
    sys.exit(1)


def run(*words, status=0):
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = result.stdout.decode(errors="replace")
    if status is not None and result.returncode != status:
        fail("%s\nstatus %d and not %d:\n%s" % (" ".join(words), result.returncode, status, text[-2000:]))
    return text


def img(*words, status=0):
    return run(VIREO, "img", *words, status=status)


def qemu_img(*words, status=0):
    return run("qemu-img", *words, status=status)


def fill(path, size, seed):
    """A sparse file with text and rubbish."""
    source = random.Random(seed)
    with open(path, "wb") as out:
        for _ in range(24):
            out.seek(source.randrange(size // 4096) * 4096)
            if source.random() < .5:
                out.write(source.randbytes(source.randrange(1, 40) * 4096))
            else:
                out.write(b"plain text %d\n" % source.randrange(9) * source.randrange(1, 9999))
        out.truncate(size)


def same(raw, image, form="qcow2"):
    """Both programs read in the image what the raw file has."""
    qemu_img("compare", "-f", "raw", "-F", form, raw, image)
    img("convert", "-q", "-f", form, "-O", "raw", image, "back.raw")
    run("cmp", raw, "back.raw")


def well(image):
    img("check", image)
    qemu_img("check", image)


def interop():
    fill("a.raw", 12 << 20, 1)
    for kind in KINDS:
        img("convert", "-q", "-O", "qcow2", "-o", kind, "a.raw", "ours.qcow2")
        qemu_img("convert", "-O", "qcow2", "-o", kind, "a.raw", "theirs.qcow2")
        for image in ("ours.qcow2", "theirs.qcow2"):
            well(image)
            same("a.raw", image)
            img("info", image)
            # Each goes on where the other has stopped.
            qemu_img("resize", "-q", image, "24M")
            run("qemu-io", "-c", "write -P 3 1M 300k", "-c", "write -z 4M 1M", "-c", "discard 7M 2M",
                "-c", "write -P 4 23M 1M", image)
            well(image)
            same_after = "after-%s.raw" % image
            qemu_img("convert", "-O", "raw", image, same_after)
            same(same_after, image)
            if "refcount_bits=1" in kind:
                img("snapshot", "-c", "one", image, status=1)
                well(image)
                continue
            img("snapshot", "-c", "one", image)
            qemu_img("snapshot", "-c", "two", image)
            run("qemu-io", "-c", "write -P 9 0 10M", image)
            well(image)
            qemu_img("snapshot", "-a", "one", image)
            same(same_after, image)
            run("qemu-io", "-c", "write -P 8 5M 10M", image)
            img("snapshot", "-a", "two", image)
            same(same_after, image)
            well(image)
            img("snapshot", "-d", "one", image)
            qemu_img("snapshot", "-d", "two", image)
            well(image)
            same(same_after, image)
            img("resize", "-q", "--shrink", image, "9M")
            well(image)
            img("resize", "-q", image, "+5M")
            well(image)
        for program, image in ((img, "ours.qcow2"), (qemu_img, "theirs.qcow2")):
            program("convert", *(["-q"] if program is img else []), "-c", "-O", "qcow2", "-o", kind, "a.raw",
                    image)
            well(image)
            same("a.raw", image)
    # What QEMU leaves when it is killed: refcounts that it has not written.
    qemu_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "lazy.qcow2", "20M")
    run("qemu-io", "-c", "write -P 5 0 3M", "-c", "flush", "-c", "sigraise 9", "lazy.qcow2", status=None)
    if not json.loads(img("info", "--json", "lazy.qcow2"))["dirty-flag"]:
        fail("the test has made no dirty image")
    img("resize", "-q", "lazy.qcow2", "21M")
    if json.loads(img("info", "--json", "lazy.qcow2"))["dirty-flag"]:
        fail("a dirty image was not repaired")
    well("lazy.qcow2")
    run("qemu-io", "-c", "read -P 5 0 3M", "lazy.qcow2")
    for where in ("off", "metadata", "falloc", "full"):
        img("create", "-q", "-f", "qcow2", "-o", "preallocation=" + where, "pre.qcow2", "9M")
        well("pre.qcow2")
        run("qemu-io", "-c", "read -P 0 0 9M", "-c", "write -P 1 1M 2M", "pre.qcow2")
        well("pre.qcow2")


def error(words, *patterns):
    """One line on standard error that has all patterns, and status 1."""
    result = subprocess.run([VIREO, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    text = result.stderr.decode(errors="replace")
    if result.returncode != 1 or result.stdout or text.count("\n") != 1:
        fail("vireo %s: status %d, %r, %r" % (" ".join(words), result.returncode, result.stdout, text))
    for pattern in patterns:
        if pattern not in text:
            fail("vireo %s: '%s' is not in '%s'" % (" ".join(words), pattern, text))


def errors():
    with open("raw", "wb") as out:
        out.truncate(1 << 20)
    img("create", "-q", "-f", "qcow2", "q", "1M")
    error(["img"], "create")
    error(["img", "frobnicate"], "frobnicate", "convert")
    error(["img", "create", "x"], "size")
    error(["img", "create", "x", "much"], "much")
    error(["img", "create", "-f", "vmdk", "x", "1M"], "vmdk")
    error(["img", "create", "-f", "qcow2", "-o", "cluster_size=3", "x", "1M"], "cluster_size")
    error(["img", "create", "-f", "qcow2", "-o", "colour=red", "x", "1M"], "colour")
    error(["img", "create", "-f", "qcow2", "-b", "nothing", "x"], "nothing")
    error(["img", "create", "-f", "qcow2", "-o", "compat=0.10,refcount_bits=1", "x", "1M"], "compat")
    error(["img", "create", "-f", "qcow2", "-o", "cluster_size=512", "x", "9T"], "cluster_size")
    error(["img", "create", "-q"], "give a file")
    error(["img", "create", "nowhere/x", "1M"], "nowhere")
    error(["img", "info"], "one file")
    error(["img", "info", "nothing"], "nothing")
    error(["img", "info", "-z", "q"], "-z")
    error(["img", "check", "raw"], "no qcow2")
    error(["img", "check", "-r", "some", "q"], "some")
    error(["img", "convert", "q"], "new one")
    error(["img", "convert", "-c", "q", "x"], "qcow2")
    error(["img", "convert", "-f", "qcow2", "raw", "x"], "no qcow2")
    error(["img", "convert", "-S", "3", "q", "x"], "-S")
    error(["img", "resize", "q", "512K"], "--shrink")
    error(["img", "resize", "q", "-2M"], "-2M")
    error(["img", "snapshot", "-c", "x", "raw"], "raw")
    error(["img", "snapshot", "-a", "x", "q"], "no snapshot")
    error(["run", "--disk", "q,format=vmdk"], "auto, raw or qcow2")
    error(["run", "--disk", "raw,format=qcow2"], "no qcow2")
    if os.path.exists("x"):
        fail("a command that has failed left a file")
    with open("q", "r+b") as image:  # a feature of the future
        image.seek(72)
        image.write((1 << 20).to_bytes(8, "big"))
    error(["img", "info", "q"], "not known", "20")
    with open("l", "wb") as image:
        image.write(b"LUKS\xba\xbe" + bytes(1 << 20))
    error(["img", "info", "l"], "luks")


def chains():
    fill("base.raw", 8 << 20, 2)
    os.makedirs("sub", exist_ok=True)
    # Relative to the image, not to where the command runs.
    img("create", "-q", "-f", "qcow2", "-b", "../base.raw", "sub/mid.qcow2", "12M")
    img("create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "sub/top.qcow2")
    run("qemu-io", "-c", "write -P 7 1M 1M", "sub/mid.qcow2")
    run("qemu-io", "-c", "write -z 2M 1M", "-c", "write -P 6 9M 100k", "sub/top.qcow2")
    qemu_img("convert", "-O", "raw", "sub/top.qcow2", "whole.raw")
    same("whole.raw", "sub/top.qcow2")
    img("convert", "-q", "-O", "qcow2", "-c", "sub/top.qcow2", "flat.qcow2")
    same("whole.raw", "flat.qcow2")
    well("sub/top.qcow2")
    if json.loads(img("info", "--json", "sub/top.qcow2"))["backing-filename-format"] != "qcow2":
        fail("the format of the backing file is not in the image")
    # A circle, and a chain that has no end in sight.
    img("create", "-q", "-f", "qcow2", "-u", "-b", "b.qcow2", "a.qcow2", "1M")
    img("create", "-q", "-f", "qcow2", "-u", "-b", "a.qcow2", "b.qcow2", "1M")
    error(["img", "convert", "a.qcow2", "x"], "circle")
    img("create", "-q", "-f", "qcow2", "0.qcow2", "1M")
    for n in range(1, 70):
        img("create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", "%d.qcow2" % (n - 1), "%d.qcow2" % n, "1M")
    error(["img", "convert", "69.qcow2", "x"], "more than 64")
    img("convert", "-q", "60.qcow2", "x")
    for name, words in (("nbd://host/x", "no file"), ("json:{}", "no file"), ("gone", "gone")):
        img("create", "-q", "-f", "qcow2", "-u", "-b", name, "p.qcow2", "1M")
        error(["img", "convert", "p.qcow2", "y"], words)
        img("info", "p.qcow2")


def allocated(image):
    return json.loads(img("check", "--json", image))["allocated-clusters"]


def parts():
    # Snapshots: the disk was smaller, had other data, and a name is another's number.
    fill("first.raw", 9 << 20, 11)
    fill("second.raw", 9 << 20, 12)
    for kind in ("cluster_size=64K", "cluster_size=4K,compat=0.10", "cluster_size=1M,compression_type=zstd"):
        img("convert", "-q", "-c", "-O", "qcow2", "-o", kind, "first.raw", "s.qcow2")
        img("snapshot", "-c", "2", "s.qcow2")
        run("qemu-io", "-c", "write -P 3 1M 5M", "-c", "write -z 7M 1M", "s.qcow2")
        qemu_img("convert", "-O", "raw", "s.qcow2", "now.raw")
        qemu_img("snapshot", "-c", "name", "s.qcow2")
        run("qemu-io", "-c", "write -P 4 0 9M", "s.qcow2")
        # QEMU does not resize version 2 with snapshots.
        if "0.10" not in kind:
            img("resize", "-q", "s.qcow2", "23M")
        for which, raw in (("1", "first.raw"), ("2", "now.raw"), ("name", "now.raw"),
                           ("snapshot.id=1", "first.raw"), ("snapshot.name=2", "first.raw"),
                           ("snapshot.id=2", "now.raw")):
            for form in ("raw", "qcow2"):
                img("convert", "-q", "-l", which, "-O", form, "s.qcow2", "part")
                qemu_img("compare", "-f", "raw", "-F", form, raw, "part")
                if json.loads(img("info", "--json", "part"))["virtual-size"] != 9 << 20:
                    fail("the disk of a snapshot has not its size")
            qemu_img("convert", "-l", which if "=" in which else "snapshot.%s=%s" % (
                "name" if which == "name" else "id", which), "-O", "raw", "s.qcow2", "theirs")
            # Whose result has the size that the disk has now.
            qemu_img("compare", "-f", "raw", "-F", "raw", "theirs", raw)
        well("s.qcow2")
        error(["img", "convert", "-l", "3", "s.qcow2", "x"], "no snapshot '3'")
        error(["img", "convert", "-l", "snapshot.id=name", "s.qcow2", "x"], "no snapshot with that id")
    error(["img", "convert", "-l", "1", "first.raw", "x"], "raw")
    # What differs: some clusters, zeroes over data, data over zeroes, and either is longer.
    for form, size in (("raw", 9 << 20), ("qcow2", 4 << 20), ("qcow2", 20 << 20)):
        fill("base.raw", size, 21)
        img("convert", "-q", "-O", form, "base.raw", "base")
        with open("base.raw", "rb") as source, open("new.raw", "wb") as out:
            out.write(source.read()[:9 << 20])
            out.truncate(9 << 20)
        changes = ((0, 65536, b"n"), (1 << 20, 5000, b"\0"), (2 << 20, 1 << 20, b"\0"), ((9 << 20) - 512, 512, b"e"))
        with open("new.raw", "r+b") as out:
            for offset, count, byte in changes:
                out.seek(offset)
                out.write(byte * count)
        for more in ([], ["-c"], ["-S", "0"], ["-c", "-S", "0"], ["-o", "compat=0.10"], ["-o", "cluster_size=4K"]):
            img("convert", "-q", *more, "-O", "qcow2", "-B", "base", *(["-F", form] if more else []), "new.raw",
                "diff.qcow2")
            well("diff.qcow2")
            same("new.raw", "diff.qcow2")
            report = json.loads(img("info", "--json", "diff.qcow2"))
            if (report["backing-filename"], report["backing-filename-format"]) != ("base", form):
                fail("the backing file is %s" % report)
            with open("base.raw", "rb") as source, open("new.raw", "rb") as new:
                differ = sum(source.read(65536).ljust(65536, b"\0") != new.read(65536) for _ in range(9 << 4))
            if not more and allocated("diff.qcow2") > differ:
                fail("%d clusters are in the new image, and %d differ" % (allocated("diff.qcow2"), differ))
        # A chain becomes one that stands on its lowest; qemu-img goes on with it.
        img("convert", "-q", "-O", "qcow2", "-B", "base", "-F", form, "diff.qcow2", "again.qcow2")
        same("new.raw", "again.qcow2")
        run("qemu-io", "-c", "write -P 7 0 3M", "again.qcow2")
        well("again.qcow2")
        img("convert", "-q", "-O", "qcow2", "-B", "base", "base", "none.qcow2")
        if allocated("none.qcow2"):
            fail("what does not differ is in the new image")
    error(["img", "convert", "-O", "qcow2", "-B", "base", "new.raw", "base"], "stand on itself")
    error(["img", "convert", "-O", "qcow2", "-B", "diff.qcow2", "new.raw", "base"], "stand on itself")
    error(["img", "create", "-f", "qcow2", "-b", "diff.qcow2", "base"], "stand on itself")
    error(["img", "convert", "-B", "base", "new.raw", "x"], "-O qcow2")
    error(["img", "convert", "-O", "qcow2", "-B", "gone", "new.raw", "x"], "gone")
    error(["img", "convert", "-O", "qcow2", "-B", "base", "-F", "vmdk", "new.raw", "x"], "vmdk")
    error(["img", "convert", "-O", "qcow2", "-B", "base", "-o", "preallocation=full", "new.raw", "x"], "prealloc")
    if os.path.exists("x"):
        fail("a command that has failed left a file")


def units():
    source = random.Random(31)
    fill("base.raw", 8 << 20, 32)
    for cluster in ("16K", "64K", "2M"):
        options = "extended_l2=on,cluster_size=" + cluster
        for name, maker in (("ours.qcow2", img), ("theirs.qcow2", qemu_img)):
            for backing in ([], ["-b", "base.raw", "-F", "raw"]):
                maker("create", "-q", "-f", "qcow2", "-o", options, *backing, name, "12M")
                if not json.loads(img("info", "--json", name))["format-specific"]["data"]["extended-l2"]:
                    fail("%s has no extended L2 entries" % name)
                for step in range(4):
                    words = []
                    for _ in range(25):
                        offset = source.randrange(12 << 11) * 512
                        count = min(source.randrange(1, source.choice((9, 400))) * 512, (12 << 20) - offset)
                        words += ["-c", source.choice(("write -P %d" % source.randrange(1, 255),
                                                       "write -z", "write -z -u", "discard"))
                                  + " %d %d" % (offset, count)]
                    run("qemu-io", *words, name)
                    qemu_img("convert", "-O", "raw", name, "now.raw")
                    same("now.raw", name)
                    if step == 1:
                        img("snapshot", "-c", "kept", name)
                        run("cp", "now.raw", "kept.raw")
                    elif step == 3:
                        img("snapshot", "-a", "kept", name)
                        same("kept.raw", name)
                    well(name)
                img("resize", "-q", "--shrink", name, "5000K")
                img("resize", "-q", name, "12M")
                well(name)
                for more in ([], ["-c"]):
                    img("convert", "-q", *more, "-O", "qcow2", "-o", options, name, "flat.qcow2")
                    well("flat.qcow2")
                    qemu_img("compare", name, "flat.qcow2")


def refcounts(image):
    """Where the first refcount block is."""
    with open(image, "rb") as source:
        source.seek(48)
        source.seek(int.from_bytes(source.read(8), "big"))
        return int.from_bytes(source.read(8), "big")


def spoil(image, cluster, count):
    with open(image, "r+b") as target:
        target.seek(refcounts(image) + cluster * 2)
        target.write(count.to_bytes(2, "big"))


def repair():
    fill("a.raw", 12 << 20, 3)
    for maker in ("ours", "theirs"):
        image = maker + ".qcow2"
        if maker == "ours":
            img("convert", "-q", "-O", "qcow2", "a.raw", image)
        else:
            qemu_img("convert", "-O", "qcow2", "a.raw", image)
        img("snapshot", "-c", "kept", image)
        run("qemu-io", "-c", "write -P 9 0 3M", image)
        qemu_img("convert", "-O", "raw", image, "now.raw")
        clusters = os.path.getsize(image) >> 16
        # Leaks alone: status 3, and -r leaks is enough.
        os.truncate(image, (clusters + 9) << 16)
        for cluster in range(clusters, clusters + 9):
            spoil(image, cluster, 1)
        if "leak" not in img("check", image, status=3):
            fail("check does not say what a leak is")
        qemu_img("check", image, status=3)
        img("check", "-r", "leaks", image)
        well(image)
        # Counts that are too small: what is used would be written over.
        for cluster in range(5, clusters, 3):
            spoil(image, cluster, 0)
        img("check", image, status=2)
        img("check", "-r", "leaks", image, status=2)
        report = json.loads(img("check", "--json", image, status=2))
        if report["corruptions"] < clusters // 3 - 3 or report["leaks"]:
            fail("the report is %s" % report)
        img("check", "-r", "all", image)
        well(image)
        same("now.raw", image)
        qemu_img("snapshot", "-a", "kept", image)
        same("a.raw", image)
        well(image)


def used(path):
    return os.stat(path).st_blocks * 512


def bar():
    """What a terminal shows of a conversion."""
    import pty  # pylint: disable=import-outside-toplevel
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(VIREO, [VIREO, "img", "convert", "-c", "-m", "1", "-O", "qcow2", "dense.raw", "x.qcow2"])
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    if os.waitpid(pid, 0)[1]:
        fail("status of a conversion on a terminal: %r" % shown)
    return shown


def sparse():
    with open("holes.raw", "wb") as out:
        out.truncate(1 << 40)
        for offset in (0, 1 << 33, (1 << 40) - 4096):
            out.seek(offset)
            out.write(os.urandom(4096))
    img("convert", "-q", "-O", "qcow2", "holes.raw", "holes.qcow2")
    img("convert", "-q", "-O", "raw", "holes.qcow2", "again.raw")
    for name, most in (("holes.qcow2", 2 << 20), ("again.raw", 1 << 20)):
        if used(name) > most:
            fail("%s takes %d bytes" % (name, used(name)))
    if os.path.getsize("again.raw") != 1 << 40:
        fail("a raw image is not as long as its source")
    qemu_img("compare", "-f", "raw", "-F", "qcow2", "again.raw", "holes.qcow2")
    # Zeroes that are written in the source are holes in the new one, unless -S 0 is given.
    with open("zeroes.raw", "wb") as out:
        out.write(bytes(8 << 20))
    img("convert", "-q", "-O", "raw", "zeroes.raw", "x")
    img("convert", "-q", "-S", "0", "-O", "raw", "zeroes.raw", "y")
    if used("x") or used("y") < 8 << 20:
        fail("zeroes take %d bytes, and with -S 0 %d" % (used("x"), used("y")))
    # Once on a terminal: the bar moves, and nothing of it is left.
    with open("dense.raw", "wb") as out:
        words = [b"%d " % random.Random(5).randrange(1 << 40) for _ in range(1 << 16)]
        source = random.Random(6)
        for _ in range(72):
            out.write(b"".join(source.choice(words) for _ in range(1 << 16))[:1 << 20])
    shown = bar()
    if b"converting [" not in shown or shown.count(b"%") < 2 or shown[-1:] != b"\r":
        fail("a terminal has shown %r" % shown)
    shown = img("convert", "-c", "-O", "qcow2", "dense.raw", "x.qcow2")
    if shown:
        fail("what is no terminal has got %r" % shown)


def left():
    return sorted(name for name in os.listdir(".") if name not in ("big.raw", "there"))


def ends():
    with open("big.raw", "wb") as out:
        for _ in range(192):  # half a second of work
            out.write(os.urandom(1 << 20))
    with open("there", "wb") as out:
        out.write(b"as it was")
    # A shell's background job ignores SIGINT, nohup SIGHUP, and so do its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        for target in ("new", "there"):
            process = subprocess.Popen([VIREO, "img", "convert", "-c", "-O", "qcow2", "big.raw", target],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(.1)
            process.send_signal(number)
            text = process.communicate()[1]
            if process.returncode != -number or text:
                fail("after signal %d: status %d, %r" % (number, process.returncode, text))
            with open("there", "rb") as there:
                if left() or there.read() != b"as it was":
                    fail("after signal %d there is %s" % (number, left()))
    # A disk that is full.
    limited = "ulimit -f 20000; exec '%s' img convert -O qcow2 big.raw there" % VIREO
    result = subprocess.run(["sh", "-c", "trap '' XFSZ; " + limited], stderr=subprocess.PIPE, check=False)
    if result.returncode != 1 or result.stderr.count(b"\n") != 1 or left():
        fail("with a full disk: %r, and there is %s" % (result, left()))
    img("convert", "-q", "big.raw", "there")
    run("cmp", "big.raw", "there")
    # What a machine uses is neither written over nor changed.
    with open("there", "r+b") as used:
        import fcntl  # pylint: disable=import-outside-toplevel
        fcntl.lockf(used, fcntl.LOCK_EX)
        error(["img", "convert", "big.raw", "there"], "used by a machine")
        error(["img", "resize", "there", "+1M"], "used by another machine")


def main():
    tests = {"interop": interop, "errors": errors, "chains": chains, "parts": parts, "units": units, "repair": repair, "sparse": sparse, "ends": ends}
    if len(sys.argv) != 2 or sys.argv[1] not in tests:
        fail(__doc__)
    with tempfile.TemporaryDirectory(prefix="vireo-img-", dir="/var/tmp") as folder:
        os.chdir(folder)
        tests[sys.argv[1]]()
        os.chdir("/")
    print("passed")


main()
