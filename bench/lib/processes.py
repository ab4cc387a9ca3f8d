"""What everything that was started here has used, whoever waited for it.

Hooks may leave a process behind that works for the next one. It is adopted by this process (a subreaper), so that
nobody's work is free: CPU is read from the kernel's clock of each process, memory from its high-water mark.
"""

import ctypes
import os
import signal
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
TICK = os.sysconf("SC_CLK_TCK")
# CPU seconds of processes that were adopted and have ended, by program.
_ended = {}


def adopt():
    """From now on what a child leaves behind is a child of this process, not of init."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        text = file.read()
    name = text[text.index("(") + 1:text.rindex(")")]
    return name, text[text.rindex(")") + 2:].split()


def below():
    """(pid, program, fields of /proc/PID/stat behind it) of everything below this process."""
    table, children = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name, fields = _stat(entry)
            except (FileNotFoundError, ProcessLookupError):
                continue
            table[int(entry)] = (name, fields)
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, left = [], list(children.get(os.getpid(), []))
    while left:
        pid = left.pop()
        found.append((pid, *table[pid]))
        left.extend(children.get(pid, []))
    return found


def reap():
    """Takes leave of adopted processes that have ended. Not while a command of ours runs: it would be taken too."""
    for pid, name, fields in below():
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            try:
                _, _, usage = os.wait4(pid, os.WNOHANG)
            except ChildProcessError:
                continue
            _ended[name] = _ended.get(name, 0.0) + usage.ru_utime + usage.ru_stime


def cpu(program=None):
    """CPU seconds that adopted processes (of one program, or all) and what they waited for have used so far."""
    reap()
    total = sum(seconds for name, seconds in _ended.items() if program in (None, name))
    for pid, name, fields in below():
        if program in (None, name):
            try:
                # The process's own CPU clock, in nanoseconds and with the threads that have ended.
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:
                continue
            total += (int(fields[13]) + int(fields[14])) / TICK
    return total


def end(program):
    """Ends what this program has left behind below this process."""
    for pid, name, _ in below():
        if name == program:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
    until = time.monotonic() + 10
    while any(name == program and fields[0] != "Z" for _, name, fields in below()):
        if time.monotonic() > until:
            for pid, name, _ in below():
                if name == program:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    reap()


class Memory:
    """The memory of a program's processes below this one while the block runs, looked at every few milliseconds:
    costs CPU, so never in a round whose time counts."""

    def __init__(self, program):
        self.program, self.largest, self.together = program, 0.0, 0.0
        self._done = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.004):
            together = 0
            for pid, name, _ in below():
                if name == self.program:
                    most, proportional = _memory(pid)
                    self.largest = max(self.largest, most / 1024)
                    together += proportional
            self.together = max(self.together, together / 1024)


def _memory(pid):
    """High-water mark, and what it has now with shared pages divided among those that share them; in KiB."""
    try:
        with open(f"/proc/{pid}/status") as file:
            most = next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
        with open(f"/proc/{pid}/smaps_rollup") as file:
            now = next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    except OSError:
        return 0, 0
    return most, now
