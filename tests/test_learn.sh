#!/bin/sh
# docs/learn: the kernels it teaches give right products, each alone and for sizes that fill no tile,
# a wrong one is seen, what the page quotes is what kc prints and what stands in the files, and the files
# and commands that the page about training names are there.
. tests/tap.sh
plan 4

page=docs/learn/kernels.md
folder=$BUILD/tests/learn
rm -rf "$folder"
mkdir -p "$folder/bench" "$folder/kernels"
export XDG_CACHE_HOME="$folder/cache"

# The code blocks of one language, without the lines "..." that stand for others.
blocks() { awk -v start="\`\`\`$1" '/^```/ { inside = $0 == start; next } inside && !/^ *\.\.\.$/' $page; }

quoted() {
    for language in glsl cuda msl wgsl c; do
        "$BUILD/kc" $language matmul_naive kernels/learn/matmul_naive.k >"$folder/text"
        blocks $language >"$folder/quoted"
        [ "$(wc -l <"$folder/quoted")" -ge 5 ] || echo "the page shows too little $language"
        grep -vxFf "$folder/text" "$folder/quoted" | sed "s/^/not in the $language of matmul_naive: /"
    done
    cat kernels/*.k kernels/learn/*.k >"$folder/text"
    blocks k | grep -vxFf "$folder/text" | sed 's/^/in no kernel: /'
}
verdict quotations "$(quoted | head -n 5)"

named() {
    training=docs/learn/training-on-a-gpu.md
    grep -oE '(kernels|bench|src|docs)/[a-z_/.]+\.(k|cu|cuh|h|c|sh|md)' $training | sort -u | while read -r file; do
        [ -e "$file" ] || echo "$training names $file, which is not there"
    done
    for command in train bench; do
        "$BUILD/bantam" help $command >"$folder/text"
        sed -n "s/^bantam $command \([^#]*\).*/\1/p" $training | grep -oE -- '--[a-z-]+' | sort -u | while read -r option; do
            grep -q -- "^  $option " "$folder/text" || echo "$training: \`bantam $command\` has no option $option"
        done
    done
    grep -q '^bantam train .*--overrides' $training || echo "$training shows no commands"
}
verdict training_page_names_what_is_there "$(named | head -n 5)"

why=
[ -z "${BT_TEST_QUICK:-}" ] || why="too long for an instrumented build"
"$BUILD/bantam" devices | grep -q '^vulkan:0 *ready' || why="no Vulkan device here"
if [ -n "$why" ]; then
    skip products "$why"
    skip a_wrong_product "$why"
    exit
fi
# shellcheck disable=SC2046
${CC:-cc} -std=c17 -D_GNU_SOURCE -Iinclude -O2 bench/learn.c "$BUILD/libbantam.a" -o "$folder/bench/learn" \
    $(sed -n 's/^Libs.private: //p' "$BUILD/bantam.pc") >"$folder/log" 2>&1 &&
    BUILD=$folder sh bench/learn.sh vulkan 37 130 >"$folder/times" 2>>"$folder/log"
[ "$(grep -c GFLOP "$folder/times")" = 12 ] || echo "not 6 kernels in 2 sizes" >>"$folder/log"
verdict products "$(head -n 3 "$folder/log")"

cp kernels/*.k "$folder/kernels"
sed 's/fma(left\[s\]\[i\], right\[s\]\[j\]/fma(left[s][i], right[s][i]/' kernels/matmul.k >"$folder/kernels/matmul.k"
"$folder/bench/learn" vulkan "$folder/kernels" 37 >"$folder/log" 2>&1
if grep -q 'size 37 is wrong' "$folder/log"; then
    pass a_wrong_product
else
    fail a_wrong_product "a kernel that is broken on purpose passes: $(tail -n 1 "$folder/log")"
fi
