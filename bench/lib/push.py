"""`archive-push` of whole segments against `zstd`, and the hooks' start-up."""

import os
import shutil
import subprocess

from lib import measure
from lib.cluster import Cluster


def make_segments(directory, scale, count, name="segments", settings=()):
    """A directory that looks like a data directory to `archive-push`: `count` segments of pgbench's WAL,
    as the server handed them to archive_command."""
    place = os.path.join(directory, name)
    wal = os.path.join(place, "pg_wal")
    os.makedirs(wal)
    os.makedirs(os.path.join(place, "global"))
    cluster = Cluster(directory, f"server-of-{name}", [
        "archive_mode = on", f"archive_command = 'cp %p {wal}/%f'", "fsync = off",
        *settings,
    ])
    cluster.start()
    try:
        cluster.call("pgbench", "-i", "-q", "-s", str(scale))
        cluster.sql("checkpoint")
        first = cluster.sql("select pg_walfile_name(pg_switch_wal() + 1)")
        names = []
        while len(names) < count:
            cluster.call("pgbench", "-n", "-c", "4", "-j", "2", "-T", "5")
            names = sorted(n for n in os.listdir(wal) if len(n) == 24 and n > first)
    finally:
        cluster.stop()
    shutil.copy(os.path.join(cluster.data, "global/pg_control"), os.path.join(place, "global"))
    for name in os.listdir(wal):
        if name not in names[:count]:
            os.unlink(os.path.join(wal, name))
    shutil.rmtree(cluster.data)
    return place, names[:count]


def environment(directory, repository):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PITR", "AWS"))}
    return {**kept, "PITR_REPOSITORY": repository, "PITR_ARCHIVE_SPOOL": os.path.join(directory, "spool")}


def segments(run):
    place, names = make_segments(run.directory, run.scale("wal", 20), run.rounds("push", 24) + 1)
    repository = os.path.join(run.directory, "push-repository")
    compressed = os.path.join(run.directory, "zstd-out")
    os.mkdir(repository)
    os.mkdir(compressed)
    env = environment(run.directory, f"file://{repository}")
    pitr = [run.binary, "archive-push"]
    # The first contact makes the repository's identity: once in its life, and not what is asked for.
    measure.run([*pitr, f"pg_wal/{names.pop()}"], env=env, cwd=place)

    def ours(number):
        return measure.run([*pitr, f"pg_wal/{names[number]}"], env=env, cwd=place)

    def theirs(number):
        out = os.path.join(compressed, names[number] + ".zst")
        argv = ["zstd", "-q", "-3", os.path.join(place, "pg_wal", names[number]), "-o", out]
        return measure.run(argv, sync=(out, compressed))

    a, b = measure.in_turn(len(names), ours, theirs)
    run.keep("archive-push of a segment", "zstd -3 -q, then fsync of file and directory", a, b)
    run.goal("CPU of archive-push / zstd -3", measure.ratio(a, b, "cpu"), 1.5)
    wall = measure.median([s["wall"] for s in a]) / measure.median([s["wall"] for s in b])
    run.goal("wall p50 of archive-push / (zstd -3 + fsync)", wall, 1.3)
    run.fact("archive-push, wall p50 in ms", measure.median([s["wall"] for s in a]) * 1000)
    scan(run)
    start_up(run, place, names, env)


def scan(run):
    """What the scan for the summary takes of `archive-push`'s CPU, over WAL that is mostly images of pages, as
    behind each checkpoint, and over the densest that pgbench writes: nothing but small records."""
    if run.scanner is None:
        return run.missing("CPU of the scan / archive-push", "--binary was given, and no sources of the same version")
    for kind, settings in (("pages", ()), ("small records", ("full_page_writes = off",))):
        scan_of(run, kind, settings)


def scan_of(run, kind, settings):
    often = 20
    name = "scan-of-" + kind.replace(" ", "-")
    place, names = make_segments(run.directory, run.scale("wal", 20), run.rounds("scan", 12) + 1, name, settings)
    repository = os.path.join(run.directory, name + "-repository")
    os.mkdir(repository)
    env = environment(run.directory, f"file://{repository}")
    push = [run.binary, "archive-push"]
    # The first contact makes the repository's identity.
    measure.run([*push, f"pg_wal/{names.pop()}"], env=env, cwd=place)

    def scanned(number):
        """So often that reading the file and starting a process are lost in it."""
        sample = measure.run([run.scanner, str(often), os.path.join(place, "pg_wal", names[number])])
        return {**sample, "cpu": round(sample["cpu"] / often, 6), "wall": round(sample["wall"] / often, 6)}

    def pushed(number):
        return measure.run([*push, f"pg_wal/{names[number]}"], env=env, cwd=place)

    a, b = measure.in_turn(len(names), scanned, pushed)
    run.keep(f"the scan of a segment of {kind}", "archive-push of it", a, b)
    run.goal(f"CPU of the scan / archive-push, {kind}", measure.ratio(a, b, "cpu"), 0.10)
    run.fact(f"the scan of a segment of {kind}, CPU in ms", measure.median([s["cpu"] for s in a]) * 1000)


def start_up(run, place, names, env):
    """What a hook costs before its first byte of work: asking for a file that is not there, which opens the
    configuration, the repository and the cluster, and sending a file of a few bytes."""
    absent = "0000000100000FFF000000FF"
    history = os.path.join(place, "pg_wal", "00000002.history")
    with open(history, "w") as file:
        file.write("1\t0/3000000\tno recovery target specified\n")
    rounds = run.rounds("start-up", 40)
    get = [run.binary, "archive-get", absent, "pg_wal/RECOVERYXLOG"]
    push = [run.binary, "archive-push", "pg_wal/00000002.history"]

    def absent_file(_):
        return measure.run(get, env=env, cwd=place, codes=(1,))

    def nothing(_):
        return measure.run(["/bin/true"], env=env, cwd=place)

    a, b = measure.in_turn(rounds, absent_file, nothing)
    run.keep("archive-get of an absent file", "/bin/true", a, b)
    run.goal("CPU of archive-get of an absent file, ms", measure.median([s["cpu"] for s in a]) * 1000, 5.0)
    measure.run(push, env=env, cwd=place)
    a, b = measure.in_turn(rounds, lambda _: measure.run(push, env=env, cwd=place), nothing)
    run.keep("archive-push of a small file that is archived", "/bin/true", a, b)
    run.goal("CPU of archive-push of a small file, ms", measure.median([s["cpu"] for s in a]) * 1000, 5.0)
    if shutil.which("strace"):
        trace = os.path.join(run.directory, "trace")
        subprocess.run(["strace", "-f", "-o", trace, *get], env=env, cwd=place, check=False)
        with open(trace) as file:
            calls = file.read().splitlines()
        run.fact("system calls of archive-get of an absent file", len(calls))
        run.fact("threads started by it", sum(" clone" in line for line in calls))
