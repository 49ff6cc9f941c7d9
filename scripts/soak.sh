#!/bin/bash
# What takes too long for `make check`: the suite under the sanitizers, its
# longer tests, saved and loaded machines at many points, whole boots on two
# engines in lockstep, many stressors, selftests and a Debian userland in the
# guest, then random instructions, blocks and programs on the host processor and
# on both engines, and hostile guests, with new seeds until the time is over.
#
# usage: scripts/soak.sh SECONDS
set -u
cd "$(dirname "$0")/.." || exit 1

scripts/guest-debian.sh || exit 1
scripts/sanitizers.sh || exit 1
# What `make check` leaves out for its time.
meson test -C build --no-rebuild --print-errorlogs -t 2 --suite soak || exit 1
tests/state/soak.sh build/state_test 1 jit interp,jit || exit 1
python3 tests/guest/run_flat.py --engine jit --lockstep || exit 1
python3 tests/guest/run_flat.py --engine jit --lockstep --at-once || exit 1
for cpus in 1 2; do
    tests/boot/test_lockstep.py bios $cpus || exit 1
    tests/boot/test_lockstep.py linux 64 $cpus || exit 1
    tests/boot/test_lockstep.py linux 32 $cpus || exit 1
    for engine in jit interp; do
        export ENGINE=$engine
        tests/boot/test_selftests.py 64 $cpus all || exit 1
        tests/boot/test_selftests.py 32 $cpus all || exit 1
        tests/boot/test_userland.py $cpus || exit 1
        tests/boot/test_stress.py $cpus long || exit 1
    done
    unset ENGINE
done
for firmware in bios uefi; do
    ENGINE=interp tests/boot/test_media.py memtest $firmware || exit 1
done
for bits in x86 x86_64; do
    ENGINE=interp tests/boot/test_media.py u-boot $bits || exit 1
done

end=$(($(date +%s) + ${1:-7200}))
seed=$(date +%s)
runs=0
while [ "$(date +%s)" -lt "$end" ]; do
    for kind in "--engine jit --seconds 120" "--engine jit --seconds 60 --blocks" \
        "--engine jit --seconds 120 --programs" "--engine jit --seconds 60 --programs --no-host"; do
        # shellcheck disable=SC2086 # options are words
        if ! build/insn_test --seed "$seed" $kind; then
            echo "soak: seed $seed failed; again with: build/insn_test --seed $seed $kind" >&2
            exit 1
        fi
    done
    if ! build/guest_fuzz --seed "$seed" --seconds 60; then
        echo "soak: hostile guests of seed $seed failed" >&2
        exit 1
    fi
    if ! build/qcow2_fuzz --seed "$seed" --seconds 60 ||
        ! build/img_kill --seed "$seed" --rounds 200 ||
        ! python3 tests/boot/test_disk.py kills 200 ||
        ! QCOW2_CUT_ROUNDS=2000 build/test_qcow2 power_cuts >/dev/null 2>&1; then
        echo "soak: qcow2 images of seed $seed failed" >&2
        exit 1
    fi
    runs=$((runs + 1))
    seed=$((seed + 1))
done
echo "soak: $runs runs, no difference"
