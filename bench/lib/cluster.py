"""A throw-away PostgreSQL with pgbench data, on a unix socket only."""

import glob
import os
import shutil
import signal
import subprocess

from lib.measure import Failed


def bin_directory():
    """The newest server installed the way Debian does it, or the one on PATH."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
    if found:
        return found[-1]
    initdb = shutil.which("initdb")
    if initdb is None:
        raise Failed("no PostgreSQL server: apt-get install postgresql")
    return os.path.dirname(os.path.realpath(initdb))


class Cluster:
    def __init__(self, directory, name, settings=(), initdb=()):
        self.bin = bin_directory()
        self.data = os.path.join(directory, name)
        self.socket = directory
        self.log = os.path.join(directory, f"{name}.log")
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PG")},
            "PGHOST": directory,
            "PGPORT": "5499",
            "PGUSER": "bench",
            "PGDATABASE": "postgres",
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        self.call("initdb", "-D", self.data, "-U", "bench", "-A", "trust", "-N", "--no-instructions", *initdb)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            for line in (
                "listen_addresses = ''",
                f"unix_socket_directories = '{directory}'",
                "port = 5499",
                "shared_buffers = 512MB",
                "max_wal_size = 8GB",
                "checkpoint_timeout = 1h",
                "wal_level = replica",
                "autovacuum = off",
                *settings,
            ):
                conf.write(line + "\n")

    def call(self, program, *arguments):
        done = subprocess.run(
            [os.path.join(self.bin, program), *arguments], env=self.env, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Failed(f"{program} {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *settings):
        options = " ".join(f"-c {s}" for s in settings)
        # Through files, not pipes: the server inherits them and would keep a pipe open.
        with open(self.log, "ab") as log:
            code = subprocess.call(
                [f"{self.bin}/pg_ctl", "-D", self.data, "-w", "-t", "120", "-o", options, "start"],
                env=self.env, stdout=log, stderr=log,
            )
        if code != 0:
            raise Failed(f"the server did not start:\n{self.log_tail()}")

    def log_tail(self):
        with open(self.log) as log:
            return log.read()[-2000:]

    def reload(self):
        with open(os.path.join(self.data, "postmaster.pid")) as file:
            os.kill(int(file.readline()), signal.SIGHUP)

    def stop(self):
        subprocess.call(
            [f"{self.bin}/pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop"],
            env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def sql(self, text):
        return self.call("psql", "-XAtqc", text).strip()

    def size(self):
        return int(self.sql("select sum(pg_database_size(oid)) from pg_database"))
