"""Which processes belong to a ``shell`` job, and how none of them gets away. Linux only.

Ours are: the session of the program, the children of what is ours, processes that carry the attempt
in their environment, and orphans. A process that leaves its session, loses its parent and drops its
environment would be nobody's; therefore this process adopts orphans as long as it has such jobs, and
nothing else in it may start a child in a session of its own meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
# Bound before any fork: between fork and exec nothing may have to be looked up or loaded.
_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
if _prctl is not None:
    _prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)

# So often we look again where processes are being started all the time.
SCANS = 3

IS_SUPPORTED = sys.platform == "linux" and _prctl is not None

# By the number of the leader.
_families: dict[int, Family] = {}


def bind_to(parent: int) -> None:
    """Between fork and exec: gain no rights by exec, and die with the parent.

    A change of user clears the second, so it has to come after that.
    """
    assert _prctl is not None
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("no_new_privs")
    # The parent may have ended before we could ask.
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) or os.getppid() != parent:
        raise OSError("parent-death signal")


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Start a program in here: orphans are left to this process as long as it has families.

    It has to begin before the program does. Asked for later, a process that is just being started would
    be passed over, and left to somebody else.
    """
    assert _prctl is not None
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _stop_adopting()


def _stop_adopting() -> None:
    if _prctl is not None and not _families:
        _prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """A process of this host at one moment. Number and start together name it for good."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    # Ticks since the system started.
    started: int
    name: str = ""

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZX"


def _read(path: str) -> bytes:
    """Return the beginning of a file of /proc; often called, hence without any comfort."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def look(pid: int) -> Seen | None:
    """Return a process as it is now; None when there is none."""
    try:
        text = _read(f"/proc/{pid}/stat").decode(errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything, brackets included.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if not fields:
        return None
    parent, group, session = (int(field) for field in fields[1:4])
    name = head.partition("(")[2]
    return Seen(pid, fields[0], parent, group, session, int(fields[19]), name)


def scan() -> list[Seen]:
    """Return all processes there are."""
    return [one for one in map(look, _pids()) if one is not None]


def _newest_pid() -> str:
    return _read("/proc/loadavg").decode().split()[-1]


def environment_of(one: Seen) -> list[bytes]:
    """The variables a process was started with; nothing if they are closed to us."""
    try:
        return Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def is_marked(one: Seen, environment: Mapping[str, str]) -> bool:
    """Tell whether a process carries this attempt; no, too, if its environment is closed to us."""
    variables = environment_of(one)
    names = ("JOB_ID", "JOB_FENCE")
    return all(f"{name}={environment[name]}".encode() in variables for name in names)


def below(roots: Iterable[int], processes: Iterable[Seen]) -> list[Seen]:
    """Those of the processes that descend from one of the roots."""
    children: dict[int, list[Seen]] = {}
    for one in processes:
        children.setdefault(one.parent, []).append(one)
    found: list[Seen] = []
    pending = list(roots)
    while pending:
        added = children.pop(pending.pop(), [])
        found += added
        pending += [one.pid for one in added]
    return found


def end_marked(environments: Sequence[Mapping[str, str]], seconds: float = 2.0) -> int:
    """Kill all processes that carry one of these attempts; return how many were left at the end.

    For a node whose io child can no longer do it: what a program has started outlives its leader.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = [
            one
            for one in scan()
            if one.is_alive and any(is_marked(one, marks) for marks in environments)
        ]
        if not left or time.monotonic() > deadline:
            return len(left)
        for one in left:
            send(one, signal.SIGKILL)
        time.sleep(0.01)


def tasks_of(uid: int) -> int:
    """Count the processes and threads of a user, less those that hide whose they are."""
    count = 0
    for pid in _pids():
        task = Path(f"/proc/{pid}/task")
        with contextlib.suppress(OSError):
            # Apart from itself a directory has a link from each that is in it.
            found = task.stat()
            count += found.st_nlink - 2 if found.st_uid == uid else 0
    return count


class Family:
    """A program that was started, and whatever it started."""

    def __init__(self, leader: int, environment: Mapping[str, str]) -> None:
        self.leader = leader
        self._environment = environment
        seen = look(leader)
        self.started = seen.started if seen else sys.maxsize
        self._sessions = {leader}
        self._has_others = False
        _families[leader] = self

    @property
    def is_over(self) -> bool:
        """True when the leader has ended. It stays a zombie, so that its number stays taken."""
        try:
            options = os.WEXITED | os.WNOWAIT | os.WNOHANG
            return os.waitid(os.P_PID, self.leader, options) is not None
        except ChildProcessError:
            return True

    def signal(self, number: signal.Signals) -> list[Seen]:
        """Send a signal to all that live, and return them."""
        # The group in one stroke: nobody in it can start another one meanwhile.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.leader, number)
        members = self.members()
        for one in members:
            if number == signal.SIGKILL or one.group != self.leader:
                send(one, number)
        return members

    def kill(self) -> list[Seen]:
        """Kill all that live, and return them; when nothing is returned, nothing is left."""
        for _ in range(SCANS):
            newest = _newest_pid()
            if (members := self.signal(signal.SIGKILL)) or _newest_pid() == newest:
                break
            # One may have been started, and its parent have ended, while we looked.
        return members

    def members(self) -> list[Seen]:
        """Return the processes of this family that live."""
        seen = [one for one in scan() if self._may_be_ours(one)]
        marked = {one.pid for one in seen if is_marked(one, self._environment)}
        ours: set[int] = set()
        is_growing = True
        while is_growing:
            before = len(ours)
            for one in seen:
                if (
                    one.pid in marked
                    or one.session in self._sessions
                    or one.parent in ours
                    or self._is_orphan(one)
                ):
                    ours.add(one.pid)
                    # Children that it has before it dies are known by its session.
                    self._sessions.add(one.session)
            is_growing = len(ours) > before
        self._has_others = self._has_others or bool(ours - {self.leader})
        return [one for one in seen if one.pid in ours and one.is_alive]

    def bury(self) -> os.waitid_result | None:
        """Take leave of the dead; return how the leader ended, None if somebody else was told."""
        try:
            ended = os.waitid(os.P_PID, self.leader, os.WEXITED)
        except ChildProcessError:
            ended = None
        for one in scan() if self._has_others else ():
            is_orphan = one.parent == os.getpid() and one.pid not in _families
            if is_orphan and not one.is_alive and self._may_be_ours(one):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(one.pid, os.WNOHANG)
        del _families[self.leader]
        _stop_adopting()
        return ended

    def _may_be_ours(self, one: Seen) -> bool:
        """What is older, or in the session of this very process, is not."""
        return one.started >= self.started and one.session != os.getsid(0)

    def _is_orphan(self, one: Seen) -> bool:
        """Left to this process, and there is no other job that can have started it.

        Where there is one, the last of them to end takes it along.
        """
        return one.parent == os.getpid() and all(
            other is self or other.started > one.started for other in _families.values()
        )


def send(one: Seen, number: signal.Signals) -> None:
    """Send a signal to this process and to no other that has its number by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            handle = os.pidfd_open(one.pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):
            # An old system, or no descriptor to be had.
            os.kill(one.pid, number)
            return
        try:
            # The number may be somebody else's by now.
            now = look(one.pid)
            if now is not None and now.started == one.started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
