#!/usr/bin/env python3
"""Computes much with Debian's programs and prints digests of the results: the
same program run on the host and in the guest has to print the same.

usage: userland.py FOLDER [PREFIX...]
       (scratch space; what stands before the path of each program)
"""

import bz2
import decimal
import fractions
import hashlib
import json
import lzma
import math
import os
import random
import re
import struct
import subprocess
import sys
import zlib

folder = sys.argv[1]
root = os.environ.get("USERLAND_ROOT", "")
prefix = sys.argv[2:]
DATA_BYTES = 3 << 20


def digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


def say(name, data):
    if not isinstance(data, bytes):
        data = repr(data).encode()
    print("%-24s %s" % (name, digest(data)), flush=True)


def run(program, *arguments, give=None):
    done = subprocess.run([*prefix, root + program, *arguments], input=give, stdout=subprocess.PIPE,
                          check=True)
    return done.stdout


def sample():
    """Some random bytes, some that pack well."""
    source = random.Random(20240229)
    words = [bytes(source.randbytes(source.randrange(2, 9))) for _ in range(200)]
    text = b" ".join(source.choice(words) for _ in range(DATA_BYTES // 12))
    return source.randbytes(DATA_BYTES // 4) + text[:DATA_BYTES // 2] + bytes(DATA_BYTES // 4)


def numbers():
    source = random.Random(7)
    values = [source.uniform(-50, 50) for _ in range(3000)] + [0.0, -0.0, 1e-310, 300.5]
    functions = [math.sin, math.cos, math.tan, math.atan, math.tanh, math.erf, math.expm1, math.cbrt]
    say("math", b"".join(struct.pack("<d", f(v)) for f in functions for v in values))
    say("pow", b"".join(struct.pack("<d", abs(v) ** w) for v, w in zip(values, reversed(values[:3000]))))
    say("float text", "".join("%.17g %r" % (v, float(str(v))) for v in values))
    say("fsum", (math.fsum(values[:3000]), math.hypot(*values[:50]), math.dist(values[:9], values[9:18])))
    say("half", struct.pack("<3000e", *[v for v in values[:3000]]))
    say("float32", struct.pack("<3000f", *[v / 3 for v in values[:3000]]))
    say("complex", [complex(v, w) * complex(w, v) / complex(1, v) for v, w in zip(values, values[1:300])])
    with decimal.localcontext() as context:
        context.prec = 400
        say("decimal", str(decimal.Decimal(2).sqrt() ** 3 / decimal.Decimal(7).ln().exp()))
    say("fractions", sum(fractions.Fraction(1, n) for n in range(1, 600)))
    say("long", pow(3, 1 << 14, (1 << 2203) - 1) * 7 ** 4000 // 11 ** 900)
    say("gcd", [math.gcd(source.getrandbits(900) * 12345, source.getrandbits(900) * 12345) for _ in range(50)])
    say("sort", sorted(values, key=lambda v: (math.sin(v), v)))


def texts(data):
    table = {str(i): [i, i / 7, "\u00e4" * (i % 5), None, {"x": i}] for i in range(3000)}
    again = json.loads(json.dumps(table, sort_keys=True))
    assert again == table
    say("json", json.dumps(again, sort_keys=True).encode())
    say("regex", [m.span() for m in re.finditer(rb"([a-f]+)[^a-f]{2,5}(\1)?", data[:400000])])
    say("translate", data[:500000].translate(bytes(reversed(range(256)))).hex().upper().encode())


def modules(data):
    for name in sorted(hashlib.algorithms_available - {"ripemd160", "whirlpool", "md4", "mdc2", "sm3"}):
        h = hashlib.new(name, data)
        try:
            say("hashlib " + name, h.digest())
        except TypeError:
            say("hashlib " + name, h.digest(64))
    for name, module in (("zlib", zlib), ("bz2", bz2), ("lzma", lzma)):
        packed = module.compress(data)
        assert module.decompress(packed) == data
        say("module " + name, packed)
    say("crc", (zlib.crc32(data), zlib.adler32(data)))
    say("scrypt", hashlib.scrypt(b"word", salt=b"salt", n=1024, r=8, p=1))
    say("pbkdf2", hashlib.pbkdf2_hmac("sha512", b"word", b"salt", 3000))


def programs(data):
    path = os.path.join(folder, "data")
    with open(path, "wb") as out:
        out.write(data)
    for name in ("md5", "sha1", "sha256", "sha512", "sha3-256", "blake2b512"):
        say("openssl " + name, run("/usr/bin/openssl", "dgst", "-" + name, "-binary", path))
    for name in ("aes-128-cbc", "aes-256-ctr", "aes-192-cfb", "aes-256-ecb", "chacha20", "camellia-256-cbc",
                 "aria-128-ctr", "des-ede3-cbc"):
        options = ("enc", "-" + name, "-K", "00112233445566778899aabbccddeeff" * 2, "-nosalt", "-iv",
                   "0f1e2d3c4b5a69788796a5b4c3d2e1f0")
        keys = {"128": 32, "192": 48, "256": 64, "ede3": 48, "acha20": 64}
        length = next(size for part, size in keys.items() if part in name)
        options = tuple(o[:length] if o.startswith("0011") else o for o in options)
        if "ecb" in name:
            options = options[:-2]
        if "des" in name:
            options = options[:-1] + (options[-1][:16],)
        secret = run("/usr/bin/openssl", *options, "-in", path)
        assert run("/usr/bin/openssl", *options, "-d", give=secret) == data, name
        say("openssl " + name, secret)
    say("openssl prime", run("/usr/bin/openssl", "prime", "-hex", "FFFFFFFFFFFFFFC5"))
    for program, pack, unpack in (("/bin/gzip", ["-9nc"], ["-dc"]), ("/usr/bin/xz", ["-2c"], ["-dc"]),
                                  ("/bin/bzip2", ["-c"], ["-dc"]), ("/usr/bin/zstd", ["-q", "-8", "-c"], ["-dc"])):
        packed = run(program, *pack, give=data)
        assert run(program, *unpack, give=packed) == data, program
        say(program, packed)
    say("perl", run("/usr/bin/perl", "-e", 'my %h; my $x = 1; for (1..200000) { $x = ($x * 1103515245 + 12345) '
                    '% 2147483648; $h{$x % 1000} += sqrt($x) } printf "%s %.9f\n", $_, $h{$_} for sort keys %h'))


def main():
    data = sample()
    say("sample", data)
    numbers()
    texts(data)
    modules(data)
    programs(data)
    print("COMPUTED")


main()
