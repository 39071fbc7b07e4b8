#!/bin/sh
# Epochs of MNIST (60 000 images) on the CPU beside PyTorch, in one run on the same cores: rounds
# alternate between the two, medians and their ratio are printed as a Markdown table.
# usage: BANTAM_DATA=folder-with-mnist/ bench/cpu.sh [ROUNDS]     needs python3 with torch and numpy
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
data=${BANTAM_DATA:?set BANTAM_DATA to the folder that holds mnist/}
python=${PYTHON:-/usr/bin/python3}
cores=$(nproc)
make -s build/bantam
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

ours() { # net batch
    build/bantam train "$1" mnist --epochs 2 --batch "$2" --val-split 0 --lr 0.05 --opt momentum --sched const \
        --quiet --json --out "$out/run" |
        "$python" -c 'import json,sys; r = json.load(sys.stdin); print(r["train_s"] / r["epochs"])'
    rm -rf "$out/run"
}

echo "| net, batch | PyTorch 1 thread | PyTorch $cores threads | Bantam $cores threads | best PyTorch / Bantam |"
echo "|---|---|---|---|---|"
for net in mlp lenet; do
    for batch in 64 256 500; do
        rm -f "$out"/t1 "$out"/tn "$out"/b
        i=0
        while [ $i -lt "$rounds" ]; do
            ours $net $batch >> "$out/b"
            "$python" bench/peers/torch_epochs.py $net $batch 1 2 "$data/mnist" >> "$out/t1"
            "$python" bench/peers/torch_epochs.py $net $batch "$cores" 2 "$data/mnist" >> "$out/tn"
            i=$((i + 1))
        done
        echo "$net $batch $(median "$out/t1") $(median "$out/tn") $(median "$out/b")" |
            awk '{ best = $3 < $4 ? $3 : $4;
                   printf "| %s %s | %.0f ms | %.0f ms | %.0f ms | %.2f |\n", $1, $2, $3 * 1e3, $4 * 1e3, $5 * 1e3, best / $5 }'
    done
done
