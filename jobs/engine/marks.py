"""What a child is doing, in memory it shares with its node; it outlives the child.

The child marks a job before the first line of its handler. When the child dies, the node knows whom to
charge, which jobs had ended well without a result, and which were never begun.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

from jobs.engine import last_words
from jobs.engine.last_words import LastWords

_HEAD = struct.Struct("=qd")
# More than a child ever holds, so that two jobs in hand never share a cell.
CELLS = 2048
_WORDS_AT = _HEAD.size + CELLS
SIZE = _WORDS_AT + last_words.SIZE
UNTOUCHED, BEGUN, SUCCEEDED, REPORTED = 0, 1, 2, 3
NOTHING = -1


def shared_file() -> int:
    """A descriptor of memory that both processes can map."""
    descriptor = shared_memory("yardmaster-marks")
    os.ftruncate(descriptor, SIZE)
    return descriptor


def shared_memory(name: str) -> int:
    """A descriptor of a file without a place on the disk, where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Marks:
    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
        self.words = LastWords(self._map, _WORDS_AT)
        if self._map[: _HEAD.size] == bytes(_HEAD.size):
            _HEAD.pack_into(self._map, 0, NOTHING, 0.0)

    def forget(self, seq: int) -> None:
        """The node gives a cell to a new job."""
        self._map[_HEAD.size + seq % CELLS] = UNTOUCHED

    def begin(self, seq: int, at: float) -> None:
        self._map[_HEAD.size + seq % CELLS] = BEGUN
        _HEAD.pack_into(self._map, 0, seq, at)

    def end(self, seq: int, cell: int) -> None:
        self._map[_HEAD.size + seq % CELLS] = cell
        _HEAD.pack_into(self._map, 0, NOTHING, 0.0)

    def current(self) -> tuple[int, float]:
        """The job the child is in, or NOTHING, and when it began it."""
        # The child may be writing just now: two equal looks are one sound look.
        seen = _HEAD.unpack_from(self._map, 0)
        while (again := _HEAD.unpack_from(self._map, 0)) != seen:
            seen = again
        return seen[0], seen[1]

    def cell(self, seq: int) -> int:
        return self._map[_HEAD.size + seq % CELLS]

    def close(self) -> None:
        self._map.close()
