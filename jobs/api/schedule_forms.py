"""What requests about schedules may say, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.fields import empty

from clusters.api.fields import (
    AnyValue,
    Boolean,
    Choice,
    Flag,
    Id,
    Ids,
    Number,
    Object,
    QueryNumber,
    Text,
    Texts,
    Time,
    WholeNumber,
    parse_time,
    refuse,
)
from clusters.api.paging import PageQuery
from jobs.api.job_forms import JobFields
from jobs.engine.definition import (
    COMPANION,
    MAX_GRACE_SECONDS,
    MAX_SPREAD_SECONDS,
)
from jobs.engine.new_job import (
    FARTHEST,
    MAX_TAG_LENGTH,
)
from jobs.engine.prerequisites import MAX_PREREQUISITES
from jobs.exclusions import MOST_DATES, MOST_NAMES, MOST_RANGES
from jobs.executors import PUBLIC_KINDS
from jobs.models import (
    FireState,
    Gap,
    Misfire,
    Needs,
    Overlap,
    Source,
    Status,
    Timing,
)
from jobs.models.schedule import (
    MAX_DESCRIPTION_LENGTH,
    MAX_MISFIRES,
    MAX_NAME_LENGTH,
    MAX_REASON_LENGTH,
)
from jobs.states import OnLost
from jobs.timing import LONGEST_SECONDS

MAX_PREVIEW, DEFAULT_PREVIEW = 100, 10
# Counting fires stops here.
MAX_COUNTED = 10_000
JOB_KINDS = [*PUBLIC_KINDS]
# A workflow's schedule makes runs of the workflow instead of jobs of a kind.
ALL_KINDS = [*JOB_KINDS, "workflow"]


class WallTime(Text):
    """A moment with its offset, or a wall time without one, which the schedule's zone gives it."""

    def run_validation(self, data: Any = empty) -> Any:
        text = super().run_validation(data)
        return text and (parse_time(text) or text)


class TimeRange(serializers.Serializer[Any]):
    start = serializers.CharField()
    end = serializers.CharField()


@extend_schema_field(TimeRange)
class TimeRangeValue(Object):
    """Checked by the domain."""


@extend_schema_serializer(component_name="Exclusions")
class ExclusionsInput(serializers.Serializer[Any]):
    """When no run starts, by the clock of the schedule's zone; one match is enough."""

    dates = Texts(
        child=Text(max_length=40),
        max_length=MOST_DATES,
        required=False,
        help_text="Days such as `2030-12-25`.",
    )
    days_of_week = Texts(
        child=Text(max_length=40),
        max_length=14,
        required=False,
        help_text="Days such as `Saturday` or `Sat`.",
    )
    time_ranges = Texts(
        child=TimeRangeValue(),
        max_length=MOST_RANGES,
        required=False,
        help_text="Windows, such as from `22:00` to `06:00`; the end is open.",
    )
    calendars = Texts(
        child=Text(max_length=100),
        max_length=MOST_NAMES,
        required=False,
        help_text="Names of calendars.",
    )
    countries = Texts(
        child=Text(max_length=40),
        max_length=MOST_NAMES,
        required=False,
        help_text="Public holidays of a country such as `DE`, or of a part of one: `DE-BY`.",
    )


@extend_schema_field(ExclusionsInput)
class ExclusionsValue(Object):
    """Checked by the domain, which names what is wrong in it."""


class TimingFields(serializers.Serializer[Any]):
    """When: a kind of timing, and its companion."""

    timing = Choice(choices=Timing.values, required=False)
    expression = Text(
        max_length=200,
        required=False,
        allow_null=True,
        help_text="For `cron`: five fields, `@daily` and the like, or `@every 1h30m`.",
    )
    interval_seconds = Number(
        min_value=1,
        max_value=LONGEST_SECONDS,
        required=False,
        allow_null=True,
        help_text="For `interval`: the first run is one interval after it is made.",
    )
    run_at = WallTime(
        max_length=40,
        required=False,
        allow_null=True,
        help_text="For `once`: a time with its offset, or a wall time such as `2030-03-31T02:30` in "
        "`timezone`. One that the clock jumps over is refused; of one that it shows twice the "
        "earlier is taken, and shown in `run_at_local`.",
    )


class DefinitionFields(TimingFields):
    timezone = Text(max_length=64, required=False, help_text="An IANA name; `UTC` unless told.")
    starts_at = Time(required=False, allow_null=True, help_text="No run before this moment.")
    ends_at = Time(required=False, allow_null=True, help_text="No run at this moment or later.")
    gap = Choice(
        choices=Gap.values,
        required=False,
        help_text="What a fixed time means on the day when the clock jumps over it.",
    )
    exclusions = ExclusionsValue(
        required=False,
        help_text="`dates`, `days_of_week`, `time_ranges` of `start` and `end`, `calendars`, "
        "`countries`: when no run starts, by the clock of `timezone`.",
    )


@extend_schema_serializer(component_name="ScheduleChange")
class ScheduleChangeInput(JobFields, DefinitionFields):
    """What is left out stays as it is. Only a change of the timing moves the next run."""

    name = Text(max_length=MAX_NAME_LENGTH, required=False)
    description = Text(max_length=MAX_DESCRIPTION_LENGTH, allow_blank=True, required=False)
    kind = Choice(choices=JOB_KINDS, required=False)
    has_variables = Boolean(
        required=False,
        help_text="Whether `{{DueAt}}` and the like in the payload are filled in at each run.",
    )
    queue = Text(max_length=100, required=False)
    expires_in_seconds = Number(
        min_value=0,
        max_value=FARTHEST.total_seconds(),
        required=False,
        allow_null=True,
        help_text="A run that is not started so long after it was due fails as `expired`.",
    )
    on_lost = Choice(choices=OnLost.values, required=False)
    metadata = Object(required=False)
    workflow_id = Id(
        required=False, allow_null=True, help_text="Instead of a job, a run of this workflow."
    )
    spread_seconds = Number(
        min_value=0,
        max_value=MAX_SPREAD_SECONDS,
        required=False,
        help_text="Runs start later by a fixed part of this, another for each schedule.",
    )
    misfire = Choice(
        choices=Misfire.values,
        required=False,
        help_text="What becomes of instants that nobody was there for.",
    )
    misfire_grace_seconds = Number(min_value=1, max_value=MAX_GRACE_SECONDS, required=False)
    misfire_limit = WholeNumber(
        min_value=1,
        max_value=MAX_MISFIRES,
        required=False,
        help_text="How many of them `all` catches up on.",
    )
    overlap = Choice(
        choices=Overlap.values,
        required=False,
        help_text="What happens when a run is due and the one before has not ended.",
    )
    depends_on = Ids(
        child=Id(),
        max_length=MAX_PREREQUISITES,
        required=False,
        help_text="Schedules that must have succeeded since the last run.",
    )
    needs = Choice(choices=Needs.values, required=False, help_text="All of them, or any one.")
    is_enabled = Boolean(required=False)


@extend_schema_serializer(component_name="NewSchedule")
class NewScheduleInput(ScheduleChangeInput):
    """A schedule to be made."""

    name = Text(max_length=MAX_NAME_LENGTH)
    timing = Choice(choices=Timing.values)


@extend_schema_serializer(component_name="Reschedule")
class RescheduleInput(TimingFields):
    """A timing in place of the one before, at once or from a moment on."""

    timing = Choice(choices=Timing.values)
    effective_from = Time(
        required=False, allow_null=True, help_text="Until then the one before holds."
    )


@extend_schema_serializer(component_name="SchedulePreview")
class PreviewInput(ScheduleChangeInput):
    """A definition that is not stored: its timing alone, or all that makes a schedule."""

    timing = Choice(choices=Timing.values)
    count = WholeNumber(min_value=1, max_value=MAX_PREVIEW, required=False)
    after = Time(required=False, help_text="Runs after this moment; now unless told.")


@extend_schema_serializer(component_name="SchedulePause")
class PauseInput(serializers.Serializer[Any]):
    reason = Text(max_length=MAX_REASON_LENGTH, allow_blank=True, required=False)
    until = Time(required=False, allow_null=True, help_text="When the pause ends by itself.")


@extend_schema_serializer(component_name="PauseAll")
class PauseAllInput(serializers.Serializer[Any]):
    reason = Text(max_length=MAX_REASON_LENGTH, allow_blank=True, required=False)


@extend_schema_serializer(component_name="SkipNext")
class SkipNextInput(serializers.Serializer[Any]):
    reason = Text(max_length=MAX_REASON_LENGTH, allow_blank=True, required=False)


@extend_schema_serializer(component_name="RunMissed")
class RunMissedInput(serializers.Serializer[Any]):
    """What is to become of a gap."""

    fire_id = Id(help_text="A fire in the state `missed`.")
    which = Choice(
        choices=Misfire.values,
        help_text="`all` of its instants run, its `latest`, or none: `skip`.",
    )
    reason = Text(max_length=MAX_REASON_LENGTH, allow_blank=True, required=False)


@extend_schema_serializer(component_name="Trigger")
class TriggerInput(serializers.Serializer[Any]):
    payload = AnyValue(
        required=False, allow_null=True, help_text="In place of the schedule's, for this run."
    )


@extend_schema_serializer(component_name="SchedulePrerequisites")
class PrerequisitesInput(serializers.Serializer[Any]):
    depends_on = Ids(child=Id(), max_length=MAX_PREREQUISITES, min_length=1)
    needs = Choice(choices=Needs.values, required=False, help_text="`all` unless told.")


class ScheduleFilter(serializers.Serializer[Any]):
    state = Choice(
        choices=Status.values, required=False, help_text="All but `deleted` unless told."
    )
    kind = Choice(choices=ALL_KINDS, required=False)
    type = Text(max_length=200, required=False)
    queue = Text(max_length=100, required=False)
    tag = Text(max_length=MAX_TAG_LENGTH, required=False)
    timing = Choice(choices=Timing.values, required=False)
    source = Choice(choices=Source.values, required=False)  # type: ignore[assignment]
    created_by = Text(max_length=200, required=False)
    failing = Flag(required=False, help_text="Whether the last run failed.")
    late = Flag(
        required=False,
        help_text="Whether the next run should have started more than 2 minutes ago.",
    )
    missed = Flag(
        required=False, help_text="Whether there are missed runs that nobody has decided about."
    )
    search = Text(
        max_length=100, required=False, help_text="Part of the name or description, in any case."
    )


class ScheduleListQuery(PageQuery, ScheduleFilter):
    order = Choice(
        choices=("created_at", "name", "next_run_at"),
        required=False,
        help_text="`created_at`, the newest first, unless told; `next_run_at` lists those only that "
        "have a next run.",
    )


class DeleteQuery(serializers.Serializer[Any]):
    hard = Flag(required=False, help_text="For good, with its fires and runs; for admins.")


class NextRunsQuery(serializers.Serializer[Any]):
    count = QueryNumber(min_value=1, max_value=MAX_PREVIEW, required=False)
    after = Time(required=False)
    include_excluded = Flag(required=False, help_text="With the reason; true unless told.")


class FireQuery(serializers.Serializer[Any]):
    state = Choice(choices=FireState.values, required=False)


class FireListQuery(PageQuery, FireQuery):
    pass


def definition(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked values of a body as the verbs know them."""
    if values.get("payload") is not None and values.get("payload_base64") is not None:
        refuse("payload_base64", "Give a payload or its bytes, not both.")
    wanted = {name: value for name, value in values.items() if name != "depends_on"}
    if "payload_base64" in wanted:
        wanted["payload_bytes"] = wanted.pop("payload_base64")
    return wanted


def refuse_other_timings(values: Mapping[str, Any], timing: str) -> None:
    """A companion of another timing would have no meaning; do not take it in silence."""
    for other, name in COMPANION.items():
        if other != timing and values.get(name) is not None:
            refuse(name, f"Goes with the timing {other} and not with {timing}.")
