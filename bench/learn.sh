#!/bin/sh
# The steps of docs/learn/kernels.md, each timed on a device that takes kernels as text (vulkan): a copy
# of kernels/ whose matrix product is that step alone, whatever the shape.
# usage: bench/learn.sh [DEVICE [SIZE...]]     after `make build/bench/learn`; STEPS="tiled large": only these
set -eu
cd "$(dirname "$0")/.."
device=${1:-vulkan}
[ $# = 0 ] || shift
learn=${BUILD:-build}/bench/learn
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# matmul.k whose variant STEP is always used and the others never.
choose() { # STEP
    awk -v step="$1" '
        /^kernel matmul_[a-z]+ of matmul/ {
            print "kernel " $2 " of matmul when (m " ($2 == "matmul_" step ? ">=" : "<") " 0u)"
            skip = 1
        }
        /^    \(in / { skip = 0 }
        !skip' kernels/matmul.k
}

# matmul.k where the kernel for any shape has the grid and the body of a kernel of kernels/learn.
teach() { # STEP
    choose none | sed '/^kernel matmul$/,$d'
    echo "kernel matmul"
    echo "    (in float a[], in float b[], in? float bias[], in? float y_forward[], out float y[], matmul)"
    sed -n '/^    group(/,$p' "kernels/learn/matmul_$1.k"
}

for step in ${STEPS:-naive tiled default large small thin}; do
    rm -f "$folder"/*.k
    cp kernels/*.k "$folder"
    case $step in
    naive | tiled) teach "$step" >"$folder/matmul.k" ;;
    *) choose "$step" >"$folder/matmul.k" ;;
    esac
    "$learn" "$device" "$folder" "${@:-512}" >"$folder/times"
    sed "s/^/$step /" "$folder/times"
done
