#!/bin/sh
# Rules of the tree: folders depend downward only, the public header stands alone in C and C++,
# the library exports what it declares and nothing else, files stay short, nothing is left behind.
. tests/tap.sh
plan 8

# Includes of a folder that are not among the prefixes it may use (its own always).
strangers() { # FOLDER-GLOB PREFIX...
    files=$1
    shift
    allowed=$(printf '|%s' "$@")
    # shellcheck disable=SC2086
    grep -nE '^ *# *include "' $files /dev/null | grep -vE "include \"(${allowed#|})" | head -n 3
}
base='base/ bantam\.h"'
device='device/device\.h" device/kernels\.h"'
own='[a-z_]*\.(inc|h)"'
c_library='<(assert|ctype|errno|float|inttypes|limits|math|setjmp|stdarg|stdbool|stddef|stdint|stdio|stdlib|string)\.h>'
{
    strangers 'src/base/*.[ch]' $base
    strangers 'src/data/*.[ch]' $base data/
    strangers 'src/tensor/*.[ch]' $base $device 'device/reload\.h"' tensor/
    strangers 'src/program/*.[ch]' $base $device 'device/reload\.h"' tensor/ program/
    strangers 'src/train/*.[ch]' $base $device data/ tensor/ program/ train/
    strangers 'cli/*.[ch] cli/*/*.[ch]' 'bantam\.h"' 'report/[a-z_]+\.h"' 'serve/[a-z_]+\.h"' "$own"
    strangers 'examples/*.c' 'bantam\.h"'

    # Between the seam and the devices: only the registry names one; only reloading translates.
    for file in src/device/*.[ch]; do
        case $file in
        */registry.c) strangers "$file" $base 'device/[a-z_]+\.h"' 'device/[a-z]+/[a-z]+\.h"' ;;
        */reload.c) strangers "$file" $base 'device/[a-z_]+\.h"' 'kc/kc\.h"' ;;
        *) strangers "$file" $base 'device/[a-z_]+\.h"' 'kernels_gen\.h"' ;;
        esac
    done
    for folder in src/device/*/; do
        name=$(basename "$folder")
        case $name in
        cpu) set -- ;;
        check) set -- 'device/portable\.h"' 'device/cpu/cpu\.h"' ;;
        cuda) set -- 'device/portable\.h"' 'cuda/[a-z_]+\.h"' ;; # those of kernels/cuda, read by both sides
        *) set -- 'device/portable\.h"' ;;
        esac
        strangers "$(find "$folder" -name '*.[ch]' -o -name '*.inc' | tr '\n' ' ')" \
            $base $device 'device/depend\.h"' "device/$name/" "$own" "$@"
    done

    # The translator stands alone.
    strangers 'tools/kc/*.[ch]' 'kc/[a-z_]+\.h"' "$own"
    grep -nE '^ *# *include <' tools/kc/*.[ch] | grep -vE "$c_library"
} >"$BUILD/tests/strangers" 2>&1
grep -nE '#include "(tensor|program|train|data)/' cli/*.[ch] cli/*/*.[ch] examples/*.c src/device/*.[ch] src/device/*/* 2>/dev/null >>"$BUILD/tests/strangers"
verdict folders_depend_downward "$(cat "$BUILD/tests/strangers")"

printf '#include "bantam.h"\nint main(void) { return (int)bt_shape_count(BT_SHAPE(0)); }\n' >"$BUILD/tests/header.c"
if $CC -std=c11 -pedantic -Wall -Wextra -Werror -Iinclude -fsyntax-only "$BUILD/tests/header.c" 2>"$BUILD/tests/header.log"; then
    pass header_as_c
else
    fail header_as_c "$(head -n 3 "$BUILD/tests/header.log" | tr '\n' ' ')"
fi
printf '#include "bantam.h"\nint main() { bt_context *ctx = nullptr; bt_close(ctx); return BT_OK; }\n' >"$BUILD/tests/header.cc"
CXX=${CXX:-c++}
if ! command -v "$CXX" >/dev/null 2>&1; then
    skip header_as_cpp "no C++ compiler here"
elif $CXX -std=c++11 -pedantic -Wall -Wextra -Werror -Iinclude -fsyntax-only "$BUILD/tests/header.cc" 2>"$BUILD/tests/header.log"; then
    pass header_as_cpp
else
    fail header_as_cpp "$(head -n 3 "$BUILD/tests/header.log" | tr '\n' ' ')"
fi

# What the shared library exports is exactly what bantam.h declares.
grep -oE 'bt_[a-z0-9_]+\(' include/bantam.h | tr -d '(' | sort -u >"$BUILD/tests/declared"
case $(uname -s) in
Darwin) nm -gU "$BUILD/libbantam.dylib" | awk '{ print substr($3, 2) }' ;;
*) nm -D --defined-only "$BUILD/libbantam.so" | awk '$2 ~ /[TDRB]/ && $3 !~ /^_/ { print $3 }' ;;
esac | sort -u >"$BUILD/tests/exported"
case ${SANITIZE:-} in
'') verdict exports_are_the_header "$(comm -13 "$BUILD/tests/declared" "$BUILD/tests/exported" | sed 's/$/ is exported and not declared/' | head -n 3
    grep -E '^(const |bt_|void |int |size_t |uint32_t |uint64_t )' include/bantam.h | grep -oE 'bt_[a-z0-9_]+\(' | tr -d '(' | sort -u |
            comm -23 - "$BUILD/tests/exported" | sed 's/$/ is declared and not there/' | head -n 3)" ;;
*) skip exports_are_the_header "sanitizers add symbols" ;;
esac

# A program built with what `make install` leaves, and the shared library.
stage=$BUILD/tests/stage
rm -rf "$stage"
if ! make -s install BUILD="$BUILD_AS" CC="$CC" SANITIZE="${SANITIZE:-}" DESTDIR="$stage" PREFIX=/usr >"$BUILD/tests/install.log" 2>&1; then
    fail installs "$(tail -n 1 "$BUILD/tests/install.log")"
elif [ -n "${SANITIZE:-}" ]; then
    skip installs "the shared library needs its sanitizer"
elif ! $CC -I"$stage/usr/include" examples/matrix.c -L"$stage/usr/lib" -lbantam -o "$stage/matrix" -lm 2>"$BUILD/tests/install.log"; then
    fail installs "$(head -n 3 "$BUILD/tests/install.log" | tr '\n' ' ')"
elif ! LD_LIBRARY_PATH="$stage/usr/lib" DYLD_LIBRARY_PATH="$stage/usr/lib" "$stage/matrix" >"$BUILD/tests/install.log" 2>&1; then
    fail installs "$(tail -n 1 "$BUILD/tests/install.log")"
elif ! grep -q "^Version: $(sed -n 's/.*BT_VERSION_TEXT *"\(.*\)"/\1/p' include/bantam.h)$" "$stage/usr/lib/pkgconfig/bantam.pc"; then
    fail installs "bantam.pc names another version than bantam.h"
else
    make -s uninstall BUILD="$BUILD_AS" DESTDIR="$stage" PREFIX=/usr
    verdict installs "$(find "$stage/usr" -type f -o -type l | sed 's/$/ stays after uninstall/')"
fi

verdict files_below_800_lines "$(find src include cli tests examples bench tools kernels \( -name '*.[chk]' -o -name '*.cu' -o -name '*.cuh' \) -exec wc -l {} + |
    awk '$1 > 800 && $2 != "total" { print $2 " has " $1 " lines" }')"

# Written in pieces, so that this file does not find itself.
verdict nothing_unfinished "$(grep -rnwE "TO""DO|FIX""ME|XX""X|HA""CK" Makefile include src kernels tools cli tests examples scripts bench docs .ci README.md CONTRIBUTING.md 2>/dev/null | head -n 3)"

verdict files_say_what_they_are "$(find src include cli tests examples tools kernels -name '*.[chk]' -o -name '*.cu' -o -name '*.cuh' | while read -r file; do
    head -n 1 "$file" | grep -qE '^(//|/\*)' || echo "$file does not begin with a comment"
done)"
