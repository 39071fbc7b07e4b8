#!/bin/sh
# Makes sure that what Bantam needs is there: `build` (the libraries), `test` (also cmocka and a
# C++ compiler) or `ci` (also clang, its sanitizers and PyTorch). Does nothing, without network,
# when nothing is missing; otherwise installs with apt-get, or prints the command to run.
set -eu
what=${1:-build}
CC=${CC:-cc}

have_header() { echo "#include <stdio.h>
#include <$1>" | $CC -E -x c - >/dev/null 2>&1; }
have_cmocka() { printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>
#include <cmocka.h>\n' | $CC -E -x c - >/dev/null 2>&1; }
have_program() { command -v "$1" >/dev/null 2>&1; }
have_clang_sanitizers() { ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.tsan* >/dev/null 2>&1; }
have_torch() { [ -d /usr/lib/python3/dist-packages/torch ]; }

if ! have_program "${CC%% *}"; then
    echo "install-deps: no C compiler '$CC' here; install gcc or clang, or say CC=..." >&2
    exit 1
fi

missing=
need() { # PACKAGE PROBE...
    package=$1
    shift
    "$@" || missing="$missing $package"
}

need zlib1g-dev have_header zlib.h
need libpng-dev have_header png.h
need libjansson-dev have_header jansson.h
need libmd-dev have_header sha256.h
case $what in build) ;; *)
    need libcmocka-dev have_cmocka
    need g++ have_program c++ ;;
esac
if [ "$what" = ci ]; then
    need clang have_program clang
    need libclang-rt-14-dev have_clang_sanitizers
    need python3-torch have_torch
fi
[ -n "$missing" ] || exit 0

if ! have_program apt-get; then
    echo "install-deps: missing (Debian names):$missing. Install them, then try again." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif have_program sudo && sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    echo "install-deps: missing:$missing. Run: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends$missing"
# Package lists may be missing or old: fetch them when the first try fails.
if ! $install >/dev/null 2>&1; then
    $as_root apt-get update -qq >&2
    if ! $install >/dev/null; then
        echo "install-deps: apt-get could not install$missing" >&2
        exit 1
    fi
fi
