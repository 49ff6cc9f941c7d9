#!/bin/bash
# Builds and runs the whole suite: what `make check` does. Arguments go to
# `meson test` as they are (a test's name, --suite unit).
set -u
cd "$(dirname "$0")/.." || exit 1

meson configure build -Dtests=enabled || exit 1
ninja -C build || exit 1
scripts/guest-kernels.sh || exit 1
scripts/guest-programs.sh || exit 1
scripts/guest-media.sh || exit 1
scripts/make-initramfs.sh build/guests/busybox build/guests/initramfs.cpio.gz || exit 1
scripts/make-initramfs.sh build/guests/busybox-i386 build/guests/initramfs-i386.cpio.gz || exit 1
# The disk with Debian takes minutes to make, once: its tests come last, and wait.
[ $# -gt 0 ] || scripts/guest-debian.sh &
meson test -C build --no-rebuild --print-errorlogs "$@"
status=$?
wait
exit "$status"
