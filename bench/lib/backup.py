"""`backup` and `restore` of a pgbench database against pg_basebackup, and zstd with tar."""

import os
import shutil
import subprocess

from lib import measure
from lib.cluster import Cluster
from lib.push import environment


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    return path


def make(run, name, scale):
    """A database that has been used: its pages hold what updates leave behind, its log what they wrote."""
    cluster = Cluster(run.directory, name, ["archive_mode = off"])
    cluster.start("fsync=off", "full_page_writes=off")
    cluster.call("pgbench", "-i", "-q", "-I", "dtgvp", "-s", str(scale))
    cluster.call("pgbench", "-n", "-c", "4", "-j", "2", "-M", "prepared", "-t", str(scale * 180))
    cluster.sql("checkpoint")
    cluster.stop()
    cluster.start()
    return cluster


def backup_and_restore(run):
    cluster = make(run, "large", run.scale("database", 140))
    try:
        run.fact("database in MB", cluster.size() / 1e6)
        taken = backups(run, cluster)
        memory(run, cluster)
    finally:
        cluster.stop()
    shutil.rmtree(cluster.data)
    restores(run, *taken)


def restore_alone(run):
    """As above, without what only `backup` is measured by."""
    cluster = make(run, "large", run.scale("database", 140))
    try:
        ours, theirs, repository, tar, _ = sides(run, cluster)
        ours(0), theirs(0)
    finally:
        cluster.stop()
    shutil.rmtree(cluster.data)
    restores(run, repository, tar)


def pitr_backup(run, cluster, repository, *extra):
    env = {**cluster.env, **environment(run.directory, repository), "PITR_CLUSTER": "bench",
           **{k: v for k, v in os.environ.items() if k.startswith("AWS_")}, **dict(extra)}
    return measure.run([run.binary, "-q", "backup"], env=env)


def stored(directory):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(directory) for name in names)


def sides(run, cluster):
    """Archiving is off, so that neither side waits for an archiver; pitr brings along the WAL that the
    backup needs, which the other side leaves out."""
    repository = fresh(os.path.join(run.directory, "backup-repository"))
    tar = os.path.join(run.directory, "basebackup")
    compress = "--compress=client-zstd:level=3,workers=2"
    peer = [os.path.join(cluster.bin, "pg_basebackup"), "-D", tar, "-c", "fast", "-Ft", "-X", "none", compress]

    def ours(_):
        shutil.rmtree(os.path.join(repository, "bench/0001/backup"), ignore_errors=True)
        return pitr_backup(run, cluster, f"file://{repository}")

    def theirs(_):
        shutil.rmtree(tar, ignore_errors=True)
        return measure.run(peer, env=cluster.env)

    return ours, theirs, repository, tar, peer


def backups(run, cluster):
    """The first backup of each side is not counted: ours makes the repository's identity, and both find the
    files in the page cache afterwards."""
    ours, theirs, repository, tar, peer = sides(run, cluster)
    ours(0), theirs(0)
    a, b = measure.in_turn(run.rounds("backup", 9), ours, theirs)
    run.keep("backup", " ".join(["pg_basebackup", *peer[3:]]), a, b)
    run.goal("wall of backup / pg_basebackup with zstd", measure.ratio(a, b, "wall"), 0.75)
    run.fact("CPU of backup / pg_basebackup with zstd, the server's not counted", measure.ratio(a, b, "cpu"))
    run.fact("backup, wall in s", measure.median([s["wall"] for s in a]))
    run.fact("pg_basebackup with zstd, wall in s", measure.median([s["wall"] for s in b]))
    run.fact("backup, stored MB", stored(repository) / 1e6)
    run.fact("pg_basebackup with zstd, stored MB", stored(tar) / 1e6)
    run.goal("peak memory of backup to file://, MiB", max(s["rss_mib"] for s in a), 100)
    stream = []
    for _ in range(3):
        argv = f"'{peer[0]}' -D - -c fast -Ft -X none >/dev/null"
        stream.append(measure.run(["sh", "-c", argv], env=cluster.env))
    run.keep("the uncompressed stream to /dev/null", None, stream, [])
    run.fact("the uncompressed stream to /dev/null, wall in s", measure.median([s["wall"] for s in stream]))
    return repository, tar


def memory(run, cluster):
    """The same command on a tenth of the data, and into a bucket."""
    def peaks(of, what):
        where = fresh(os.path.join(run.directory, f"repository-{what}"))
        peak = measure.median([pitr_backup(run, of, f"file://{where}")["rss_mib"] for _ in range(3)])
        shutil.rmtree(where)
        return peak

    large = peaks(cluster, "whole")
    buckets = []
    for server in run.stores():
        for number in range(2):
            buckets.append(pitr_backup(run, cluster, f"s3://{server.bucket}/{number}", *server.env.items()))
    cluster.stop()
    tenth = make(run, "tenth", max(1, run.scale("database", 140) // 10))
    try:
        least = peaks(tenth, "tenth")
    finally:
        tenth.stop()
        shutil.rmtree(tenth.data)
    run.fact("peak memory of backup of a tenth of the database, MiB", least)
    run.goal("peak memory, the database / a tenth of it", large / least, 1.1)
    if buckets:
        run.keep("backup into a bucket", None, buckets, [])
        run.goal("peak memory of backup to s3://, MiB", max(s["rss_mib"] for s in buckets), 150)
    else:
        run.missing("peak memory of backup to s3://", "no radosgw, and PITR_BENCH_S3_ENDPOINT is not set")


def restores(run, repository, tar):
    target = os.path.join(run.directory, "restored")
    env = {**environment(run.directory, f"file://{repository}"), "PITR_CLUSTER": "bench"}

    def ours(_):
        shutil.rmtree(target, ignore_errors=True)
        return measure.run([run.binary, "-q", "restore", "--to", target, "--target", "immediate"], env=env)

    def theirs(_):
        fresh(target)
        # Of this file system, not of everything that others have written: `restore` syncs no more either.
        line = f"zstd -q -dc '{tar}/base.tar.zst' | tar -x -C '{target}' && sync -f '{target}'"
        return measure.run(["sh", "-c", line])

    subprocess.run(["sync", "-f", run.directory], check=True)
    a, b = measure.in_turn(run.rounds("restore", 7), ours, theirs)
    run.keep("restore", "zstd -dc base.tar.zst | tar -x, then sync -f", a, b)
    run.goal("wall of restore / (zstd -dc | tar -x; sync)", measure.ratio(a, b, "wall"), 0.8)
    run.fact("restore, wall in s", measure.median([s["wall"] for s in a]))
    run.goal("peak memory of restore, MiB", max(s["rss_mib"] for s in a), 150)
    shutil.rmtree(target, ignore_errors=True)
