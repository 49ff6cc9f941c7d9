#!/bin/bash
# Makes a disk with Debian 12 as people install it: the standard kernel,
# systemd, GRUB for BIOS and for UEFI. It is build/guests/debian.img (sparse);
# user root, password vireo; consoles on the screen and the first serial port; DHCP
# on the network card, if there is one, and an ssh server (keys only).
# It is made anew when this recipe changes: who works in it should copy it.
#
# No loop devices and no root are needed: mmdebstrap fills the root, mke2fs
# makes a file system of it, and GRUB's parts are put where the firmwares look.
#
#   partition 1, 1 MiB        GRUB's core.img, for its boot.img in the MBR
#   partition 2, 32 MiB       EFI system partition: EFI/BOOT/BOOTX64.EFI
#   partition 3, the rest     ext4, label vireo-root
#
# usage: scripts/guest-debian.sh
set -u
cd "$(dirname "$0")/.." || exit 1

# It takes minutes: those who want a kernel need not wait for it.
# shellcheck disable=SC2034
lock=.lock-debian
. scripts/guest-apt.sh

PATH=$PATH:/usr/sbin:/sbin
parts=$PWD/scripts/debian
image=$guests/debian.img
work=$guests/debian.work
root=$work/root.ext4
stamp=$guests/debian.recipe
# zstd is what Debian's installer brings: the initramfs is packed with it then.
packages=linux-image-amd64,systemd-sysv,dbus,udev,kmod,e2fsprogs,fdisk,util-linux,login,zstd,fio,pciutils
packages+=,iproute2,openssh-server
root_mib=1900
# In sectors of 512 bytes.
bios_first=2048
bios_count=2048
efi_first=4096
efi_count=65536
root_first=69632
sectors=$((root_first + (root_mib + 1) * 2048))

# Some of what mmdebstrap says of its steps.
progress() {
    local line
    while read -r line; do
        case $line in
        "I: downloading"* | "I: extracting"* | "I: installing"* | "I: creating"*) say "${line#I: }" ;;
        esac
    done
}

make_root() {
    local make as_root=()
    say "installing Debian 12 on a disk (300 MB to download, 2 to 5 minutes)"
    # A crash of the host loses nothing here: no flush for each file.
    mmdebstrap --variant=minbase --include="$packages" --dpkgopt=force-unsafe-io \
        --essential-hook="$parts/prepare.sh" --customize-hook="$parts/customize.sh" \
        "$release" "$work/root.tar" 2>&1 >"$work/mmdebstrap.out" |
        tee "$work/mmdebstrap.log" | progress
    [ "${PIPESTATUS[0]}" -eq 0 ] || {
        tail -5 "$work/mmdebstrap.log" >&2
        fail "mmdebstrap failed (see $work/mmdebstrap.log): check the network"
    }
    say "making a file system of it"
    # Files must have their owners when the file system is made of them.
    # shellcheck disable=SC2016
    make='mkdir "$0/root" && tar -C "$0/root" --exclude="./dev/*" -xf "$0/root.tar" &&
        mke2fs -q -t ext4 -L vireo-root -d "$0/root" "$0/root.ext4" "$1"M && rm -rf "$0/root"'
    [ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user --map-auto)
    "${as_root[@]}" sh -c "$make" "$work" "$root_mib" >"$work/mke2fs.log" 2>&1 || {
        tail -5 "$work/mke2fs.log" >&2
        fail "cannot make the file system (see $work/mke2fs.log)"
    }
}

make_disk() {
    local disk=$work/disk efi=$work/disk@@$((efi_first * 512))
    local modules=(part_gpt ext2 fat search search_label configfile normal linux serial terminal
        echo ls cat test reboot halt)
    grub-mkimage -O i386-pc -o "$work/core.img" -c "$parts/early.cfg" -p /boot/grub \
        biosdisk "${modules[@]}" &&
        grub-mkimage -O x86_64-efi -o "$work/bootx64.efi" -c "$parts/early.cfg" -p /boot/grub \
            efi_gop "${modules[@]}" || fail "cannot make GRUB's images"
    truncate -s "$((sectors * 512))" "$disk" && sfdisk -q "$disk" <<TABLE &&
label: gpt
start=$bios_first, size=$bios_count, type=21686148-6449-6E6F-744E-656564454649
start=$efi_first, size=$efi_count, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=$root_first, size=$((root_mib * 2048)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
TABLE
        scripts/debian/put-grub.py "$disk" /usr/lib/grub/i386-pc/boot.img "$work/core.img" \
            "$bios_first" &&
        mformat -i "$efi" -T "$efi_count" -h 64 -s 32 -v VIREO-ESP :: &&
        mmd -i "$efi" ::/EFI ::/EFI/BOOT &&
        mcopy -i "$efi" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI &&
        dd if="$root" of="$disk" bs=512 seek="$root_first" conv=sparse,notrunc status=none &&
        mv "$disk" "$image" || fail "cannot make $image"
}

recipe=$(cat scripts/guest-debian.sh "$parts"/* | sha256sum)
[ -e "$image" ] && [ "$recipe" = "$(cat "$stamp" 2>/dev/null)" ] && exit 0
[ -e "$image" ] && say "the recipe of build/guests/debian.img has changed"
scripts/setup.sh debian || exit 1
rm -rf "$work"
mkdir -p "$work" || fail "cannot make $work"
make_root
make_disk
echo "$recipe" >"$stamp" || fail "cannot write $stamp"
rm -rf "$work"
say "build/guests/debian.img is there: vireo run build/guests/debian.img"
