#!/usr/bin/env bash
# Runs all tests: by nextest where it is installed, else by cargo.
set -euo pipefail
cd "$(dirname "$0")/../.."
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --no-fail-fast
else
    echo "cargo-nextest is not installed: running by cargo test" >&2
    cargo test
fi
