#!/bin/bash
# The suite under the compiler's sanitizers: ASan with UBSan for all of it,
# TSan for machines with two processors. Builds of their own, in build/asan and
# build/tsan. Arguments: asan, tsan (default: both).
#
# Under TSan guest memory is no concern (host_expect_races): a guest's
# processors race there as they like. Everything else of Vireo's is.
set -u
cd "$(dirname "$0")/.." || exit 1

scripts/guest-kernels.sh || exit 1
scripts/make-initramfs.sh build/guests/busybox build/guests/initramfs.cpio.gz || exit 1
scripts/make-initramfs.sh build/guests/busybox-i386 build/guests/initramfs-i386.cpio.gz || exit 1

# sanitized DIRECTORY SANITIZERS: a build with them, brought up to date
sanitized() {
    test -e "$1/build.ninja" ||
        meson setup "$1" -Dtests=enabled -Db_sanitize="$2" -Db_lundef=false || exit 1
    ninja -C "$1" || exit 1
}

# Both make everything several times slower.
export BOOT_TEST_PATIENCE=${BOOT_TEST_PATIENCE:-6}
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=history_size=4:exitcode=66

[ $# -eq 0 ] && set -- asan tsan
for which in "$@"; do
    case $which in
    asan)
        sanitized build/asan address,undefined
        meson test -C build/asan --no-rebuild --print-errorlogs -t 6 || exit 1
        ;;
    tsan)
        sanitized build/tsan thread
        meson test -C build/tsan --no-rebuild --print-errorlogs -t 6 --suite unit --suite dev ||
            exit 1
        meson test -C build/tsan --no-rebuild --print-errorlogs -t 6 \
            boot_linux64_2_jit boot_linux32_2_jit boot_linux64_2_interp || exit 1
        ;;
    *)
        echo "sanitizers: unknown '$which': asan or tsan" >&2
        exit 1
        ;;
    esac
done
