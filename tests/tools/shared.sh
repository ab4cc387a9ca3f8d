# Sourced by the installers beside it: where things go, how root is reached, how a lack is told.

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" 2>/dev/null || sudo "$@"; fi
}

apt_updated=
apt_install() {
    command -v apt-get >/dev/null || { say "no apt-get here: cannot install $*"; return 1; }
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq >&2 || say "apt-get update failed: trying with the lists there are"
        apt_updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Every user must be able to read the cache: as root, the servers run as user postgres.
prepare_cache() {
    if [ -z "${PITR_TEST_CACHE:-}" ]; then
        if [ "$(id -u)" = 0 ] || [ -w /var/cache/pitr-test ]; then
            PITR_TEST_CACHE=/var/cache/pitr-test
        else
            PITR_TEST_CACHE=$HOME/.cache/pitr-test
        fi
    fi
    CACHE=$PITR_TEST_CACHE
    umask 022
    mkdir -p "$CACHE" || { say "cannot create $CACHE"; exit 1; }
}

# One line on the list that `make test` repeats at its end.
lacking() {
    printf '\033[1;31mmissing: %s\033[0m\n' "$*" >&2
    echo "$*" >>"$missing"
}
