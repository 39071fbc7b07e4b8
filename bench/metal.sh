#!/bin/sh
# What is to be known of a GPU of Apple: that it is right, how fast it trains and infers beside the CPU of the
# same machine, and whether products with SIMD-group matrices are faster than the portable kernels. Prints Markdown.
# `make` and `make build/bench/matmul` must have run.
# usage: bench/metal.sh [OPTION of `bantam bench`]...   environment: DEVICE=metal NETS='mlp lenet' SIZES BUILD
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
device=${DEVICE:-metal}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# stop SENTENCE
stop() {
    echo "bench/metal.sh: $1" >&2
    exit 1
}
for program in bantam bench/matmul; do
    [ -x "$build/$program" ] || stop "$build/$program is not there; run: make && make $build/bench/matmul"
done
"$build/bantam" train fc10 digits --limit 64 --epochs 1 --device "$device" --out "$out/run" --quiet >"$out/said" 2>&1 ||
    stop "$(tail -n 1 "$out/said")"

echo '## Devices'
echo '```'
"$build/bantam" devices
echo '```'

echo '## Right'
for net in ${NETS:-mlp lenet}; do
    "$build/bantam" parity "$net" --device "$device" --json --quiet >"$out/parity" || true
    echo "- $net, every kernel and 50 steps against f64: $(sed -n 's/.*"failed": \([0-9]*\).*/\1 failed/p' "$out/parity" | grep . || echo 'ended early')"
done

echo '## Fast'
echo '```'
for net in ${NETS:-mlp lenet}; do
    for way in cpu "$device" "$device --overrides off"; do
        echo "$net on $way"
        # shellcheck disable=SC2086
        "$build/bantam" bench "$net" --device $way --quiet "$@"
    done
done
echo '```'

echo '## Matrix products'
# shellcheck disable=SC2086
"$build/bench/matmul" "$device" ${SIZES:-256 512 1024 2048 4096 512t 500x784x64 1024x1024x64}
