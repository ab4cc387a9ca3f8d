"""A run's goals as the table that the README shows."""

# Behind the ratio: what it was made of, from the facts of the same run.
MADE_OF = {
    "archive one segment, file: wall p50": ("archive-push, file: wall p50 in ms",
                                            "pgBackRest archive-push, file: wall p50 in ms", "ms"),
    "archive one segment, file: CPU": ("archive-push, file: CPU in ms", "pgBackRest archive-push, file: CPU in ms", "ms"),
    "archive one segment, S3: wall p50": ("archive-push, S3: wall p50 in ms",
                                          "pgBackRest archive-push, S3: wall p50 in ms", "ms"),
    "archive one segment, S3: CPU": ("archive-push, S3: CPU in ms", "pgBackRest archive-push, S3: CPU in ms", "ms"),
    "drain of 200 segments, file": ("drain, file, pitr: wall in s", "drain, file, pgBackRest async: wall in s", "s"),
    "recovery of 80 segments, file: wall": ("recovery of 80 segments, file, pitr: wall in s",
                                            "recovery of 80 segments, file, cp: wall in s", "s"),
    "recovery of 80 segments, S3: wall": ("recovery of 80 segments, S3, pitr: wall in s",
                                          "recovery of 80 segments, S3, cp: wall in s", "s"),
    "wall of backup / pgBackRest": ("backup, wall in s", "pgBackRest, wall in s", "s"),
    "wall of backup / pg_basebackup": ("backup, wall in s", "pg_basebackup with zstd, wall in s", "s"),
    "wall of restore / pgBackRest": ("restore, wall in s", "pgBackRest restore, wall in s", "s"),
    "wall of restore / (zstd": ("restore, wall in s", "zstd -dc | tar -x; sync, wall in s", "s"),
}


def markdown(document):
    """The goals with their values and limits; what was not measured at the end."""
    machine = document["machine"]
    yield (f"{document['date'][:10]}, {machine['cores']} cores of {machine['cpu']}, load {machine['load_before']} before, "
           f"{document['versions']['postgres']}, {document['versions']['pgbackrest']}, {machine['file_system']}")
    yield ""
    yield "| | measured | goal |"
    yield "|---|---|---|"
    for goal in document["goals"]:
        missed = "" if goal["held"] else ", missed"
        what = goal["what"].replace("|", "\\|")
        yield f"| {what} | {goal['value']:.2f}{made_of(goal['what'], document['facts'])} | {goal['limit']}{missed} |"
    for lack in document["not_measured"]:
        yield f"| {lack['what']} | not measured: {lack['why'].splitlines()[0]} | |"


def made_of(what, facts):
    for begins, (ours, theirs, unit) in MADE_OF.items():
        if what.startswith(begins) and "WAL-RUS" not in what and ours in facts and theirs in facts:
            return f" ({facts[ours]:.3g} {unit}, {facts[theirs]:.3g} {unit})"
    return ""
