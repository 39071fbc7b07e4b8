#!/bin/sh
# embed.sh HEADER TYPE FILE...: prints the C file that puts the files into the program as the array
# TYPEs (declared, as the struct TYPE, in HEADER): name, first byte, end; a 0 after each. The assembler
# reads them: arrays of numbers would take the compiler long.
set -eu
header=$1 type=$2
shift 2
echo '// Files as arrays. Made by scripts/embed.sh.'
echo "#include \"$header\""
echo '#pragma GCC visibility push(hidden)'
i=0
for file; do
    name=${type}_data_$i
    printf 'extern const unsigned char %s[], %s_end[];\n' $name $name
    printf '__asm__(".pushsection .rodata\\n.balign 64\\n.globl %s\\n.globl %s_end\\n"\n' $name $name
    printf '        ".hidden %s\\n.hidden %s_end\\n%s:\\n.incbin \\"%s\\"\\n"\n' $name $name $name "$file"
    printf '        "%s_end:\\n.byte 0\\n.popsection\\n");\n' $name
    i=$((i + 1))
done
echo '#pragma GCC visibility pop'
echo "const $type ${type}s[] = {"
i=0
for file; do
    printf '    {"%s", %s_data_%d, %s_data_%d_end},\n' "${file##*/}" "$type" $i "$type" $i
    i=$((i + 1))
done
echo '    {0},'
echo '};'
