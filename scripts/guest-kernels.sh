#!/bin/bash
# Fetches the guests that `make run` and the boot tests start, from the Debian
# archive, into build/guests. Needs no root and leaves the host's package
# database alone: packages are downloaded and unpacked, never installed, and
# the i386 ones through an apt configuration of their own.
#
# usage: scripts/guest-kernels.sh [cloud] [busybox] [686-pae] [busybox-i386] [xen]
#        (nothing named: all of them)
#
# leaves: build/guests/{vmlinuz-cloud,config-cloud,busybox,vmlinuz-686-pae,busybox-i386,xen}
set -u
cd "$(dirname "$0")/.." || exit 1

guests=$PWD/build/guests
release=bookworm

fail() {
    echo "guest-kernels: $*" >&2
    exit 1
}

say() {
    echo "guest-kernels: $*"
}

mkdir -p "$guests" || fail "cannot make $guests"
# Two runs side by side (make run beside make check) take turns.
exec 9>"$guests/.lock"
flock 9 || fail "cannot lock $guests/.lock"

# apt_for ARCH COMMAND...: apt-get or apt-cache with lists, cache and status of
# their own, for one architecture; mirrors and keys are the host's.
apt_for() {
    local arch=$1 home=$guests/apt-$1
    shift
    if [ ! -e "$home/apt.conf" ]; then
        mkdir -p "$home/lists/partial" "$home/archives/partial" "$home/parts" || return 1
        : >"$home/status"
        # A host that pins its sources to its own architecture must not keep
        # us from another one.
        local source
        for source in /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
            /etc/apt/sources.list.d/*.sources; do
            [ -e "$source" ] || continue
            grep -q 'debian' "$source" || continue
            sed -e '/^Architectures:/d' -e 's/\[\(.*\)arch=[^] ]*\(.*\)\]/[\1\2]/' \
                "$source" >"$home/parts/${source##*/}"
        done
        cat >"$home/apt.conf" <<CONF
APT::Architecture "$arch";
#clear APT::Architectures;
APT::Architectures { "$arch"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Dir::State "$home";
Dir::State::status "$home/status";
Dir::State::lists "$home/lists";
Dir::Cache "$home";
Dir::Cache::archives "$home/archives";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$home/parts";
Dir::Etc::preferencesparts "/dev/null";
CONF
    fi
    if [ ! -e "$home/updated" ]; then
        say "reading the package lists for $arch"
        # One suite that a mirror cannot serve right now (a sync in progress)
        # is passed over: what apt has verified of the others is enough.
        APT_CONFIG=$home/apt.conf apt-get -q update >"$home/update.log" 2>&1 ||
            compgen -G "$home/lists/*_Packages*" >/dev/null || {
            tail -5 "$home/update.log" >&2
            return 1
        }
        : >"$home/updated"
    fi
    APT_CONFIG=$home/apt.conf "$@"
}

# download ARCH PACKAGE: leaves the .deb's files in $guests/unpacked/PACKAGE-ARCH.
download() {
    local arch=$1 package=$2 work=$guests/download-$2-$1 out=$guests/unpacked/$2-$1
    rm -rf "$work" "$out"
    mkdir -p "$work" "$out" || return 1
    say "downloading $package ($arch)"
    (cd "$work" && apt_for "$arch" apt-get -q download "$package" >log 2>&1) || {
        # Lists of an earlier day may name versions that are gone.
        rm -f "$guests/apt-$arch/updated"
        (cd "$work" && apt_for "$arch" apt-get -q download "$package" >log 2>&1)
    } || {
        tail -3 "$work/log" >&2
        return 1
    }
    dpkg-deb -x "$work"/*.deb "$out" && rm -rf "$work"
}

# The package with the kernel itself that a metapackage stands for.
kernel_behind() {
    local arch=$1 package=$2
    apt_for "$arch" apt-cache depends "$package" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1
}

# kernel ARCH METAPACKAGE NAME
kernel() {
    local arch=$1 meta=$2 name=$3 package
    [ -e "$guests/vmlinuz-$name" ] && return
    # Makes sure there are lists before they are asked.
    apt_for "$arch" true || fail "no package lists for $arch: check the network"
    package=$(kernel_behind "$arch" "$meta")
    [ -n "$package" ] || fail "no kernel behind $meta in the archive for $arch"
    download "$arch" "$package" || fail "cannot download $package: check the network"
    cp "$guests/unpacked/$package-$arch"/boot/config-* "$guests/config-$name"
    cp "$guests/unpacked/$package-$arch"/boot/vmlinuz-* "$guests/vmlinuz-$name.new" &&
        mv "$guests/vmlinuz-$name.new" "$guests/vmlinuz-$name" ||
        fail "no kernel in $package"
    # Its modules are large and nothing here uses them.
    rm -rf "$guests/unpacked/$package-$arch"
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

[ $# -eq 0 ] && set -- cloud busybox 686-pae busybox-i386 xen
for guest in "$@"; do
    case $guest in
    cloud) kernel amd64 linux-image-cloud-amd64 cloud ;;
    686-pae) kernel i386 linux-image-686-pae 686-pae ;;
    busybox) busybox amd64 busybox ;;
    busybox-i386) busybox i386 busybox-i386 ;;
    xen) xen ;;
    *) fail "unknown guest '$guest'" ;;
    esac
done
