"""What a child says to its node while its second thread flushes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.engine.frames import read_frame
from jobs.engine.marks import Marks, shared_file
from jobs.engine.reporter import Reporter
from jobs.executors import Outcome


class Moment(float):
    """A time; the other thread flushes at the moment it is looked at."""

    flush: Callable[[], None]

    def __mul__(self, other: float) -> float:
        self.flush()
        return super().__mul__(other)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield ours, theirs


@pytest.mark.parametrize(
    "end",
    [
        lambda reporter, at: reporter.succeeded_with_nothing(2, at, 1.0),
        lambda reporter, at: reporter.ended(2, at, Outcome(True, 1)),
        lambda reporter, at: reporter.cancelled(2, at),
    ],
    ids=["succeeded", "ended", "cancelled"],
)
def test_a_result_is_not_lost_where_the_other_thread_flushes_meanwhile(
    ends: tuple[socket.socket, socket.socket], end: Callable[[Reporter, Any], None]
) -> None:
    ours, theirs = ends
    marks = Marks(shared_file())
    reporter = Reporter(theirs, marks.words, 1000)
    reporter.succeeded_with_nothing(1, 0.0, 1.0)
    at = Moment(0.5)
    at.flush = reporter.flush
    end(reporter, at)
    reporter.flush()
    theirs.close()
    said = [row[0] for _ in range(2) for row in read_frame(ours)["results"]]
    assert said == [1, 2]
