#!/bin/bash
# Fetches and builds the programs that the boot tests run inside the guest, as
# layers for scripts/make-initramfs.sh under build/guests/layers. Nothing is
# installed.
#
# usage: scripts/guest-programs.sh [selftests] [stress-ng] [userland] [bench] [fio]
#        (nothing named: selftests and stress-ng, which `make check` wants)
#
#   selftests   the x86 selftests of Debian's linux-source-6.1, with the
#               Makefile's own flags and -static, 32- and 64-bit
#   stress-ng   Debian's stress-ng and the libraries it is linked with
#   userland    Debian's Python with its own test suite, Perl, OpenSSL and the
#               compressors
#   bench       what the benchmark runs in the guest: Debian's gcc, Python,
#               SQLite, OpenSSL and xz
#   fio         Debian's fio and the libraries it is linked with
set -u
cd "$(dirname "$0")/.." || exit 1

. scripts/guest-apt.sh

layers=$guests/layers
mkdir -p "$layers" || fail "cannot make $layers"

# add_library_of ROOT PROGRAM LAYER: the loader and the libraries of a program
# of another root, as its own loader finds them.
add_libraries_of() {
    local root=$1 program=$2 layer=$3 loader=/lib64/ld-linux-x86-64.so.2 library
    local path=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
    # Where librados, which Debian's fio is linked with, has a library of its own.
    path+=:$root/usr/lib/x86_64-linux-gnu/ceph
    for library in $loader $("$root$loader" --library-path "$path" --list "$root$program" |
        sed -n "s|.* => $root\(/[^ ]*\) .*|\1|p"); do
        mkdir -p "$layer${library%/*}" && cp -L "$root$library" "$layer$library" || return 1
    done
}

# The kernel's source stays packed: 138 MB, of which little is wanted.
linux_source() {
    local archive=usr/src/linux-source-6.1.tar.xz
    if [ "$(dpkg-query -W -f='${db:Status-Status}' linux-source-6.1 2>/dev/null)" = installed ] &&
        [ -e "/$archive" ]; then
        echo "/$archive"
        return
    fi
    [ -e "$guests/unpacked/linux-source-6.1-amd64/$archive" ] ||
        download amd64 linux-source-6.1 >&2 || return 1
    echo "$guests/unpacked/linux-source-6.1-amd64/$archive"
}

selftests() {
    local layer=$layers/selftests source=$guests/selftests-source archive out
    [ -e "$layer" ] && return
    archive=$(linux_source) || fail "cannot download linux-source-6.1: check the network"
    rm -rf "$source" "$layer.new"
    mkdir -p "$source" "$layer.new/selftests" || fail "cannot make $source"
    say "unpacking the x86 selftests"
    tar -C "$source" -xf "$archive" --strip-components=1 --wildcards \
        'linux-source-6.1/tools/testing/selftests/x86/*' \
        'linux-source-6.1/tools/testing/selftests/*.mk' \
        'linux-source-6.1/tools/testing/selftests/*.h' \
        'linux-source-6.1/arch/x86/include/asm/*.h' || fail "cannot unpack $archive"
    say "building the x86 selftests"
    out=$layer.new/selftests
    make -s -C "$source/tools/testing/selftests/x86" CC="gcc -static" OUTPUT="$out" \
        >"$source/build.log" 2>&1 || {
        tail -20 "$source/build.log" >&2
        fail "the selftests do not build (see $source/build.log)"
    }
    # The Makefile leaves the 32-bit half out when gcc cannot build it.
    [ -e "$out/sigreturn_32" ] || fail "gcc builds no 32-bit programs: apt-get install gcc-multilib"
    strip "$out"/*_32 "$out"/*_64
    rm -rf "$source"
    mv "$layer.new" "$layer" || fail "cannot make $layer"
}

stress_ng() {
    local layer=$layers/stress-ng root=$guests/unpacked/stress-ng
    [ -e "$layer" ] && return
    download_with_dependencies "$root" stress-ng || fail "cannot download stress-ng: check the network"
    rm -rf "$layer.new"
    mkdir -p "$layer.new/usr/bin" && cp "$root/usr/bin/stress-ng" "$layer.new/usr/bin/" &&
        add_libraries_of "$root" /usr/bin/stress-ng "$layer.new" &&
        mv "$layer.new" "$layer" || fail "cannot make $layer"
    rm -rf "$root"
}

userland() {
    local layer=$layers/userland part
    [ -e "$layer" ] && return
    rm -rf "$layer.new"
    download_with_dependencies "$layer.new" python3-minimal libpython3-stdlib \
        libpython3.11-testsuite openssl perl-base gzip bzip2 xz-utils zstd ||
        fail "cannot download Python and OpenSSL: check the network"
    for part in doc man info locale lintian bash-completion; do
        rm -rf "$layer.new/usr/share/$part"
    done
    # BusyBox and the scripts of make-initramfs.sh rule /etc and /bin.
    rm -rf "$layer.new/etc/init.d" "$layer.new/var"
    mv "$layer.new" "$layer" || fail "cannot make $layer"
}

bench() {
    local layer=$layers/bench compiler part
    [ -e "$layer" ] && return
    rm -rf "$layer.new"
    download_with_dependencies "$layer.new" gcc libc6-dev python3-minimal libpython3-stdlib \
        sqlite3 openssl xz-utils ||
        fail "cannot download gcc, Python and SQLite: check the network"
    rm -rf "$layer.new/usr/share" "$layer.new/etc/init.d" "$layer.new/var"
    # The guest holds all this in memory: leave out what no C program needs.
    compiler=$layer.new/usr/lib/gcc/x86_64-linux-gnu/12
    rm -rf "$compiler"/lto* "$compiler/plugin" "$compiler"/lib?san* "$layer.new"/usr/bin/*lto-dump*
    for part in asan lsan tsan ubsan; do
        rm -f "$layer.new/usr/lib/x86_64-linux-gnu/lib$part".*
    done
    mv "$layer.new" "$layer" || fail "cannot make $layer"
}

fio() {
    local layer=$layers/fio root=$guests/unpacked/fio
    [ -e "$layer" ] && return
    download_with_dependencies "$root" fio || fail "cannot download fio: check the network"
    rm -rf "$layer.new"
    mkdir -p "$layer.new/usr/bin" && cp "$root/usr/bin/fio" "$layer.new/usr/bin/" &&
        add_libraries_of "$root" /usr/bin/fio "$layer.new" &&
        mv "$layer.new" "$layer" || fail "cannot make $layer"
    rm -rf "$root"
}

[ $# -eq 0 ] && set -- selftests stress-ng
for program in "$@"; do
    case $program in
    selftests) selftests ;;
    stress-ng) stress_ng ;;
    userland) userland ;;
    bench) bench ;;
    fio) fio ;;
    *) fail "unknown program '$program'" ;;
    esac
done
