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
# (The files of Linux and of macOS, ELF and Mach-O, have other words for the same.)
cat <<'END'
#ifdef __APPLE__
#define SECTION ".section __TEXT,__const\n.balign 64\n"
#define SYMBOL(name) ".globl " name "\n.private_extern " name "\n"
#define BACK ".text\n"
#else
#define SECTION ".pushsection .rodata\n.balign 64\n"
#define SYMBOL(name) ".globl " name "\n.hidden " name "\n"
#define BACK ".popsection\n"
#endif
END
i=0
for file; do
    name=${type}_data_$i
    printf 'extern const unsigned char %s[] __asm__("%s"), %s_end[] __asm__("%s_end");\n' $name $name $name $name
    printf '__asm__(SECTION SYMBOL("%s") SYMBOL("%s_end")\n' $name $name
    printf '        "%s:\\n.incbin \\"%s\\"\\n%s_end:\\n.byte 0\\n" BACK);\n' $name "$file" $name
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
