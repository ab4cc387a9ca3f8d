# shellcheck shell=bash
# Sourced by the scripts beside it: where things go, how root is reached, how a lack is told.

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }

# Where the time goes, in the log of a run.
phase() { printf '\033[1m== %s %s\033[0m\n' "$(date -u +%T)" "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "neither root nor sudo: cannot run $*"
        return 1
    fi
}

apt_updated=
apt_install() {
    command -v apt-get >/dev/null || { say "no apt-get here: cannot install $*"; return 1; }
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq >&2 || say "apt-get update failed: trying with the lists there are"
        apt_updated=yes
    fi
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a \
        apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Every user must be able to read the cache: as root, the servers run as user postgres.
prepare_cache() {
    if [ -z "${PITR_TEST_CACHE:-}" ]; then
        if [ "$(id -u)" = 0 ] || [ -w /var/cache/pitr-test ]; then
            PITR_TEST_CACHE=/var/cache/pitr-test
        else
            PITR_TEST_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pitr-test
        fi
    fi
    CACHE=$PITR_TEST_CACHE
    umask 022
    mkdir -p "$CACHE" || { say "cannot create $CACHE"; exit 1; }
}

# What root has put into the common cache serves everybody.
in_some_cache() { # PATH
    [ -e "$CACHE/$1" ] || [ -e "/var/cache/pitr-test/$1" ]
}

# One line on the list that `make test` repeats at its end.
lacking() {
    printf '\033[1;31mcannot be had: %s\033[0m\n' "$*" >&2
    echo "$*" >>"$CACHE/missing"
}

# A program out of PyPI, in an environment of its own: Debian 12 and Ubuntu 24.04 refuse pip in the system's Python
# (PEP 668). Where it is goes into $program.
from_pypi() { # NAME-OF-ENVIRONMENT PROGRAM PACKAGE…
    local home=$1 name=$2 place
    shift 2
    for place in "$(command -v "$name")" "$CACHE/$home/bin/$name" "/var/cache/pitr-test/$home/bin/$name"; do
        if [ -x "$place" ]; then program=$place && return; fi
    done
    say "getting $name (PyPI)"
    make_environment() {
        rm -rf "${CACHE:?}/$home" && python3 -m venv "$CACHE/$home" 2>/dev/null
    }
    { make_environment || { apt_install python3 python3-venv && make_environment; }; } &&
        "$CACHE/$home/bin/pip" install --quiet "$@" || { rm -rf "${CACHE:?}/$home" && return 1; }
    chmod -R a+rX "$CACHE/$home"
    # shellcheck disable=SC2034 # for the caller
    program=$CACHE/$home/bin/$name
}
