"""The runs ahead, of schedules and of definitions that are not stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, router

from jobs import timing
from jobs.engine import arm, definition
from jobs.engine.clock import database_now
from jobs.models import Schedule
from jobs.timing import Occurrence


def preview(
    values: Mapping[str, Any], count: int, after: datetime | None = None
) -> tuple[Schedule, list[Occurrence]]:
    """A definition as it would be stored, and its next runs, excluded instants with the reason."""
    using = router.db_for_read(Schedule)
    now = database_now(connections[using])
    schedule = Schedule(created_at=now)
    names = ("timezone", "anchor_at", "starts_at", "ends_at", "gap")
    definition.set_plain(schedule, values, names)
    definition.set_timing(schedule, values)
    schedule.exclusions = definition.read_exclusions(using, values.get("exclusions")).to_json()
    calendars = definition.calendars_of(using, schedule)
    definition.check_rule(schedule, now, calendars)
    rule = arm.rule_of(schedule, calendars)
    return schedule, timing.upcoming(rule, after or now, count, include_excluded=True)


def next_runs(
    schedule: Schedule,
    count: int,
    after: datetime | None = None,
    *,
    include_excluded: bool = True,
) -> list[Occurrence]:
    """The next runs of a schedule as if nothing stopped it, a definition that waits included."""
    using = str(schedule._state.db)
    now = after or database_now(connections[using])
    calendars = definition.calendars_of(using, schedule)
    rule = arm.rule_of(schedule, calendars)
    pending = arm.pending_rule(schedule, rule)
    since = schedule.effective_from
    found: list[Occurrence] = []
    if not schedule.is_completed:
        old = rule
        if since is not None:
            old = replace(rule, ends_at=since if rule.ends_at is None else min(since, rule.ends_at))
        found = timing.upcoming(old, now, count, include_excluded=include_excluded)
    if pending is not None and since is not None and len(found) < count:
        start, left = max(now, since - timedelta(microseconds=1)), count - len(found)
        found += timing.upcoming(pending, start, left, include_excluded=include_excluded)
    return found
