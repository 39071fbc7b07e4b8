#!/bin/sh
# Everything that is claimed about a GPU, in one run on one machine: gates and parity first, then epochs of
# MNIST (60 000 images) beside PyTorch (eager and as a CUDA graph), rounds alternating, medians, and the
# matrix product. Prints Markdown. `make` must have run; PyTorch is left out where there is none.
# usage: BANTAM_DATA=folder-with-mnist/ bench/gpu.sh [DEVICE] [ROUNDS]
set -u
cd "$(dirname "$0")/.."
device=${1:-gpu}
rounds=${2:-3}
build=${BUILD:-build}
bantam=$build/bantam
data=${BANTAM_DATA:?set BANTAM_DATA to the folder that holds mnist/}
python=${PYTHON:-python3}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || python=

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
number() { sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p"; }

echo "## Devices"
"$bantam" devices
echo "## Gates on $device"
for net in mlp lenet; do
    "$bantam" sanity $net --data mnist --device "$device" | tail -n 3
    "$bantam" parity $net --data mnist --device "$device" > "$out/parity" || echo "parity $net FAILED"
    { [ $net = mlp ] && cat "$out/parity"; } || tail -n 2 "$out/parity"
done
for run in "mlp 3" "lenet 2"; do
    set -- $run
    for where in "$device" cpu; do
        "$bantam" train "$1" mnist --device "$where" --epochs "$2" --quiet --json --out "$out/run" > "$out/json" || echo "train $1 FAILED"
        echo "$1, $2 epochs on $where: test accuracy $(number test_acc < "$out/json"), $(number train_s < "$out/json") s of training"
        rm -rf "$out/run"
    done
done

echo "## Epochs of 60 000 images, ms, median of $rounds rounds"
echo "| net, batch | PyTorch eager | PyTorch CUDA graph | Bantam | best PyTorch / Bantam |"
echo "|---|---|---|---|---|"
for net in mlp lenet; do
    for batch in 64 256 500; do
        rm -f "$out"/eager "$out"/graph "$out"/ours
        i=0
        while [ $i -lt "$rounds" ]; do
            "$bantam" bench $net --data mnist --device "$device" --batch $batch --repeats 3 --json |
                tr '{' '\n' | grep '"training"' | number images_per_s >> "$out/ours"
            [ -z "$python" ] || "$python" bench/peers/torch_gpu.py $net $batch graph 3 "$data/mnist" >> "$out/graph"
            [ -z "$python" ] || [ $i -gt 0 ] || "$python" bench/peers/torch_gpu.py $net $batch eager 1 "$data/mnist" >> "$out/eager"
            i=$((i + 1))
        done
        [ -n "$python" ] || echo nan | tee "$out/graph" > "$out/eager"
        echo "$net $batch $(median "$out/eager") $(median "$out/graph") $(median "$out/ours")" |
            awk '{ ours = 60000 / $5; best = $3 < $4 ? $3 : $4;
                   printf "| %s %s | %.1f | %.1f | %.1f | %.2f |\n", $1, $2, $3 * 1e3, $4 * 1e3, ours * 1e3, best / ours }'
    done
done

echo "## Where the steps go"
for net in mlp lenet; do "$bantam" bench $net --data mnist --device "$device" --batch 64 --repeats 1 | sed -n '/training steps/,$p'; done
echo "## f32 matrix products"
echo "| size | time | rate | largest error / sqrt(size) |"
echo "|---|---|---|---|"
"$build/bench/matmul" "$device" 512 1024 2048 4096
[ -z "$python" ] || echo "PyTorch at 4096, TFLOP/s in f32 and TF32: $("$python" bench/peers/torch_gpu.py matmul 4096)"
