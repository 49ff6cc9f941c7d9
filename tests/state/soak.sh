#!/bin/bash
# The State proof at length: what `make soak` does of it. New seeds each time;
# what fails prints them.
#
# usage: tests/state/soak.sh STATE_TEST ROUNDS [ENGINE...]
#    ENGINE: what state_test --engine takes
set -u
cd "$(dirname "$0")/../.." || exit 1

test=$1 rounds=${2:-1}
shift $(($# < 2 ? $# : 2))
[ $# -eq 0 ] && set -- auto
engines=("$@")
export VIREO_GUESTS=$PWD/build/guests

run() {
    "$test" --engine "$engine" "$@" || {
        echo "soak: failed; again with: VIREO_GUESTS=$VIREO_GUESTS $test --engine $engine $*" >&2
        exit 1
    }
}

for ((round = 0; round < rounds; round++)); do
    seed=$(($(date +%s) + round))
    for engine in "${engines[@]}"; do
        for cpus in 1 2 4; do
            run future linux $cpus 60 $seed
            run future bios $cpus 400 $seed
            run hop linux $cpus
            run twice linux $cpus 50 load
            run twice bios $cpus 50 load
        done
        run damage bios 20000 $seed
        run damage linux 300 $seed
    done
done
