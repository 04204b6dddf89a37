"""Append-only ledgers: what jobs and clients saw happen, in a file that outlives every process.

A job's line is `S|T|E job fence node monotonic` for started, still at it, ended. Each is one write to a
file opened for appending, which the kernel does not tear apart; a process killed the moment after has
still said it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
PATH, NODE = "FAULT_LEDGER", "FAULT_NODE"
_descriptors: dict[str, int] = {}


def now() -> float:
    """The clock of all ledgers; the same for every process of this host."""
    return time.clock_gettime(_CLOCK)


def write(word: str, job: str, fence: int) -> None:
    path = os.environ[PATH]
    if path not in _descriptors:
        _descriptors[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    line = f"{word} {job} {fence} {os.environ[NODE]} {now():.6f}\n"
    os.write(_descriptors[path], line.encode())


@dataclass(frozen=True, slots=True)
class Line:
    word: str
    job: str  # without dashes, as the checker compares ids
    fence: int
    node: str
    at: float


def read(path: Path) -> Iterator[Line]:
    if not path.exists():
        return
    with path.open() as file:
        for text in file:
            word, job, fence, node, at = text.split()
            yield Line(word, job.replace("-", ""), int(fence), node, float(at))
