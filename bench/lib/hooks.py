"""One segment by `archive-push`, and a backlog of them, against pgBackRest."""

from lib import measure, processes
from lib.archiver import PgBackRest, Pitr

BACKLOG = 200
# The published figures of WAL-RUS 0.3.0 relative to those of pgBackRest 2.59.1 in the same table, the middles of
# their ranges: it cannot be had here, so that 0.8 times WAL-RUS is said in pgBackRest's terms.
WAL_RUS = {"wall": 40 / 62.5, "cpu": 38 / 58}


def places(run):
    """(how it is called in a goal, the store or None) of every kind of repository that can be had."""
    stores = [("S3", store) for store in run.stores()]
    if not stores:
        run.missing("archive-push, drain and recovery with S3", run.no_store)
    return [("file", None), *stores]


def pairs(run, what, store, asynchronous=False, wal=None):
    """pitr and its peer, each with an empty repository that knows the server."""
    sides = [Pitr(run, f"pitr {what}", store), PgBackRest(run, f"pgbackrest {what}", store, asynchronous)]
    if run.previous:
        sides.append(Pitr(run, f"previous {what}", store, run.previous))
    for side in sides:
        side.fresh(wal.data)
    return sides


def side(archiver, wal, names):
    """One call of the hook, as the server makes it: its segment alone is waiting."""
    def call(number):
        name = names[number]
        wal.mark("ready", [name])
        sample = measure.run(archiver.push(f"pg_wal/{name}"), env=archiver.environment(), cwd=wal.data)
        wal.mark("done", [name])
        return sample
    return call


def segments(run):
    if not run.peer():
        return
    wal = run.wal()
    for place, store in places(run):
        rounds = run.rounds("push", 40 if store is None else 24)
        names = wal.names[1:rounds + 1]
        sides = pairs(run, f"push {place}", store, wal=wal)
        for archiver in sides:
            # The first contact makes the repository's identity: once in its life, and not what is asked for.
            archiver.archive(wal, wal.names[:1])
        # What processes that outlive the hooks use belongs to the hooks. A previous pitr leaves none behind that could
        # be told from this one's, and is not charged for it.
        programs = [archiver.program for archiver in sides[:2]]
        begun = [processes.cpu(program) for program in programs]
        samples = measure.in_turn(len(names), *(side(archiver, wal, names) for archiver in sides))
        stays = [(processes.cpu(program) - before) / len(names) for program, before in zip(programs, begun)] + [0]
        cpu = [measure.mean([s["cpu"] for s in of]) + more for of, more in zip(samples, stays)]
        p50 = [measure.median([s["wall"] for s in of]) for of in samples]
        run.keep(f"archive-push of a segment, {place}", "pgbackrest archive-push", *samples[:2], *samples[2:])
        run.goal(f"archive one segment, {place}: wall p50 / pgBackRest", p50[0] / p50[1], 0.5)
        run.goal(f"archive one segment, {place}: CPU / pgBackRest", cpu[0] / cpu[1], 0.5)
        if store is None:
            # Implied by the goals above where they hold; said as it was asked.
            for kind, ours, theirs in (("wall", p50[0], p50[1]), ("cpu", cpu[0], cpu[1])):
                run.goal(f"archive one segment, file: {kind} / WAL-RUS as published against pgBackRest",
                         ours / (theirs * WAL_RUS[kind]), 0.8)
        for name, which in zip(("archive-push", "pgBackRest archive-push", "previous archive-push"), range(len(sides))):
            run.fact(f"{name}, {place}: wall p50 in ms", p50[which] * 1000)
            run.fact(f"{name}, {place}: CPU in ms", cpu[which] * 1000)
        run.fact(f"archive-push, {place}: of that in the process that stays, ms", stays[0] * 1000)
        run.fact(f"archive-push, {place}: peak memory of a hook, MiB", max(s["rss_mib"] for s in samples[0]))
        for archiver in sides:
            archiver.rest()


def drain(run):
    if not run.peer():
        return
    wal = run.wal()
    for place, store in places(run):
        names = wal.names[1:BACKLOG + 1]
        sides = pairs(run, f"drain {place}", store, asynchronous=True, wal=wal)

        def drained(archiver):
            def all_of_it(_):
                archiver.fresh(wal.data)
                archiver.archive(wal, wal.names[:1])
                before = processes.cpu()
                wall = wal.drain(archiver.push_line(), names)
                sample = {"wall": round(wall, 6), "cpu": round(processes.cpu() - before, 6)}
                archiver.rest()
                return sample
            return all_of_it

        samples = measure.in_turn(run.rounds("drain", 3 if store is None else 2), *map(drained, sides))
        run.keep(f"drain of {len(names)} segments, {place}", "pgBackRest, archive-async, process-max 2", *samples)
        ratio = measure.ratio(samples[0], samples[1], "wall")
        # The goal names no place: it is held against files, and told for S3.
        what = f"drain of {len(names)} segments, {place}: wall / pgBackRest async"
        run.goal(what, ratio, 0.4) if store is None else run.fact(what, ratio)
        run.fact(f"the same, {place}: CPU / pgBackRest async", measure.ratio(samples[0], samples[1], "cpu"))
        for name, of in zip(("pitr", "pgBackRest async", "previous pitr"), samples):
            run.fact(f"drain, {place}, {name}: wall in s", measure.median([s["wall"] for s in of]))
            run.fact(f"drain, {place}, {name}: CPU in s", measure.median([s["cpu"] for s in of]))
        drain_memory(run, sides[0], wal, place, names[:40])


def drain_memory(run, archiver, wal, place, names):
    archiver.fresh(wal.data)
    archiver.archive(wal, wal.names[:1])
    with processes.Memory("pitr") as memory:
        wal.drain(archiver.push_line(), names)
    archiver.rest()
    run.goal(f"drain, {place}: peak memory of the largest process, MiB", memory.largest, 40)
    run.fact(f"drain, {place}: peak memory of hook and what stays together, MiB", memory.together)
