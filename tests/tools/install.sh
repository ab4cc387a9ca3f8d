#!/usr/bin/env bash
# Installs what the tests need: PostgreSQL majors, two S3 servers, programs that look from outside. It never fails: what
# cannot be had is a line in CACHE/missing, the tests that need it fail by that name, and run.sh says at its end what
# that means.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/shared.sh
. "$here/shared.sh"
prepare_cache
: >"$CACHE/missing"
phase "what the tests need"

need() { # PROGRAM "WHAT FOR" PACKAGE…
    local program=$1 use=$2
    shift 2
    command -v "$program" >/dev/null && return
    # Ubuntu keeps some of these in universe, which a minimal image may have switched off.
    apt_install "$@" || true
    command -v "$program" >/dev/null || lacking "$program (apt-get install $*): $use"
}
need radosgw "everything about s3:// on a Ceph object gateway" radosgw ceph-mon ceph-osd
need ceph-osd "everything about s3:// on a Ceph object gateway" ceph-osd
need ceph "everything about s3:// on a Ceph object gateway" ceph-common
need strace "that acknowledged is durable, seen in the system calls; kills at each step" strace
need curl "starting Ceph" curl
need openssl "TLS logins" openssl
need zstd "that a repository is no hostage" zstd
need python3 "that a repository is no hostage; moto; PostgreSQL majors out of PyPI and npm" python3
need setsid "starting S3 servers" util-linux

from_pypi moto moto_server 'moto[server]==5.2.1' ||
    lacking "moto_server (pip install 'moto[server]'): everything about s3:// on a second server"

# Two tests fill a file system of a few kilobytes up.
if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    lacking "sudo without a question: the tests of full disks mount a small file system"
fi
"$here/install-postgres.sh"
exit 0
