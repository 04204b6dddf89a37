"""What happened, in steps of any length from any moment on; ``metrics.timeline`` has the round ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db import connections

from clusters.policy import ClusterPolicy
from jobs.engine.clock import database_now
from jobs.metrics import MINUTES_PROMISED, Figures, rows_between
from jobs.models.rollup import DAY, HOUR, MINUTE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def series(
    using: str,
    policy: ClusterPolicy,
    start: datetime,
    step_seconds: int,
    number: int,
    *,
    queue: str | None = None,
) -> list[Figures]:
    """Figures of so many steps.

    What is kept by longer stretches only goes to the step in which each of them begins.
    """
    now = database_now(connections[using])
    end = start + timedelta(seconds=step_seconds * number)
    fits = max([length for length in (MINUTE, HOUR, DAY) if length <= step_seconds], default=MINUTE)
    points = [Figures() for _ in range(number)]
    pieces = list(_pieces(policy, start, end, fits, now))
    for row in rows_between(using, pieces, queue=queue):
        index = (row.starts_at - start) // timedelta(seconds=step_seconds)
        row.add_to(points[max(index, 0)])
    return points


def _pieces(
    policy: ClusterPolicy, start: datetime, end: datetime, fits: int, now: datetime
) -> Iterator[tuple[int, datetime, datetime]]:
    """The parts of a time, each with the shortest stretches that it is kept by and that are no shorter
    than it takes."""
    kept_by_the_hour = timedelta(seconds=policy.retain_rollup_seconds)
    hours_since = _floor(now - kept_by_the_hour, DAY) + timedelta(seconds=DAY)
    minutes_since = _floor(now - MINUTES_PROMISED, HOUR) + timedelta(seconds=HOUR)
    low: datetime | None = None
    for length, until in ((DAY, hours_since), (HOUR, minutes_since), (MINUTE, end)):
        unit, until = max(length, fits), min(until, end)
        if until > (low or start):
            yield unit, low or _floor(start, unit), until
            low = until


def _floor(moment: datetime, length: int) -> datetime:
    return moment - (moment - _EPOCH) % timedelta(seconds=length)
