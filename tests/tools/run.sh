#!/usr/bin/env bash
# Runs all tests, by nextest where it is installed, else by cargo, and says at the end what could not be tested here.
# An argument names nextest's profile: `long` for the long forms, which last longer than what hangs may.
#
# A test that lacks something on this machine fails, and writes its name and the lack into a file. When every failure is
# of that kind the run is said to be incomplete, in large letters, and is no failure; with CI=true it is one.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/shared.sh
. "$here/shared.sh"
cd "$here/../.." || exit 1
prepare_cache

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PITR_TEST_LACKS=$work/lacks
: >"$PITR_TEST_LACKS"

phase "building the tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-run || exit 1
    phase "tests"
    if [ "${CI:-}" = true ]; then profile=ci; else profile=${1:-default}; fi
    cargo nextest run --locked --no-fail-fast --profile "$profile" 2>&1 | tee "$work/log"
    status=${PIPESTATUS[0]}
    # nextest runs no examples in documentation; there are few, and they are quick.
    cargo test --locked --quiet --doc || status=$?
    failed=$(sed -E 's/\x1b\[[0-9;]*m//g' "$work/log" | grep -E '^ *Summary' | tail -1 |
        grep -oE '[0-9]+ (failed|timed out)' | awk '{ sum += $1 } END { print sum + 0 }')
else
    say "cargo-nextest is not installed: running by cargo test, which is slower and stops nothing that hangs"
    cargo test --locked --no-run || exit 1
    phase "tests"
    cargo test --locked --no-fail-fast 2>&1 | tee "$work/log"
    status=${PIPESTATUS[0]}
    failed=$(sed -nE 's/^test result: .* ([0-9]+) failed;.*/\1/p' "$work/log" | awk '{ sum += $1 } END { print sum + 0 }')
fi
phase "end"

warn() { printf '\033[1;31m%s\033[0m\n' "$*" >&2; }
lacked=$(cut -f1 "$PITR_TEST_LACKS" | sort -u | grep -c .)
if [ -s "$CACHE/not-linted" ]; then
    sed 's/^/not checked: /' "$CACHE/not-linted" >&2
fi
[ ! -s "$CACHE/missing" ] && [ "$lacked" = 0 ] && exit "$status"

warn "################################################################################"
warn "# NOT EVERYTHING WAS TESTED: something could not be had on this machine."
sort -u "$CACHE/missing" 2>/dev/null | while read -r line; do warn "#   cannot be had: $line"; done
sort -u "$PITR_TEST_LACKS" | while IFS=$'\t' read -r test lack; do warn "#   not tested: $test ($lack)"; done
warn "################################################################################"
if [ "${CI:-}" = true ]; then
    warn "CI=true: this is a failure."
    exit 1
fi
if [ "$status" != 0 ] && [ "$failed" -gt 0 ] && [ "$failed" = "$lacked" ]; then
    warn "All $failed failed tests are of that kind."
    exit 0
fi
exit "$status"
