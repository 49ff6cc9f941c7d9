#!/bin/sh
# mmdebstrap's hook: what a root has before the kernel's package comes, which
# makes an initramfs of it (one that checks the root's file system).
#
# usage: prepare.sh ROOT
set -eu
root=$1

echo vireo >"$root/etc/hostname"
echo "127.0.0.1 localhost vireo" >"$root/etc/hosts"
echo "LABEL=vireo-root / ext4 errors=remount-ro 0 1" >"$root/etc/fstab"
# Here is no device to find the root's type by.
mkdir -p "$root/etc/initramfs-tools/conf.d"
echo "FSTYPE=ext4" >"$root/etc/initramfs-tools/conf.d/root"
