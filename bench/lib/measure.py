"""Runs commands in turn and reads what the kernel counted for them."""

import math
import os
import platform
import resource  # noqa: F401  (wait4 loads it late, when another user may not be able to read it)
import signal
import statistics
import subprocess
import time


class Failed(Exception):
    pass


class Interrupted(BaseException):
    """Somebody ends the run: servers are stopped on the way out, and no other part is begun."""


def interrupted(number, _frame):
    # Once: a second one would interrupt the stopping of servers.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(f"ended by signal {number}")


def run(argv, env=None, cwd=None, sync=(), codes=(0,)):
    """One run: wall and CPU seconds (the command and its children) and its largest process in MiB.

    `sync`: files and directories whose fsync belongs to the run.
    """
    begun = time.perf_counter()
    with open(os.devnull, "rb") as none, subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=none, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        text = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        for path in sync:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in codes:
        raise Failed(f"{argv}: exit {child.returncode}\n{text.decode(errors='replace')}")
    return {
        "wall": round(wall, 6),
        "cpu": round(usage.ru_utime + usage.ru_stime, 6),
        "rss_mib": round(usage.ru_maxrss / 1024, 1),
    }


def in_turn(rounds, *sides):
    """All sides `rounds` times, each round in the opposite order of the one before: a machine that grows slower
    or has other work meets all alike."""
    samples = [[] for _ in sides]
    for number in range(rounds):
        order = list(zip(sides, samples))
        for side, into in order if number % 2 == 0 else reversed(order):
            into.append(side(number))
    return samples


def mean(values):
    return statistics.fmean(values)


def quantile(values, q):
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def median(values):
    return statistics.median(values)


def ratio(ours, theirs, what):
    """The median of the pairs' ratios."""
    return median([a[what] / b[what] for a, b in zip(ours, theirs)])


def version(argv):
    try:
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return text.strip().splitlines()[0] if text.strip() else None


def machine(directory):
    model = "unknown"
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as info:
        memory = int(info.readline().split()[1]) // 1024
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory,
        "kernel": platform.release(),
        "file_system": version(["findmnt", "-n", "-o", "FSTYPE", "-T", directory]),
        "load_before": round(os.getloadavg()[0], 2),
    }
