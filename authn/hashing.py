"""Passwords are checked one at a time on a host of two cores: however many are tried, the others are
answered meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# A caller with many connections starts with all of them at once; to wait for the first saves the others.
PATIENCE_SECONDS = 0.5
# After a wrong one in this process nobody waits for a while: it may be the first of a flood.
SUSPICIOUS_SECONDS = 5.0
_STEP_SECONDS = 0.02


class Busy(Exception):
    """Somebody else's password is being checked; a moment later there may be room."""


class Gate:
    """So many at once in all processes that are forked from this one."""

    def __init__(self, places: int) -> None:
        self.places = places
        # Without a name: its bytes are the places, and the system gives back those of the dead.
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        # The system's lock belongs to a process, whose threads it does not tell apart.
        self._thread = threading.Lock()
        self._suspicious_until = 0.0

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Have a place for the length of the block; Busy where none is to be had."""
        deadline = time.monotonic() + (0.0 if self.is_suspicious else PATIENCE_SECONDS)
        if not self._thread.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Busy
        try:
            place = self._place(deadline)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
        finally:
            self._thread.release()

    @property
    def is_suspicious(self) -> bool:
        """Whether a password was wrong of late."""
        return time.monotonic() < self._suspicious_until

    def saw_failure(self) -> None:
        self._suspicious_until = time.monotonic() + SUSPICIOUS_SECONDS

    def _place(self, deadline: float) -> int:
        while True:
            for place in range(self.places):
                with suppress(OSError):
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                    return place
            if time.monotonic() >= deadline:
                raise Busy
            time.sleep(_STEP_SECONDS)


gate = Gate(max(1, (os.cpu_count() or 2) // 2))
