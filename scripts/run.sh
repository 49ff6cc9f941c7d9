#!/bin/bash
# Boots Debian's cloud kernel with a BusyBox initramfs to a shell on this
# terminal: what `make run` does. Arguments go to vireo as they are.
set -u
cd "$(dirname "$0")/.." || exit 1

guests=build/guests
scripts/guest-kernels.sh cloud busybox || exit 1
initramfs=$guests/run.cpio.gz

# Over the system: the drivers of virtio, and an address from the user network, if there is one.
make_layer() {
    rm -rf "$1" && mkdir -p "$1/etc" && cp -r $guests/layers/cloud/modules "$1/" || return 1
    cat >"$1/etc/bound" <<'BOUND'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/${mask:-24}" dev "$interface"
ip route add default via "$router"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
BOUND
    cat >"$1/autorun" <<'AUTORUN'
#!/bin/sh
for module in $(cat /modules/order); do insmod "/modules/$module.ko"; done
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    udhcpc -i eth0 -s /etc/bound -n -q -t 3 -T 1 >/dev/null 2>&1 || echo "eth0: no address by DHCP"
fi
AUTORUN
    chmod 755 "$1/etc/bound" "$1/autorun"
}

if [ ! -e $initramfs ] || [ scripts/run.sh -nt $initramfs ] ||
    [ scripts/make-initramfs.sh -nt $initramfs ]; then
    make_layer $guests/layers/run || exit 1
    scripts/make-initramfs.sh $guests/busybox $initramfs $guests/layers/run || exit 1
fi

append="console=ttyS0"
# The size of this terminal, for the guest's shell.
if [ -t 0 ] && read -r rows cols < <(stty size 2>/dev/null) && [ "${rows:-0}" -gt 0 ]; then
    append+=" ROWS=$rows COLS=$cols TERM=${TERM:-linux}"
fi

exec build/vireo run --kernel $guests/vmlinuz-cloud --initrd $initramfs \
    --append "$append" --memory "${MEMORY:-512M}" --cpus "${CPUS:-1}" "$@"
