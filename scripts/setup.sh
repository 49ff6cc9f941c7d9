#!/bin/bash
# Installs the Debian packages which building, running or testing Vireo needs
# and which this machine lacks. Installs nothing else and changes nothing else.
#
# usage: scripts/setup.sh build|run|check|bench|debian (a disk: guest-debian.sh)
set -u

build_packages=(gcc libc6-dev meson ninja-build pkg-config python3 libzydis-dev libzycore-dev
    libuv1-dev libpng-dev zlib1g-dev libzstd-dev libslirp-dev acpica-tools)
# cpio and gzip pack the initramfs; dpkg-deb and apt-get fetch the guests.
run_packages=(busybox-static cpio gzip xz-utils ca-certificates seabios ipxe-qemu)
# GRUB's rescue CD is made by the tests.
grub_packages=(grub-common grub-pc-bin grub-efi-amd64-bin mtools)
check_packages=(libcmocka-dev nasm qemu-system-x86 qemu-utils gcc-multilib make ovmf xorriso
    "${grub_packages[@]}" openssh-client iproute2)
debian_packages=(mmdebstrap mount e2fsprogs fdisk "${grub_packages[@]}")
bench_packages=(bochs bochsbios vgabios isolinux syslinux-common)

fail() {
    echo "setup: $*" >&2
    exit 1
}

goal=${1:-build}
wanted=("${build_packages[@]}")
case $goal in
debian) wanted=("${debian_packages[@]}") ;;
build) ;;
run) wanted+=("${run_packages[@]}") ;;
check) wanted+=("${run_packages[@]}" "${check_packages[@]}" "${debian_packages[@]}") ;;
bench)
    wanted+=("${run_packages[@]}" "${check_packages[@]}" "${debian_packages[@]}"
        "${bench_packages[@]}")
    ;;
*) fail "unknown goal '$goal': build, run, check, bench or debian" ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    fail "this is not Debian; install these yourself and run meson and ninja: ${wanted[*]}"
fi

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
        fail "as root, run: apt-get install --no-install-recommends ${missing[*]}"
    root=(sudo)
fi

apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@"
}

echo "setup: installing ${missing[*]}"
# The lists of a fresh machine are empty or stale: bring them up to date once.
apt update || fail "apt-get update failed (see above): check the network and /etc/apt"
apt install -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install ${missing[*]} (see above)"
