#!/bin/busybox sh
# Runs Debian's programs, in the guest as /autorun and on the host in a root of
# its own, and prints how long each took (bench time) and a sum of its output.
# Files are in /work; BENCH_PROGRAMS names what to run, divided by commas.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root OPENSSL_CONF=/dev/null PYTHONHASHSEED=0
cd /tmp || exit 1
# Processor time on the host, which has other work; a guest cannot know its own.
elapsed=-elapsed
[ -n "$BENCH_NATIVE" ] && elapsed=

wanted() {
    case ",$BENCH_PROGRAMS," in
    *",$1,"*) return 0 ;;
    esac
    return 1
}

# timed NAME OUTPUT COMMAND...: the time of the command, the sum of its output.
timed() {
    wanted "$1" || return
    name=$1 output=$2
    shift 2
    /bench time "$name" "$@"
    echo "SUM $name $(busybox md5sum <"$output" | busybox cut -c1-16)"
}

# speed NAME ALGORITHM: what openssl speed measures by itself.
speed() {
    wanted "$1" || return
    echo "BEGIN $1"
    echo "SPEED $1 $(openssl speed $elapsed -seconds 1 -bytes 8192 -evp "$2" 2>/dev/null | busybox tail -n 1)"
}

echo "BENCH START"
speed openssl-sha256 sha256
speed openssl-aes aes-256-gcm
speed openssl-chacha chacha20-poly1305
wanted openssl-rsa && echo "BEGIN openssl-rsa" && echo "SPEED openssl-rsa $(openssl speed $elapsed -seconds 1 rsa2048 2>/dev/null |
    busybox tail -n 1)"
busybox dd if=/usr/bin/python3.11 of=data bs=65536 count=32 2>/dev/null
# By their paths: BusyBox's shell has an xz of its own.
timed xz data.xz busybox sh -c "/usr/bin/xz -3 -T1 -c data >data.xz"
[ -e data.xz ] || /usr/bin/xz -0 -c data >data.xz
timed unxz data.out busybox sh -c \
    "for i in 1 2 3 4; do /usr/bin/xz -T1 -dc data.xz; done >data.out"
timed python python.out busybox sh -c "python3.11 /work/programs.py >python.out"
timed python-start start.out busybox sh -c \
    "for i in 1 2 3 4 5; do python3.11 -c 'import json, re; print(6 * 7)'; done >start.out"
timed sqlite sqlite.out busybox sh -c "sqlite3 base.db </work/programs.sql >sqlite.out"
timed gcc compiled.s gcc -O2 -std=gnu11 -D_GNU_SOURCE -S -o compiled.s /work/sort.c
timed gcc-link linked gcc -O1 -static -Wl,--build-id=none -o linked /work/sort.c -lm
echo "BENCH END"
[ -n "$BENCH_NATIVE" ] || poweroff -f
