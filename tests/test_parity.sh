#!/bin/sh
# Every kernel against the f64 reference on the devices that are always there, the text of kernels,
# and kernels that are edited while a network trains.
. tests/tap.sh
plan 8
dir=$BUILD/tests/parity
rm -rf "$dir" && mkdir -p "$dir"
bantam=$BUILD/bantam

# Prints what is wrong with the parity of a device: all rows within bounds, on 20 shapes and more.
parity() { # DEVICE
    "$bantam" parity --device "$1" --json --quiet >"$dir/$1.json" 2>"$dir/$1.log" || head -n 1 "$dir/$1.log"
    python3 - "$dir/$1.json" <<'END' 2>&1 | tail -n 3
import json, sys
result = json.load(open(sys.argv[1]))
for row in result["operators"]:
    if not row["ok"] or row["shapes"] < 20:
        print("%s: %d shapes, worst %s" % (row["operator"], row["shapes"], row["worst_shape"]))
for name in result["unreached"]:
    print("no case reached kernel " + name)
if len(result["operators"]) < 50:
    print("only %d rows" % len(result["operators"]))
END
}
verdict parity_of_cpu "$(parity cpu)"
if [ -n "${BT_TEST_QUICK:-}" ]; then
    skip parity_of_sim "too long for an instrumented build"
else
    verdict parity_of_sim "$(parity sim)"
fi

# ---- Texts ----

{
    "$bantam" kernels --json --quiet >"$dir/list" || echo "the list failed"
    for name in map matmul conv2d_grad_weight step_end; do
        grep -q "\"kernel\": \"$name\"" "$dir/list" || echo "$name is not in the list"
        "$bantam" kernels "$name" | grep -qw "^kernel $name" || echo "$name has no text"
        for lang in glsl cuda msl wgsl c; do
            "$bantam" kernels "$name" --lang "$lang" >"$dir/text" || echo "$name in $lang failed"
            [ "$(wc -l <"$dir/text")" -gt 10 ] || echo "$name in $lang is short"
        done
    done
    grep -c '"variant_of": "' "$dir/list" >/dev/null || echo "no variant is in the list"
} >"$dir/texts" 2>&1
verdict kernels_in_all_languages "$(cat "$dir/texts")"
verdict unknown_kernel_is_corrected "$("$bantam" kernels matmull 2>&1 >/dev/null | grep -qF "did you mean 'matmul'?" || echo "no guess")"

# ---- Hot reload ----

train() { # RUN FOLDER EPOCHS
    "$bantam" train mlp digits --limit 128 --device vulkan --epochs "$3" --out "$dir/$1" --watch-kernels "$2"
}
# A copy of the kernels in which FILE was edited; fails when that changed nothing.
edited() { # NAME FILE SED-SCRIPT
    mkdir -p "$dir/$1" && cp kernels/*.k "$dir/$1" && sed "$3" "kernels/$2" >"$dir/$1/$2" && ! cmp -s "kernels/$2" "$dir/$1/$2"
}
# A folder that is refused before the first step, with a sentence.
refused() { # NAME SENTENCE-PATTERN
    train "$1-run" "$dir/$1" 1 >"$dir/$1.out" 2>&1
    code=$?
    [ $code = 2 ] || echo "exit $code"
    grep -qE "$2" "$dir/$1.out" || echo "not said: $(tail -n 1 "$dir/$1.out")"
}
if ! "$bantam" devices | grep -q '^vulkan.* ready '; then
    for name in wrong_result_is_refused syntax_error_has_a_line good_kernel_is_swapped_in bad_kernel_changes_nothing; do
        skip $name "no Vulkan device here"
    done
    exit 0
fi
verdict wrong_result_is_refused "$(edited minus math.k 's/y = a + b;/y = a - b;/' || echo "nothing edited"
    refused minus 'differs from the f64 reference')"
verdict syntax_error_has_a_line "$(edited syntax softmax.k '40s/;/,/' || edited syntax softmax.k '41s/;/,/' || echo "nothing edited"
    refused syntax 'softmax\.k:4[0-9]:')"

# Edits the kernels when the first epoch is reported; the training must see it and go on.
live() { # NAME FILE SED-SCRIPT
    mkdir -p "$dir/$1" && cp kernels/*.k "$dir/$1"
    train "$1-run" "$dir/$1" 8 2>&1 | while read -r line; do
        echo "$line"
        case $line in "epoch  1/"*) sed "$3" "kernels/$2" >"$dir/$1/new" && mv "$dir/$1/new" "$dir/$1/$2" ;; esac
    done >"$dir/$1.out"
}
live good batch.k "s/256/128/g"
verdict good_kernel_is_swapped_in "$(grep -q 'batch.k changed: swapped in gather_batch .*cases passed' "$dir/good.out" || tail -n 2 "$dir/good.out"
    grep -q 'test accuracy' "$dir/good.out" || echo "the training did not end")"
live bad math.k 's/y = a \* b;/y = a;/'
verdict bad_kernel_changes_nothing "$(grep -q 'math.k changed; the kernels stay as they were: .*differs from the f64 reference' "$dir/bad.out" || tail -n 2 "$dir/bad.out"
    grep -q 'test accuracy' "$dir/bad.out" || echo "the training did not end")"
