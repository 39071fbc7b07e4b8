#!/bin/sh
# What --profile costs: ROUNDS pairs of the same training without it and with it, each first in every other
# pair, so that a busy machine slows both alike. Prints the medians of images/s and of the processor's
# seconds, and of the pairs' ratios with their quartiles. Arguments go to `bantam train`.
# usage: [ROUNDS=9] [NETS='mlp lenet'] [EPOCHS=2] bench/profile.sh [--device gpu] [--data mnist] ...
set -eu
cd "$(dirname "$0")/.."
bantam=${BUILD:-build}/bantam
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# train NET OPTION...: prints the result as JSON.
train() {
    rm -rf "$folder/run"
    "$bantam" train "$@" --val-split 0 --epochs "${EPOCHS:-2}" --out "$folder/run" --json --quiet
}

# one PAIR NET with|without [OPTION]...: a line "PAIR images/s seconds" in the file of its kind.
one() {
    pair=$1 net=$2 kind=$3
    shift 3
    times >"$folder/before"
    train "$net" "$@" >"$folder/result"
    times >"$folder/after"
    rate=$(sed -n 's/.*"images_per_s": *\([0-9.eE+]*\).*/\1/p' "$folder/result")
    cpu=$(awk -F '[ms ]+' 'FNR == 2 { at[NR] = 60 * $1 + $2 + 60 * $3 + $4 } END { print at[NR] - at[2] }' \
        "$folder/before" "$folder/after") # (of all processes that this shell has waited for)
    echo "$pair $rate $cpu" >>"$folder/$net.$kind"
}

printf '%-8s  %12s %12s  %-22s  %9s %9s  %s\n' net 'img/s' 'profiled' 'cost % (quartiles)' 'CPU s' 'profiled' 'cost % (quartiles)'
for net in ${NETS:-mlp lenet}; do
    train "$net" --profile "$@" >"$folder/result" # measures the roofline, which is kept
    pair=0
    while [ $pair -lt "${ROUNDS:-9}" ]; do
        pair=$((pair + 1))
        [ $((pair % 2)) -eq 0 ] || one $pair "$net" without "$@"
        one $pair "$net" with --profile "$@"
        [ $((pair % 2)) -eq 1 ] || one $pair "$net" without "$@"
    done
    paste -d ' ' "$folder/$net.without" "$folder/$net.with" | awk -v net="$net" '
        function sort(v, n,  i, j, t) {
            for (i = 2; i <= n; i++) { t = v[i]; for (j = i; j > 1 && v[j - 1] > t; j--) v[j] = v[j - 1]; v[j] = t }
        }
        function at(v, n, part,  i) { i = 1 + part * (n - 1); return v[int(i)] + (i - int(i)) * (v[int(i + 0.999)] - v[int(i)]) }
        function cost(v, n) { sort(v, n); return sprintf("%+.1f (%+.1f to %+.1f)", at(v, n, 0.5), at(v, n, 0.25), at(v, n, 0.75)) }
        { a[NR] = $2; b[NR] = $5; c[NR] = $3; d[NR] = $6
          r[NR] = 100 * ($2 / $5 - 1); s[NR] = 100 * ($6 / $3 - 1) }
        END { sort(a, NR); sort(b, NR); sort(c, NR); sort(d, NR)
            printf "%-8s  %12.0f %12.0f  %-22s  %9.2f %9.2f  %s\n", net, at(a, NR, 0.5), at(b, NR, 0.5), cost(r, NR),
                at(c, NR, 0.5), at(d, NR, 0.5), cost(s, NR) }'
done
