#!/bin/sh
# The CPU's kernels on 64-bit ARM: built by a cross compiler, run by QEMU. NEON shares its source with
# the vectors of x86, but for a page of vec.h that nothing else would ever run. See tests/neon/Makefile.
. tests/tap.sh
programs='test_isa test_ops test_fused test_sparse test_cpu'
names="$programs bits_of_avx2"
plan 6

# all pass|fail|skip REASON
all() {
    for name in $names; do "$1" "$name" "$2"; done
    exit 0
}
cross=aarch64-linux-gnu-gcc
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
command -v $cross >/dev/null 2>&1 || all skip "no $cross here (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)"
[ -n "$qemu" ] || all skip "no qemu-aarch64 here (Debian: qemu-user-static)"
[ -z "${SANITIZE:-}" ] || all skip "sanitizers are for the host"

out=$BUILD/neon
mkdir -p "$out"
env -u MAKEFLAGS -u MAKELEVEL make -s -f tests/neon/Makefile -j "$(nproc)" BUILD="$BUILD" CC=$cross PROGRAMS="$programs" >"$out/make.log" 2>&1 ||
    all fail "$(grep -m 1 -i error "$out/make.log")"

# Every line about a test must be "ok", and there must be some.
export BT_TEST_QUICK=1
for program in $programs; do
    log=$out/$program.log
    "$qemu" "$out/$program" >"$log" 2>&1
    grep -q '^ok' "$log" || echo "not ok: $(tail -n 1 "$log")" >>"$log"
    verdict "$program" "$(grep -E '^(ERROR|not ok|qemu)' "$log" | head -n 3)"
done

# test_isa prints a number for the results of each kernel that is to give the same bits wherever
# multiply and add are one operation.
bits() { grep '^# bits' "$1"; }
"$BUILD/tests/test_isa" >"$out/host.log" 2>&1
if ! bits "$out/host.log" >"$out/host.bits"; then
    skip bits_of_avx2 "no AVX2 here"
elif ! bits "$out/test_isa.log" >"$out/neon.bits"; then
    fail bits_of_avx2 "no numbers from NEON"
else
    verdict bits_of_avx2 "$(diff "$out/host.bits" "$out/neon.bits" | grep '^[<>]')"
fi
