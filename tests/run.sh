#!/bin/sh
# Runs the test programs one after the other, each in its own process, and adds up. Prints one
# line per program, one per failure with its reason, one per skipped test; the last line is
# "N passed, N failed, N skipped". Arguments: names of programs (test_ops ...); none: all.
# Every program speaks TAP as cmocka writes it; its whole output is in BUILD/tests/NAME.log.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
CC=${CC:-cc}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
export BUILD CC CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}"
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
/^(not )?ok [0-9]+ # SKIP / { result(); skipped++; sub(/^.*# SKIP /, "")
    printf "SKIP %s: %s: %s\n", program, $0, skip_reason == "" ? "not said" : skip_reason
    skip_reason = ""; next }
/^ok [0-9]+/ { result(); passed++; next }
/^not ok [0-9]+/ { result(); failed++; sub(/^not ok [0-9]+ - /, ""); failing = $0; reason = why; next }
/^# not ok - / { next }
/^# / { if (failing != "" && (reason == "" || reason == why)) reason = (reason == "" ? "" : reason "; ") substr($0, 3); next }
{ last = $0 }
END { flush()
    if (seen < planned || planned == 0 || (status != 0 && failed == 0)) { failed++
        printf "FAIL %s: ended with status %d after %d of %d tests: %s\n", program, status, seen, planned, last }
    printf "= %d %d %d\n", passed, failed, skipped }'

all_passed=0 all_failed=0 all_skipped=0
start_all=$(date +%s)

run() { # NAME COMMAND...
    name=$1
    shift
    log=$BUILD/tests/$name.log
    start=$(date +%s)
    "$@" >"$log" 2>&1
    status=$?
    messages=$(awk -v program="$name" -v status="$status" "$read_tap" "$log")
    printf '%s\n' "$messages" | grep -v '^= '
    # shellcheck disable=SC2046
    set -- $(printf '%s\n' "$messages" | sed -n 's/^= //p')
    all_passed=$((all_passed + $1)) all_failed=$((all_failed + $2)) all_skipped=$((all_skipped + $3))
    echo "$name: $1 passed, $2 failed, $3 skipped ($(($(date +%s) - start)) s)"
    # What a sanitizer or a crash printed helps more than its name.
    if [ "$2" -gt 0 ]; then grep -nE 'ERROR: .*Sanitizer|WARNING: ThreadSan|runtime error:|SUMMARY:' "$log" | head -n 5; fi
}

wanted() { [ -z "$only" ] || case " $only " in *" $1 "*) ;; *) false ;; esac; }
only="$*"
mkdir -p "$BUILD/tests"
for source in tests/test_*.c tests/test_*.sh tests/test_*.py; do
    [ -e "$source" ] || continue
    name=$(basename "$source" | sed 's/\.[a-z]*$//')
    wanted "$name" || continue
    case $source in
    *.c)
        if [ "$name" = test_cuda ] && ! grep -q '^HAVE_CUDA := .' "$BUILD/config.mk"; then
            echo "SKIP $name: this build has no CUDA (it needs nvcc or clang)"
            all_skipped=$((all_skipped + 1))
        else
            run "$name" $prefix "$BUILD/tests/$name"
        fi
        ;;
    *.sh) run "$name" sh "$source" ;;
    *.py)
        python=
        for candidate in python3 /usr/bin/python3; do
            if $candidate -c 'import torch' >/dev/null 2>&1; then python=$candidate; fi
        done
        if [ -z "$python" ]; then
            echo "SKIP $name: no Python with torch here (Debian: python3-torch)"
            all_skipped=$((all_skipped + 1))
        else
            run "$name" "$python" "$source"
        fi
        ;;
    esac
done
echo "Took $(($(date +%s) - start_all)) s; the output of each program is in $BUILD/tests/"
echo "$all_passed passed, $all_failed failed, $all_skipped skipped"
[ "$all_failed" -eq 0 ]
