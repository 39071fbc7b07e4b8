#!/bin/sh
# The programs of examples/ run, and print what they promise.
. tests/tap.sh
plan 3

expect() { # NAME PATTERN...
    name=$1
    shift
    if ! "$BUILD/examples/$name" >"$BUILD/tests/example-$name.log" 2>&1; then
        fail "$name" "ends with an error: $(tail -n 1 "$BUILD/tests/example-$name.log")"
        return
    fi
    missing=
    for pattern; do
        grep -qE "$pattern" "$BUILD/tests/example-$name.log" || missing="$missing does not print '$pattern'"
    done
    verdict "$name" "$missing"
}

expect matrix 'a transpose\(a\) = f64 \[2, 2\]' '\[\[14, 32\],' ' \[32, 77\]\]' '\[\[-9, -18, -27\],' '\[\[10, 10, 10\],' 'sum of all = 21'
expect xor '0 xor 0 = -?0.0' '0 xor 1 = (1.0|0.9)' '1 xor 0 = (1.0|0.9)' '1 xor 1 = -?0.0'
expect classify '(7|8|9)[0-9]\.[0-9] % of 1000 test digits are right' '(it is a [0-9])'
