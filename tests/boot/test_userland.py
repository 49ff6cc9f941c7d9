#!/usr/bin/env python3
"""Debian's Python, OpenSSL, Perl and compressors in the guest: what they compute
has to be what they compute on the host, and Python's own tests of arithmetic,
text, packing, processes and threads have to pass.

usage: test_userland.py CPUS
"""

import os
import shutil
import subprocess
import sys
import tempfile

from harness import (Failure, GUESTS, Machine, ROOT, dialogue, fetch, guest, initramfs,
                     no_complaints)

cpus = int(sys.argv[1])
subprocess.run([os.path.join(ROOT, "scripts", "guest-programs.sh"), "userland"], check=True)
fetch("cloud", "busybox")
LAYER = os.path.join(GUESTS, "layers", "userland")
SCRIPT = os.path.join(ROOT, "tests", "boot", "guest", "userland.py")

# Of Python's test suite: what exercises the processor and the kernel, without
# a network, a terminal or much time.
PYTHON_TESTS = [
    "test_math", "test_cmath", "test_float", "test_complex", "test_long", "test_int", "test_strtod",
    "test_struct", "test_decimal", "test_fractions", "test_statistics", "test_random", "test_hash",
    "test_hashlib", "test_hmac", "test_zlib", "test_bz2", "test_lzma", "test_binascii", "test_array",
    "test_bytes", "test_memoryview", "test_sort", "test_heapq", "test_bisect", "test_re", "test_json",
    "test_pickle", "test_unicode", "test_codecs", "test_dict", "test_set", "test_generators",
    "test_signal", "test_fork1", "test_wait4", "test_mmap", "test_pipes", "test_select", "test_epoll",
    "test_thread", "test_threading", "test_queue", "test_subprocess", "test_time", "test_ctypes",
]
TEST_PATIENCE_S = 1800


def on_host():
    libraries = ":".join(LAYER + path for path in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"))
    prefix = [LAYER + "/lib64/ld-linux-x86-64.so.2", "--library-path", libraries]
    environment = {"PYTHONHOME": LAYER + "/usr", "USERLAND_ROOT": LAYER, "PATH": "/usr/bin:/bin",
                   "OPENSSL_CONF": "/dev/null", "OPENSSL_MODULES": LAYER + "/usr/lib/x86_64-linux-gnu/ossl-modules"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*prefix, LAYER + "/usr/bin/python3.11", SCRIPT, folder, *prefix],
                              env=environment, capture_output=True, text=True, check=False)
    if "COMPUTED" not in done.stdout:
        sys.exit("the host does not compute it:\n" + done.stdout + done.stderr)
    return done.stdout


def talk(m):
    m.expect(r"vireo:~# ", 300)
    output, status = m.command_output("OPENSSL_CONF=/dev/null python3.11 /userland.py /tmp 2>&1", 900)
    there, here = dict(map(item, lines(output))), dict(map(item, lines(on_host())))
    print(output, flush=True)
    if there != here:
        raise Failure("status %d; differs from the host: %s" % (status, ", ".join(
            name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name))))
    for name in ("sha256", "aes-256-gcm", "chacha20-poly1305"):
        output, status = m.command_output("openssl speed -seconds 1 -bytes 8192 -evp %s 2>&1 | tail -1"
                                          % name, 300)
        print(output, flush=True)
        if status or name.split("-")[0] not in output.lower():
            raise Failure("openssl speed %s: status %d: %s" % (name, status, output))
    wrong = []
    for name in PYTHON_TESTS:
        output, status = m.command_output("python3.11 -m test %s 2>&1" % name, TEST_PATIENCE_S)
        print("%-20s status %d" % (name, status), flush=True)
        if status:
            wrong.append("%s: status %d\n%s" % (name, status, output[-4000:]))
    if wrong:
        raise Failure("\n".join(wrong))
    m.send("poweroff -f\n")
    m.exits(0)
    no_complaints(m)


def lines(output):
    return [line for line in output.splitlines() if line.strip()]


def item(line):
    name, _, value = line.strip().rpartition(" ")
    return name.strip(), value


with tempfile.TemporaryDirectory() as script:
    shutil.copy(SCRIPT, script)
    image = initramfs(name="userland-%d.cpio" % cpus, layers=[LAYER, script])
dialogue(Machine([("kernel", guest("vmlinuz-cloud")), ("initrd", image),
                  ("append", "console=ttyS0 quiet"), ("memory", "1G"), ("cpus", str(cpus))]), talk)
