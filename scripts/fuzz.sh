#!/bin/bash
# Coverage-guided fuzzing with libFuzzer (clang, libclang-rt-14-dev): code for both
# engines, which must agree, or the drivers of devices and images in tests/fuzz. A
# build of its own, with AddressSanitizer, in build/libfuzzer; what was found
# interesting stays there in corpus-KIND, a failure's input in crash-*.
# `KIND_fuzz --input FILE` runs that again.
#
# usage: scripts/fuzz.sh [SECONDS [guest|pci|ahci|net|nine|nvme|qcow2|virtio]]
set -u
cd "$(dirname "$0")/.." || exit 1

seconds=${1:-600} kind=${2:-guest}
test -e build/libfuzzer/build.ninja ||
    CC=clang meson setup build/libfuzzer -Dlibfuzzer=true -Db_sanitize=address -Db_lundef=false ||
    exit 1
ninja -C build/libfuzzer || exit 1
cd build/libfuzzer || exit 1
mkdir -p "corpus-$kind"
seeds=../../tests/fuzz/corpus/$kind
test -d "$seeds" || seeds=
# Machines live to the end of the process, behind memory that is searched for no
# pointers: not leaks.
# shellcheck disable=SC2086 # no seeds is no argument
ASAN_OPTIONS=detect_leaks=0 exec "./${kind}_libfuzzer" -max_total_time="$seconds" -max_len=4096 \
    -detect_leaks=0 -print_final_stats=1 "corpus-$kind" $seeds
