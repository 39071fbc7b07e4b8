# TAP for tests in sh, as cmocka writes it: `plan N`, then `pass NAME` or `fail NAME REASON`, or
# `skip NAME REASON`. Sourced; BUILD is the absolute path of the build folder.
number=0
command -v nproc >/dev/null || nproc() { getconf _NPROCESSORS_ONLN; } # macOS
plan() { echo "1..$1"; }
pass() { number=$((number + 1)); echo "ok $number - $1"; }
fail() { number=$((number + 1)); echo "ERROR: $2"; echo "not ok $number - $1"; }
skip() { number=$((number + 1)); echo "# skipped: $2"; echo "not ok $number # SKIP $1"; }
# verdict NAME REASONS: passes when there are no reasons.
verdict() { if [ -z "$2" ]; then pass "$1"; else fail "$1" "$(printf '%s' "$2" | tr '\n' ';')"; fi; }
