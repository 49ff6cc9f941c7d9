#!/bin/bash
# Fetches the guests that `make run` and the boot tests start, from the Debian
# archive, into build/guests. Needs no root and leaves the host's package
# database alone: packages are downloaded and unpacked, never installed, and
# the i386 ones through an apt configuration of their own.
#
# usage: scripts/guest-kernels.sh [cloud] [amd64] [busybox] [686-pae] [busybox-i386] [xen]
#        (nothing named: all of them)
#
# leaves: build/guests/{vmlinuz-cloud,vmlinuz-amd64,layers/{cloud,disk,virtio},config-cloud,busybox,vmlinuz-686-pae,busybox-i386,xen}
set -u
cd "$(dirname "$0")/.." || exit 1

. scripts/guest-apt.sh

# The package with the kernel itself that a metapackage stands for.
kernel_behind() {
    local arch=$1 package=$2
    apt_for "$arch" apt-cache depends "$package" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1
}

# kernel ARCH METAPACKAGE NAME [MODULE...]: modules go to layers/NAME
kernel() {
    local arch=$1 meta=$2 name=$3 package
    shift 3
    [ -e "$guests/vmlinuz-$name" ] && [ $# -eq 0 -o -e "$guests/layers/$name/modules/order" ] && return
    # Makes sure there are lists before they are asked.
    apt_for "$arch" true || fail "no package lists for $arch: check the network"
    package=$(kernel_behind "$arch" "$meta")
    [ -n "$package" ] || fail "no kernel behind $meta in the archive for $arch"
    download "$arch" "$package" || fail "cannot download $package: check the network"
    cp "$guests/unpacked/$package-$arch"/boot/config-* "$guests/config-$name"
    cp "$guests/unpacked/$package-$arch"/boot/vmlinuz-* "$guests/vmlinuz-$name.new" &&
        mv "$guests/vmlinuz-$name.new" "$guests/vmlinuz-$name" ||
        fail "no kernel in $package"
    if [ $# -gt 0 ]; then
        mkdir -p "$guests/layers"
        scripts/guest-modules.py "$guests/unpacked/$package-$arch" "$guests/layers/$name" "$@" ||
            fail "modules are missing in $package"
    fi
    # The others are large and nothing here uses them.
    rm -rf "$guests/unpacked/$package-$arch"
}

# The full kernel, which has AHCI, NVMe and virtio, and the modules that tests use in a layer over
# an initramfs: layers/disk. The package is kept for more of them.
amd64() {
    local package=$guests/unpacked/linux-image-amd64
    [ -e "$guests/vmlinuz-amd64" ] && grep -qs "^virtio_blk\$" "$guests/layers/disk/modules/order" &&
        return
    apt_for amd64 true || fail "no package lists for amd64: check the network"
    local name
    name=$(kernel_behind amd64 linux-image-amd64)
    [ -n "$name" ] || fail "no kernel behind linux-image-amd64 in the archive"
    download amd64 "$name" || fail "cannot download $name: check the network"
    rm -rf "$package" && mv "$guests/unpacked/$name-amd64" "$package" || fail "cannot move $name"
    mkdir -p "$guests/layers"
    scripts/guest-modules.py "$package" "$guests/layers/disk" ahci sd_mod sr_mod isofs ext4 \
        crc32c_generic 'crc32c-intel?' nvme virtio_pci virtio_blk || fail "modules are missing in $name"
    cp "$package"/boot/vmlinuz-* "$guests/vmlinuz-amd64.new" &&
        mv "$guests/vmlinuz-amd64.new" "$guests/vmlinuz-amd64" || fail "no kernel in $name"
}

# The same kernel's virtio, as a layer of its own: layers/virtio.
virtio() {
    [ -e "$guests/layers/virtio/modules/order" ] && return
    amd64
    scripts/guest-modules.py "$guests/unpacked/linux-image-amd64" "$guests/layers/virtio" \
        virtio_pci virtio_blk virtio_rng virtio_console virtio_balloon 9p 9pnet_virtio ||
        fail "modules are missing in the kernel"
}

# busybox ARCH NAME
busybox() {
    local arch=$1 name=$2
    [ -e "$guests/$name" ] && return
    if [ "$arch" = amd64 ] && [ "$(dpkg-query -W -f='${db:Status-Status}' busybox-static 2>/dev/null)" = installed ]; then
        cp /bin/busybox "$guests/$name" && return
    fi
    download "$arch" busybox-static || fail "cannot download busybox-static: check the network"
    cp "$guests/unpacked/busybox-static-$arch/bin/busybox" "$guests/$name" ||
        fail "no busybox in busybox-static"
}

xen() {
    [ -e "$guests/xen" ] && return
    download amd64 xen-hypervisor-4.17-amd64 ||
        fail "cannot download xen-hypervisor-4.17-amd64: check the network ($release)"
    gzip -dc "$guests"/unpacked/xen-hypervisor-4.17-amd64-amd64/boot/xen-*.gz >"$guests/xen.new" &&
        mv "$guests/xen.new" "$guests/xen" || fail "no xen in xen-hypervisor-4.17-amd64"
}

[ $# -eq 0 ] && set -- cloud amd64 virtio busybox 686-pae busybox-i386 xen
for guest in "$@"; do
    case $guest in
    cloud)
        kernel amd64 linux-image-cloud-amd64 cloud virtio_pci virtio_net virtio_blk virtio_rng \
            virtio_console
        ;;
    amd64) amd64 ;;
    virtio) virtio ;;
    686-pae) kernel i386 linux-image-686-pae 686-pae ;;
    busybox) busybox amd64 busybox ;;
    busybox-i386) busybox i386 busybox-i386 ;;
    xen) xen ;;
    *) fail "unknown guest '$guest'" ;;
    esac
done
