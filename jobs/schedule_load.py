"""When the cluster's schedules will run, hour by hour: how many runs of how many schedules.

Counted and not listed: of each schedule the instants of an hour are told from its rule alone. The work
is bounded by time. What one look has counted is kept for the next one, so a cluster with more schedules
than one look can count is counted to its end by those that follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from jobs import timing
from jobs.engine import arm
from jobs.errors import JobError
from jobs.models import Schedule
from jobs.timing import Rule

HOUR = timedelta(hours=1)
DAYS = 7
# Schedules of one look, those first that run soonest; and how long the counting may take.
MOST_SCHEDULES = 2000
BUDGET_SECONDS = 0.06
# Rules whose counts are kept, 168 small numbers each.
_KEPT = 8192
_COLUMNS = (
    *("id", "name", "timing", "expression", "interval_seconds", "run_at", "timezone", "anchor_at"),
    *("starts_at", "ends_at", "gap", "spread_seconds", "exclusions", "last_due_at", "created_at"),
    "next_run_at",
)


class Busy(NamedTuple):
    """A schedule, and how often it runs in an hour."""

    id: UUID
    name: str
    runs: int


@dataclass(slots=True)
class Load:
    """Runs of each hour from ``begins_at`` on, of the schedules that were counted."""

    begins_at: datetime
    # The hours before this one are over.
    now: datetime
    hours: list[int]
    counted: int = 0
    is_whole: bool = True
    # Of the hour asked for: who runs in it, the busiest first.
    busiest: list[Busy] = field(default_factory=list)


def read(
    using: str,
    now: datetime,
    *,
    hour: datetime | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Load:
    """The load from midnight (UTC) of this day on, for a week."""
    begins_at = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    running = Schedule.objects.using(using).active().filter(next_run_at__isnull=False)
    rows = [*running.order_by("next_run_at", "id").only(*_COLUMNS)[: MOST_SCHEDULES + 1]]
    calendars = arm.calendars_of(using, rows)
    load = Load(begins_at, now, [0] * (DAYS * 24), is_whole=len(rows) <= MOST_SCHEDULES)
    until = clock() + BUDGET_SECONDS
    asked = None if hour is None else int((hour - begins_at) / HOUR)
    for schedule in rows[:MOST_SCHEDULES]:
        if clock() > until:
            load.is_whole = False
            break
        counts = _counts(schedule, calendars, begins_at, now)
        load.counted += 1
        for place, count in counts.items():
            load.hours[place] += count
        if asked is not None and counts.get(asked):
            load.busiest.append(Busy(schedule.pk, schedule.name, counts[asked]))
    load.busiest.sort(key=lambda one: (-one.runs, one.name))
    return load


def _counts(
    schedule: Schedule, calendars: arm.Calendars, begins_at: datetime, now: datetime
) -> Mapping[int, int]:
    """By the number of the hour, those without a run left out."""
    if schedule.is_completed:
        return {}
    try:
        rule = arm.rule_of(schedule, calendars)
        since = max(now.astimezone(UTC).replace(minute=0, second=0, microsecond=0), begins_at)
        return _counted(rule, begins_at - arm.offset_of(schedule), since)
    except JobError:
        # Such as a zone that newer rules do not know any more; the schedule's own page says so.
        return {}


@lru_cache(maxsize=_KEPT)
def _counted(rule: Rule, begins_at: datetime, since: datetime) -> Mapping[int, int]:
    return timing.counts_by_hour(rule, begins_at, since, DAYS * 24)
