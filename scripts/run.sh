#!/bin/bash
# Boots Debian's cloud kernel with a BusyBox initramfs to a shell on this
# terminal: what `make run` does. Arguments go to vireo as they are.
set -u
cd "$(dirname "$0")/.." || exit 1

guests=build/guests
scripts/guest-kernels.sh cloud busybox || exit 1
if [ ! -e $guests/initramfs.cpio.gz ] || [ scripts/make-initramfs.sh -nt $guests/initramfs.cpio.gz ]; then
    scripts/make-initramfs.sh $guests/busybox $guests/initramfs.cpio.gz || exit 1
fi

append="console=ttyS0"
# The size of this terminal, for the guest's shell.
if [ -t 0 ] && read -r rows cols < <(stty size 2>/dev/null) && [ "${rows:-0}" -gt 0 ]; then
    append+=" ROWS=$rows COLS=$cols TERM=${TERM:-linux}"
fi

exec build/vireo run --kernel $guests/vmlinuz-cloud --initrd $guests/initramfs.cpio.gz \
    --append "$append" --memory "${MEMORY:-512M}" --cpus "${CPUS:-1}" "$@"
