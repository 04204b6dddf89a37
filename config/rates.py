"""How often each caller has asked of late, counted for all processes of a server together.

One number a caller: the moment at which all that he has asked for is paid off, at his rate. It may lie
ahead of now by as much as he may ask for at once. The numbers stand in memory that processes share that
were forked from the one that made it; `manage.py serve` does so before it forks. A place is found by a
digest of the caller's name, and whoever has been silent for long enough gives his up.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b

PLACES = 4096
# A caller's place is one of so many.
GROUP = 8
_ENTRY = struct.Struct("=Qd")


class Rates:
    def __init__(self, places: int = PLACES) -> None:
        self._groups = places // GROUP
        self._memory = mmap.mmap(-1, self._groups * GROUP * _ENTRY.size)
        # Without a name: only what is forked from here can see it. Its bytes are the groups.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  open for as long as the process
        self._turn = threading.Lock()

    def wait(
        self, caller: str, per_second: float, at_once: float, now: float | None = None
    ) -> float:
        """Take one request of this caller's; 0, or in how many seconds there will be one to take."""
        number = _number(caller)
        if now is None:
            # The same in all processes of a machine.
            now = time.monotonic()
        with self._held(number % self._groups) as group:
            place, paid_at = self._find(group, number, now)
            paid_at = max(paid_at, now) + 1 / per_second
            ahead = paid_at - now - at_once / per_second
            if ahead > 1e-9:
                return ahead
            _ENTRY.pack_into(self._memory, place, number, paid_at)
        return 0.0

    def close(self) -> None:
        """Give up the memory; of a server it goes with the process."""
        self._memory.close()
        self._file.close()

    def _find(self, group: int, number: int, now: float) -> tuple[int, float]:
        """The caller's place; else a free one, or that of whoever owes least, who is forgiven."""
        first = group * GROUP * _ENTRY.size
        least, chosen = float("inf"), first
        for place in range(first, first + GROUP * _ENTRY.size, _ENTRY.size):
            whose, paid_at = _ENTRY.unpack_from(self._memory, place)
            if whose == number:
                return place, paid_at
            if paid_at < least:
                least, chosen = paid_at, place
        return chosen, now

    @contextmanager
    def _held(self, group: int) -> Iterator[int]:
        # The system's locks are between processes, and this one between our threads.
        with self._turn:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, group)
            try:
                yield group
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, group)


@lru_cache(maxsize=1024)
def _number(caller: str) -> int:
    digest = blake2b(caller.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


rates = Rates()
