"""The runs ahead, of schedules and of definitions that are not stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction

from jobs import timing
from jobs.engine import arm, definition, prerequisites
from jobs.engine.clock import database_now
from jobs.engine.schedule_rows import refuse_same_name
from jobs.models import Fire, Schedule
from jobs.models.schedule import MAX_MISFIRES
from jobs.timing import Occurrence

# What tells when, and nothing of the work.
_WHEN = ("timezone", "anchor_at", "starts_at", "ends_at", "gap")


def preview(
    values: Mapping[str, Any],
    count: int,
    after: datetime | None = None,
    *,
    depends_on: Sequence[UUID] = (),
    is_draft: bool = False,
) -> tuple[Schedule, list[Occurrence]]:
    """A definition as it would be stored, and its next runs, excluded instants with the reason.

    It is a timing alone, or all that makes a schedule: then all of it is checked, but for the rights of
    whoever would store it. Of a draft, which is not all there yet, the timing is looked at alone.
    """
    using = router.db_for_read(Schedule)
    now = database_now(connections[using])
    schedule = Schedule(created_at=now)
    is_whole = bool(depends_on) or not values.keys() <= {*arm.TIMING_FIELDS, *_WHEN, "exclusions"}
    if is_whole and not is_draft:
        _check_all(using, schedule, values, now, depends_on)
    else:
        definition.set_plain(schedule, values, _WHEN)
        definition.set_timing(schedule, values)
        schedule.exclusions = definition.read_exclusions(using, values.get("exclusions")).to_json()
    calendars = definition.calendars_of(using, schedule)
    definition.check_rule(schedule, now, calendars)
    rule = arm.rule_of(schedule, calendars)
    return schedule, timing.upcoming(rule, after or now, count, include_excluded=True)


def _check_all(
    using: str,
    schedule: Schedule,
    values: Mapping[str, Any],
    now: datetime,
    depends_on: Sequence[UUID],
) -> None:
    # In a transaction that ends without a change: a workflow that is named is held for the look.
    with transaction.atomic(using=using):
        definition.apply(using, schedule, values, now, is_new=True)
    definition.check_handler(using, schedule)
    refuse_same_name(using, schedule)
    prerequisites.check(using, schedule, depends_on)


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
    left_out = _left_out_since(using, schedule, now)
    # Those that people left out are among them, whatever is asked for.
    wanted = count if include_excluded else count + len(left_out)
    found: list[Occurrence] = []
    if not schedule.is_completed:
        old = rule
        if since is not None:
            old = replace(rule, ends_at=since if rule.ends_at is None else min(since, rule.ends_at))
        found = timing.upcoming(old, now, wanted, include_excluded=include_excluded)
    if pending is not None and since is not None and len(found) < wanted:
        start, left = max(now, since - timedelta(microseconds=1)), wanted - len(found)
        found += timing.upcoming(pending, start, left, include_excluded=include_excluded)
    if not left_out:
        return found
    told = [replace(one, excluded=left_out.get(one.instant, one.excluded)) for one in found]
    return told if include_excluded else [one for one in told if one.excluded is None][:count]


def _left_out_since(using: str, schedule: Schedule, since: datetime) -> dict[datetime, str]:
    """Instants after this one that somebody has left out, and who."""
    rows = Fire.objects.using(using).filter(schedule_id=schedule.pk, due_at__gt=since, job_id=None)
    found = rows.order_by("due_at").values_list("due_at", "detail")[:MAX_MISFIRES]
    return {due_at: detail or "" for due_at, detail in found}
