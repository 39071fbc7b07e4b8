#!/bin/sh
# embed.sh FILE...: prints the C file that puts the files into the library as bt_cuda_images
# (src/device/cuda/cuda_internal.h), a 0 after each. The assembler reads them: arrays of numbers would
# take the compiler long.
set -eu
echo '// Compiled kernels and their sources. Made by scripts/embed.sh.'
echo '#include "device/cuda/cuda_internal.h"'
echo '#pragma GCC visibility push(hidden)'
i=0
for file; do
    printf 'extern const unsigned char bt_image_%d[], bt_image_%d_end[];\n' $i $i
    printf '__asm__(".pushsection .rodata\\n.balign 64\\n.globl bt_image_%d\\n.globl bt_image_%d_end\\n"\n' $i $i
    printf '        ".hidden bt_image_%d\\n.hidden bt_image_%d_end\\nbt_image_%d:\\n.incbin \\"%s\\"\\n"\n' $i $i $i "$file"
    printf '        "bt_image_%d_end:\\n.byte 0\\n.popsection\\n");\n' $i
    i=$((i + 1))
done
echo '#pragma GCC visibility pop'
echo 'const bt_cuda_image bt_cuda_images[] = {'
i=0
for file; do
    printf '    {"%s", bt_image_%d, bt_image_%d_end},\n' "${file##*/}" $i $i
    i=$((i + 1))
done
echo '    {0},'
echo '};'
