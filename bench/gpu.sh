#!/bin/sh
# Everything that is claimed about a GPU, measured on one machine: gates and parity, the same bits from run to
# run, epochs of MNIST (60 000 images) beside JAX and PyTorch in the same run, inference, matrix products, time to
# an accuracy, start-up, memory, and NVIDIA's checkers. Prints Markdown. `make` and `make build/bench/matmul` must have
# run; what a machine lacks (JAX, PyTorch, compute-sanitizer) is left out and reads nan.
# usage: BANTAM_DATA=folder-with-mnist/ bench/gpu.sh [SECTION...]
#   sections: devices gates parity gradients bits epochs steps inference matmul accuracy startup memory sanitizer;
#   without any, all but the last; environment: DEVICE, SEEDS, ROUNDS, PRECISIONS, NETS, BATCHES, SLOW, BUILD, PYTHON
set -u
cd "$(dirname "$0")/.." || exit 1
device=${DEVICE:-gpu}
rounds=${ROUNDS:-1}
seeds=${SEEDS:-10}
precisions=${PRECISIONS:-fp32 tf32}
nets=${NETS:-mlp lenet lenet5 fc256,relu,fc128,relu,fc10 conv6x3,relu,pool2,conv12x3,relu,pool2,fc32,relu,fc10}
batches=${BATCHES:-64 256 500}
slow=${SLOW:-mlp:64 lenet:64} # nets and batches that PyTorch runs eager and compiles for, a minute each
build=${BUILD:-build}
mnist=${BANTAM_DATA:?set BANTAM_DATA to the folder that holds mnist/}/mnist
python=${PYTHON:-python3}
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
seconds_now() { date +%s.%N; }
has() { "$python" -c "$1" 2>/dev/null && echo yes; }

# A command that does not end shall not take the others along.
bantam() { timeout -s KILL "${LIMIT:-200}" "$build/bantam" "$@"; }

# train NET OPTION...: leaves the run in $out/run and prints its result as JSON.
train() {
    net=$1
    shift
    rm -rf "$out/run"
    bantam train "$net" mnist --device "$device" --quiet --json --out "$out/run" "$@"
}

# ---- Right -------------------------------------------------------------------------------------

section_devices() {
    bantam devices
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
    "$python" -c 'import torch; print("PyTorch", torch.__version__)' 2>/dev/null
    "$python" -c 'import jax; print("JAX", jax.__version__)' 2>/dev/null
}

# gate NET EPOCHS PERCENT: the mean test accuracy over the seeds, with default settings.
gate() {
    for precision in $precisions; do
        seed=0
        while [ "$seed" -lt "$seeds" ]; do
            train "$1" --epochs "$2" --seed "$seed" --precision "$precision" >"$out/json" || echo "FAILED: $1, seed $seed" >&2
            echo "$(number test_acc <"$out/json") $(number train_s <"$out/json")"
            seed=$((seed + 1))
        done | awk -v run="$1, $2 epochs, $precision" -v wanted="$3" '
            { sum += $1; time += $2; if (NR == 1 || $1 < low) low = $1; if ($1 > high) high = $1 }
            END { printf "| %s | %d | %.2f %% | %.2f %% | %.2f %% | %s %% | %s | %.1f ms |\n", run, NR, 100 * sum / NR,
                  100 * low, 100 * high, wanted, (100 * sum / NR >= wanted) ? "ok" : "FAILED", 1e3 * time / NR }'
    done
}
section_gates() {
    for net in mlp lenet; do bantam sanity $net --data mnist --device "$device" --quiet; done
    echo
    echo "| run | seeds | mean | lowest | highest | wanted | | training |"
    echo "|---|---|---|---|---|---|---|---|"
    gate mlp 3 97.5
    gate lenet 2 98.5
    gate lenet 10 99.0
}

section_parity() {
    for precision in $precisions bf16; do
        echo "$precision, every kernel:"
        bantam parity mlp --data mnist --device "$device" --precision "$precision" --phase kernels --quiet | grep -E '^operator|large|FAILED|cases'
    done
    for precision in $precisions; do
        for net in $nets; do
            bantam parity "$net" --data mnist --device "$device" --precision "$precision" --phase training --quiet
        done
    done
    echo "overrides off:"
    bantam parity lenet --data mnist --device "$device" --overrides off --quiet | grep -E 'FAILED|cases|steps'
}

# The gradients of a first step, in a checkpoint each, from three sets of weights.
section_gradients() {
    for precision in $precisions; do
        for net in lenet mlp; do
            for seed in 0 1 2; do
                train "$net" --seed $seed --precision "$precision" --limit 64 --batch 64 --epochs 1 --lr 0 --sched const --wd 0 \
                    --val-split 0 --shuffle off >/dev/null && cp "$out/run/checkpoints/last.safetensors" "$out/$seed.safetensors"
            done
            echo "Bantam in $precision:"
            echo
            "$python" bench/peers/torch_grad.py "$net" 64 "$mnist" "$out"/?.safetensors
            echo
        done
    done
}

# A hash of weights and moments, which follow the header of a checkpoint.
hash_of() {
    header=$(od -An -tu8 -N8 "$1" | tr -d ' ')
    tail -c +$((9 + header)) "$1" | sha256sum | cut -c 1-16
}
section_bits() {
    for net in $nets; do
        for precision in $precisions; do
            for _ in 1 2 3; do
                train "$net" --epochs 2 --precision "$precision" >/dev/null && hash_of "$out/run/checkpoints/last.safetensors"
            done | sort | uniq -c | awk -v run="$net $precision" '
                { print "- " run ": " $1 " runs with weights and moments " $2 } END { if (NR != 1) print "FAILED: they differ" }'
        done
    done
}

# ---- Fast --------------------------------------------------------------------------------------

# ours NET BATCH OPTION...: seconds per epoch.
ours() {
    net=$1 batch=$2
    shift 2
    bantam bench "$net" --data mnist --device "$device" --batch "$batch" --phase training --repeats 5 --json --quiet "$@" |
        tr '{' '\n' | grep '"training"' | number images_per_s | awk '{ print 60000 / $1 }'
}

# measure NET BATCH: a file of seconds for each column, rounds alternating.
measure() {
    rm -f "$out"/[a-h]_*
    i=0
    while [ $i -lt "$rounds" ]; do
        if [ -n "$torch" ]; then
            "$python" bench/peers/torch_gpu.py "$1" "$2" graph 5 "$mnist" tf32 16 >>"$out/b_graph"
            case " $slow " in *" $1:$2 "*)
                "$python" bench/peers/torch_gpu.py "$1" "$2" eager 1 "$mnist" >>"$out/a_eager"
                "$python" bench/peers/torch_gpu.py "$1" "$2" compile 5 "$mnist" tf32 16 >>"$out/c_compile"
                ;;
            esac
        fi
        [ -z "$jax" ] || "$python" bench/peers/jax_scan.py "$1" "$2" 5 "$mnist" >>"$out/d_jax"
        ours "$1" "$2" --overrides off >>"$out/e_portable"
        ours "$1" "$2" >>"$out/f_fp32"
        ours "$1" "$2" --precision tf32 >>"$out/g_tf32"
        i=$((i + 1))
    done
}
section_epochs() {
    torch=$(has 'import torch; assert torch.cuda.is_available()')
    jax=$(has 'import jax; assert jax.default_backend() == "gpu"')
    echo "ms, medians; in the last two columns the best of all peers over Bantam in fp32 and tf32"
    echo
    echo "| net, batch | PyTorch eager | CUDA graph | compile + graph | JAX scan | Bantam, overrides off | fp32 | tf32 | | |"
    echo "|---|---|---|---|---|---|---|---|---|---|"
    for net in $nets; do
        for batch in $batches; do
            measure "$net" "$batch" 2>"$out/errors"
            for column in a_eager b_graph c_compile d_jax e_portable f_fp32 g_tf32; do median "$out/$column" 2>/dev/null; done |
                awk -v name="$net $batch" '
                    { ms = 1e3 * $1; row = row ($1 == "nan" ? " nan |" : sprintf(" %.2f |", ms)); v[NR] = $1 == "nan" ? 0 : ms }
                    NR <= 4 && v[NR] > 0 && (!best || v[NR] < best) { best = v[NR] }
                    END { printf "| %s |%s %s | %s |\n", name, row, v[6] && best ? sprintf("%.1fx", best / v[6]) : "",
                          v[7] && best ? sprintf("%.1fx", best / v[7]) : "" }'
        done
    done
}

section_steps() {
    for net in mlp lenet; do
        train $net --epochs 10 >"$out/json"
        echo "$net, 10 epochs of 57 000 images: $(number train_s <"$out/json") s of training; $(sed -n 's/.*"program": "\([^"]*\)".*/\1/p' "$out/json")"
        bantam bench $net --data mnist --device "$device" --batch 64 --repeats 1 --overrides off --quiet | sed -n '/training steps/,$p'
    done
}

section_inference() {
    for net in mlp lenet; do
        for precision in $precisions; do
            bantam bench $net --data mnist --device "$device" --batch 10000 --phase inference --precision "$precision" --quiet
        done
        [ -z "$(has 'import torch; assert torch.cuda.is_available()')" ] || "$python" bench/peers/torch_infer.py $net "$mnist"
    done
}

section_matmul() {
    echo "| product | precision, kernels | time | rate | largest error / sqrt(k) |"
    echo "|---|---|---|---|---|"
    timeout -s KILL "${LIMIT:-200}" "$build/bench/matmul" "$device" 1024 2048 4096 8192 4096x4000x4100 1000x3000x777
    echo
    echo "PyTorch, TFLOP/s in f32, in TF32, of bf16 operands, and of f32 operands with autocast to bf16:"
    "$python" bench/peers/torch_gpu.py matmul 1024 4096 8192 4096x4000x4100 1000x3000x777
}

section_accuracy() { DEVICE=$device BUILD=$build SEEDS=$seeds sh bench/time_to_accuracy.sh; }

# ---- Light -------------------------------------------------------------------------------------

# What the driver itself takes: a fresh process that makes a context, then sleeps for so many seconds.
cat >"$out/driver.py" <<'END'
import ctypes, sys, time
start = time.perf_counter()
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
    sys.exit("no CUDA driver or device")
if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
    sys.exit("no context")
print(f"{time.perf_counter() - start:.3f}", flush=True)
time.sleep(float(sys.argv[1]))
END
wall() { # COMMAND...: its seconds
    start=$(seconds_now)
    "$@" >/dev/null 2>"$out/why" || cat "$out/why" >&2
    echo "$(seconds_now) $start" | awk '{ printf "%.3f\n", $1 - $2 }'
}
section_startup() {
    for i in 1 2 3 4 5; do
        "$python" "$out/driver.py" 0 >>"$out/driver"
        for where in cpu "$device"; do
            rm -rf "$out/run"
            wall "$build/bantam" train lenet digits --limit 64 --epochs 1 --val-split 0 --device "$where" --quiet --out "$out/run" >>"$out/start_$where"
        done
    done
    echo "$(median "$out/start_$device") $(median "$out/start_cpu") $(median "$out/driver")" | awk -v device="$device" '
        { printf "A process that reads its data, does one step of lenet and evaluates 10 000 images takes %.3f s on %s, %.3f s on the CPU\n", $1, device, $2
          printf "(medians of 5); cuInit and a context alone take %.3f s. So the rest of starting on the GPU takes %.3f s.\n", $3, $1 - $2 - $3 }'
}

used() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1; }
# holding COMMAND...: MB of the GPU in use while it runs, beyond those before.
holding() {
    before=$(used) most=0
    "$@" >/dev/null 2>&1 &
    while kill -0 $! 2>/dev/null; do
        now=$(used)
        [ "$now" -le "$most" ] || most=$now
    done
    wait $!
    sleep 1
    echo $((most - before))
}
section_memory() {
    context=$(holding "$python" "$out/driver.py" 3)
    echo "| 300 epochs of | GPU memory | beyond the context of $context MB |"
    echo "|---|---|---|"
    for net in $nets; do
        rm -rf "$out/run"
        all=$(holding timeout 20 "$build/bantam" train "$net" mnist --epochs 300 --device "$device" --quiet --out "$out/run")
        echo "| $net | $all MB | $((all - context)) MB |"
    done
}

section_sanitizer() {
    command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not here" && return; }
    for net in ${NETS:-mlp lenet}; do
        for tool in memcheck racecheck initcheck synccheck; do
            rm -rf "$out/run"
            start=$(seconds_now)
            # (racecheck looks at every access to shared memory, and takes a minute for what others do in seconds.)
            case $tool in racecheck) size='--limit 128 --epochs 1' ;; *) size='--limit 640 --epochs 2' ;; esac
            # shellcheck disable=SC2086
            timeout -s KILL "${SANITIZER_SECONDS:-60}" compute-sanitizer --tool $tool "$build/bantam" train "$net" mnist $size \
                --device "$device" --quiet --out "$out/run" >"$out/log" 2>&1
            code=$?
            echo "- $net, $tool: exit $code after $(echo "$(seconds_now) $start" | awk '{ printf "%.0f", $1 - $2 }') s; $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/log" | tail -n 1)"
        done
    done
}

[ $# -gt 0 ] || set -- devices gates parity gradients bits epochs steps inference matmul accuracy startup memory
for section; do
    case $section in
    devices | gates | parity | gradients | bits | epochs | steps | inference | matmul | accuracy | startup | memory | sanitizer) ;;
    *) echo "gpu.sh: no section $section" >&2 && exit 2 ;;
    esac
    printf '\n## %s\n\n' "$section"
    "section_$section"
done
