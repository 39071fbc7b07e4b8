#!/bin/sh
# Test accuracy with default settings over several seeds: mean, minimum and maximum of each.
# usage: BANTAM_DATA=folder-with-mnist/ bench/accuracy.sh [SEEDS]
set -eu
cd "$(dirname "$0")/.."
seeds=${1:-5}
: "${BANTAM_DATA:?set BANTAM_DATA to the folder that holds mnist/}"
make -s build/bantam
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

echo "| run | data | seeds | mean | lowest | highest | wanted |"
echo "|---|---|---|---|---|---|---|"
row() { # model data epochs wanted
    s=0
    while [ $s -lt "$seeds" ]; do
        build/bantam train "$1" "$2" --epochs "$3" --seed $s --quiet --json --out "$out/run" |
            sed 's/.*"test_acc": *\([0-9.e+-]*\).*/\1/'
        rm -rf "$out/run"
        s=$((s + 1))
    done | grep -v '[{}]' | awk -v run="train $1 --epochs $3" -v data="$2" -v wanted="$4" '
        { sum += $1; n++; if (n == 1 || $1 < low) low = $1; if ($1 > high) high = $1 }
        END { printf "| %s | %s | %d | %.2f %% | %.2f %% | %.2f %% | %s |\n", run, data, n, 100 * sum / n, 100 * low, 100 * high, wanted }'
}
row mlp mnist 3 "97.5 %"
row lenet mnist 2 "98.5 %"
row lenet mnist 10 "99.0 %"
row mlp digits 5 "below lenet"
row lenet digits 5 "97 %"
