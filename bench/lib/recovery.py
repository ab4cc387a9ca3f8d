"""Recovery of an archive from the start of the server to its opening, and what one `restore_command` takes in it."""

import os
import re
import shutil
import subprocess
import time

from lib import measure, processes
from lib.archiver import Copy, PgBackRest, Pitr, Rename, sync
from lib.hooks import places
from lib.measure import Failed

SEGMENTS = 80
OPEN = "database system is ready to accept connections"
# Notes for each call when it began, when it ended and with what; bash knows the time without a process.
TIMED = """#!/bin/bash
{pause}
begun=$EPOCHREALTIME
"$@"
code=$?
echo "$begun $EPOCHREALTIME $code" >>"$CALLS"
exit $code
"""


class Recovery:
    """A copy of the data directory that the WAL began with, brought up to the archive's end."""

    def __init__(self, run, wal):
        self.run, self.wal, self.server = run, wal, wal.server
        self.data = os.path.join(run.directory, "recovered")
        self.log = os.path.join(run.directory, "recovered.log")
        self.end = None

    def once(self, restore_command):
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self.wal.base, self.data, symlinks=True)
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a") as conf:
            quoted = restore_command.replace("'", "''")
            conf.write(f"restore_command = '{quoted}'\narchive_mode = off\nhot_standby = off\nport = 5498\n")
        with open(os.path.join(self.data, "recovery.signal"), "w"):
            pass
        # Otherwise the recovery waits for the disk that is busy with the copy.
        sync(self.run.directory)
        with open(self.log, "wb") as log:
            before = processes.cpu()
            begun = time.perf_counter()
            server = subprocess.Popen([f"{self.server.bin}/postgres", "-D", self.data], env=self.server.env,
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            text = self._opened(server, begun)
            wall = time.perf_counter() - begun
            cpu = processes.cpu() - before
        finally:
            self._stop(server)
        self._same_end(text, restore_command)
        return {"wall": round(wall, 6), "cpu": round(cpu, 6)}

    def _opened(self, server, begun):
        while True:
            with open(self.log) as log:
                text = log.read()
            if OPEN in text:
                return text
            if server.poll() is not None or time.perf_counter() - begun > 300:
                raise Failed(f"recovery did not end:\n{text[-3000:]}")
            time.sleep(0.005)

    def _stop(self, server):
        if server.poll() is None:
            subprocess.run([f"{self.server.bin}/pg_ctl", "-D", self.data, "-m", "immediate", "stop", "-W"],
                           env=self.server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            server.wait(60)
        shutil.rmtree(self.data, ignore_errors=True)

    def _same_end(self, text, restore_command):
        """A recovery that ended early would be the fastest of all."""
        found = re.search(r"redo done at (\S+)", text)
        end = found and found[1]
        self.end = self.end or end
        if end is None or end != self.end:
            raise Failed(f"recovery by {restore_command} ended at {end}, not at {self.end}:\n{text[-3000:]}")


def archivers(run, wal, place, store):
    """Everybody who takes part, with the archive filled: once for all parts. `cp` knows no bucket: what is fetched from
    one is measured against its recovery from a directory."""
    if place not in wal.archived:
        sides = [Pitr(run, f"pitr recovery {place}", store),
                 PgBackRest(run, f"pgbackrest recovery {place}", store),
                 PgBackRest(run, f"pgbackrest async recovery {place}", store, asynchronous=True)]
        if run.previous:
            sides.append(Pitr(run, f"previous recovery {place}", store, run.previous))
        for archiver in sides:
            archiver.fresh(wal.data)
            archiver.archive(wal, wal.names[:SEGMENTS])
        # The plain copies of the first place serve all.
        sides.insert(1, wal.archived["file"][1] if wal.archived else copies(run, wal))
        wal.archived[place] = sides
    return wal.archived[place]


def copies(run, wal, label="cp"):
    archiver = Copy(run, label)
    archiver.fresh(wal.data)
    archiver.archive(wal, wal.names[:SEGMENTS])
    return archiver


def recovered_by(recovery, archiver):
    def once(_):
        if isinstance(archiver, PgBackRest):
            archiver.write(recovery.data)
        sample = recovery.once(archiver.get_line())
        archiver.rest()
        return sample
    return once


def least(run, recovery, wal):
    """What no restore_command can undercut on this machine, relative to `cp`: told, so that a goal can be judged."""
    ready, copied = Rename(run, "mv"), copies(run, wal, "cp beside mv")

    def renamed(_):
        ready.lay_out(wal, wal.names[:SEGMENTS])
        return recovery.once(ready.get_line())

    samples = measure.in_turn(run.rounds("recovery", 3), renamed, recovered_by(recovery, copied))
    what = f"recovery of {SEGMENTS} segments that lie ready, by mv"
    run.keep(what, "cp from a directory", *samples)
    run.fact(f"{what}: wall / cp", measure.ratio(*samples, "wall"))
    run.fact(f"{what}: wall in s", measure.median([s["wall"] for s in samples[0]]))


def recover(run):
    if not run.peer():
        return
    wal = run.wal()
    recovery = Recovery(run, wal)
    least(run, recovery, wal)
    for place, store in places(run):
        sides = archivers(run, wal, place, store)
        rounds = run.rounds("recovery", 5 if store is None else 3)
        first, rest = [sides[0], sides[1], *sides[4:]], sides[2:4]
        samples = measure.in_turn(rounds, *(recovered_by(recovery, archiver) for archiver in first))
        # No goal is held against these, and each takes as long as several of ours.
        slow = measure.in_turn(min(rounds, 2), *(recovered_by(recovery, archiver) for archiver in rest))
        what = f"recovery of {SEGMENTS} segments, {place}"
        run.keep(what, "cp from a directory; then pgBackRest, and async", *samples[:2], *slow, *samples[2:])
        run.goal(f"{what}: wall / cp", measure.ratio(samples[0], samples[1], "wall"), 0.6)
        labels = ("pitr", "cp", "pgBackRest", "pgBackRest async", "previous pitr")
        for label, of in zip(labels, [*samples[:2], *slow, *samples[2:]]):
            run.fact(f"{what}, {label}: wall in s", measure.median([s["wall"] for s in of]))
            run.fact(f"{what}, {label}: CPU in s, the server's included", measure.median([s["cpu"] for s in of]))
        with processes.Memory("pitr") as memory:
            recovered_by(recovery, sides[0])(0)
        run.goal(f"{what}: peak memory of the largest process of pitr, MiB", memory.largest, 40)
        run.fact(f"{what}: peak memory of hook and what stays together, MiB", memory.together)


def calls_of(recovery, archiver, pause):
    """Seconds of each call that brought a segment, in the order in which the server asked."""
    calls = os.path.join(recovery.run.directory, "calls")
    script = os.path.join(recovery.run.directory, "timed")
    with open(script, "w") as file:
        file.write(TIMED.format(pause=f"sleep {pause}" if pause else ""))
    os.chmod(script, 0o755)
    if os.path.exists(calls):
        os.unlink(calls)
    line = archiver.get_line()
    program = archiver.get("%f", "%p")[0]
    at = line.index(program)
    if isinstance(archiver, PgBackRest):
        archiver.write(recovery.data)
    recovery.once(f"{line[:at]}CALLS={calls} {script} {line[at:]}")
    archiver.rest()
    with open(calls) as file:
        rows = [line.split() for line in file]
    return [float(end) - float(begun) for begun, end, code in rows if code == "0"]


def fetch(run):
    """The server asks with a pause before each call, longer than a segment takes to be fetched: what is measured is
    the handing over of what was fetched ahead. Then without, as fast as it replays."""
    if not run.peer():
        return
    wal = run.wal()
    recovery = Recovery(run, wal)
    for place, store in places(run):
        sides = archivers(run, wal, place, store)
        for kind, pause, rounds in (("prefetched", "0.1", 2), ("as fast as the replay asks", None, 2)):
            for label, archiver in zip(("pitr", "cp", "pgBackRest", "pgBackRest async", "previous pitr"), sides):
                if store and label == "cp":
                    continue
                often = run.rounds("fetch", rounds) if label == "pitr" else 1
                taken = []
                for _ in range(often):
                    # The first calls find nothing fetched yet.
                    taken += calls_of(recovery, archiver, pause)[3:]
                run.keep(f"one restore_command in recovery, {place}, {kind}", label,
                         [{"wall": round(t, 6)} for t in taken])
                p50, p99 = (measure.quantile(taken, q) * 1000 for q in (0.5, 0.99))
                if label == "pitr" and pause:
                    run.goal(f"fetch of a prefetched segment, {place}: p50 in ms", p50, 5)
                    run.goal(f"fetch of a prefetched segment, {place}: p99 in ms", p99, 20)
                else:
                    run.fact(f"fetch of a segment, {place}, {kind}, {label}: p50 in ms", p50)
                    run.fact(f"fetch of a segment, {place}, {kind}, {label}: p99 in ms", p99)
