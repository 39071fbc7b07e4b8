#!/bin/sh
# Every kernel in every language goes through a real compiler of that language, beside one text that
# is broken on purpose and must be refused, so that no check can pass by looking at nothing. The C
# text is part of the build. Helpers and the commands themselves: tests/languages/.
. tests/tap.sh
plan 8

tools=tests/languages
texts=$BUILD/tests/languages
rm -rf "$texts"
mkdir -p "$texts"

# MSL as the simulated Metal compiles it. (There is none on a Mac.)
as_cpp() { # MSL CPP
    [ "$(uname -s)" = Darwin ] || "$BUILD/tests/test_metal_simd" --text "$1" >"$2"
}

# The texts of all kernels of FILES as KERNEL.LANGUAGE.
translate() { # FILES.k
    "$BUILD/kc" list "$@" >"$texts/list" || return
    [ -s "$texts/list" ] || echo "no kernels in $*"
    while read -r kernel; do
        for language in glsl cuda msl wgsl; do
            "$BUILD/kc" "$language" "$kernel" "$@" >"$texts/$kernel.$language"
        done
    done <"$texts/list"
}
{
    translate kernels/*.k
    for file in kernels/learn/*.k; do
        [ ! -e "$file" ] || translate kernels/math.k "$file"
    done
    # What is for Metal alone, as the build has put it together.
    for file in "$BUILD"/gen/metal/*.metal; do
        [ ! -e "$file" ] || cp "$file" "$texts/$(basename "$file" .metal).msl"
    done
    cp "$tools/matrices.msl" "$texts/"
    for file in "$texts"/*.msl; do as_cpp "$file" "${file%.msl}.cc"; done
} >"$texts/log" 2>&1

# One mistake each, of a kind that the language alone has.
cat >"$texts/bad.glsl" <<'END'
#version 450
layout(local_size_x = 8) in;
void main() { uint i = 1.0; }
END
cat >"$texts/bad.cuda" <<'END'
extern "C" __global__ void bad(const float *x) { x[threadIdx.x] = 1.0f; }
END
cat >"$texts/bad.msl" <<'END'
#include <metal_stdlib>
using namespace metal;
static float first(thread float *x) { return x[0]; }
kernel void bad(device float *y [[buffer(0)]], uint lid [[thread_index_in_threadgroup]])
{
    threadgroup float tile[4];
    y[lid] = first(tile);
}
END
cat >"$texts/bad.msl_by" <<'END'
#include <metal_stdlib>
using namespace metal;
kernel void bad(device const float *x [[buffer(0)]], uint lid [[thread_index_in_threadgroup]])
{
    float unused = x[lid];
}
END
as_cpp "$texts/bad.msl_by" "$texts/bad.cc" 2>>"$texts/log"
cat >"$texts/bad.wgsl" <<'END'
@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) lid: u32) {
    if (lid < 4u) { workgroupBarrier(); }
}
END

# compile NAME TOOL EXTENSION: every text with that extension; "bad" must be among what is refused.
compile() {
    if ! command -v "$2" >/dev/null 2>&1; then
        skip "$1" "no $2 here"
        return
    fi
    case $(uname -s)/$1 in Darwin/msl* | Darwin/cuda*)
        skip "$1" "Apple's compiler is for Apple's processors alone; Metal's takes these texts in test_devices"
        return
        ;;
    esac
    if [ "$1" = wgsl ]; then
        python3 "$tools/tint.py" "$texts"/*.wgsl
    else
        find "$texts" -name "*.$3" | sort | xargs -P "$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)" -n 1 sh "$tools/compile.sh" "$1"
    fi >"$texts/$1.log" 2>&1
    grep -q '^bad: ' "$texts/$1.log" || echo "a broken text is not refused" >>"$texts/$1.log"
    verdict "$1" "$(head -n 3 "$texts/log"; grep -v '^bad: ' "$texts/$1.log" | head -n 3)"
}

compile glsl glslc glsl
# A module cut short.
for module in "$texts"/*.spv; do
    [ ! -e "$module" ] || head -c "$(($(wc -c <"$module") / 8 * 4))" "$module" >"$texts/bad.spv"
done
compile spirv spirv-val spv
compile cuda_by_clang clang++ cuda
compile cuda_by_nvcc nvcc cuda
compile msl clang++ msl
compile msl_by_clang clang++ cc
compile msl_by_gcc g++ cc
compile wgsl "${CHROMIUM:-chromium}" wgsl
