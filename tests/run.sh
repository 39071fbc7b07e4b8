#!/bin/sh
# Runs the test programs, one on each core, and adds up. Prints one line per program, one per failure
# with its reason, one per skipped test; the last line is "N passed, N failed, N skipped".
# Arguments: names of programs (test_ops ...); none: all. JOBS says how many run at a time.
# Every program speaks TAP as cmocka writes it; its whole output is in BUILD/tests/NAME.log, and what
# is printed of it in NAME.report.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
BUILD_AS=${BUILD_AS:-$BUILD} # as make was told: by another name it would build anew
CC=${CC:-cc}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
export BUILD BUILD_AS CC CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C
leaks=1
[ "$(uname -s)" != Darwin ] || leaks=0 # (Apple's compiler cannot find them, and says no more than that)
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=$leaks:allocator_may_return_null=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"
[ -z "${SANITIZE:-}" ] || export BT_TEST_QUICK=1
prefix=
# ThreadSanitizer needs its fixed address ranges free.
case ${SANITIZE:-} in *thread*) setarch -R true 2>/dev/null && prefix='setarch -R' ;; esac

# TAP in, "passed failed skipped" and the messages out. Failures of cmocka come with an "ERROR:"
# line before and "# ..." lines after; `expected` guards against programs that end early.
read_tap='
function flush() { if (failing != "") {
    printf "FAIL %s: %s: %s\n", program, failing, reason == "" ? "no reason given" : reason; failing = "" } }
function result() { flush(); seen++; why = error; error = "" }
/^[0-9]+\.\.[0-9]+$/ { split($0, plan, /\.\./); planned += plan[2]; next }
/^ERROR: / { if (error == "") error = substr($0, 8); next }
/^# skipped: / { skip_reason = substr($0, 12); next }
/^(not )?ok [0-9]+ .*# SKIP/ { result(); skipped++; sub(/^(not )?ok [0-9]+ (- )?/, ""); sub(/ *# SKIP */, "")
    printf "SKIP %s: %s: %s\n", program, $0, skip_reason == "" ? "not said" : skip_reason
    skip_reason = ""; next }
/^ok [0-9]+/ { result(); passed++; next }
/^not ok [0-9]+/ { result(); failed++; sub(/^not ok [0-9]+ - /, ""); failing = $0; reason = why; next }
/^ +message: / { text = $0; sub(/^ +message: /, "", text) # (of cmocka 2)
    if (text ~ /^[|>]/ && (getline text) > 0) sub(/^ +/, "", text)
    if (failing != "" && reason == "") reason = text; next }
/^# not ok - / { next }
/^# / { if (failing != "" && (reason == "" || reason == why)) reason = (reason == "" ? "" : reason "; ") substr($0, 3); next }
{ last = $0 }
END { flush()
    if (seen < planned || planned == 0 || (status != 0 && failed == 0)) { failed++
        printf "FAIL %s: ended with status %d after %d of %d tests: %s\n", program, status, seen, planned, last }
    printf "= %d %d %d\n", passed, failed, skipped }'

# What is printed of a program; the last line, for the totals, is "= passed failed skipped".
report() { # NAME COMMAND...
    name=$1
    shift
    log=$BUILD/tests/$name.log
    start=$(date +%s)
    "$@" >"$log" 2>&1
    status=$?
    messages=$(awk -v program="$name" -v status="$status" "$read_tap" "$log")
    printf '%s\n' "$messages" | grep -v '^= '
    totals=$(printf '%s\n' "$messages" | grep '^= ')
    # shellcheck disable=SC2086
    set -- $totals
    echo "$name: $2 passed, $3 failed, $4 skipped ($(($(date +%s) - start)) s)"
    # What a sanitizer or a crash printed helps more than its name.
    if [ "$3" -gt 0 ]; then grep -nE 'ERROR: .*Sanitizer|WARNING: ThreadSan|runtime error:|SUMMARY:' "$log" | head -n 5; fi
    echo "$totals"
}

absent() { # NAME REASON
    echo "SKIP $1: $2"
    echo "= 0 0 1"
}

# Why a program was not built (NO_TESTS in the Makefile); nothing when it was.
lacks() { # SOURCE
    has() { grep -q "^HAVE_$1 := ." "$BUILD/config.mk"; }
    if grep -q '"device/cuda/' "$1" && ! has CUDA; then
        echo "this build has no CUDA (it needs nvcc or clang)"
    elif grep -q '"device/vulkan/' "$1" && ! has VULKAN; then
        echo "this build has no Vulkan (it needs glslc and libvulkan-dev)"
    elif grep -q '"metal[a-z_]*[.]h"' "$1" && [ "$(uname -s)" = Darwin ]; then
        echo "the simulated Metal is for systems that have none"
    fi
}

program() { # SOURCE NAME
    case $1 in
    *.c)
        why=$(lacks "$1")
        if [ -n "$why" ]; then absent "$2" "$why"; else report "$2" $prefix "$BUILD/tests/$2"; fi
        ;;
    *.sh) report "$2" sh "$1" ;;
    *.py)
        module=sys # that a test cannot do without
        [ "$2" != test_torch ] || module=torch
        for python in /usr/bin/python3 python3; do
            if $python -c "import $module" >/dev/null 2>&1; then
                report "$2" "$python" "$1"
                return
            fi
        done
        absent "$2" "no Python with $module here (Debian: python3, python3-torch)"
        ;;
    esac
}

name() { basename "$1" | sed 's/\.[a-z]*$//'; }

if [ "${1:-}" = --one ]; then # SOURCE, from below
    # Who asked for the tests is gone (killed, not by Ctrl-C, which reaches all): 255 ends xargs.
    kill -0 "$RUNNER" 2>/dev/null || exit 255
    report=$BUILD/tests/$(name "$2").report
    program "$2" "$(name "$2")" >"$report.new"
    grep -v '^= ' "$report.new"
    mv "$report.new" "$report"
    exit 0
fi

mkdir -p "$BUILD/tests"
start=$(date +%s)
wanted=
# (The scripts first: they take longest, and no core shall wait for them at the end.)
for source in tests/test_*.sh tests/test_*.py tests/test_*.c; do
    [ -e "$source" ] || continue
    case " ${*:-$(name "$source")} " in *" $(name "$source") "*) ;; *) continue ;; esac
    rm -f "$BUILD/tests/$(name "$source").report"
    wanted="$wanted $source"
done
for name; do
    case "$wanted " in *"/$name."*) ;; *) echo "No test program is called $name; they are tests/test_*" && exit 1 ;; esac
done
# shellcheck disable=SC2086
printf '%s\n' $wanted | RUNNER=$$ xargs -P "${JOBS:-$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}" -n 1 sh tests/run.sh --one

passed=0 failed=0 skipped=0
for source in $wanted; do
    # shellcheck disable=SC2046
    set -- $(sed -n 's/^= //p' "$BUILD/tests/$(name "$source").report" 2>/dev/null)
    [ $# -eq 3 ] || { echo "FAIL $(name "$source"): its run was ended from outside"; set -- 0 1 0; }
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
done
echo "Took $(($(date +%s) - start)) s; the output of each program is in $BUILD/tests/"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
