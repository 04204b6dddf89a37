"""Log lines of a job, and of all its steps where it is made of some: in pages, and as they are written.

Lines have growing ids. Steps on different nodes write at the same time, and a line may become visible
after one with a greater id has: who follows looks again at what came in the last seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections

from jobs.executors import CONDUCTED
from jobs.models import Job, LogLine
from jobs.states import FINAL

FOLLOW_SECONDS, POLL_SECONDS = 300.0, 0.3
# How much later than its neighbours a line may become visible.
OVERLAP_SECONDS = 5.0
PAGE = 500
# A text is looked for so long.
SEEK_SECONDS = 0.1

# Of each step no more lines are read than are shown: a look at each, and not at all its lines.
_POSTGRES = """
WITH RECURSIVE below(id) AS (
  SELECT %(job)s::uuid UNION ALL
  SELECT s.job_id FROM step AS s JOIN below ON s.parent_id = below.id)
SELECT l.*, s.name AS step_name FROM below CROSS JOIN LATERAL (
    SELECT * FROM job_log WHERE job_id = below.id AND id > %(after)s AND id < %(before)s
     ORDER BY id {order} LIMIT %(limit)s) AS l
  LEFT JOIN step AS s ON s.job_id = l.job_id
 ORDER BY l.id {order} LIMIT %(limit)s
"""
_SQLITE = """
WITH RECURSIVE below(id) AS (
  SELECT %(job)s UNION ALL
  SELECT s.job_id FROM step AS s JOIN below ON s.parent_id = below.id)
SELECT l.*, s.name AS step_name FROM below JOIN job_log AS l ON l.job_id = below.id
  LEFT JOIN step AS s ON s.job_id = l.job_id
 WHERE l.id > %(after)s AND l.id < %(before)s ORDER BY l.id {order} LIMIT %(limit)s
"""
LAST = 2**63 - 1


def is_made_of_steps(job: Job) -> bool:
    return job.kind in CONDUCTED


def lines_of(
    using: str,
    job_id: UUID,
    *,
    with_steps: bool,
    limit: int,
    after: int = -1,
    before: int = LAST,
    is_newest_first: bool = False,
) -> list[Any]:
    """So many lines between two, which are not among them; each with its `step_name`, or None."""
    if not with_steps:
        rows = LogLine.objects.using(using).of_job(job_id).filter(id__gt=after, id__lt=before)
        found = list(rows.order_by("-id" if is_newest_first else "id")[:limit])
        for line in found:
            line.step_name = None  # type: ignore[attr-defined]
        return found
    is_postgresql = connections[using].vendor == "postgresql"
    text = (_POSTGRES if is_postgresql else _SQLITE).format(
        order="DESC" if is_newest_first else "ASC"
    )
    values = {
        "job": job_id if is_postgresql else job_id.hex,
        "after": after,
        "before": before,
        "limit": limit,
    }
    return list(LogLine.objects.using(using).raw(text, values))


class Sought(NamedTuple):
    """Lines that hold a text, the oldest first, and before which line nobody has looked."""

    lines: list[Any]
    reached: int | None


def find_lines(
    using: str, job_id: UUID, text: str, *, with_steps: bool, limit: int, before: int = LAST
) -> Sought:
    """The last lines that hold the text in any case, looked for backwards and for a short time."""
    until, wanted = time.monotonic() + SEEK_SECONDS, text.casefold()
    found: list[Any] = []
    while True:
        page = lines_of(
            using,
            job_id,
            with_steps=with_steps,
            limit=PAGE,
            before=before,
            is_newest_first=True,
        )
        for line in page:
            if wanted in line.message.casefold():
                found.append(line)
                if len(found) == limit:
                    return Sought(found[::-1], line.pk)
        if len(page) < PAGE:
            return Sought(found[::-1], None)
        before = page[-1].pk
        if time.monotonic() >= until:
            return Sought(found[::-1], before)


class Follower:
    """Lines as they come up, oldest first; ends a while after nothing more can come."""

    def __init__(self, using: str, job_id: UUID, *, with_steps: bool, after: int = -1) -> None:
        self.using, self.job_id, self.with_steps = using, job_id, with_steps
        # All lines up to this one have been given.
        self._until = after
        # Those behind it that have been given, and when.
        self._given: dict[int, float] = {}
        self.has_ended = False

    def __iter__(self) -> Iterator[list[Any]]:
        """Give what is new, an empty list where nothing is."""
        while True:
            # Read before the lines: what the job wrote before its end is not missed.
            has_ended = self._has_ended()
            while news := self._news():
                yield news
            if has_ended:
                self.has_ended = True
                return
            yield []

    def _news(self) -> list[Any]:
        now = time.monotonic()
        self._settle(now)
        found = lines_of(
            self.using,
            self.job_id,
            with_steps=self.with_steps,
            limit=PAGE + len(self._given),
            after=self._until,
        )
        news = [line for line in found if line.pk not in self._given]
        self._given |= dict.fromkeys((line.pk for line in news), now)
        return news

    def _settle(self, now: float) -> None:
        """What has been there for so long has no late neighbours any more."""
        if not self.with_steps:
            # One node writes at a time.
            self._until = max(self._given, default=self._until)
            self._given.clear()
            return
        for pk in sorted(self._given):
            if now - self._given[pk] < OVERLAP_SECONDS:
                return
            self._until = pk
            del self._given[pk]

    def _has_ended(self) -> bool:
        states = (
            Job.objects.using(self.using).filter(pk=self.job_id).values_list("state", flat=True)
        )
        state = states.first()
        return state is None or state in FINAL
