#!/usr/bin/env bash
# Rust links through a C compiler, and zstd and the cryptography are C: a bare Debian or Ubuntu has none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/shared.sh
. "$here/shared.sh"

command -v cargo >/dev/null || {
    echo "cargo is not there: install Rust first (https://rustup.rs)" >&2
    exit 1
}
command -v cc >/dev/null || apt_install gcc libc6-dev make
