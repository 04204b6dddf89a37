"""What a handler leaves behind in its process: programs, forked copies, descriptors.

A process child adopts the orphans of what its handlers start, so none of them gets away: what still
lives when the handler has ended is below this process. One system call tells that there is nothing.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import time

from jobs.engine.clock import countdown
from jobs.executors.shell_processes import IS_SUPPORTED, Seen, below, scan, send

# So many processes of one job may live at once.
MOST_PROCESSES = 256
# So many generations of forked copies; a daemon is the second.
MOST_GENERATIONS = 8
# A job that was shorter can have left nothing: to start a process takes longer.
SHORT_SECONDS = 0.0003
END_SECONDS = 2.0
_CHECK_EVERY = 64
_COUNTS = struct.Struct("=qq")


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_children() -> tuple[int, bool]:
    """Kill and reap all that is below this process; returns how many there were, and if all are gone."""
    ended: set[int] = set()
    deadline = countdown() + END_SECONDS
    while _reap():
        for one in below([os.getpid()], scan()) if IS_SUPPORTED else ():
            if one.is_alive:
                ended.add(one.pid)
                send(one, signal.SIGKILL)
        if not IS_SUPPORTED or countdown() > deadline or len(ended) > MOST_PROCESSES:
            return len(ended), False
        time.sleep(0.001)
    return len(ended), True


def _reap() -> bool:
    """Take leave of the dead; tells whether others live."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def descriptors_are_scarce(any_descriptor: int) -> bool:
    """Tell whether more than half of the descriptors are in use: the lowest free number says it."""
    try:
        free = os.dup(any_descriptor)
    except OSError:
        return True
    os.close(free)
    return free > resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def family(leader: int, processes: list[Seen]) -> list[Seen]:
    """The living processes of a child: its group, and all that descends from it."""
    found = {one.pid: one for one in processes if one.group == leader or one.pid == leader}
    found |= {one.pid: one for one in below([leader], processes)}
    return [one for one in found.values() if one.is_alive]


class ForkGuard:
    """Ends a job that forks without end, before it takes the host's time from everybody else.

    Copies that copy themselves are told by their generation, long before they are many: among hundreds
    that all want to run, nobody would get the time to count them. For the others the forks of this
    process and all its copies are counted in memory they share, and each few it is looked how many
    live. Programs are not counted here: the node looks at those once a second.
    """

    def __init__(self) -> None:
        self._leader = os.getpid()
        self._generation = 0
        self._counts = mmap.mmap(-1, _COUNTS.size)

    def before_fork(self) -> None:
        # Copies count at the same time, so some forks are missed; they are too many all the same.
        count, checked = _COUNTS.unpack_from(self._counts)
        is_due = count + 1 - checked >= _CHECK_EVERY
        _COUNTS.pack_into(self._counts, 0, count + 1, count + 1 if is_due else checked)
        if self._generation >= MOST_GENERATIONS:
            self._end(f"more than {MOST_GENERATIONS} generations of processes")
        elif is_due and IS_SUPPORTED and len(family(self._leader, scan())) > MOST_PROCESSES:
            self._end(f"more than {MOST_PROCESSES} processes at once")

    def after_fork(self) -> None:
        """In the copy."""
        self._generation += 1

    def _end(self, why: str) -> None:
        os.write(2, f"killed: {why}\n".encode())
        os.killpg(self._leader, signal.SIGKILL)
