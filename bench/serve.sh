#!/bin/sh
# What the live page costs a training: PAIRS times the same one without --serve and with it, the page being
# followed all the time, each first in every other pair, so that a busy machine slows both alike. Prints the
# medians of images/s, the median of the pairs' ratios with its quartiles, and the share that the threads of
# the page have in the processor's seconds of the training (which a busy machine does not disturb). Arguments
# go to `bantam train`. Needs curl.
# usage: [PAIRS=10] [NETS='mlp lenet'] [EPOCHS=8] bench/serve.sh [--data mnist] ...
set -eu
cd "$(dirname "$0")/.."
bantam=${BUILD:-build}/bantam
folder=$(mktemp -d)
ticks=$(getconf CLK_TCK)
trap 'rm -rf "$folder"' EXIT

# seconds_of PID: the processor's, of the threads of the page and of all.
seconds_of() {
    cat /proc/"$1"/task/*/stat 2>"$folder/gone" | awk -v hz="$ticks" '
        { page = /\((live page|MHD[^)]*)\)/; sub(/.*\) /, ""); all += $12 + $13; if (page) mine += $12 + $13 }
        END { print mine / hz, all / hz }'
}

# one PAIR NET without|with OPTION...: a line "PAIR images/s page-seconds seconds" in the file of its kind.
one() {
    pair=$1 net=$2 kind=$3
    shift 3
    rm -rf "$folder/run" "$folder/result" "$folder/said"
    serve=; [ "$kind" = without ] || serve='--serve --port 0'
    "$bantam" train "$net" "$@" $serve --val-split 0 --epochs "${EPOCHS:-8}" --out "$folder/run" --json \
        >"$folder/result" 2>"$folder/said" &
    training=$! seconds='0 0'
    if [ "$kind" = with ]; then
        until url=$(sed -n 's/.*live page: //p' "$folder/said") && [ -n "$url" ]; do sleep 0.05; done
        curl -sN "${url}events" >"$folder/events" &
        follower=$!
        # (The last look before the end: later the training's threads are gone, with what they used.)
        until [ -s "$folder/result" ]; do
            grep -qs '"status": *"running"' "$folder/run/run.json" && seconds=$(seconds_of $training)
            sleep 0.25
        done
        kill -INT $training
        wait $follower || :
    fi
    wait $training
    rate=$(sed -n 's/.*"images_per_s": *\([0-9.eE+]*\).*/\1/p' "$folder/result")
    echo "$pair $rate $seconds" >>"$folder/$net.$kind"
}

printf '%-6s  %9s %9s  %-24s  %s\n' net img/s served 'cost % (quartiles)' 'page / all CPU seconds'
for net in ${NETS:-mlp lenet}; do
    pair=0
    while [ $pair -lt "${PAIRS:-10}" ]; do
        pair=$((pair + 1))
        [ $((pair % 2)) -eq 0 ] || one $pair "$net" without "$@"
        one $pair "$net" with "$@"
        [ $((pair % 2)) -eq 1 ] || one $pair "$net" without "$@"
    done
    paste -d ' ' "$folder/$net.without" "$folder/$net.with" | awk -v net="$net" '
        function sort(v,  i, j, t) {
            for (i = 2; i <= NR; i++) { t = v[i]; for (j = i; j > 1 && v[j - 1] > t; j--) v[j] = v[j - 1]; v[j] = t }
        }
        function at(v, part,  i) { i = 1 + part * (NR - 1); return v[int(i)] + (i - int(i)) * (v[int(i + 0.999)] - v[int(i)]) }
        { a[NR] = $2; b[NR] = $6; r[NR] = 100 * ($2 / $6 - 1); page += $7; all += $8 }
        END { sort(a); sort(b); sort(r)
            cost = sprintf("%+.1f (%+.1f to %+.1f)", at(r, 0.5), at(r, 0.25), at(r, 0.75))
            printf "%-6s  %9.0f %9.0f  %-24s  %.2f / %.1f = %.2f %%\n", net, at(a, 0.5), at(b, 0.5), cost, page, all,
                100 * page / all }'
done
