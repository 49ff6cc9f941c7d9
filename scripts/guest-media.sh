#!/bin/bash
# Fetches what the boot tests start from CD or as firmware, from the Debian
# archive, into build/guests/media. Nothing is installed.
#
# usage: scripts/guest-media.sh [memtest] [ipxe] [u-boot]
#        (nothing named: all of them)
#
#   memtest   memtest86+x64.bin, memtest86+x64.efi, memtest86+x64.iso
#   ipxe      ipxe.iso
#   u-boot    u-boot-qemu-x86.rom, u-boot-qemu-x86_64.rom
set -u
cd "$(dirname "$0")/.." || exit 1

. scripts/guest-apt.sh

media=$guests/media
mkdir -p "$media" || fail "cannot make $media"

# part PACKAGE FILE NAME: a file of a package that has been downloaded.
part() {
    cp "$guests/unpacked/$1-amd64/$2" "$media/$3.new" && mv "$media/$3.new" "$media/$3" ||
        fail "no $2 in $1"
}

# package PACKAGE LAST-FILE: downloads it unless its last file is there.
package() {
    [ -e "$media/$2" ] && return 1
    download amd64 "$1" || fail "cannot download $1: check the network"
}

[ $# -eq 0 ] && set -- memtest ipxe u-boot
for medium in "$@"; do
    case $medium in
    memtest)
        package memtest86+ memtest86+x64.iso || continue
        part memtest86+ boot/memtest86+x64.bin memtest86+x64.bin
        part memtest86+ boot/memtest86+x64.efi memtest86+x64.efi
        part memtest86+ usr/lib/memtest86+/memtest86+x64.iso memtest86+x64.iso
        ;;
    ipxe)
        package ipxe ipxe.iso || continue
        part ipxe usr/lib/ipxe/ipxe.iso ipxe.iso
        ;;
    u-boot)
        package u-boot-qemu u-boot-qemu-x86_64.rom || continue
        part u-boot-qemu usr/lib/u-boot/qemu-x86/u-boot.rom u-boot-qemu-x86.rom
        part u-boot-qemu usr/lib/u-boot/qemu-x86_64/u-boot.rom u-boot-qemu-x86_64.rom
        ;;
    *) fail "unknown medium '$medium'" ;;
    esac
done
