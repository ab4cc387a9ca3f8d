"""A server with a backlog of WAL that nobody has archived, and the data directory that it began with."""

import os
import shutil
import time

from lib.cluster import Cluster
from lib.measure import Failed


class Wal:
    """`names`: segments of pgbench's WAL with a checkpoint every 60,000 transactions, in the order of the log, all in
    `pg_wal` of the running server, whose archiver has no command. `base`: its data directory before the first."""

    def __init__(self, run, count):
        self.archived = {}
        self.base = os.path.join(run.directory, "base")
        self.server = Cluster(run.directory, "primary", [
            "archive_mode = on", "archive_command = ''", "wal_keep_size = 16GB", "max_wal_size = 16GB",
        ])
        self.data = self.server.data
        self.server.start("fsync=off")
        self.server.call("pgbench", "-i", "-q", "-I", "dtgvp", "-s", str(run.scale("wal", 20)))
        self.server.sql("checkpoint")
        self.server.stop()
        shutil.copytree(self.data, self.base, symlinks=True)
        self._make(count)

    def _make(self, count):
        wal = os.path.join(self.base, "pg_wal")
        # Recovery begins in the segment with the last checkpoint; the server goes on in the same one.
        control = self.server.call("pg_controldata", "-D", self.data)
        first = next(line.split()[-1] for line in control.splitlines() if "REDO WAL file" in line)
        shutil.rmtree(wal)
        os.makedirs(os.path.join(wal, "archive_status"), mode=0o700)
        self.server.start("fsync=off")
        while True:
            self.names = sorted(name for name in self._ready() if name >= first)
            if len(self.names) >= count:
                break
            self.server.call("pgbench", "-n", "-c", "4", "-j", "2", "-M", "prepared", "-t", "15000")
            self.server.sql("checkpoint")
        self.names = self.names[:count]
        if self.names[0] != first:
            raise Failed(f"the first segment is {self.names[0]}, not {first}")
        self.mark("done", self._ready())

    def _ready(self):
        status = os.path.join(self.data, "pg_wal/archive_status")
        return [name[:24] for name in os.listdir(status) if name.endswith(".ready") and len(name) == 30]

    def mark(self, state, names):
        """Tells the archiver, and whoever reads as it does, that these wait ("ready") or do not ("done")."""
        status = os.path.join(self.data, "pg_wal/archive_status")
        other = {"ready": "done", "done": "ready"}[state]
        for name in names:
            try:
                os.rename(f"{status}/{name}.{other}", f"{status}/{name}.{state}")
            except FileNotFoundError:
                continue

    def drain(self, line, names, limit=900):
        """Seconds from the moment the server learns of this archive_command until all of these are archived."""
        self.mark("ready", names)
        self.server.sql("alter system set archive_command = '{}'".format(line.replace("'", "''")))
        begun = time.perf_counter()
        self.server.reload()
        status = os.path.join(self.data, "pg_wal/archive_status")
        # The last one first: as long as that waits one look is enough.
        while any(os.path.exists(f"{status}/{name}.ready") for name in reversed(names)):
            time.sleep(0.01)
            if time.perf_counter() - begun > limit:
                raise Failed(f"not archived after {limit} s by {line}:\n{self.server.log_tail()}")
        wall = time.perf_counter() - begun
        self.server.sql("alter system reset archive_command")
        self.server.reload()
        time.sleep(0.1)
        return wall

    def remove(self):
        self.server.stop()
        for path in (self.data, self.base):
            shutil.rmtree(path, ignore_errors=True)
