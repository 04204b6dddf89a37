"""Jobs in JSON as they are taken in, field by field; what is given out is in ``job_wire``."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from clusters.api.fields import (
    AnyValue,
    Base64,
    Choice,
    Id,
    Ids,
    Number,
    Object,
    QueryNumber,
    Text,
    Texts,
    Time,
    WholeNumber,
)
from jobs.engine.edit import Changes
from jobs.engine.new_job import (
    FARTHEST,
    MAX_ATTEMPTS,
    MAX_METADATA,
    MAX_METADATA_LENGTH,
    MAX_PARENTS,
    MAX_RETRY_BASE_SECONDS,
    MAX_RETRY_CAP_SECONDS,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_TIMEOUT_SECONDS,
    MAX_UNIQUE_KEY_LENGTH,
    NewJob,
)
from jobs.executors import PUBLIC_KINDS
from jobs.models import Needs, OnParentFailure
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.states import OnLost

MAX_BULK_JOBS = 10_000


class JobFields(serializers.Serializer[Any]):
    """What a job is given by its caller, or by the schedule that makes it."""

    type = Text(
        max_length=200,
        required=False,
        help_text="The handler's name; for kinds other than `python` a label.",
    )
    payload = AnyValue(required=False, allow_null=True, help_text="Any JSON value.")
    payload_base64 = Base64(
        required=False, allow_null=True, help_text="Bytes instead of a JSON value."
    )
    priority = WholeNumber(
        min_value=HIGHEST_PRIORITY,
        max_value=LOWEST_PRIORITY,
        required=False,
        allow_null=True,
        help_text="The lower number runs first.",
    )
    max_attempts = WholeNumber(min_value=1, max_value=MAX_ATTEMPTS, required=False, allow_null=True)
    timeout_seconds = Number(
        min_value=0,
        max_value=MAX_TIMEOUT_SECONDS,
        required=False,
        allow_null=True,
        help_text="Of one attempt.",
    )
    retry_base_seconds = Number(
        min_value=0,
        max_value=MAX_RETRY_BASE_SECONDS,
        required=False,
        allow_null=True,
        help_text="Upper bound of the wait before the first retry; doubles with each. 0: at once.",
    )
    retry_cap_seconds = Number(
        min_value=0,
        max_value=MAX_RETRY_CAP_SECONDS,
        required=False,
        allow_null=True,
        help_text="Upper bound of any wait for a retry.",
    )
    retry_curve = Text(
        max_length=200,
        required=False,
        allow_null=True,
        help_text="Waits without chance: `fixed`, `linear` or `exponential` by the base, or a list of "
        "seconds such as `1,5,30`, of which the last one repeats.",
    )
    tags = Texts(child=Text(max_length=MAX_TAG_LENGTH), max_length=MAX_TAGS, required=False)


@extend_schema_serializer(component_name="NewJob")
class NewJobInput(JobFields):
    """A job to be enqueued. What is left out is as the queue says, else the cluster's settings."""

    kind = Choice(choices=PUBLIC_KINDS, required=False, default="python")
    queue = Text(max_length=100, required=False, default="default")
    run_at = Time(required=False, allow_null=True, help_text="Not before this moment.")
    delay_seconds = Number(
        min_value=0,
        max_value=FARTHEST.total_seconds(),
        required=False,
        allow_null=True,
        help_text="Not before so many seconds from now; instead of `run_at`.",
    )
    expires_at = Time(
        required=False, allow_null=True, help_text="Not started by then, it fails as `expired`."
    )
    expires_in_seconds = Number(
        min_value=0,
        max_value=FARTHEST.total_seconds(),
        required=False,
        allow_null=True,
        help_text="Counted from when the job is due; instead of `expires_at`.",
    )
    deadline_at = Time(
        required=False,
        allow_null=True,
        help_text="Over all attempts: not finished by then, it fails as `timeout`.",
    )
    deadline_seconds = Number(
        min_value=0,
        max_value=FARTHEST.total_seconds(),
        required=False,
        allow_null=True,
        help_text="Counted from when the job is due; instead of `deadline_at`.",
    )
    progress_timeout_seconds = Number(
        min_value=0,
        max_value=MAX_TIMEOUT_SECONDS,
        required=False,
        allow_null=True,
        help_text="Without a word of progress for so long, an attempt is out of time.",
    )
    metadata = Object(
        required=False,
        allow_null=True,
        help_text=f"Up to {MAX_METADATA} keys of letters, digits and _ . - to a string of at most "
        f"{MAX_METADATA_LENGTH} characters, a number or a boolean.",
    )
    unique_key = Text(
        max_length=MAX_UNIQUE_KEY_LENGTH,
        required=False,
        allow_null=True,
        help_text="Of all jobs that have not ended only one has it; it is the answer to the others.",
    )
    depends_on = Ids(
        child=Id(),
        max_length=MAX_PARENTS,
        required=False,
        help_text="Jobs that must succeed before.",
    )
    needs = Choice(
        choices=Needs.values,
        required=False,
        default=Needs.ALL.value,
        help_text="How many of them: all, or any one.",
    )
    on_dependency_failure = Choice(
        choices=OnParentFailure.values,
        required=False,
        default=OnParentFailure.FAIL.value,
        help_text="What becomes of this job when one of them does not succeed.",
    )
    on_lost = Choice(
        choices=OnLost.values,
        required=False,
        default=OnLost.RETRY.value,
        help_text="What follows when the node that ran the job is gone.",
    )
    id = Id(
        required=False,
        allow_null=True,
        help_text="Chosen by the caller, it makes the request repeatable.",
    )


@extend_schema_serializer(component_name="NewJobs")
class NewJobsInput(serializers.Serializer[Any]):
    """Up to 10,000 jobs; all of them are accepted or none."""

    jobs = NewJobInput(many=True)


@extend_schema_serializer(component_name="JobChange")
class JobChangeInput(serializers.Serializer[Any]):
    """What is to be different about a job that has not started."""

    queue = Text(max_length=100, required=False)
    priority = WholeNumber(min_value=HIGHEST_PRIORITY, max_value=LOWEST_PRIORITY, required=False)
    payload = AnyValue(required=False, allow_null=True, help_text="Any JSON value.")
    payload_base64 = Base64(required=False, help_text="Bytes instead of a JSON value.")


class AttemptQuery(serializers.Serializer[Any]):
    after = QueryNumber(
        min_value=0, required=False, help_text="Attempts after the one with this `fence`."
    )
    limit = QueryNumber(min_value=1, max_value=200, required=False, help_text="50 unless told.")


def new_job(values: dict[str, Any]) -> NewJob:
    """The question to the engine, from checked values."""
    values = dict(values)
    data = values.pop("payload_base64", None)
    return NewJob(**values, payload_bytes=data)


def job_changes(values: dict[str, Any]) -> Changes:
    values = dict(values)
    if "payload_base64" in values:
        values["payload_bytes"] = values.pop("payload_base64")
    return Changes(**values)
