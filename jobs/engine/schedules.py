"""Schedules: what people do with them. Every surface calls these and writes no column itself.

Each verb is one transaction that holds the row. What changes the timing, or starts and stops the
schedule, arms it anew from now on, so no change ever fires an instant of the past; what leaves those
alone does not move the next run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, router, transaction
from django.db.models.functions import Now

from clusters.models import current_policy
from clusters.policy import ClusterPolicy
from jobs import timing
from jobs.engine import arm
from jobs.engine.clock import database_now
from jobs.engine.new_job import check
from jobs.engine.schedule_work import as_sample_job
from jobs.errors import (
    DependencyCycle,
    DuplicateSchedule,
    InvalidSchedule,
    JobError,
    OutdatedSchedule,
    ScheduleInUse,
    ScheduleNotFound,
    ScheduleState,
)
from jobs.exclusions import Exclusions
from jobs.models import (
    Gap,
    Job,
    Misfire,
    Needs,
    Overlap,
    Schedule,
    ScheduleDependency,
    Source,
    Timing,
    Workflow,
    WorkflowNode,
)
from jobs.models.job import check_queue
from jobs.models.queue_policies import text_problem
from jobs.models.rewrite import rewrite
from jobs.models.schedule import (
    MAX_DESCRIPTION_LENGTH,
    MAX_MISFIRES,
    MAX_NAME_LENGTH,
    MAX_REASON_LENGTH,
)

# What a definition may say; anything else is no business of people.
WORK = (
    *("kind", "type", "payload", "payload_bytes", "has_variables", "queue", "priority"),
    *("timeout_seconds", "max_attempts", "retry_base_seconds", "retry_cap_seconds", "retry_curve"),
    *("on_lost", "tags", "metadata", "workflow_id"),
)
TIMING = (
    *(*arm.TIMING_FIELDS, "timezone", "anchor_at", "starts_at", "ends_at", "gap", "spread_seconds"),
    "exclusions",
)
POLICY = ("misfire", "misfire_grace_seconds", "misfire_limit", "overlap", "needs")
EDITABLE = frozenset({"name", "description", "is_enabled", *WORK, *TIMING, *POLICY})
# The column that each timing needs; those of the others are emptied.
COMPANION = {
    Timing.CRON: "expression",
    Timing.INTERVAL: "interval_seconds",
    Timing.ONCE: "run_at",
}
MAX_GRACE_SECONDS = 31 * 86400
MAX_SPREAD_SECONDS = 7 * 86400
MAX_PREREQUISITES = 100
LONGEST_PAUSE = timedelta(days=3653)
# What a workflow's schedule may do when the run before has not ended.
WORKFLOW_OVERLAPS = (Overlap.SKIP, Overlap.ALLOW)


def create(
    values: Mapping[str, Any],
    *,
    by: str,
    depends_on: Sequence[UUID] = (),
    source: str = Source.PEOPLE,
    created_by: str | None = None,
) -> Schedule:
    """Make a schedule of the bound cluster; ``values`` are of ``EDITABLE``.

    ``created_by`` is a label in the place of who asked, where somebody wants another one shown.
    """
    using = router.db_for_write(Schedule)
    with transaction.atomic(using=using):
        now = database_now(connections[using])
        schedule = Schedule(
            created_at=now,
            updated_at=now,
            created_by=(created_by or by)[:200],
            updated_by=by[:200],
            source=source,
        )
        _apply(schedule, values, now, is_new=True)
        if depends_on:
            _refuse_to_wait(schedule)
            schedule.dependencies_since = now
        arm.arm(schedule, now, _calendars(using, schedule))
        _save(using, schedule, is_new=True)
        if depends_on:
            _replace_dependencies(using, schedule, depends_on)
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
    with _held(pk, versions) as (schedule, now, using):
        before = _timing_of(schedule)
        _apply(schedule, values, now)
        if source is not None:
            schedule.source = source
        if depends_on is not None:
            if depends_on:
                _refuse_to_wait(schedule)
            schedule.dependencies_since = now
            _replace_dependencies(using, schedule, depends_on)
        after = _timing_of(schedule)
        if after != before:
            if any(before[name] != after[name] for name in arm.TIMING_FIELDS):
                # Whoever writes a timing means this one, from now on.
                schedule.pending = schedule.effective_from = None
            arm.arm(schedule, now, _calendars(using, schedule))
        _touch(schedule, by, now)
        _save(using, schedule)
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
    with _held(pk, versions) as (schedule, now, using):
        timing_values = {name: values.get(name) for name in arm.TIMING_FIELDS}
        if effective_from is not None and effective_from.tzinfo is None:
            raise InvalidSchedule("needs an offset from UTC", field="effective_from")
        calendars = _calendars(using, schedule)
        if effective_from is None or effective_from <= now:
            schedule.pending = schedule.effective_from = None
            _set_timing(schedule, timing_values, now)
            schedule.anchor_at = now
            _check_rule(schedule, now, calendars)
        else:
            if effective_from - now > LONGEST_PAUSE:
                raise InvalidSchedule("is more than ten years ahead", field="effective_from")
            wanted = Schedule(timezone=schedule.timezone, gap=schedule.gap, created_at=now)
            _set_timing(wanted, timing_values, now)
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
        arm.arm(schedule, now, calendars)
        _touch(schedule, by, now)
        _save(using, schedule)
    return schedule


def pause(pk: UUID, *, by: str, reason: str = "", until: datetime | None = None) -> Schedule:
    """Stop runs that are due from now on; what runs goes on. With ``until`` it ends by itself."""
    if problem := text_problem(reason, MAX_REASON_LENGTH):
        raise InvalidSchedule(problem, field="reason")
    with _held(pk) as (schedule, now, using):
        if schedule.is_paused:
            raise ScheduleState("the schedule is paused already", code="already_paused")
        if until is not None:
            if until.tzinfo is None:
                raise InvalidSchedule("needs an offset from UTC", field="until")
            if not now < until < now + LONGEST_PAUSE:
                raise InvalidSchedule("must lie ahead, at most ten years", field="until")
        _one(using, pk).pause(by=by, reason=reason, resume_at=until)
    return _get(using, pk)


def resume(pk: UUID, *, by: str) -> Schedule:
    """Let a paused schedule go on. What came due meanwhile is not caught up."""
    with _held(pk) as (schedule, now, using):
        if not schedule.is_paused:
            raise ScheduleState("the schedule is not paused", code="not_paused")
        _resume(using, schedule, now, by)
    return schedule


def pause_all(*, by: str, reason: str = "") -> int:
    """Pause every schedule that runs, and remember that it was for all."""
    using = router.db_for_write(Schedule)
    active = Schedule.objects.using(using).active()
    return active.pause(by=by, reason=reason, by_all=True)


def resume_all(*, by: str) -> int:
    """Resume those that were paused for all; who was paused alone stays so."""
    using = router.db_for_write(Schedule)
    resumed = 0
    while True:
        with transaction.atomic(using=using):
            now = database_now(connections[using])
            rows = Schedule.objects.using(using).filter(is_paused_by_all=True, deleted_at=None)
            page = list(rows.order_by("pk").select_for_update(no_key=True)[:200])
            for schedule in page:
                _resume(using, schedule, now, by)
        resumed += len(page)
        if len(page) < 200:
            return resumed


def resume_due(using: str, policy: ClusterPolicy) -> int:
    """Resume schedules whose pause was to end by now; a duty of upkeep."""
    due = Schedule.objects.using(using).due_to_resume()
    # The look keeps idle nodes from taking SQLite's write lock.
    if not due.exists():
        return 0
    with transaction.atomic(using=using):
        now = database_now(connections[using])
        skip = connections[using].features.has_select_for_update_skip_locked
        page = list(due.order_by("pk").select_for_update(no_key=True, skip_locked=skip)[:200])
        for schedule in page:
            _resume(using, schedule, now, schedule.paused_by or "")
    return len(page)


def renew_zones(using: str, policy: ClusterPolicy) -> int:
    """Work out again what was worked out with other rules of time zones; a duty of upkeep.

    Governments change them at short notice. What is due already is left alone.
    """
    outdated = Schedule.objects.using(using).filter(next_due_at__gt=Now())
    outdated = outdated.exclude(tzdata=arm.zone_rules())
    if not outdated.exists():
        return 0
    with transaction.atomic(using=using):
        now = database_now(connections[using])
        skip = connections[using].features.has_select_for_update_skip_locked
        page = list(outdated.order_by("pk").select_for_update(no_key=True, skip_locked=skip)[:200])
        calendars = arm.calendars_of(using, page)
        for schedule in page:
            arm.arm(schedule, now, calendars)
            schedule.version += 1
        columns = ("next_due_at", "next_run_at", "accounted_until", "tzdata", "version")
        rewrite(using, page, columns)
    return len(page)


def set_exclusions(pk: UUID, document: Mapping[str, Any], *, by: str) -> Schedule:
    """Let these exclusions take the place of those before."""
    return change(pk, {"exclusions": document}, by=by)


def add_exclusions(pk: UUID, document: Mapping[str, Any], *, by: str) -> Schedule:
    """Lay these over those that are there."""
    with _held(pk) as (schedule, now, using):
        merged = dict(schedule.exclusions)
        for rule, entries in _parsed(using, document).to_json().items():
            merged[rule] = [*merged.get(rule, ()), *entries]
        schedule.exclusions = _parsed(using, merged).to_json()
        calendars = _calendars(using, schedule)
        _check_rule(schedule, now, calendars)
        arm.arm(schedule, now, calendars)
        _touch(schedule, by, now)
        _save(using, schedule)
    return schedule


def set_dependencies(pk: UUID, ids: Sequence[UUID], *, needs: str, by: str) -> Schedule:
    """Let the schedule run only after these have succeeded; no ids: after nobody."""
    return change(pk, {"needs": needs}, by=by, depends_on=ids)


def delete(pk: UUID, *, by: str, versions: Collection[int] | None = None) -> None:
    """Stop a schedule for good and hide it; its runs stay, and those that go on end by themselves."""
    with _held(pk, versions) as (schedule, now, using):
        schedule.deleted_at = now
        schedule.pending = schedule.effective_from = None
        arm.arm(schedule, now, {})
        _touch(schedule, by, now)
        _save(using, schedule)


def restore(pk: UUID, *, by: str) -> Schedule:
    """Bring back a schedule that was deleted; it goes on from now."""
    with _held(pk, is_deleted=True) as (schedule, now, using):
        schedule.deleted_at = None
        arm.arm(schedule, now, _calendars(using, schedule))
        _touch(schedule, by, now)
        _save(using, schedule)
    return schedule


def delete_for_good(pk: UUID, *, by: str) -> None:
    """Delete a schedule, deleted before or not, with its fires and all of its runs.

    Runs that go on are asked to stop. Refused while another schedule or a workflow needs it.
    """
    using = router.db_for_write(Schedule)
    jobs = Job.objects.using(using).filter(schedule_id=pk)
    with _held(pk, is_deleted=None) as (schedule, now, using):
        _refuse_if_needed(using, schedule)
        schedule.deleted_at = schedule.deleted_at or now
        schedule.pending = schedule.effective_from = None
        arm.arm(schedule, now, {})
        _touch(schedule, by, now)
        _save(using, schedule)
    # Outside the lock: whoever ends a job waits for its schedule.
    while True:
        open_jobs = jobs.filter(finished_at=None, cancel_requested_at=None)
        ids = list(open_jobs.values_list("pk", flat=True)[:500])
        if not ids or not Job.objects.using(using).filter(pk__in=ids).cancel():
            break
    while ids := list(jobs.filter(finished_at__isnull=False).values_list("pk", flat=True)[:500]):
        if not Job.objects.using(using).filter(pk__in=ids).delete_final():
            break
    with _held(pk, is_deleted=True) as (schedule, _, using):
        _refuse_if_needed(using, schedule)
        # Those that still stop are nobody's; retention removes them.
        jobs.update(schedule_id=None)
        schedule.delete(using=using)


def draft(values: Mapping[str, Any]) -> Schedule:
    """A definition, checked and in the words in which it would be stored; nothing is stored."""
    using = router.db_for_read(Schedule)
    now = database_now(connections[using])
    schedule = Schedule(created_at=now)
    _apply(schedule, values, now, is_new=True)
    return schedule


def preview(values: Mapping[str, Any], count: int, after: datetime | None = None) -> list[Any]:
    """The next runs of a definition that is not stored, excluded instants with the reason."""
    using = router.db_for_read(Schedule)
    now = database_now(connections[using])
    schedule = Schedule(created_at=now)
    _set_timing(schedule, values, now)
    _set_plain(schedule, values, ("timezone", "anchor_at", "starts_at", "ends_at", "gap"))
    schedule.exclusions = _parsed(using, values.get("exclusions")).to_json()
    calendars = _calendars(using, schedule)
    _check_rule(schedule, now, calendars)
    rule = arm.rule_of(schedule, calendars)
    return timing.upcoming(rule, after or now, count, include_excluded=True)


def next_runs(schedule: Schedule, count: int, after: datetime | None = None) -> list[Any]:
    """The next runs of a schedule as if nothing stopped it, a definition that waits included."""
    using = str(schedule._state.db)
    now = after or database_now(connections[using])
    calendars = _calendars(using, schedule)
    rule = arm.rule_of(schedule, calendars)
    pending = arm.pending_rule(schedule, rule)
    since = schedule.effective_from
    found: list[Any] = []
    if not schedule.is_completed:
        old = rule
        if since is not None:
            old = replace(rule, ends_at=since if rule.ends_at is None else min(since, rule.ends_at))
        found = timing.upcoming(old, now, count, include_excluded=True)
    if pending is not None and since is not None and len(found) < count:
        start = max(now, since - timedelta(microseconds=1))
        found += timing.upcoming(pending, start, count - len(found), include_excluded=True)
    return found


def get(pk: UUID, *, with_deleted: bool = False) -> Schedule:
    """The schedule of the bound cluster with this id."""
    using = router.db_for_read(Schedule)
    schedule = Schedule.objects.using(using).filter(pk=pk).first()
    if schedule is None or (schedule.deleted_at is not None and not with_deleted):
        raise ScheduleNotFound
    return schedule


# -- The row ---------------------------------------------------------------------------------------


@contextmanager
def _held(
    pk: UUID, versions: Collection[int] | None = None, *, is_deleted: bool | None = False
) -> Iterator[tuple[Schedule, datetime, str]]:
    """The row, locked, with the database's time; what is changed of it must be saved."""
    using = router.db_for_write(Schedule)
    with transaction.atomic(using=using):
        schedule = _one(using, pk).select_for_update(no_key=True).first()
        if schedule is None or is_deleted is (schedule.deleted_at is None):
            raise ScheduleNotFound
        if versions is not None and schedule.version not in versions:
            raise OutdatedSchedule
        yield schedule, database_now(connections[using]), using


def _one(using: str, pk: UUID) -> Any:
    return Schedule.objects.using(using).filter(pk=pk)


def _get(using: str, pk: UUID) -> Schedule:
    schedule: Schedule = _one(using, pk).get()
    return schedule


def _touch(schedule: Schedule, by: str, now: datetime) -> None:
    schedule.updated_by, schedule.updated_at = by[:200], now
    schedule.version += 1


def _save(using: str, schedule: Schedule, *, is_new: bool = False) -> None:
    try:
        # A transaction of its own: the refusal must not spoil the one around it.
        with transaction.atomic(using=using):
            schedule.save(using=using, force_insert=is_new, force_update=not is_new)
    except IntegrityError:
        same = Schedule.objects.using(using).kept().filter(name__iexact=schedule.name)
        if not same.exclude(pk=schedule.pk).exists():
            raise
        raise DuplicateSchedule(
            f"there is a schedule named {schedule.name!r}", field="name"
        ) from None


def _resume(using: str, schedule: Schedule, now: datetime, by: str) -> None:
    schedule.is_paused = schedule.is_paused_by_all = False
    schedule.paused_at = schedule.paused_by = schedule.pause_reason = schedule.resume_at = None
    if schedule.timing == Timing.INTERVAL:
        schedule.anchor_at = now
    arm.arm(schedule, now, _calendars(using, schedule))
    _catch_up_once(schedule, now)
    _touch(schedule, by, now)
    _save(using, schedule)


def _catch_up_once(schedule: Schedule, now: datetime) -> None:
    """A one-time run whose moment came while the schedule was paused still has to happen."""
    is_late = schedule.timing == Timing.ONCE and schedule.last_due_at is None
    is_wanted = arm.is_running(schedule) and schedule.misfire != Misfire.SKIP
    if is_late and is_wanted and schedule.run_at is not None and schedule.run_at <= now:
        arm.set_next(schedule, schedule.run_at)


# -- The definition --------------------------------------------------------------------------------


def _apply(
    schedule: Schedule, values: Mapping[str, Any], now: datetime, *, is_new: bool = False
) -> None:
    """Put values into the row, checked together with what stays."""
    using = router.db_for_write(Schedule)
    for name in values:
        if name not in EDITABLE:
            raise InvalidSchedule("is no part of a definition", field=name)
    if is_new or "name" in values:
        schedule.name = _name(values.get("name"))
    _set_plain(schedule, values, ("description", *WORK, *POLICY))
    _set_plain(schedule, values, ("timezone", "anchor_at", "starts_at", "ends_at", "gap"))
    _set_plain(schedule, values, ("spread_seconds", "is_enabled"))
    if is_new or not values.keys().isdisjoint(WORK):
        _check_work(using, schedule)
    _check_words(schedule)
    was = _timing_of(schedule)
    if is_new or not values.keys().isdisjoint(arm.TIMING_FIELDS):
        kept = {} if is_new else {name: getattr(schedule, name) for name in arm.TIMING_FIELDS}
        if values.get("timing") not in (None, kept.get("timing")):
            kept = {}
        _set_timing(schedule, {**kept, **values}, now)
    if "exclusions" in values:
        schedule.exclusions = _parsed(using, values["exclusions"]).to_json()
    is_timed = is_new or _timing_of(schedule) != was or not values.keys().isdisjoint(TIMING)
    if is_timed:
        # Mended, as far as it depends on this.
        schedule.error = None
        if schedule.timing == Timing.INTERVAL and (
            schedule.anchor_at is None or (not is_new and "interval_seconds" in values)
        ):
            schedule.anchor_at = values.get("anchor_at") or now
        _check_rule(schedule, now, _calendars(using, schedule), is_done=schedule.is_completed)


def _name(given: Any) -> str:
    name = given.strip() if isinstance(given, str) else ""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidSchedule(
            f"a name has 1 to {MAX_NAME_LENGTH} printable characters", field="name"
        )
    return name


def _set_plain(schedule: Schedule, values: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name in values:
            setattr(schedule, name, values[name])


def _set_timing(schedule: Schedule, values: Mapping[str, Any], now: datetime) -> None:
    """Set the kind of timing and its companion, and empty the companions of the others."""
    kind = values.get("timing")
    if kind not in Timing.values:
        raise InvalidSchedule(f"must be one of {', '.join(Timing.values)}", field="timing")
    companion = COMPANION[Timing(kind)]
    if values.get(companion) is None:
        raise InvalidSchedule(f"is needed where timing is {kind}", field=companion)
    is_new_moment = kind == Timing.ONCE and schedule.run_at != values[companion]
    for name in COMPANION.values():
        setattr(schedule, name, values[name] if name == companion else None)
    schedule.timing = kind
    if kind == Timing.CRON:
        schedule.expression = str(schedule.expression).strip()
    if kind != Timing.ONCE or is_new_moment:
        # A completed one-time schedule has something ahead again.
        schedule.last_due_at = None if kind == Timing.ONCE else schedule.last_due_at


def _timing_of(schedule: Schedule) -> dict[str, Any]:
    names = (*TIMING, "is_enabled", "error")
    return {name: getattr(schedule, name) for name in names}


def _check_rule(
    schedule: Schedule, now: datetime, calendars: arm.Calendars, *, is_done: bool = False
) -> None:
    must_lie_ahead = not is_done
    timing.check(arm.rule_of(schedule, calendars), now, must_lie_ahead=must_lie_ahead)


def _check_work(using: str, schedule: Schedule) -> None:
    """What is asked of a new job is asked of the definition: it makes many."""
    if schedule.workflow_id is not None:
        workflows = Workflow.objects.using(using).kept()
        if not workflows.filter(pk=schedule.workflow_id).exists():
            raise InvalidSchedule("there is no such workflow", field="workflow_id")
        schedule.kind, schedule.type, schedule.payload = "workflow", "workflow", None
        return
    new = as_sample_job(schedule)
    try:
        (job,) = check([new], current_policy(), None)
    except JobError as error:
        error.index = None
        raise
    schedule.type = job.terms.type
    schedule.tags, schedule.metadata = [*job.tags], dict(job.metadata)
    check_queue(using, schedule.queue)


def _check_words(schedule: Schedule) -> None:
    if problem := text_problem(schedule.description, MAX_DESCRIPTION_LENGTH):
        raise InvalidSchedule(problem, field="description")
    for name, words in (
        ("gap", Gap.values),
        ("misfire", Misfire.values),
        ("overlap", Overlap.values),
        ("needs", Needs.values),
    ):
        if getattr(schedule, name) not in words:
            raise InvalidSchedule(f"must be one of {', '.join(words)}", field=name)
    if schedule.workflow_id is not None and schedule.overlap not in WORKFLOW_OVERLAPS:
        raise InvalidSchedule("of a workflow must be skip or allow", field="overlap")
    for name, least, most in (
        ("misfire_grace_seconds", 1, MAX_GRACE_SECONDS),
        ("misfire_limit", 1, MAX_MISFIRES),
        ("spread_seconds", 0, MAX_SPREAD_SECONDS),
    ):
        value = getattr(schedule, name)
        if not isinstance(value, int | float) or not least <= value <= most:
            raise InvalidSchedule(f"must be between {least} and {most}", field=name)


def _parsed(using: str, document: Any) -> Exclusions:
    names = document.get("calendars") if isinstance(document, Mapping) else None
    wanted = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return Exclusions.parse(document, arm.calendars_named(using, wanted[:100]))


def _calendars(using: str, schedule: Schedule) -> arm.Calendars:
    return arm.calendars_of(using, [schedule])


# -- Dependencies ----------------------------------------------------------------------------------


def _refuse_to_wait(schedule: Schedule) -> None:
    if schedule.workflow_id is not None:
        raise InvalidSchedule("the schedule of a workflow waits for no other", field="depends_on")


def _replace_dependencies(using: str, schedule: Schedule, ids: Sequence[UUID]) -> None:
    if len(set(ids)) != len(ids):
        raise InvalidSchedule("names a schedule twice", field="depends_on")
    if schedule.pk in ids:
        raise InvalidSchedule("a schedule cannot depend on itself", field="depends_on")
    if len(ids) > MAX_PREREQUISITES:
        raise InvalidSchedule(f"at most {MAX_PREREQUISITES} schedules", field="depends_on")
    known = Schedule.objects.using(using).kept().filter(pk__in=ids)
    missing = set(ids) - set(known.values_list("pk", flat=True))
    if missing:
        raise InvalidSchedule(f"there is no schedule {min(missing)}", field="depends_on")
    edges = ScheduleDependency.objects.using(using)
    edges.filter(schedule_id=schedule.pk).delete()
    edges.bulk_create(ScheduleDependency(schedule=schedule, prerequisite_id=pk) for pk in ids)
    if ids and _comes_back(using, schedule.pk):
        raise DependencyCycle(field="depends_on")


def _comes_back(using: str, pk: UUID) -> bool:
    """Whether one comes back to a schedule by going from one prerequisite to the next.

    Two changes at the same time could each close half a circle: the whole graph is walked under a lock.
    """
    connection = connections[using]
    key = pk if connection.vendor == "postgresql" else pk.hex
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("LOCK TABLE schedule_dependency IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(
            """WITH RECURSIVE above(id) AS (
                 SELECT prerequisite_id FROM schedule_dependency WHERE schedule_id = %s
                 UNION
                 SELECT e.prerequisite_id FROM above JOIN schedule_dependency e
                     ON e.schedule_id = above.id)
               SELECT 1 FROM above WHERE id = %s LIMIT 1""",
            [key, key],
        )
        return cursor.fetchone() is not None


def _refuse_if_needed(using: str, schedule: Schedule) -> None:
    edges = ScheduleDependency.objects.using(using).filter(prerequisite_id=schedule.pk)
    nodes = WorkflowNode.objects.using(using).filter(schedule_id=schedule.pk)
    nodes = nodes.filter(workflow__deleted_at=None)
    if edges.filter(schedule__deleted_at=None).exists() or nodes.exists():
        raise ScheduleInUse("other schedules or workflows need this schedule")
    # Those that are deleted need nothing any more.
    edges.delete()
    WorkflowNode.objects.using(using).filter(schedule_id=schedule.pk).delete()
