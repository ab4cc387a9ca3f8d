"""A run's goals as the table that the README shows: one row for each piece of work."""

RECOVERY = "recovery of 80 segments"
DRAIN = "drain of 200 segments"
# The work; the goals' names as they begin; facts of the same run behind them, with their unit.
ROWS = (
    ("`archive-push` of one segment to a directory, wall p50 and CPU / pgBackRest",
     ("archive one segment, file: wall p50 / pgB", "archive one segment, file: CPU / pgB"),
     ("archive-push, file: wall p50 in ms", "pgBackRest archive-push, file: wall p50 in ms"), "ms"),
    ("the same / WAL-RUS as published against pgBackRest",
     ("archive one segment, file: wall / WAL-RUS", "archive one segment, file: cpu / WAL-RUS"), (), ""),
    ("the same to S3 / pgBackRest", ("archive one segment, S3: wall p50", "archive one segment, S3: CPU"),
     ("archive-push, S3: wall p50 in ms", "pgBackRest archive-push, S3: wall p50 in ms"), "ms"),
    ("a backlog of 200 segments, wall / pgBackRest async", (f"{DRAIN}, file: wall",),
     ("drain, file, pitr: wall in s", "drain, file, pgBackRest async: wall in s"), "s"),
    ("fetch of a prefetched segment, p50 and p99 in ms: directory",
     ("fetch of a prefetched segment, file: p50", "fetch of a prefetched segment, file: p99"), (), ""),
    ("the same: S3", ("fetch of a prefetched segment, S3: p50", "fetch of a prefetched segment, S3: p99"), (), ""),
    ("recovery of 80 segments, wall / `cp`: directory", (f"{RECOVERY}, file: wall",),
     (f"{RECOVERY}, file, pitr: wall in s", f"{RECOVERY}, file, cp: wall in s"), "s"),
    ("the same: S3", (f"{RECOVERY}, S3: wall",),
     (f"{RECOVERY}, S3, pitr: wall in s", f"{RECOVERY}, S3, cp: wall in s"), "s"),
    ("`backup` over the protocol, wall / pgBackRest of local files, two processes", ("wall of backup / pgBackRest",),
     ("backup, wall in s", "pgBackRest, wall in s"), "s"),
    ("the same / `pg_basebackup` with zstd on two workers", ("wall of backup / pg_basebackup",),
     ("backup, wall in s", "pg_basebackup with zstd, wall in s"), "s"),
    ("`restore`, verified and synced, wall / pgBackRest", ("wall of restore / pgBackRest",),
     ("restore, wall in s", "pgBackRest restore, wall in s"), "s"),
    ("the same / (`zstd -dc` + `tar -x` + `sync`)", ("wall of restore / (zstd",),
     ("restore, wall in s", "zstd -dc | tar -x; sync, wall in s"), "s"),
    ("200,000 small files, wall / pgBackRest with bundling: backup", ("backup of 200000 small files: wall",),
     ("backup of 200000 small files, pitr: wall in s", "backup of 200000 small files, pgBackRest: wall in s"), "s"),
    ("the same: restore", ("restore of 200000 small files: wall",),
     ("restore of 200000 small files, pitr: wall in s", "restore of 200000 small files, pgBackRest: wall in s"), "s"),
    ("peak memory of a hook or what stays, 16 MiB segments: drain to a directory, to S3",
     ("drain, file: peak memory", "drain, S3: peak memory"), (), "MiB"),
    ("the same: recovery from a directory, from S3",
     (f"{RECOVERY}, file: peak memory", f"{RECOVERY}, S3: peak memory"), (), "MiB"),
    ("peak memory of hooks, 1 GiB segments that do not compress: push, get",
     ("archive-push of 1024 MiB of noise", "archive-get of 1024 MiB of noise"), (), "MiB"),
    ("peak memory of `backup`: directory; S3; `restore`",
     ("peak memory of backup to file", "peak memory of backup to s3", "peak memory of restore"), (), "MiB"),
    ("`archive-push`, CPU / `zstd -3`; wall / (`zstd -3` + fsync)",
     ("CPU of archive-push / zstd", "wall p50 of archive-push / (zstd"), (), ""),
    ("the scan for a segment's summary, CPU / `archive-push`: with images of pages; without",
     ("CPU of the scan / archive-push, pages", "CPU of the scan / archive-push, small"), (), ""),
    ("a hook's CPU before its first byte of work, ms: get; push",
     ("CPU of archive-get of an absent", "CPU of archive-push of a small"), (), ""),
)


def markdown(document):
    """Lines of Markdown. What this run did not measure has no value; what it could not measure is said."""
    machine, versions = document["machine"], document["versions"]
    yield (f"{document['date'][:10]}, {machine['cores']} cores of {machine['cpu']}, load {machine['load_before']} before, "
           f"{versions['postgres']}, {versions['pgbackrest']}, {machine['file_system']}, commit {versions['commit']}:")
    yield ""
    yield "| | measured | goal |"
    yield "|---|---|---|"
    for work, begins, facts, unit in ROWS:
        found = [goal for begin in begins for goal in document["goals"] if goal["what"].startswith(begin)]
        if found:
            yield f"| {work} | {values(found, unit)}{made_of(facts, document['facts'], unit)} | {limits(found)} |"
    for lack in document["not_measured"]:
        yield f"| {lack['what']} | not measured: {lack['why'].splitlines()[0]} | |"


def values(goals, unit):
    text = ", ".join(f"{goal['value']:.1f}" if unit == "MiB" else f"{goal['value']:.2f}" for goal in goals)
    return f"{text} MiB" if unit == "MiB" else text


def made_of(names, facts, unit):
    if not names or any(name not in facts for name in names):
        return ""
    return " ({})".format(", ".join(f"{facts[name]:.3g} {unit}" for name in names))


def limits(goals):
    several = list(dict.fromkeys(goal["limit"] for goal in goals))
    missed = sum(not goal["held"] for goal in goals)
    text = ", ".join(f"{limit:g}" for limit in several)
    return text + (", missed" if missed == len(goals) else f", missed by {missed} of {len(goals)}" if missed else "")
