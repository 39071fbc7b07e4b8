#!/bin/sh
# Accuracy on the real MNIST with the command's untouched defaults, two seeds each; the full table
# of five seeds is bench/accuracy.sh. Needs BANTAM_DATA (the folder that holds mnist/).
. tests/tap.sh
plan 2

# Mean test accuracy in percent over the seeds 1 .. SEEDS.
mean_accuracy() { # MODEL EPOCHS SEEDS
    seed=1
    while [ "$seed" -le "$3" ]; do
        "$BUILD/bantam" train "$1" mnist --epochs "$2" --seed "$seed" --json --quiet --out "$BUILD/tests/mnist-$1" || return
        rm -rf "$BUILD/tests/mnist-$1"
        seed=$((seed + 1))
    done | awk '{ if (match($0, /"test_acc": [0-9.e-]+/)) { sum += substr($0, RSTART + 12, RLENGTH - 12); n++ } }
        END { if (n) printf "%.2f %d\n", 100 * sum / n, n }'
}

gate() { # NAME MODEL EPOCHS PERCENT
    if [ ! -d "${BANTAM_DATA:-/nowhere}/mnist" ]; then
        skip "$1" "no MNIST here; set BANTAM_DATA to the folder that holds mnist/"
    elif [ -n "${BT_TEST_QUICK:-}" ]; then
        skip "$1" "too long for an instrumented build"
    else
        # shellcheck disable=SC2046
        set -- "$@" $(mean_accuracy "$2" "$3" 2)
        if [ "${6:-0}" != 2 ]; then
            fail "$1" "training failed"
        elif awk "BEGIN { exit !($5 >= $4) }"; then
            pass "$1"
        else
            fail "$1" "$2 reaches $5 % after $3 epochs (mean of 2 seeds), not $4 %"
        fi
    fi
}

gate mlp_after_3_epochs mlp 3 97.5
gate lenet_after_2_epochs lenet 2 98.5
