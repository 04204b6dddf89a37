"""The definition of a schedule: what it may say, and how it comes into the row.

Values are checked together with what stays, and nothing here looks at what stops a schedule: pausing or
disabling one never depends on whether its definition could still be made today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from clusters.models import Node, current_policy
from jobs import cron, registry, timing
from jobs.engine import arm
from jobs.engine.new_job import check
from jobs.engine.schedule_work import as_sample_job
from jobs.errors import InvalidSchedule, JobError, UnknownHandler
from jobs.exclusions import MOST_NAMES, Exclusions
from jobs.models import Calendar, Gap, Misfire, Needs, Overlap, Schedule, Timing, Workflow
from jobs.models.job_queryset import check_queue
from jobs.models.queue_policies import text_problem
from jobs.models.schedule import MAX_DESCRIPTION_LENGTH, MAX_MISFIRES, MAX_NAME_LENGTH
from jobs.sealing import Sealed, is_sealed, opened, seal, seal_notes
from jobs.zones import zone

# What a definition may say; anything else is no business of people.
WORK = (
    *("kind", "type", "payload", "payload_bytes", "has_variables", "queue", "priority"),
    *("timeout_seconds", "expires_in_seconds", "max_attempts"),
    *("retry_base_seconds", "retry_cap_seconds", "retry_curve"),
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
# What a workflow's schedule may do when the run before has not ended.
WORKFLOW_OVERLAPS = (Overlap.SKIP, Overlap.ALLOW)


def apply(
    using: str,
    schedule: Schedule,
    values: Mapping[str, Any],
    now: datetime,
    *,
    is_new: bool = False,
) -> None:
    """Put values into the row; what is wrong with them is an error that names the field."""
    for name in values:
        if name not in EDITABLE:
            raise InvalidSchedule("is no part of a definition", field=name)
    if is_new or "name" in values:
        schedule.name = _name(values.get("name"))
    if is_sealed(values.get("payload")) and values["payload"] != schedule.payload:
        raise InvalidSchedule("nobody can give a sealed payload", field="payload.$sealed")
    set_plain(schedule, values, ("description", "is_enabled", *WORK, *POLICY))
    if not is_new and not {"kind", "payload", "payload_bytes"}.isdisjoint(values):
        # They tell of another work.
        schedule.dialect_notes = None
    if "payload" in values and "payload_bytes" not in values:
        schedule.payload_bytes = None
    elif "payload_bytes" in values and "payload" not in values:
        schedule.payload = None
    if is_new or not values.keys().isdisjoint(WORK):
        _check_work(using, schedule)
    before = timing_of(schedule)
    set_plain(schedule, values, ("timezone", "starts_at", "ends_at", "gap", "spread_seconds"))
    _check_words(schedule)
    if is_new or not values.keys().isdisjoint(arm.TIMING_FIELDS):
        kept = {} if is_new else {name: getattr(schedule, name) for name in arm.TIMING_FIELDS}
        if values.get("timing") not in (None, kept.get("timing")):
            kept = {}
        set_timing(schedule, {**kept, **values})
    if "exclusions" in values:
        schedule.exclusions = read_exclusions(using, values["exclusions"]).to_json()
    if values.get("anchor_at") is not None:
        schedule.anchor_at = values["anchor_at"]
    elif schedule.timing == Timing.INTERVAL and (is_new or _is_other_interval(schedule, before)):
        schedule.anchor_at = now
    is_mended = bool(schedule.error) and values.get("is_enabled") is True
    if is_new or is_mended or timing_of(schedule) != before:
        schedule.error = None
        check_rule(schedule, now, calendars_of(using, schedule), is_done=schedule.is_completed)


def check_handler(using: str, schedule: Schedule) -> None:
    """Refuse a handler that neither this process nor any live node has.

    Where no node lives nobody can tell: the one that has it may be on its way up.
    """
    if schedule.kind != registry.KIND or registry.find(schedule.type) is not None:
        return
    if Node.objects.using(using).all().knows_type(schedule.type) is False:
        raise UnknownHandler(field="type")


def set_plain(schedule: Schedule, values: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name in values:
            setattr(schedule, name, values[name])


def set_timing(schedule: Schedule, values: Mapping[str, Any]) -> None:
    """Set the kind of timing and its companion, and empty the companions of the others.

    ``run_at`` may be a wall time without offset, which a clock in the schedule's zone shows.
    """
    kind = values.get("timing")
    if kind not in Timing.values:
        raise InvalidSchedule(f"must be one of {', '.join(Timing.values)}", field="timing")
    companion = COMPANION[Timing(kind)]
    given = values.get(companion)
    if given is None:
        raise InvalidSchedule(f"is needed where timing is {kind}", field=companion)
    if kind == Timing.ONCE:
        given = _moment_of(given, schedule.timezone)
    elif kind == Timing.CRON:
        given = str(given).strip()
    is_new_moment = kind == Timing.ONCE and schedule.run_at != given
    for name in COMPANION.values():
        setattr(schedule, name, given if name == companion else None)
    schedule.timing = kind
    if is_new_moment:
        # A one-time schedule that was completed has something ahead again.
        schedule.last_due_at = None


def timing_of(schedule: Schedule) -> dict[str, Any]:
    """All that tells when, to see whether a change is about it."""
    return {name: getattr(schedule, name) for name in TIMING}


def check_rule(
    schedule: Schedule, now: datetime, calendars: arm.Calendars, *, is_done: bool = False
) -> None:
    """Refuse a timing that cannot be kept, or that has nothing ahead."""
    timing.check(arm.rule_of(schedule, calendars), now, must_lie_ahead=not is_done)


def read_exclusions(using: str, document: Any) -> Exclusions:
    """Check a document of exclusions against the calendars there are."""
    return Exclusions.parse(document, arm.calendars_named(using, _calendar_names(document)))


def hold_calendars(using: str, document: Any) -> None:
    """Keep the calendars that a document names as they are until the transaction ends.

    Before a schedule is locked: whoever changes a calendar holds it and then locks its schedules.
    """
    if names := _calendar_names(document):
        rows = Calendar.objects.using(using).filter(name__in=names).order_by("name")
        list(rows.select_for_update(no_key=True).values_list("pk"))


def _calendar_names(document: Any) -> list[str]:
    names = document.get("calendars") if isinstance(document, Mapping) else None
    found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return found[:MOST_NAMES]


def calendars_of(using: str, schedule: Schedule) -> arm.Calendars:
    return arm.calendars_of(using, [schedule])


def describe(schedule: Schedule) -> str | None:
    """When it runs, in a plain sentence; None where it cannot be worked out."""
    try:
        if schedule.timing == Timing.CRON:
            told = cron.describe(schedule.expression or "")
        elif schedule.timing == Timing.INTERVAL:
            length = timedelta(seconds=schedule.interval_seconds or 0)
            return cron.Every("", length).describe()
        else:
            shown = local_time(schedule.run_at, schedule.timezone)
            return f"Once, at {shown:%Y-%m-%d %H:%M:%S} ({schedule.timezone})" if shown else None
    except JobError:
        return None
    return f"{told} ({schedule.timezone})"


def local_time(moment: datetime | None, timezone: str) -> datetime | None:
    """What a clock on the wall shows at a moment."""
    try:
        return None if moment is None else moment.astimezone(zone(timezone).info)
    except JobError:
        return None


# -- Parts of it -----------------------------------------------------------------------------------


def _name(given: Any) -> str:
    name = given.strip() if isinstance(given, str) else ""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidSchedule(
            f"a name has 1 to {MAX_NAME_LENGTH} printable characters", field="name"
        )
    return name


def _moment_of(given: Any, timezone: str) -> datetime:
    if isinstance(given, datetime) and given.tzinfo is not None:
        return given
    return timing.from_wall_time(given, timezone)


def _is_other_interval(schedule: Schedule, before: Mapping[str, Any]) -> bool:
    """Whether the interval is not the one that was counted from the anchor."""
    return schedule.anchor_at is None or any(
        before[name] != getattr(schedule, name) for name in ("timing", "interval_seconds")
    )


def _check_work(using: str, schedule: Schedule) -> None:
    """What is asked of a new job is asked of the definition: it makes many."""
    if schedule.workflow_id is not None:
        rows = Workflow.objects.using(using).kept().filter(pk=schedule.workflow_id)
        # Held: it must not be deleted before this is stored.
        if rows.select_for_update(no_key=True).first() is None:
            raise InvalidSchedule("there is no such workflow", field="workflow_id")
        schedule.kind = schedule.type = "workflow"
        schedule.payload = schedule.payload_bytes = None
        return
    new = as_sample_job(schedule)
    try:
        (job,) = check([new], current_policy(), None)
    except JobError as error:
        error.index = None
        raise
    if isinstance(schedule.payload, Sealed):
        schedule.payload = schedule.payload.payload
    if is_sealed(job.new.payload) and not is_sealed(schedule.payload):
        # As it is written: variables in it are filled in at each run.
        masks = opened(job.new.payload).masks
        schedule.payload = seal(schedule.payload, masks)
        schedule.dialect_notes = seal_notes(schedule.dialect_notes, masks)
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
