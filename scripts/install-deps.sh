#!/bin/sh
# Makes sure that what Bantam needs is there: `build` (the libraries; for Vulkan also glslc and the
# headers, for CUDA clang where there is no nvcc, for `bantam serve` libmicrohttpd), `test` (also
# cmocka, a C++ compiler, Vulkan in software) or `ci` (also clang, its sanitizers, PyTorch, ONNX and a
# runtime for it, Chromium, a compiler and an emulator for 64-bit ARM). Does nothing, without network,
# when nothing is missing; otherwise installs with apt-get (the runtime with npm), or prints the command
# to run. Only what the build cannot do without is an error: the build leaves Vulkan or CUDA out where
# their packages are missing, and tests are skipped by name.
# docs/dependencies.md says what each is for.
set -eu
what=${1:-build}
CC=${CC:-cc}

have_header() { echo "#include <stdio.h>
#include <$1>" | $CC -E -x c - >/dev/null 2>&1; }
have_cmocka() { printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>
#include <cmocka.h>\n' | $CC -E -x c - >/dev/null 2>&1; }
have_program() { command -v "$1" >/dev/null 2>&1; }
have_cuda_compiler() { have_program nvcc || have_program clang++; }
have_file() { ls "$@" 2>/dev/null | grep -q .; } # one of them

if ! have_program "${CC%% *}"; then
    echo "install-deps: no C compiler '$CC' here; install gcc or clang, or say CC=..." >&2
    exit 1
fi

missing= optional=
need() { # PACKAGE PROBE...
    package=$1
    shift
    "$@" || missing="$missing $package"
}
want() { # PACKAGE PROBE...: as need, but nothing fails without it; in CI everything is needed
    package=$1
    shift
    if [ "$what" = ci ]; then need "$package" "$@"; else "$@" || optional="$optional $package"; fi
}

need zlib1g-dev have_header zlib.h
need libpng-dev have_header png.h
need libjansson-dev have_header jansson.h
need libmd-dev have_header sha256.h
want glslc have_program glslc
want libvulkan-dev have_header vulkan/vulkan.h
want clang have_cuda_compiler
want libmicrohttpd-dev have_header microhttpd.h
case $what in build) ;; *)
    need libcmocka-dev have_cmocka
    need g++ have_program c++
    want libvulkan1 have_file /usr/lib/*/libvulkan.so.1 /usr/lib*/libvulkan.so.1
    want mesa-vulkan-drivers have_file /usr/share/vulkan/icd.d/lvp_icd*.json
    want vulkan-validationlayers have_file /usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
    want spirv-tools have_program spirv-val ;;
esac
if [ "$what" = ci ]; then
    need clang have_program clang++
    need libclang-rt-14-dev have_file /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.tsan*
    need python3 have_program python3
    need python3-torch have_file /usr/lib/python3/dist-packages/torch
    need python3-onnx have_file /usr/lib/python3/dist-packages/onnx
    need nodejs have_program node
    need npm have_program npm
    need chromium have_program chromium
    need chromium-driver have_program chromedriver
    need gcc-aarch64-linux-gnu have_program aarch64-linux-gnu-gcc
    need libc6-dev-arm64-cross have_file /usr/aarch64-linux-gnu/include/stdio.h
    need qemu-user-static have_program qemu-aarch64-static
fi

# The runtime that test_export runs ONNX files in; apt-get has none. (Scripts of the package would
# fetch CUDA's part, which nobody needs.)
onnx_runtime() {
    folder=${BUILD:-build}/tests/node
    [ "$what" = ci ] && [ ! -e "$folder/node_modules/.package-lock.json" ] || return 0
    echo "Installing onnxruntime-node in $folder" >&2
    npm install --ignore-scripts --no-audit --no-fund --silent --prefix "$folder" onnxruntime-node@1.20.1 >&2 && return
    echo "install-deps: npm install onnxruntime-node failed; what it says is above" >&2
    exit 1
}

[ -n "$missing$optional" ] || { onnx_runtime && exit; }

# What to say, and whether it is an error, when PACKAGES cannot be installed.
sorry() { # PACKAGES WHY
    if [ -n "$missing" ]; then
        echo "install-deps: missing:$missing. $2 sudo apt-get install --no-install-recommends$1" >&2
        exit 1
    fi
    echo "install-deps: going on without the optional$1. $2 sudo apt-get install --no-install-recommends$1" >&2
    exit 0
}

if ! have_program apt-get; then
    sorry "$missing$optional" "No apt-get here; with Debian's names it would be:"
elif [ "$(id -u)" = 0 ]; then
    as_root=
elif have_program sudo && sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    sorry "$missing$optional" "Run:"
fi

# Package lists may be missing or old: fetch them, once, when the first try fails.
updated=
install() { # PACKAGES...
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 && return
    [ -z "$updated" ] || return
    updated=yes
    $as_root apt-get update -qq >/dev/null 2>&1 || true
    install "$@"
}

# shellcheck disable=SC2086
if [ -n "$missing" ]; then
    echo "Installing$missing" >&2
    install $missing || sorry "$missing" "apt-get failed; its message comes with:"
    missing=
fi
# One by one: a distribution may have one and lack another (Ubuntu 22.04 has no glslc).
failed=
for package in $optional; do
    echo "Installing $package (optional)" >&2
    install "$package" || failed="$failed $package"
done
[ -z "$failed" ] || sorry "$failed" "apt-get has none of it or failed; its message comes with:"
onnx_runtime
