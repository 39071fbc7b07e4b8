#!/bin/sh
# compile.sh LANGUAGE FILE: compiles the text of one kernel, or checks its SPIR-V, strictly and for
# the oldest target that it is meant for. Prints "NAME: first message" where the compiler has
# anything to say, and nothing otherwise. WGSL has its own program, tint.py.
here=$(dirname "$0")
name=$(basename "$2" | sed 's/\.[a-z]*$//')
strict='-Wall -Wextra -Werror -Wno-unused -Wno-unused-parameter'
# MSL as the simulated Metal compiles it, and stricter: nothing is unused but where the group is,
# which all kernels ask for, whether it matters or not.
shim="-std=c++17 -O1 -Wall -Wextra -Werror -Wno-unused-parameter -I $here/../sim/metal/shim"
# shellcheck disable=SC2086
said=$(case $1 in
    (glsl) glslc -fshader-stage=compute --target-env=vulkan1.2 -O -Werror -o "${2%.glsl}.spv" "$2" ;;
    (spirv) spirv-val --target-env vulkan1.2 "$2" ;;
    (cuda_by_clang) clang++ -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-gpu-arch=sm_70 \
        -std=c++17 -O1 $strict -Wno-unknown-cuda-version -include "$here/../../tools/kc/ptx.h" -S -o /dev/null "$2" ;;
    (cuda_by_nvcc) nvcc -x cu -arch=sm_80 -std=c++17 -ptx -diag-suppress 177 -Werror all-warnings \
        -o /dev/null "$2" ;;
    # (OpenCL has no function constants: they are somebody else's here.)
    (msl) sed 's/^constant \(.*\) \[\[function_constant([0-9]*)\]\];/extern constant \1;/' "$2" |
        clang++ -x clcpp -cl-std=clc++2021 -cl-no-stdinc -target spir64 -fsyntax-only $strict \
            -Wno-unknown-attributes -I "$here/metal" - ;;
    (msl_by_clang) clang++ $shim -S -o /dev/null "$2" ;;
    (msl_by_gcc) g++ $shim -Wno-unknown-pragmas -S -o /dev/null "$2" ;;
    (*) echo "compile.sh knows no $1" ;;
    esac 2>&1) || said=${said:-it failed without a word}
[ -z "$said" ] || printf '%s: %s\n' "$name" "$(printf '%s\n' "$said" | grep -m 1 'error' || printf '%s\n' "$said" | head -n 1)"
