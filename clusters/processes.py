"""What the operating system must do for our processes: end with their parent, be closed, stay small."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Ask for a signal when the parent ends; where there is no such thing the closed pipe must do."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
    if os.getppid() != parent:
        # It ended before we could ask.
        os._exit(1)


def forbid_inspection() -> None:
    """Close /proc/<pid>/environ and memory to other processes of our own user: both hold secrets."""
    if _libc is not None:
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever is left behind by a dead process below this one."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def name_process(name: str) -> None:
    """Give this process a name of up to 15 characters that it hands on to what it forks."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def bound_resources(limits: Mapping[int, int]) -> None:
    """Lower the limits of this process and of all that it starts; none is ever raised."""
    for what, most in limits.items():
        hard = resource.getrlimit(what)[1]
        bounded = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(what, (bounded, bounded))
