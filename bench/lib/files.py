"""A database of very many small files, backup and restore, against pgBackRest with bundling."""

import os
import shutil

from lib import measure
from lib.archiver import PgBackRest, sync
from lib.backup import ARCHIVING_TO_NOWHERE, fresh, pgbackrest_backup, pgbackrest_restore, pitr_backup, pitr_restore
from lib.cluster import Cluster

FILES = 200_000
PAGE = 8192


def plant(cluster, count):
    """Files as the server has them for very many small tables: the pages of a real one, of which a third are empty,
    as the TOAST tables of most tables, and one in twenty has three pages. Named like relations; the catalogue does
    not know them, and neither side asks it."""
    relation = cluster.sql("select pg_relation_filepath('pgbench_accounts')")
    cluster.stop()
    place = os.path.join(cluster.data, "base", "900000")
    os.mkdir(place)
    shutil.copy(os.path.join(cluster.data, os.path.dirname(relation), "PG_VERSION"), place)
    # Page by page: what this process has in memory would be counted as its children's peak.
    with open(os.path.join(cluster.data, relation), "rb") as pages:
        size = os.path.getsize(pages.name)
        for number in range(count):
            length = 0 if number % 3 == 0 else 3 * PAGE if number % 20 == 1 else PAGE
            pages.seek(number * PAGE % (size - 3 * PAGE))
            with open(os.path.join(place, str(1_000_000 + number)), "wb") as file:
                file.write(pages.read(length))
    sync(cluster.data)
    cluster.start()


def small_files(run):
    if not run.peer():
        return
    cluster = Cluster(run.directory, "files", ARCHIVING_TO_NOWHERE)
    try:
        cluster.start("fsync=off")
        cluster.call("pgbench", "-i", "-q", "-s", "8")
        plant(cluster, run.arguments.files)
        repository = fresh(os.path.join(run.directory, "files-repository"))
        peer = PgBackRest(run, "pgbackrest files")
        peer.fresh(cluster.data, cluster)

        def ours(_):
            shutil.rmtree(os.path.join(repository, "bench/0001/backup"), ignore_errors=True)
            return pitr_backup(run, cluster, f"file://{repository}")

        def theirs(_):
            return pgbackrest_backup(peer, cluster)

        # Rounds that do not count: they find cold caches, and ours makes the repository's identity.
        ours(0), theirs(0)
        a, b = measure.in_turn(run.rounds("files", 3), ours, theirs)
    finally:
        cluster.stop()
    shutil.rmtree(cluster.data)
    what = f"{run.arguments.files} small files"
    run.keep(f"backup of {what}", "pgBackRest, repo-bundle, process-max 2", a, b)
    tell(run, f"backup of {what}", a, b)
    sync(run.directory)
    a, b = measure.in_turn(run.rounds("files", 3), lambda _: pitr_restore(run, f"file://{repository}"),
                           lambda _: pgbackrest_restore(run, peer))
    run.keep(f"restore of {what}", "pgBackRest, process-max 2", a, b)
    tell(run, f"restore of {what}", a, b)
    for path in (repository, peer.place, os.path.join(run.directory, "restored")):
        shutil.rmtree(path, ignore_errors=True)


def tell(run, what, ours, theirs):
    run.goal(f"{what}: wall / pgBackRest with bundling", measure.ratio(ours, theirs, "wall"), 0.5)
    run.goal(f"{what}: peak memory, MiB", max(s["rss_mib"] for s in ours), 150)
    for name, samples in (("pitr", ours), ("pgBackRest", theirs)):
        run.fact(f"{what}, {name}: wall in s", measure.median([s["wall"] for s in samples]))
        run.fact(f"{what}, {name}: CPU in s, the server's not counted", measure.median([s["cpu"] for s in samples]))
