"""What handlers leave behind: a mapped file for each process, below a microsecond a call, no lock.

A file begins with the number of calls and the times of the first and the last one; pairs of sequence
number and time follow. The adapters of the peers write the same layout, so one reader reads all.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

# The environment variable that names the directory; the peers' adapters read the same one.
VARIABLE = "BENCH_MARKS"
_HEAD, _PAIR = struct.Struct("<ddd"), struct.Struct("<dd")
# How many calls keep a pair; latency runs are shorter than this.
SLOTS = 2000


class Marker:
    """The file of this process."""

    def __init__(self, folder: Path) -> None:
        path = folder / str(os.getpid())
        path.write_bytes(bytes(_HEAD.size + SLOTS * _PAIR.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._count, self._first = 0, 0.0

    def leave(self, sequence: int | None) -> None:
        now = time.time()
        if not self._count:
            self._first = now
        if sequence is not None and self._count < SLOTS:
            _PAIR.pack_into(self._map, _HEAD.size + self._count * _PAIR.size, sequence, now)
        self._count += 1
        _HEAD.pack_into(self._map, 0, self._count, self._first, now)


@dataclass(frozen=True, slots=True)
class Marks:
    """The calls of all processes together."""

    count: int
    first: float
    last: float

    @property
    def per_second(self) -> float:
        return (self.count - 1) / (self.last - self.first) if self.last > self.first else 0.0


def read(folder: Path) -> Marks:
    """Count the calls, while they come or afterwards."""
    heads = [_HEAD.unpack_from(data) for data in _files(folder)]
    heads = [head for head in heads if head[0]]
    if not heads:
        return Marks(0, 0.0, 0.0)
    counts, firsts, lasts = zip(*heads, strict=True)
    return Marks(int(sum(counts)), min(firsts), max(lasts))


def read_times(folder: Path) -> dict[int, float]:
    """When the call with each sequence number began."""
    times = {}
    for data in _files(folder):
        count = int(_HEAD.unpack_from(data)[0])
        for index in range(min(count, SLOTS)):
            sequence, at = _PAIR.unpack_from(data, _HEAD.size + index * _PAIR.size)
            times[int(sequence)] = at
    return times


def _files(folder: Path) -> list[bytes]:
    contents = [path.read_bytes() for path in folder.iterdir()]
    return [data for data in contents if len(data) >= _HEAD.size]  # others are just being made
