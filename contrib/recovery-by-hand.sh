#!/bin/sh
# Gives a database back without pitr: needs a copy of the repository in a directory, and zstd, tar, sha256sum, awk, cp.
# recovery-by-hand.md says what is done here and why, step by step.
#
#   recovery-by-hand.sh CLUSTER-DIRECTORY BACKUP-ID NEW-DATA-DIRECTORY [TARGET-TIME] [TABLESPACE-OID=DIRECTORY]...
#
# CLUSTER-DIRECTORY is <repository>/<cluster>/<epoch>, /var/lib/pitr/main/0001 for instance. TARGET-TIME is as the server
# writes it, '2026-04-07 15:22:59+00'; without one (or with '') recovery goes to the end of the archive. Run it as the user
# that will run the server.
set -eu
LC_ALL=C
export LC_ALL

fail() { echo "recovery-by-hand: $*" >&2; exit 1; }
[ $# -ge 3 ] || fail "usage: $0 CLUSTER-DIRECTORY BACKUP-ID NEW-DATA-DIRECTORY [TARGET-TIME] [OID=DIRECTORY]..."
cluster=$(cd "$1" && pwd) || fail "no directory $1"
backup=$cluster/backup/$2
mkdir -p "$3" && data=$(cd "$3" && pwd)
shift 3
target=
if [ $# -gt 0 ]; then case $1 in [0-9]*=/*) ;; *) target=$1; shift ;; esac; fi

# 1. The backup exists when its last write does, and nothing is there that could be overwritten.
[ -s "$backup/backup.json" ] || fail "$backup/backup.json is not there: this backup was never finished"
[ -z "$(ls -A "$data")" ] || fail "$data is not empty"
chmod 700 "$data"

# 2. The files: the parts of the server's own tar stream, one behind the other. A damaged part fails zstd's checksum.
unpack() { # FOLDER-OF-PARTS INTO
    # Tested first, because a plain shell does not see a failure at the beginning of a pipe.
    cat "$1"/*.zst | zstd -tq || fail "a part in $1 is damaged"
    cat "$1"/*.zst | zstd -dcq | tar -xp -C "$2"
}
unpack "$backup/base" "$data"

# 3. Tablespaces: each into the directory that was given for it. The link and tablespace_map both name the place.
for folder in "$backup"/[0-9]*/; do
    [ -d "$folder" ] || continue
    oid=$(basename "$folder")
    place=
    for given in "$@"; do case $given in "$oid="*) place=${given#*=} ;; esac; done
    [ -n "$place" ] || fail "tablespace $oid: say where it goes with $oid=/directory"
    mkdir -p "$place"
    [ -z "$(ls -A "$place")" ] || fail "$place is not empty"
    chmod 700 "$place"
    unpack "$folder" "$place"
    rm -rf "$data/pg_tblspc/$oid"
    ln -s "$place" "$data/pg_tblspc/$oid"
    if [ -s "$data/tablespace_map" ]; then
        # The names go through the environment: awk would take a backslash in -v for an escape.
        OID=$oid PLACE=$place awk '$1 == ENVIRON["OID"] { print $1 " " ENVIRON["PLACE"]; next } { print }' \
            "$data/tablespace_map" >"$data/tablespace_map.new"
        mv "$data/tablespace_map.new" "$data/tablespace_map"
    fi
done

# 4. The server's manifest, and its own checksum: SHA-256 of everything before the line that holds it.
zstd -dcq "$backup/backup_manifest.zst" >"$data/backup_manifest" || fail "the manifest is damaged"
said=$(awk -F'"' '/"Manifest-Checksum"/ { print $4 }' "$data/backup_manifest")
found=$(awk '/"Manifest-Checksum"/ { exit } { print }' "$data/backup_manifest" | sha256sum | awk '{ print $1 }')
[ "$said" = "$found" ] || fail "the manifest is not the one that the server wrote"

# 5. WAL: every file of the archive from the backup's start on. Of several copies of a segment the one counts whose
#    summary (JSON in a frame that zstd skips, behind eight bytes) says that it can be read furthest.
first=$(awk '/^START WAL LOCATION/ { gsub(/[^0-9A-F]/, "", $6); print substr($6, 9) }' "$data/backup_label")
timeline=$(awk '/^START TIMELINE/ { print $3 }' "$data/backup_label")
wal=$data-wal
mkdir "$wal"
for history in "$cluster"/wal/*.history.zst; do
    [ -e "$history" ] || continue
    zstd -dcq "$history" >"$wal/$(basename "$history" .zst)" || fail "$history is damaged"
done
reach() { # STORED-SEGMENT: 16 hexadecimal digits that sort, and 1 where nothing is marked as broken
    length=$(od -An -tu4 -j4 -N4 "$1")
    tail -c +9 "$1" | head -c $((length)) | awk '
        match($0, /"end_of_valid":"[0-9A-F]+\/[0-9A-F]+"/) {
            split(substr($0, RSTART + 16, RLENGTH - 17), half, "/")
            key = sprintf("%8s%8s", half[1], half[2])
            gsub(/ /, "0", key)
            print key ($0 ~ /"damage":/ ? 0 : 1)
        }'
}
behind() { # A B: whether A sorts behind B, as text
    A=$1 B=$2 awk 'BEGIN { exit !("x" ENVIRON["A"] > "x" ENVIRON["B"]) }'
}
for stored in "$cluster"/wal/*/*/*.zst; do
    name=$(basename "$stored" .zst)
    case $name in *.partial | *.backup | *.backup.*) continue ;; esac
    segment=${name%%.*}
    # Whatever its timeline: the numbers of log and segment, in hexadecimal, sort as text.
    if behind "$first" "$(echo "$segment" | cut -c9-)"; then continue; fi
    zstd -tq "$stored" 2>/dev/null || {
        echo "recovery-by-hand: $stored is damaged; another copy is taken where there is one" >&2
        continue
    }
    here=$(reach "$stored")
    if [ -e "$wal/$segment" ] && ! behind "$here" "$best"; then continue; fi
    # The copies of one segment follow each other in the list.
    best=$here
    zstd -dcqf "$stored" >"$wal/$segment"
done

# 6. What the server is to do. Later lines win, so what the backup brought along is blanked; archive_mode is off, because a
#    copy must not write into the archive that it came from.
{
    echo "# written by recovery-by-hand.sh"
    for name in recovery_target recovery_target_time recovery_target_xid recovery_target_lsn recovery_target_name \
        recovery_end_command archive_cleanup_command primary_conninfo primary_slot_name synchronous_standby_names; do
        echo "$name = ''"
    done
    quoted=$(printf %s "$wal" | awk -v q="'" '{ gsub(/%/, "%%"); gsub(q, q q); print }')
    echo "restore_command = 'cp \"$quoted/%f\" \"%p\"'"
    if [ -n "$target" ]; then echo "recovery_target_time = '$target'"; fi
    echo "recovery_target_timeline = '$timeline'"
    echo "recovery_target_action = 'promote'"
    echo "archive_mode = off"
} >>"$data/postgresql.auto.conf"
: >"$data/recovery.signal"

echo "recovery-by-hand: $data is ready, and its WAL is in $wal: pg_ctl -D $data start"
echo "recovery-by-hand: when it has been promoted, remove $wal and the lines at the end of postgresql.auto.conf"
