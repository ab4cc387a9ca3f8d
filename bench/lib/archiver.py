"""Those who archive and bring back: pitr, pgBackRest and cp, each with a repository of its own, behind one face.

`push` and `get` are one hook's argv; `line` is the same as the server's archive_command or restore_command.
"""

import os
import shlex
import shutil
import subprocess

from lib import measure, processes

STANZA = "bench"


def _emptied(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


class Archiver:
    program = None

    def __init__(self, run, label, store=None):
        self.run, self.label, self.store = run, label, store
        self.place = os.path.join(run.directory, label.replace(" ", "-"))
        self.repositories = 0
        os.makedirs(self.place)

    def fresh(self, data):
        """A repository without anything in it, and no memory of an earlier one."""
        self.rest()
        self.repositories += 1
        self.data = data
        self.repository = os.path.join(self.place, "repository")
        for name in ("repository", "spool"):
            _emptied(os.path.join(self.place, name))

    def rest(self):
        """Ends what hooks have left behind."""
        if self.program:
            processes.end(self.program)

    def environment(self):
        return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PITR", "AWS"))}

    def line(self, *words):
        return " ".join(word if word in ("%p", "%f") else shlex.quote(word) for word in words)

    def push_line(self):
        return self.line(*self.push("%p"))

    def get_line(self):
        return self.line(*self.get("%f", "%p"))

    def archive(self, wal, names):
        """Brings these segments into the repository, not measured."""
        wal.mark("ready", names)
        for name in names:
            measure.run(self.push(f"pg_wal/{name}"), env=self.environment(), cwd=self.data)
        wal.mark("done", names)
        self.rest()


class Pitr(Archiver):
    program = "pitr"

    def __init__(self, run, label, store=None, binary=None):
        super().__init__(run, label, store)
        # Under its own name, by which its processes are found.
        self.binary = binary or run.binary

    def fresh(self, data):
        super().fresh(data)
        self.url = f"file://{self.repository}"
        if self.store:
            self.url = f"s3://{self.store.bucket}/{os.path.basename(self.place)}-{self.repositories}"

    def settings(self):
        own = {"PITR_REPOSITORY": self.url, "PITR_ARCHIVE_SPOOL": os.path.join(self.place, "spool")}
        return {**own, **(self.store.env if self.store else {})}

    def environment(self):
        return {**super().environment(), **self.settings()}

    def line(self, *words):
        return " ".join([f"{k}={shlex.quote(v)}" for k, v in self.settings().items()] + [super().line(*words)])

    def push(self, path):
        return [self.binary, "archive-push", path]

    def get(self, name, to):
        return [self.binary, "archive-get", name, to]


class PgBackRest(Archiver):
    """2 processes, zstd level 3, small files in bundles; `asynchronous` with a spool."""
    program = "pgbackrest"

    def __init__(self, run, label, store=None, asynchronous=False):
        super().__init__(run, label, store)
        self.asynchronous = asynchronous
        self.config = os.path.join(self.place, "pgbackrest.conf")

    def fresh(self, data, server=None):
        """`server`: the running one that is to be backed up."""
        super().fresh(data)
        self.write(data, server)
        online = [] if server else ["--no-online"]
        measure.run([*self.argv(), "stanza-create", *online], env=self.environment())

    def write(self, data, server=None):
        place = {name: _emptied(os.path.join(self.place, name)) for name in ("spool", "lock", "log")}
        lines = ["[global]", "compress-type=zst", "compress-level=3", "process-max=2", "start-fast=y",
                 "archive-check=n", "log-level-file=off", "log-level-console=error", "log-level-stderr=error",
                 f"archive-async={'y' if self.asynchronous else 'n'}", "repo1-bundle=y", "repo1-retention-full=100",
                 *(f"{name}-path={path}" for name, path in place.items())]
        if self.store:
            lines += ["repo1-type=s3", f"repo1-path=/{os.path.basename(self.place)}-{self.repositories}",
                      *self.store.pgbackrest()]
        else:
            lines.append(f"repo1-path={self.repository}")
        lines += [f"[{STANZA}]", f"pg1-path={data}"]
        if server:
            lines += [f"pg1-socket-path={server.socket}", f"pg1-port={server.env['PGPORT']}", "pg1-user=bench",
                      "pg1-database=postgres"]
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")

    def argv(self):
        return ["pgbackrest", f"--config={self.config}", f"--stanza={STANZA}"]

    def push(self, path):
        return [*self.argv(), "archive-push", path]

    def get(self, name, to):
        return [*self.argv(), "archive-get", name, to]


class Copy(Archiver):
    """`cp` into and out of a directory: verifies nothing, syncs nothing."""

    def push(self, path):
        return ["cp", path, self.repository]

    def get(self, name, to):
        return ["cp", os.path.join(self.repository, name), to]

    def get_line(self):
        return f"cp {shlex.quote(self.repository)}/%f %p"


class Rename(Copy):
    """Segments that lie ready beside the data directory, handed over by `mv`: the least that any restore_command can
    cost. Each recovery uses them up."""

    def lay_out(self, wal, names):
        self.fresh(wal.data)
        for name in names:
            shutil.copy(os.path.join(wal.data, "pg_wal", name), self.repository)
        sync(self.repository)

    def get_line(self):
        return f"mv {shlex.quote(self.repository)}/%f %p"


def pgbackrest_version():
    return measure.version(["pgbackrest", "version"])


def sync(directory):
    subprocess.run(["sync", "-f", directory], check=True)
