"""What the hooks take at most for one segment: of 16 MiB and of 1 GiB, such that compress well and such that do not."""

import os
import shutil

from lib import measure, processes
from lib.archiver import Pitr
from lib.cluster import Cluster

def segments(run):
    for size, limit in ((16, 40), (1024, 150)):
        cluster = Cluster(run.directory, f"segments-of-{size}", [
            "archive_mode = on", "archive_command = ''", "wal_keep_size = 16GB", "max_wal_size = 16GB",
        ], ["--wal-segsize", str(size)])
        try:
            cluster.start("fsync=off")
            names = {}
            for kind, make in (("noise", noise), ("pgbench", pgbench)):
                # The first whole segment of it.
                names[kind] = cluster.sql("select pg_walfile_name(pg_switch_wal() + 1)")
                make(cluster, size)
            cluster.sql("select pg_switch_wal()")
            for kind, name in names.items():
                one(run, cluster, kind, size, name, limit)
        finally:
            processes.end("pitr")
            cluster.stop()
            shutil.rmtree(cluster.data)


def noise(cluster, size):
    """What no compression makes smaller."""
    message = "pg_logical_emit_message(false, 'noise', pg_read_binary_file('/dev/urandom', 0, 1048576))"
    cluster.sql(f"select count({message}) from generate_series(1, {size + 1})")


def pgbench(cluster, size):
    cluster.call("pgbench", "-i", "-q", "-s", str(size // 14 + 2))


def one(run, cluster, kind, size, name, limit):
    """Pushed by the one archiver that the server has, then fetched, with what the hooks leave behind."""
    archiver = Pitr(run, f"pitr memory {size} {kind}")
    archiver.fresh(cluster.data)
    place = os.path.join(run.directory, "fetched")
    os.makedirs(os.path.join(place, "pg_wal"), exist_ok=True)
    os.makedirs(os.path.join(place, "global"), exist_ok=True)
    shutil.copy(os.path.join(cluster.data, "global/pg_control"), os.path.join(place, "global"))
    for verb, argv, where in (("archive-push", archiver.push(f"pg_wal/{name}"), cluster.data),
                              ("archive-get", archiver.get(name, "pg_wal/RECOVERYXLOG"), place)):
        with processes.Memory("pitr") as memory:
            sample = measure.run(argv, env=archiver.environment(), cwd=where)
        archiver.rest()
        what = f"{verb} of {size} MiB of {kind}"
        run.keep(what, None, [sample])
        run.goal(f"{what}: peak memory of the largest process, MiB", max(sample["rss_mib"], memory.largest), limit)
        run.fact(f"{what}: wall in s", sample["wall"])
    shutil.rmtree(place)
    shutil.rmtree(archiver.place)
