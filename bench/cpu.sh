#!/bin/sh
# Everything that is claimed about speed on a CPU, measured in one run: first the limits of the machine
# (multiply-adds on registers, caches, memory), then epochs of MNIST (60 000 images) and inference beside PyTorch,
# matrix products beside OpenBLAS and oneDNN, the time to 99 %, and the instructions of a step. Rounds alternate
# between those that are compared; medians. Prints Markdown, each figure also as a share of the measured peak: the
# arithmetic of dense layers (two operations for each product), so that skipping exact zeros can take it past 100 %.
# Peers that are not here are named and left out.
# usage: BANTAM_DATA=folder-with-mnist/ bench/cpu.sh [SECTION...]
#   sections: roofline train steps inference sgemm time_to_99 count; without any, all
#   environment: ROUNDS, SEEDS, NETS, BUILD, PYTHON, CC; GGML=mnist-train, that example of ggml, to be timed as well;
#   RECORD=1: count writes its numbers to bench/results/instructions.csv
set -u
cd "$(dirname "$0")/.." || exit 1
rounds=${ROUNDS:-5}
seeds=${SEEDS:-5}
nets=${NETS-mlp:64 mlp:256 lenet:64 lenet:256 fc500,relu,fc10:500}
build=${BUILD:-build}
python=${PYTHON:-/usr/bin/python3}
data=${BANTAM_DATA:?set BANTAM_DATA to the folder that holds mnist/}
cores=$(nproc)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# ---- Helpers -----------------------------------------------------------------------------------

# The middle one of the numbers in a file; nan where there is none.
median() {
    { [ ! -s "$1" ] || sort -n "$1"; } | awk '{ v[NR] = $1 }
        END { print NR == 0 ? "nan" : NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# The value of a key that stands once in some JSON.
number() { sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p"; }

bantam() { timeout -s KILL "${LIMIT:-600}" "$build/bantam" "$@"; }

# What a network takes for an image, in operations: forward, and a training step. No gradient by the images.
operations() { # NET
    case $1 in
    mlp) layers=fc128,relu,fc10 ;;
    lenet) layers=conv8x5,relu,pool2,conv16x5,relu,pool2,fc10 ;;
    *) layers=$1 ;;
    esac
    echo "$layers" | tr , '\n' | awk '
        function add(count) { forward += count; step += first++ ? 3 * count : 2 * count }
        BEGIN { channels = 1; side = 28 }
        /^conv/ { split(substr($0, 5), of, /[xp]/); side += 2 * of[3] - of[2] + 1
                  add(2 * of[1] * channels * of[2] * of[2] * side * side); channels = of[1] }
        /^pool2/ { side = int(side / 2) }
        /^fc/ { out = substr($0, 3); add(2 * channels * side * side * out); channels = out; side = 1 }
        END { print forward, step }'
}

# The peak of one thread or of all cores, GFLOP/s, once it has been measured.
peak() { awk -F '|' -v one="$([ "$1" = 1 ] && echo 1)" '/multiply and add/ { print one ? $3 + 0 : $4 + 0 }' "$out/roofline"; }

make -s BUILD="$build" "$build/bantam" "$build/bench/roofline_cpu" "$build/bench/sgemm" "$build/bench/steps" || exit 1

# MNIST as it is when unpacked, for everybody.
mkdir "$out/data" "$out/data/mnist"
for file in "$data"/mnist/*; do
    case $file in
    *.gz) gunzip -c "$file" >"$out/data/mnist/$(basename "$file" .gz)" ;;
    *) cp "$file" "$out/data/mnist" ;;
    esac
done
export BANTAM_DATA="$out/data"
mnist=$BANTAM_DATA/mnist
torch=$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null) || torch=

# ---- Sections ----------------------------------------------------------------------------------

section_roofline() {
    bantam devices | sed -n 's/^cpu:0 *ready *//p'
    [ -z "$torch" ] && echo "PyTorch is not here." || echo "PyTorch $torch"
    echo
    cat "$out/roofline"
}

# ours NET BATCH: seconds per epoch, of a whole training.
ours() {
    rm -rf "$out/run"
    bantam train "$1" mnist --epochs 5 --batch "$2" --val-split 0 --lr 0.05 --opt momentum --sched const --quiet --json \
        --out "$out/run" | number train_s | awk '{ print $1 / 5 }'
}
theirs() { # NET BATCH THREADS
    [ -z "$torch" ] || "$python" bench/peers/torch_epochs.py "$1" "$2" "$3" 2 "$mnist"
}

section_train() {
    echo "An epoch; PyTorch's images are ready as floats in memory, its faster of two epochs counts; Bantam's mean of five."
    echo
    echo "| net, batch | PyTorch, 1 thread | PyTorch, $cores threads | Bantam, $cores threads | best PyTorch / Bantam | PyTorch, of the peak | Bantam, of the peak |"
    echo "|---|---|---|---|---|---|---|"
    for run in $nets; do
        net=${run%:*} batch=${run##*:}
        rm -f "$out"/[abc]
        i=0
        while [ $i -lt "$rounds" ]; do
            ours "$net" "$batch" >>"$out/c"
            theirs "$net" "$batch" 1 >>"$out/a"
            theirs "$net" "$batch" "$cores" >>"$out/b"
            i=$((i + 1))
        done
        echo "$(median "$out/a") $(median "$out/b") $(median "$out/c") $(operations "$net") $(peak "$cores")" |
            awk -v name="$net, $batch" '
            function ms(s) { return s == "nan" ? "-" : sprintf("%.0f ms", 1e3 * s) }
            function share(s) { return s == "nan" ? "-" : sprintf("%.0f %%", 100 * 60000 * $5 * 1e-9 / s / $6) }
            { best = $1 == "nan" || $2 + 0 < $1 + 0 ? $2 : $1
              printf "| %s | %s | %s | %.1f ms | %s | %s | %s |\n", name, ms($1), ms($2), 1e3 * $3,
                     best == "nan" ? "-" : sprintf("%.2f", best / $3), share(best), share($3) }'
    done
    [ -z "${GGML:-}" ] || time_ggml
}

# ggml's example trains fc500,relu,fc10 for so many epochs of 57 000 images and 3000 for validation, batch 500, and
# says how long it took in whole seconds.
time_ggml() {
    "$GGML" mnist-fc "$out/ggml.gguf" "$mnist/train-images-idx3-ubyte" "$mnist/train-labels-idx1-ubyte" CPU >"$out/ggml" 2>&1
    tr '\r' '\n' <"$out/ggml" | awk '
        /epoch [0-9]+\/[0-9]+/ { epochs++ }
        /training took/ { split($NF, t, ":"); seconds = 3600 * t[1] + 60 * t[2] + t[3] }
        END { if (epochs) printf "\nggml, mnist-fc: %d epochs in %d s, %.2f s each\n", epochs, seconds, seconds / epochs }'
}

# step NET DEVICE THREADS on|off: microseconds of a training step at batch 64.
step() {
    bantam bench "$1" --data mnist --device "$2" --threads "$3" --overrides "$4" --batch 64 --phase training --repeats 1 --json --quiet |
        tr '{' '\n' | grep '"training"' | number step_us
}
section_steps() {
    echo "A training step at batch 64. Each row has what the one before has; \"fused\": launches that are done as one, and zeros of"
    echo "the input left out (\`--overrides off\` is without)."
    echo
    bantam devices | sed -n 's/^\(cpu:[0-9]*\) .*, \([^,]*\)$/\1 1 off \2, 1 thread/p' | sort -r >"$out/rows"
    best=$(tail -n 1 "$out/rows")
    echo "$best" | sed 's/ off / on /; s/, 1 thread/, fused, 1 thread/' >>"$out/rows"
    echo "$best" | sed "s/ 1 off / $cores on /; s/, 1 thread/, fused, $cores threads/" >>"$out/rows"
    echo "| | mlp | of the peak of so many threads | lenet | of the peak |"
    echo "|---|---|---|---|---|"
    for net in mlp lenet; do rm -f "$out"/"$net"_*; done
    i=0
    while [ $i -lt "$rounds" ]; do
        while read -r device threads fused what; do
            for net in mlp lenet; do step $net "$device" "$threads" "$fused" >>"$out/${net}_$device$threads$fused"; done
        done <"$out/rows"
        i=$((i + 1))
    done
    while read -r device threads fused what; do
        echo "$(median "$out/mlp_$device$threads$fused") $(median "$out/lenet_$device$threads$fused") $(operations mlp) $(operations lenet) $(peak "$threads")" |
            awk -v what="$what" '{ printf "| %s | %.0f us | %.0f %% | %.0f us | %.0f %% |\n", what, $1, 6.4 * $4 / $1 / $7, $2, 6.4 * $6 / $2 / $7 }'
    done <"$out/rows"
    for net in mlp lenet; do
        bantam bench $net --data mnist --batch 64 --phase all --repeats 1 --quiet | sed -n '/training steps/,$p'
    done
}

# our_inference NET: for 1 and 250 images, the batch, microseconds of a call, and of a step without the host between.
our_inference() {
    bantam bench "$1" --data mnist --batch 250 --phase inference --repeats 3 --json --quiet | tr '{' '\n' |
        awk 'function value(key) { match($0, "\"" key "\": [0-9.e+-]+"); return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) }
            /"call_us"/ { print value("batch"), value("call_us"), value("step_us") }'
}

# A line of the table: what, PyTorch's and our seconds for so many images. rate: as images/s, else microseconds.
inference_line() { # WHAT NET IMAGES THEIRS OURS
    echo "$4 $5 $(operations "$2") $(peak "$cores")" | awk -v what="$1" -v images="$3" '
        function shown(s) { return s == "nan" ? "-" : images > 1 ? sprintf("%.3g M/s", 1e-6 * images / s) : sprintf("%.2f us", 1e6 * s) }
        function share(s) { return s == "nan" ? "-" : sprintf("%.1f %%", 100 * images * $3 * 1e-9 / s / $5) }
        { printf "| %s | %s | %s | %s | %s | %s |\n", what, shown($1), shown($2), $1 == "nan" ? "-" : sprintf("%.1f", $1 / $2), share($1), share($2) }'
}

section_inference() {
    echo "PyTorch at its best of eager and frozen TorchScript, one and $cores threads, all at once and 500 at a time, images ready as"
    echo "floats; Bantam reads bytes, in 40 steps of 250. A call: from the host and back; a step: one of many in a program that the host started once."
    echo
    echo "| net, images | PyTorch | Bantam | PyTorch / Bantam | PyTorch, of the peak | Bantam, of the peak |"
    echo "|---|---|---|---|---|---|"
    for net in mlp lenet; do
        rm -f "$out"/[a-f]_*
        i=0
        while [ $i -lt "$rounds" ]; do
            our_inference $net | awk -v out="$out/" '{ print $2 * 1e-6 >> (out "a_" $1); print $3 * 1e-6 >> (out "b_" $1) }'
            [ -z "$torch" ] || for threads in 1 "$cores"; do
                "$python" bench/peers/torch_infer_cpu.py $net "$threads" "$mnist" 1 10000
            done | sort -g | awk -v to="$out/c_" '!seen[$2]++ { print $1 >> (to $2) }'
            i=$((i + 1))
        done
        inference_line "$net, 10 000" $net 10000 "$(median "$out/c_10000")" "$(median "$out/b_250" | awk '{ print 40 * $1 }')"
        inference_line "$net, 1, a call" $net 1 "$(median "$out/c_1")" "$(median "$out/a_1")"
        inference_line "$net, 1, a step" $net 1 nan "$(median "$out/b_1")"
    done
}

section_sgemm() { timeout -s KILL "${LIMIT:-600}" "$build/bench/sgemm"; }

# The recipe was chosen by the accuracy on samples set aside for validation; here it trains on all 60 000. The clock
# is the shell's: start-up, reading MNIST (unpacked), training, saving, evaluation, end.
section_time_to_99() {
    set -- lenet mnist --batch 128 --epochs 4 --lr 0.2 --wd 0.0005
    seed=0
    while [ $seed -lt "$seeds" ]; do
        rm -rf "$out/run"
        start=$(date +%s.%N)
        bantam train "$@" --val-split 0 --seed $seed --quiet --json --out "$out/run" >"$out/json"
        echo "$(date +%s.%N) $start $(number test_acc <"$out/json") $(number train_s <"$out/json")"
        seed=$((seed + 1))
    done | awk -v run="$*" '
        { wall += $1 - $2; accuracy += $3; train += $4; if ($1 - $2 > longest) longest = $1 - $2; if (NR == 1 || $3 < low) low = $3 }
        END { print "| recipe | seeds | accuracy, mean (lowest) | training | process, mean (longest) |\n|---|---|---|---|---|"
              printf "| %s | %d | %.2f %% (%.2f %%) %s | %.2f s | %.2f s (%.2f s) |\n", run, NR, 100 * accuracy / NR, 100 * low,
                     (accuracy / NR >= 0.99) ? "" : "FAILED", train / NR, wall / NR, longest }'
}

# instructions NET STEPS: of the whole program, by callgrind.
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$build/bench/steps" "$1" 64 "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
section_count() {
    command -v valgrind >/dev/null || { echo "valgrind is not here." && return; }
    record=bench/results/instructions.csv
    compiler=$(${CC:-cc} --version | head -n 1 | tr -d ',')
    set_of=$(bantam devices | sed -n 's/^cpu:0 .*, \([^,]*\)$/\1/p')
    echo "Instructions of a step at batch 64 on one thread, by callgrind ($set_of, $compiler), beside those of $record:"
    echo
    echo "| net | recorded | now | change |"
    echo "|---|---|---|---|"
    for net in mlp lenet; do
        now=$((($(instructions $net 21) - $(instructions $net 1)) / 20))
        old=$([ ! -s $record ] || awk -F , -v net=$net -v set_of="$set_of" -v compiler="$compiler" '$1 == net && $4 == set_of && $5 == compiler { print $3 }' $record)
        echo "$net ${old:-nan} $now" | awk '{ printf "| %s | %s | %d | %s |\n", $1, $2 == "nan" ? "-" : $2, $3, $2 == "nan" ? "-" : sprintf("%+.2f %%", 100 * ($3 / $2 - 1)) }'
        [ -n "${RECORD:-}" ] || continue
        {
            echo 'net,batch,instructions,instruction set,compiler'
            [ ! -s $record ] || awk -F , -v net=$net -v set_of="$set_of" -v compiler="$compiler" 'NR > 1 && !($1 == net && $4 == set_of && $5 == compiler)' $record
            echo "$net,64,$now,$set_of,$compiler"
        } >"$out/csv" && cp "$out/csv" $record
    done
}

[ $# -gt 0 ] || set -- roofline train steps inference sgemm time_to_99 count
for section; do
    case $section in
    roofline | train | steps | inference | sgemm | time_to_99 | count) ;;
    *) echo "cpu.sh: no section $section" >&2 && exit 2 ;;
    esac
done
# (What is said as a share of the peak needs it first.)
case " $* " in *" roofline "* | *" train "* | *" steps "* | *" inference "*) "$build/bench/roofline_cpu" >"$out/roofline" || exit 1 ;; esac
for section; do
    printf '\n## %s\n\n' "$section"
    "section_$section"
done
