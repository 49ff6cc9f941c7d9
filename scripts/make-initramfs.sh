#!/bin/bash
# Makes a small Linux system: BusyBox and an /init that leads to a shell with
# job control on the console. The same inputs give the same bytes.
#
# usage: scripts/make-initramfs.sh BUSYBOX OUT.cpio[.gz] [DIRECTORY...]
#        (each directory's content is laid over the root; packed if OUT ends in .gz)
set -u

fail() {
    echo "make-initramfs: $*" >&2
    exit 1
}

[ $# -ge 2 ] || fail "usage: make-initramfs.sh BUSYBOX OUT.cpio[.gz] [DIRECTORY...]"
busybox=$1 out=$2
shift 2
[ -x "$busybox" ] || fail "no BusyBox at $busybox: run scripts/guest-kernels.sh busybox"
command -v cpio >/dev/null || fail "cpio is not installed: apt-get install cpio"

root=$(mktemp -d) || fail "no temporary directory"
trap 'rm -rf "$root" "$out.new"' EXIT

mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,dev,proc,sys,tmp,root,etc} || fail "cannot write $root"
cp "$busybox" "$root/bin/busybox" || fail "cannot copy $busybox"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo vireo >"$root/etc/hostname"

cat >"$root/etc/profile" <<'PROFILE'
export PS1='vireo:\w# '
# Without -f they ask an init that is not there.
alias poweroff='poweroff -f' reboot='reboot -f' halt='halt -f'
PROFILE

# Kernel parameters of the form NAME=value which Linux does not know reach
# /init as environment: ROWS and COLS carry the size of the user's terminal.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=${TERM:-linux}
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
hostname -F /etc/hostname
[ -n "$ROWS" ] && [ -n "$COLS" ] && stty rows "$ROWS" cols "$COLS" 2>/dev/null
cd /root
if [ -x /autorun ]; then
    /autorun
fi
echo
echo "  Welcome to Linux $(uname -r) on $(uname -m) in Vireo."
echo "  $(nproc) processor(s), $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB of memory, BusyBox tools."
echo "  'poweroff' switches the machine off; Ctrl-A x leaves at once."
echo
# setsid and cttyhack make the console the controlling terminal of the shell:
# without that Ctrl-C and job control do not work.
setsid cttyhack sh -l
echo "The shell has ended: switching off."
poweroff -f
INIT
chmod 755 "$root/init" "$root/bin/busybox"

for layer in "$@"; do
    cp -a "$layer/." "$root/" || fail "cannot copy $layer"
done

find "$root" -exec touch -h -d @0 {} + || fail "cannot set times"
mkdir -p "$(dirname "$out")"
pack=(cat)
[[ $out == *.gz* ]] && pack=(gzip -9n)
(cd "$root" && find . -print0 | LC_ALL=C sort -z |
    cpio --quiet --null -o -H newc --reproducible -R 0:0) | "${pack[@]}" >"$out.new" ||
    fail "cannot write $out"
mv "$out.new" "$out" || fail "cannot write $out"
