#!/bin/sh
# mmdebstrap's hook: what a new root gets before it becomes a file system.
#
# usage: customize.sh ROOT
set -eu
root=$1
here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin

echo "root:vireo" | chpasswd -R "$root"
# Nothing that starts by itself, some minutes after the boot.
for timer in apt-daily apt-daily-upgrade; do
    ln -sf /dev/null "$root/etc/systemd/system/$timer.timer"
done
# Addresses by DHCP where there is a card; nothing waits for them.
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-vireo.network"
chroot "$root" systemctl -q enable systemd-networkd
ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"
# The name server of --net user.
rm -f "$root/etc/resolv.conf"
echo "nameserver 10.0.2.3" >"$root/etc/resolv.conf"
rm -rf "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
mkdir -p "$root/boot/grub"
cp "$here/grub.cfg" "$root/boot/grub/grub.cfg"
