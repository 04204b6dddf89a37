"""Arm: when a schedule runs next, by its definition and by what stops it.

The one place that turns the row of a schedule into a rule of ``jobs.timing``. A definition that waits
for its time (``pending``) is part of it: the old one holds until then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from jobs import timing
from jobs.exclusions import Exclusions
from jobs.models import Calendar, Schedule, Timing
from jobs.timing import Rule
from jobs.zones import DAY, to_micros, to_moment, zone

logger = logging.getLogger(__name__)

# What tells when, and nothing else. A change of one of these arms the schedule anew.
TIMING_FIELDS = ("timing", "expression", "interval_seconds", "run_at")
_INSTANT = timedelta(microseconds=1)
Calendars = Mapping[str, frozenset[date]]


class Due(NamedTuple):
    """The next instant, and whether it is the first of the definition that was pending."""

    at: datetime
    is_of_pending: bool = False


def calendars_named(using: str, names: Iterable[str]) -> Calendars:
    """The dates of these calendars."""
    wanted = set(names)
    if not wanted:
        return {}
    rows = Calendar.objects.using(using).filter(name__in=wanted).values_list("name", "dates")
    return {name: frozenset(map(date.fromisoformat, dates)) for name, dates in rows}


def calendars_of(using: str, schedules: Iterable[Schedule]) -> Calendars:
    """The dates of all calendars that schedules name."""
    return calendars_named(
        using, (name for one in schedules for name in one.exclusions.get("calendars", ()))
    )


def rule_of(schedule: Schedule, calendars: Calendars) -> Rule:
    """The definition that holds now."""
    return Rule(
        timing=schedule.timing,  # type: ignore[arg-type]  # one of Timing's words
        expression=schedule.expression,
        interval_seconds=schedule.interval_seconds,
        run_at=schedule.run_at,
        timezone=schedule.timezone,
        anchor_at=schedule.anchor_at or schedule.created_at,
        starts_at=schedule.starts_at,
        ends_at=schedule.ends_at,
        gap=schedule.gap,  # type: ignore[arg-type]
        exclusions=_exclusions(schedule, calendars),
    )


def _exclusions(schedule: Schedule, calendars: Calendars) -> Exclusions:
    if not schedule.exclusions:
        return Exclusions()
    # A calendar that is gone excludes nothing any more.
    named = schedule.exclusions.get("calendars", ())
    known = {name: calendars.get(name, frozenset()) for name in named}
    return Exclusions.parse(schedule.exclusions, known)


def pending_rule(schedule: Schedule, rule: Rule) -> Rule | None:
    """The definition that holds from ``effective_from`` on; None where none waits."""
    if schedule.pending is None or schedule.effective_from is None:
        return None
    values: dict[str, Any] = dict(schedule.pending)
    run_at = values.get("run_at")
    return replace(
        rule,
        timing=values["timing"],
        expression=values.get("expression"),
        interval_seconds=values.get("interval_seconds"),
        run_at=datetime.fromisoformat(run_at) if run_at else None,
        # So that an interval begins with the moment from which it holds.
        anchor_at=anchor_before(schedule.effective_from, values),
    )


def anchor_before(effective_from: datetime, values: Mapping[str, Any]) -> datetime:
    """An anchor whose first instant is this moment."""
    seconds = values.get("interval_seconds")
    return effective_from - timedelta(seconds=seconds) if seconds else effective_from


def next_due(schedule: Schedule, after: datetime, calendars: Calendars) -> Due | None:
    """The next instant of a schedule strictly after this one, whatever stops it."""
    rule = rule_of(schedule, calendars)
    pending = pending_rule(schedule, rule)
    if schedule.is_completed and pending is None:
        return None
    if pending is None:
        at = timing.next_due(rule, after)
        return None if at is None else Due(at)
    since = schedule.effective_from
    assert since is not None
    old_end = since if rule.ends_at is None else min(since, rule.ends_at)
    if after < since and not schedule.is_completed:
        at = timing.next_due(replace(rule, ends_at=old_end), after)
        if at is not None:
            return Due(at)
    at = timing.next_due(pending, max(after, since - _INSTANT))
    return None if at is None else Due(at, is_of_pending=True)


def window_end(schedule: Schedule, now: datetime) -> datetime | None:
    """When the window ends in which a run may not start now; None where there is none.

    Days and dates are about when a run is due, windows also about when it begins.
    """
    ranges = schedule.exclusions.get("time_ranges", ())
    closed = Exclusions.parse({"time_ranges": list(ranges)})
    moment = to_micros(now)
    spans = closed.spans(moment, moment + 2 * DAY, zone(schedule.timezone))
    span = next(spans, None)
    return to_moment(span.end) if span is not None and span.is_excluded else None


def arm(schedule: Schedule, now: datetime, calendars: Calendars) -> None:
    """Work out what comes after now and put it into the row; nothing where something stops it."""
    schedule.accounted_until = now
    schedule.tzdata = zone_rules()
    due = next_due(schedule, now, calendars) if is_running(schedule) else None
    set_next(schedule, due.at if due else None)


def arm_or_park(schedule: Schedule, now: datetime, calendars: Calendars) -> None:
    """The same where many are armed: one that cannot be worked out keeps no other from its turn."""
    try:
        arm(schedule, now, calendars)
    except Exception as error:
        logger.exception("schedule %s cannot be worked out; it is parked", schedule.pk)
        schedule.error = f"{type(error).__name__}: {error}"[:1000]
        set_next(schedule, None)


def set_next(schedule: Schedule, due_at: datetime | None) -> None:
    """Write the next instant, and with it the moment at which nodes look."""
    schedule.next_due_at = due_at
    schedule.next_run_at = None if due_at is None else due_at + offset_of(schedule)


def offset_of(schedule: Schedule) -> timedelta:
    return timing.spread_offset(schedule.pk, schedule.spread_seconds)


def is_running(schedule: Schedule) -> bool:
    """Whether nothing stops it."""
    return (
        schedule.is_enabled
        and not schedule.is_paused
        and schedule.deleted_at is None
        and schedule.error is None
    )


def take_over_pending(schedule: Schedule) -> None:
    """Let the definition that waited take the place of the other."""
    assert schedule.pending is not None and schedule.effective_from is not None
    values = schedule.pending
    schedule.timing = values["timing"]
    schedule.expression = values.get("expression")
    schedule.interval_seconds = values.get("interval_seconds")
    run_at = values.get("run_at")
    schedule.run_at = datetime.fromisoformat(run_at) if run_at else None
    schedule.anchor_at = anchor_before(schedule.effective_from, values)
    schedule.pending = schedule.effective_from = None
    if schedule.timing == Timing.ONCE:
        # It has not had this run yet.
        schedule.last_due_at = None


@lru_cache(maxsize=1)
def zone_rules() -> str:
    return timing.tzdata_version()[:16]
