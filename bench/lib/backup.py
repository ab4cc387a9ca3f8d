"""`backup` and `restore` of a pgbench database against pgBackRest, pg_basebackup, and zstd with tar."""

import os
import shutil

from lib import measure
from lib.archiver import PgBackRest, sync
from lib.cluster import Cluster
from lib.push import environment


# pgBackRest refuses a server that does not archive; the hook that a server has is no part of this.
ARCHIVING_TO_NOWHERE = ["archive_mode = on", "archive_command = '/bin/true'"]


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    return path


def make(run, name, scale):
    """A database that has been used: its pages hold what updates leave behind, its log what they wrote."""
    cluster = Cluster(run.directory, name, ARCHIVING_TO_NOWHERE)
    cluster.start("fsync=off", "full_page_writes=off")
    cluster.call("pgbench", "-i", "-q", "-I", "dtgvp", "-s", str(scale))
    cluster.call("pgbench", "-n", "-c", "4", "-j", "2", "-M", "prepared", "-t", str(scale * 180))
    cluster.sql("checkpoint")
    cluster.stop()
    cluster.start()
    return cluster


class Sides:
    """Who backs up, each into a place of its own. The server archives to nowhere, so that no side waits for an
    archiver; pitr brings along the WAL that the backup needs, which the others leave out."""

    def __init__(self, run, cluster):
        self.run, self.cluster = run, cluster
        self.repository = fresh(os.path.join(run.directory, "backup-repository"))
        self.older = fresh(os.path.join(run.directory, "previous-repository")) if run.previous else None
        self.tar = os.path.join(run.directory, "basebackup")
        compress = "--compress=client-zstd:level=3,workers=2"
        self.peer = [os.path.join(cluster.bin, "pg_basebackup"), "-D", self.tar, "-c", "fast", "-Ft", "-X", "none",
                     compress]
        self.pgbackrest = None
        if run.peer():
            self.pgbackrest = PgBackRest(run, "pgbackrest backup")
            self.pgbackrest.fresh(cluster.data, cluster)

    def ours(self, _):
        shutil.rmtree(os.path.join(self.repository, "bench/0001/backup"), ignore_errors=True)
        return pitr_backup(self.run, self.cluster, f"file://{self.repository}")

    def previous(self, _):
        shutil.rmtree(os.path.join(self.older, "bench/0001/backup"), ignore_errors=True)
        return pitr_backup(self.run, self.cluster, f"file://{self.older}", binary=self.run.previous)

    def basebackup(self, _):
        shutil.rmtree(self.tar, ignore_errors=True)
        return measure.run(self.peer, env=self.cluster.env)

    def bundled(self, _):
        return pgbackrest_backup(self.pgbackrest, self.cluster)

    def all_of_them(self):
        return {"backup": self.ours, "pg_basebackup with zstd": self.basebackup,
                **({"pgBackRest": self.bundled} if self.pgbackrest else {}),
                **({"previous backup": self.previous} if self.older else {})}

    def remove(self):
        for path in (self.repository, self.older, self.tar, self.pgbackrest and self.pgbackrest.place):
            if path:
                shutil.rmtree(path, ignore_errors=True)


def pgbackrest_backup(peer, cluster):
    peer.fresh(cluster.data, cluster)
    return measure.run([*peer.argv(), "backup", "--type=full"], env=peer.environment())


def pgbackrest_restore(run, peer):
    target = fresh(os.path.join(run.directory, "restored"))
    return measure.run([*peer.argv(), f"--pg1-path={target}", "restore"], env=peer.environment())


def backup_and_restore(run):
    cluster = make(run, "large", run.scale("database", 140))
    try:
        run.fact("database in MB", cluster.size() / 1e6)
        sides = backups(run, cluster)
        buckets(run, cluster)
        memory(run, cluster)
    finally:
        cluster.stop()
    shutil.rmtree(cluster.data)
    restores(run, sides)
    sides.remove()


def restore_alone(run):
    """As above, without what only `backup` is measured by."""
    cluster = make(run, "large", run.scale("database", 140))
    try:
        sides = Sides(run, cluster)
        for side in sides.all_of_them().values():
            side(0)
    finally:
        cluster.stop()
    shutil.rmtree(cluster.data)
    restores(run, sides)
    sides.remove()


def pitr_backup(run, cluster, repository, extra=None, binary=None):
    env = {**cluster.env, **environment(run.directory, repository), "PITR_CLUSTER": "bench", **(extra or {})}
    return measure.run([binary or run.binary, "-q", "backup", "--wal", "include"], env=env)


def pitr_restore(run, repository, binary=None):
    """Into a directory that is not there."""
    target = os.path.join(run.directory, "restored")
    shutil.rmtree(target, ignore_errors=True)
    env = {**environment(run.directory, repository), "PITR_CLUSTER": "bench"}
    return measure.run([binary or run.binary, "-q", "restore", "--to", target, "--target", "immediate"], env=env)


def stored(directory):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(directory) for name in names)


def tell(run, work, names, samples):
    for name, of in zip(names, samples):
        run.fact(f"{name}, wall in s", measure.median([s["wall"] for s in of]))
        run.fact(f"{name}, CPU in s, the server's not counted", measure.median([s["cpu"] for s in of]))
        run.fact(f"{name}, peak memory of the largest process, MiB", max(s["rss_mib"] for s in of))
    if names[-1].startswith("previous"):
        run.fact(f"{work}: wall / that of the previous pitr", measure.ratio(samples[0], samples[-1], "wall"))


def backups(run, cluster):
    """The first backup of each side is not counted: ours makes the repository's identity, and all find the
    files in the page cache afterwards."""
    sides = Sides(run, cluster)
    names, calls = zip(*sides.all_of_them().items())
    for call in calls:
        call(0)
    samples = measure.in_turn(run.rounds("backup", 5), *calls)
    run.keep("backup", ", then ".join(names[1:]), *samples)
    of = dict(zip(names, samples))
    a, b = of["backup"], of["pg_basebackup with zstd"]
    run.goal("wall of backup / pg_basebackup with zstd on two workers", measure.ratio(a, b, "wall"), 0.65)
    if sides.pgbackrest:
        run.goal("wall of backup / pgBackRest, local, two processes", measure.ratio(a, of["pgBackRest"], "wall"), 0.8)
    run.fact("CPU of backup / pg_basebackup with zstd, the server's not counted", measure.ratio(a, b, "cpu"))
    tell(run, "backup", names, samples)
    run.fact("backup, stored MB", stored(sides.repository) / 1e6)
    run.fact("pg_basebackup with zstd, stored MB", stored(sides.tar) / 1e6)
    if sides.pgbackrest:
        run.fact("pgBackRest, stored MB", stored(sides.pgbackrest.repository) / 1e6)
    run.goal("peak memory of backup to file://, MiB", max(s["rss_mib"] for s in a), 100)
    stream = []
    for _ in range(3):
        argv = f"'{sides.peer[0]}' -D - -c fast -Ft -X none >/dev/null"
        stream.append(measure.run(["sh", "-c", argv], env=cluster.env))
    run.keep("the uncompressed stream to /dev/null", None, stream)
    run.fact("the uncompressed stream to /dev/null, wall in s", measure.median([s["wall"] for s in stream]))
    return sides


def buckets(run, cluster):
    for store in run.stores():
        peer = PgBackRest(run, "pgbackrest backup S3", store)
        calls = [lambda n: pitr_backup(run, cluster, f"s3://{store.bucket}/backup-{n}", store.env)]
        if run.peer():
            calls.append(lambda n: pgbackrest_backup(peer, cluster))
        samples = measure.in_turn(run.rounds("backup to S3", 3), *calls)
        run.keep("backup into a bucket", "pgBackRest, two processes", *samples)
        run.goal("peak memory of backup to s3://, MiB", max(s["rss_mib"] for s in samples[0]), 150)
        tell(run, "backup S3", ["backup to S3", "pgBackRest to S3"], samples)
        if len(samples) > 1:
            run.fact("wall of backup to S3 / pgBackRest", measure.ratio(*samples, "wall"))
    if not run.stores():
        run.missing("backup to s3://", run.no_store)


def memory(run, cluster):
    """The same command on a tenth of the data, and into a bucket."""
    def peaks(of, what):
        where = fresh(os.path.join(run.directory, f"repository-{what}"))
        peak = measure.median([pitr_backup(run, of, f"file://{where}")["rss_mib"] for _ in range(3)])
        shutil.rmtree(where)
        return peak

    large = peaks(cluster, "whole")
    cluster.stop()
    tenth = make(run, "tenth", max(1, run.scale("database", 140) // 10))
    try:
        least = peaks(tenth, "tenth")
    finally:
        tenth.stop()
        shutil.rmtree(tenth.data)
    run.fact("peak memory of backup of a tenth of the database, MiB", least)
    run.goal("peak memory, the database / a tenth of it", large / least, 1.1)


def restores(run, sides):
    """Each from its own backup, into an empty directory, synced; zstd with tar verifies nothing."""
    target = os.path.join(run.directory, "restored")

    def unpacked(_):
        fresh(target)
        # Of this file system, not of everything that others have written: `restore` syncs no more either.
        line = f"zstd -q -dc '{sides.tar}/base.tar.zst' | tar -x -C '{target}' && sync -f '{target}'"
        return measure.run(["sh", "-c", line])

    def ours(_):
        return pitr_restore(run, f"file://{sides.repository}")

    calls = {"restore": ours}
    if sides.pgbackrest:
        calls["pgBackRest restore"] = lambda _: pgbackrest_restore(run, sides.pgbackrest)
    if sides.older:
        calls["previous restore"] = lambda _: pitr_restore(run, f"file://{sides.older}", run.previous)
    sync(run.directory)
    names = list(calls)
    samples = measure.in_turn(run.rounds("restore", 5), *calls.values())
    run.keep("restore", ", then ".join(names[1:]), *samples)
    of = dict(zip(names, samples))
    a = of["restore"]
    # Apart: whatever comes right behind `tar -x` takes half as long again, ours as well as pgBackRest's, as the kernel has
    # to get its memory back, and in a round of three that would always be the same one.
    packed = measure.in_turn(run.rounds("restore", 5), ours, unpacked)
    run.keep("restore", "zstd -dc | tar -x; sync", *packed)
    run.goal("wall of restore / (zstd -dc | tar -x; sync)", measure.ratio(*packed, "wall"), 0.8)
    if sides.pgbackrest:
        run.goal("wall of restore / pgBackRest", measure.ratio(a, of["pgBackRest restore"], "wall"), 0.5)
    run.goal("peak memory of restore, MiB", max(s["rss_mib"] for s in a), 150)
    tell(run, "restore", names, samples)
    tell(run, "restore", ["restore beside tar", "zstd -dc | tar -x; sync"], packed)
    shutil.rmtree(target, ignore_errors=True)
