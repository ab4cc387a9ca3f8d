#!/usr/bin/env bash
# Installs what the tests need: PostgreSQL majors, two S3 servers, strace. What cannot be had is said at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/shared.sh
. "$here/shared.sh"

missing=()
need() { # PROGRAM PACKAGE…
    local program=$1; shift
    command -v "$program" >/dev/null && return
    apt_install "$@" && command -v "$program" >/dev/null || missing+=("$program")
}
need radosgw radosgw ceph-mon ceph-osd
need ceph-osd ceph-osd
need strace strace
need curl curl
need openssl openssl
command -v moto_server >/dev/null || python3 -m pip install --quiet 'moto[server]' ||
    python3 -m pip install --quiet --break-system-packages 'moto[server]' || missing+=(moto_server)
"$here/install-postgres.sh" || missing+=(postgresql)
if [ "${#missing[@]}" -gt 0 ]; then
    echo "COULD NOT BE HAD: ${missing[*]}: the tests that need them will fail" >&2
fi
exit 0
