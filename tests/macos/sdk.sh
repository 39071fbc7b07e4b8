#!/bin/sh
# sdk.sh FOLDER APPLE: puts into FOLDER what a build on a Mac finds: programs (bin), the list of the system
# library's functions (lib), and Homebrew's headers and libraries (brew). Debian's headers and names of
# functions stand for those, whose interfaces are the same.
set -eu
folder=$1 apple=$2
rm -rf "$folder/bin" "$folder/lib" "$folder/brew"
mkdir -p "$folder/bin" "$folder/lib" "$folder/brew/include" "$folder/brew/lib"
cp tests/macos/cc tests/macos/uname tests/macos/xcode-select tests/macos/brew "$folder/bin"
ln -s "$(command -v llvm-ar)" "$folder/bin/ar"

# (That of the processor's older sister says the same of arm64.)
sed 's/arm64e-/arm64-/g' "$apple/darwin/libSystem.tbd" >"$folder/lib/libSystem.tbd"
for name in m dl pthread; do ln -s libSystem.tbd "$folder/lib/lib$name.tbd"; done

header() { # NAME: where Debian's compiler finds it
    echo "#include <$1>" | cc -E -x c - 2>/dev/null | sed -n "s|^# 1 \"\(.*/$1\)\".*|\1|p" | head -n 1
}
for name in zlib.h zconf.h png.h pngconf.h pnglibconf.h jansson.h jansson_config.h microhttpd.h cmocka.h; do
    ln -s "$(header $name)" "$folder/brew/include/$name"
done

# A library as its list of functions.
list() { # NAME FILE
    printf -- "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '/opt/homebrew/lib/lib%s.dylib'\n" "$1"
    printf 'exports:\n  - targets: [ arm64-macos ]\n    symbols: [ '
    nm -D --defined-only "$2" | awk '{ sub(/@.*/, "", $3); printf "%s_%s", (NR > 1 ? ", " : ""), $3 }'
    printf ' ]\n...\n'
}
for name in z png jansson microhttpd cmocka; do
    list $name "$(cc -print-file-name=lib$name.so)" >"$folder/brew/lib/lib$name.tbd"
done
