"""What the operating system must do for our processes: die with their parent, stay unreadable."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
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
