"""Schedules: what people do with them. Every surface calls these and writes no column itself.

Each verb is one transaction that holds the row. What changes the timing, or starts and stops the
schedule, arms it anew from now on, so no change ever fires an instant of the past; what leaves those
alone does not move the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models.functions import Now

from clusters.deeds import deed, part_of_a_deed
from clusters.policy import ClusterPolicy
from clusters.registry import id_of
from jobs import timing
from jobs.engine import arm, definition, prerequisites
from jobs.engine.clock import database_now
from jobs.engine.definition import EDITABLE
from jobs.engine.prerequisites import Needed
from jobs.engine.schedule_rows import (
    TARGET,
    go_on,
    held,
    one,
    refuse_same_name,
    save,
    told_of,
    touch,
)
from jobs.engine.started_kinds import check_schedule
from jobs.engine.upcoming import next_runs, preview
from jobs.errors import (
    InvalidSchedule,
    ScheduleNotFound,
    ScheduleState,
)
from jobs.models import Fire, Job, Schedule, Source
from jobs.models.queue_policies import text_problem
from jobs.models.rewrite import rewrite
from jobs.models.schedule import MAX_REASON_LENGTH

__all__ = [
    "EDITABLE",
    "add_exclusions",
    "change",
    "create",
    "delete",
    "delete_for_good",
    "draft",
    "foreseen",
    "get",
    "next_runs",
    "pause",
    "pause_all",
    "preview",
    "renew_zones",
    "reschedule",
    "restore",
    "resume",
    "resume_all",
    "resume_due",
    "set_dependencies",
    "set_exclusions",
]

LONGEST_PAUSE = timedelta(days=3653)
# Schedules of one transaction, where all are meant.
PORTION = 200
# Fires that are deleted by one statement.
FIRES_AT_ONCE = 2000


def create(
    values: Mapping[str, Any],
    *,
    by: str,
    depends_on: Sequence[UUID] = (),
    source: str = Source.PEOPLE,
    created_by: str | None = None,
    before_its_handler: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Schedule:
    """Make a schedule of the bound cluster; ``values`` are of ``EDITABLE``.

    ``created_by`` is a label in the place of who asked, where somebody wants another one shown. What
    stands in code beside its handler needs nobody who knows that handler, and with ``before_its_handler``
    nothing does: there are clients that make schedules before they start what runs them. ``notes`` are a
    dialect's, for its runs.
    """
    using = router.db_for_write(Schedule)
    with deed("schedules.create", TARGET, using=using) as trace:
        now = database_now(connections[using])
        schedule = Schedule(
            created_at=now,
            updated_at=now,
            created_by=(created_by or by)[:200],
            updated_by=by[:200],
            source=source,
            dialect_notes=None if notes is None else dict(notes),
        )
        definition.hold_calendars(using, values.get("exclusions"))
        definition.apply(using, schedule, values, now, is_new=True)
        check_schedule(schedule, using)
        if source != Source.CODE and not before_its_handler:
            definition.check_handler(using, schedule)
        if depends_on:
            schedule.dependencies_since = now
        arm.arm(schedule, now, definition.calendars_of(using, schedule))
        save(using, schedule, is_new=True)
        if depends_on:
            prerequisites.replace(using, schedule, depends_on)
        trace.target_id = str(schedule.pk)
        if trace.is_wanted:
            trace.after = told_of(schedule)
    return schedule


def change(
    pk: UUID,
    values: Mapping[str, Any],
    *,
    by: str,
    versions: Collection[int] | None = None,
    depends_on: Sequence[UUID] | None = None,
    source: str | None = None,
) -> Schedule:
    """Change what is named and leave the rest; ``versions``: only if it still has one of these."""
    exclusions = values.get("exclusions")
    with held("schedules.change", pk, versions, exclusions=exclusions) as (schedule, now, using):
        before = definition.timing_of(schedule)
        was_running = arm.is_running(schedule)
        handler = schedule.kind, schedule.type
        # What it started before as well: from now on it does so in his name.
        check_schedule(schedule, using)
        definition.apply(using, schedule, values, now)
        check_schedule(schedule, using)
        if source != Source.CODE and handler != (schedule.kind, schedule.type):
            definition.check_handler(using, schedule)
        if source is not None:
            schedule.source = source
        if depends_on is not None:
            schedule.dependencies_since = now
            prerequisites.replace(using, schedule, depends_on)
        if values.get("workflow_id") is not None:
            prerequisites.refuse_workflow(using, schedule)
        after = definition.timing_of(schedule)
        if any(before[name] != after[name] for name in arm.TIMING_FIELDS):
            # Whoever writes a timing means this one, from now on.
            schedule.pending = schedule.effective_from = None
        if after != before or was_running != arm.is_running(schedule):
            arm.arm(schedule, now, definition.calendars_of(using, schedule))
        touch(schedule, by, now)
        save(using, schedule)
    return schedule


def reschedule(
    pk: UUID,
    values: Mapping[str, Any],
    *,
    by: str,
    effective_from: datetime | None = None,
    versions: Collection[int] | None = None,
) -> Schedule:
    """Change the timing and nothing else, now or from a moment on; a timing that waited is replaced.

    ``values`` has ``timing`` and its companion. An interval counts from that moment.
    """
    with held("schedules.reschedule", pk, versions) as (schedule, now, using):
        check_schedule(schedule, using)
        timing_values = {name: values.get(name) for name in arm.TIMING_FIELDS}
        if effective_from is not None and effective_from.tzinfo is None:
            raise InvalidSchedule("needs an offset from UTC", field="effective_from")
        calendars = definition.calendars_of(using, schedule)
        if effective_from is None or effective_from <= now:
            schedule.pending = schedule.effective_from = None
            definition.set_timing(schedule, timing_values)
            schedule.anchor_at = now
            definition.check_rule(schedule, now, calendars)
        else:
            if effective_from - now > LONGEST_PAUSE:
                raise InvalidSchedule("is more than ten years ahead", field="effective_from")
            wanted = Schedule(timezone=schedule.timezone, gap=schedule.gap, created_at=now)
            definition.set_timing(wanted, timing_values)
            run_at = wanted.run_at
            if run_at is not None and run_at < effective_from:
                raise InvalidSchedule("lies before effective_from", field="run_at")
            schedule.pending = {
                "timing": str(wanted.timing),
                "expression": wanted.expression,
                "interval_seconds": wanted.interval_seconds,
                "run_at": run_at.isoformat() if run_at else None,
            }
            schedule.effective_from = effective_from
            rule = arm.pending_rule(schedule, arm.rule_of(schedule, calendars))
            assert rule is not None
            timing.check(rule, effective_from - timedelta(microseconds=1))
        schedule.error = None
        is_due = schedule.next_due_at is not None and schedule.next_due_at <= now
        if schedule.pending is None or not is_due:
            # What is due already is of the definition that still holds.
            arm.arm(schedule, now, calendars)
        touch(schedule, by, now)
        save(using, schedule)
    return schedule


def pause(pk: UUID, *, by: str, reason: str = "", until: datetime | None = None) -> Schedule:
    """Stop runs that are due from now on; what runs goes on. With ``until`` it ends by itself."""
    if problem := text_problem(reason, MAX_REASON_LENGTH):
        raise InvalidSchedule(problem, field="reason")
    with held("schedules.pause", pk, reason=reason) as (schedule, now, using):
        if schedule.is_paused:
            raise ScheduleState("the schedule is paused already", code="already_paused")
        if until is not None:
            if until.tzinfo is None:
                raise InvalidSchedule("needs an offset from UTC", field="until")
            if not now < until < now + LONGEST_PAUSE:
                raise InvalidSchedule("must lie ahead, at most ten years", field="until")
        one(using, pk).pause(by=by, reason=reason, resume_at=until)
    return get(pk)


def resume(pk: UUID, *, by: str) -> Schedule:
    """Let a paused schedule go on. What came due meanwhile is not caught up."""
    with held("schedules.resume", pk) as (schedule, now, using):
        if not schedule.is_paused:
            raise ScheduleState("the schedule is not paused", code="not_paused")
        go_on(using, schedule, now)
    return schedule


def pause_all(*, by: str, reason: str = "") -> int:
    """Pause every schedule that runs, and remember that it was for all; each portion has its trace."""
    using = router.db_for_write(Schedule)
    active = Schedule.objects.using(using).active().order_by("pk")
    paused, after = 0, UUID(int=0)
    while True:
        with _of_all("schedules.pause_all", using, "paused", reason) as told:
            # In the order in which those lock them who end runs: neither waits for the other.
            rows = active.filter(pk__gt=after).select_for_update(no_key=True)
            ids = list(rows.values_list("pk", flat=True)[:PORTION])
            page = Schedule.objects.using(using).filter(pk__in=ids)
            changed = page.pause(by=by, reason=reason, by_all=True)
            told(changed, is_first=not paused, is_last=len(ids) < PORTION)
        paused += changed
        if len(ids) < PORTION:
            return paused
        after = ids[-1]


def resume_all(*, by: str) -> int:
    """Resume those that were paused for all; who was paused alone stays so."""
    using = router.db_for_write(Schedule)
    resumed = 0
    while True:
        with _of_all("schedules.resume_all", using, "resumed") as told:
            now = database_now(connections[using])
            rows = Schedule.objects.using(using).filter(is_paused_by_all=True, deleted_at=None)
            page = list(rows.order_by("pk").select_for_update(no_key=True)[:PORTION])
            for schedule in page:
                go_on(using, schedule, now)
            told(len(page), is_first=not resumed, is_last=len(page) < PORTION)
        resumed += len(page)
        if len(page) < PORTION:
            return resumed


@contextmanager
def _of_all(verb: str, using: str, word: str, reason: str = "") -> Iterator[Callable[..., None]]:
    """A portion of what is done to all: many transactions, so that none of them holds all rows.

    That it was asked for is told too where nothing came of it.
    """
    with deed(verb, "cluster", id_of(using), using=using, reason=reason) as trace:

        def told(count: int, *, is_first: bool, is_last: bool) -> None:
            trace.count, trace.after = count, {word: count}
            trace.is_done = bool(count) or (is_first and is_last)

        yield told


def resume_due(using: str, policy: ClusterPolicy) -> int:
    """Resume schedules whose pause was to end by now; a duty of upkeep."""
    due = Schedule.objects.using(using).due_to_resume()
    # The look keeps idle nodes from taking SQLite's write lock.
    if not due.exists():
        return 0
    with transaction.atomic(using=using):
        now = database_now(connections[using])
        skip = connections[using].features.has_select_for_update_skip_locked
        page = list(due.order_by("pk").select_for_update(no_key=True, skip_locked=skip)[:PORTION])
        for schedule in page:
            go_on(using, schedule, now)
    return len(page)


def renew_zones(using: str, policy: ClusterPolicy) -> int:
    """Work out again what was worked out with older rules of time zones; a duty of upkeep.

    Governments change them at short notice. What is due already is left alone, and so is what a node
    with newer rules has worked out: in a roll-out the two would undo each other's work.
    """
    outdated = Schedule.objects.using(using).filter(next_due_at__gt=Now())
    # Their names, such as 2026f, are in the order of the alphabet.
    outdated = outdated.filter(tzdata__lt=arm.zone_rules())
    if not outdated.exists():
        return 0
    with transaction.atomic(using=using):
        now = database_now(connections[using])
        skip = connections[using].features.has_select_for_update_skip_locked
        page = list(
            outdated.order_by("pk").select_for_update(no_key=True, skip_locked=skip)[:PORTION]
        )
        calendars = arm.calendars_of(using, page)
        for schedule in page:
            arm.arm_or_park(schedule, now, calendars)
            schedule.version += 1
        columns = ("next_due_at", "next_run_at", "accounted_until", "tzdata", "error", "version")
        rewrite(using, page, columns)
    return len(page)


def set_exclusions(
    pk: UUID,
    document: Mapping[str, Any],
    *,
    by: str,
    versions: Collection[int] | None = None,
) -> Schedule:
    """Let these exclusions take the place of those before."""
    return change(pk, {"exclusions": document}, by=by, versions=versions)


def add_exclusions(
    pk: UUID,
    document: Mapping[str, Any],
    *,
    by: str,
    versions: Collection[int] | None = None,
) -> Schedule:
    """Lay these over those that are there."""
    with held("schedules.change", pk, versions, exclusions=document) as (schedule, now, using):
        check_schedule(schedule, using)
        merged = dict(schedule.exclusions)
        for rule, entries in definition.read_exclusions(using, document).to_json().items():
            merged[rule] = [*merged.get(rule, ()), *entries]
        schedule.exclusions = definition.read_exclusions(using, merged).to_json()
        calendars = definition.calendars_of(using, schedule)
        is_done = schedule.is_completed
        definition.check_rule(schedule, now, calendars, is_done=is_done)
        arm.arm(schedule, now, calendars)
        touch(schedule, by, now)
        save(using, schedule)
    return schedule


def set_dependencies(
    pk: UUID,
    ids: Sequence[UUID],
    *,
    needs: str,
    by: str,
    versions: Collection[int] | None = None,
) -> Schedule:
    """Let the schedule run only after these have succeeded; no ids: after nobody."""
    return change(pk, {"needs": needs}, by=by, depends_on=ids, versions=versions)


def delete(pk: UUID, *, by: str, versions: Collection[int] | None = None) -> Needed:
    """Stop a schedule for good and hide it; its runs stay, and those that go on end by themselves.

    Returns who needs it, and will wait for it in vain until it is restored.
    """
    with held("schedules.delete", pk, versions) as (schedule, now, using):
        schedule.deleted_at = now
        schedule.pending = schedule.effective_from = None
        arm.arm(schedule, now, {})
        touch(schedule, by, now)
        save(using, schedule)
        return prerequisites.who_needs(using, pk)


def restore(pk: UUID, *, by: str) -> Schedule:
    """Bring back a schedule that was deleted; it goes on from now."""
    with held("schedules.restore", pk, is_deleted=True) as (schedule, now, using):
        check_schedule(schedule, using)
        schedule.deleted_at = None
        arm.arm(schedule, now, definition.calendars_of(using, schedule))
        touch(schedule, by, now)
        save(using, schedule)
    return schedule


def delete_for_good(pk: UUID, *, by: str, versions: Collection[int] | None = None) -> None:
    """Delete a schedule, deleted before or not, with its fires and all of its runs.

    Runs that go on are asked to stop. Refused while another schedule or a workflow needs it. It is many
    transactions, so the trace comes first: what was begun is told.
    """
    verb = "schedules.delete_for_good"
    with held(verb, pk, versions, is_deleted=None) as (schedule, now, using):
        prerequisites.refuse_if_needed(using, schedule)
        schedule.deleted_at = schedule.deleted_at or now
        schedule.pending = schedule.effective_from = None
        arm.arm(schedule, now, {})
        touch(schedule, by, now)
        save(using, schedule)
    with part_of_a_deed():
        # Outside the lock: whoever ends a job waits for its schedule.
        _delete_runs(using, pk)
        with held(verb, pk, is_deleted=True) as (schedule, *_):
            prerequisites.refuse_if_needed(using, schedule)
            schedule.delete(using=using)


def _delete_runs(using: str, pk: UUID) -> None:
    jobs = Job.objects.using(using).filter(schedule_id=pk)
    while True:
        open_jobs = jobs.filter(finished_at=None, cancel_requested_at=None)
        ids = list(open_jobs.values_list("pk", flat=True)[:500])
        if not ids or not Job.objects.using(using).filter(pk__in=ids).cancel():
            break
    while ids := list(jobs.filter(finished_at__isnull=False).values_list("pk", flat=True)[:500]):
        if not Job.objects.using(using).filter(pk__in=ids).delete_final():
            break
    # Those that still stop are nobody's; retention removes them.
    while True:
        with transaction.atomic(using=using):
            rows = jobs.order_by("pk").select_for_update(no_key=True)
            ids = list(rows.values_list("pk", flat=True)[:500])
            Job.objects.using(using).filter(pk__in=ids).update(schedule_id=None)
        if not ids:
            break
    fires = Fire.objects.using(using).filter(schedule_id=pk)
    while ids := list(fires.order_by("due_at").values_list("pk", flat=True)[:FIRES_AT_ONCE]):
        Fire.objects.using(using).filter(pk__in=ids)._raw_delete(using)


def draft(values: Mapping[str, Any]) -> Schedule:
    """A definition, checked and in the words in which it would be stored; nothing is stored."""
    using = router.db_for_read(Schedule)
    now = database_now(connections[using])
    schedule = Schedule(created_at=now)
    # In a transaction that ends without a change: a workflow that is named is held for the look.
    with transaction.atomic(using=using):
        definition.apply(using, schedule, values, now, is_new=True)
    return schedule


def foreseen(values: Mapping[str, Any], of: Schedule | None = None) -> Schedule:
    """A schedule as it would be made, or changed, with all that this asks for; nothing is stored."""
    using = router.db_for_read(Schedule)
    if of is None:
        schedule = draft(values)
    else:
        schedule, now = get(of.pk), database_now(connections[using])
        with transaction.atomic(using=using):
            definition.apply(using, schedule, values, now)
        if any(getattr(of, name) != getattr(schedule, name) for name in arm.TIMING_FIELDS):
            schedule.pending = schedule.effective_from = None
    if of is None or (of.kind, of.type) != (schedule.kind, schedule.type):
        definition.check_handler(using, schedule)
    refuse_same_name(using, schedule)
    schedule._state.db = using
    return schedule


def get(pk: UUID, *, with_deleted: bool = False) -> Schedule:
    """The schedule of the bound cluster with this id."""
    using = router.db_for_read(Schedule)
    schedule = Schedule.objects.using(using).filter(pk=pk).first()
    if schedule is None or (schedule.deleted_at is not None and not with_deleted):
        raise ScheduleNotFound
    return schedule
