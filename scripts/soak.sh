#!/bin/bash
# Random instructions on the host processor and on the interpreter, with new
# seeds until the time is over: what `make soak` does.
#
# usage: scripts/soak.sh SECONDS
set -u
cd "$(dirname "$0")/.." || exit 1

end=$(($(date +%s) + ${1:-7200}))
seed=$(date +%s)
runs=0
while [ "$(date +%s)" -lt "$end" ]; do
    if ! build/insn_test --seed "$seed"; then
        echo "soak: seed $seed failed; again with: build/insn_test --seed $seed" >&2
        exit 1
    fi
    runs=$((runs + 1))
    seed=$((seed + 1))
done
echo "soak: $runs runs, no difference"
