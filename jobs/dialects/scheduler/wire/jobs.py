"""Jobs, which are our schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from clusters.policy import ClusterPolicy
from config.problems import InvalidInput
from jobs.dialects.scheduler.wire.configuration import (
    configuration_from_wire,
    configuration_to_wire,
)
from jobs.dialects.scheduler.wire.reading import Reader, read_text
from jobs.dialects.scheduler.wire.timing import (
    dependencies_to_wire,
    exclusions_to_wire,
    pending_to_wire,
    timing_from_wire,
    timing_to_wire,
)
from jobs.dialects.scheduler.wire.words import (
    CURVE_NUMBERS,
    CURVES,
    EXECUTION_STATUSES,
    JOB_TYPE_NUMBERS,
    JOB_TYPES,
    MISFIRES,
    OVERLAPS,
    TYPE_OF_KIND,
    WORD_OF_MISFIRE,
    WORD_OF_OVERLAP,
    WORD_OF_STATUS,
    number_to_wire,
    time_to_wire,
)
from jobs.engine.backoff import FIXED, first_wait
from jobs.models import Schedule, Status
from jobs.states import State

MAX_NAME, MAX_DESCRIPTION, MAX_LABEL = 200, 2000, 200
MAX_TAGS = 20
MAX_TIMEOUT_SECONDS = 7 * 86_400
# What the original's server is configured with.
DEFAULT_RETRIES, DEFAULT_DELAY_SECONDS, DEFAULT_TIMEOUT_SECONDS = 3, 60, 300
MAX_RETRIES, MAX_DELAY_SECONDS = 99, 86_400


def new_job_from_wire(data: Any, *, allow_masks: bool = False) -> tuple[dict[str, Any], str | None]:
    """The values of a new schedule, and who is to stand as its creator."""
    reader = Reader(data)
    reader.need("name", "jobType", "jobConfiguration")
    values: dict[str, Any] = {
        "description": "",
        "timezone": "UTC",
        "is_enabled": True,
        "tags": [],
        "timeout_seconds": DEFAULT_TIMEOUT_SECONDS,
        "max_attempts": DEFAULT_RETRIES + 1,
        "retry_base_seconds": DEFAULT_DELAY_SECONDS,
        "retry_cap_seconds": MAX_DELAY_SECONDS,
        "retry_curve": FIXED,
        "misfire": MISFIRES["Relaxed"],
        "overlap": OVERLAPS["Skip"],
    }
    values |= _plain_from_wire(reader)
    job_type = _job_type(reader)
    if job_type is not None and "jobConfiguration" in reader:
        given = reader.raw("jobConfiguration")
        values |= _configuration(reader, job_type, given, None, allow_masks)
    values |= timing_from_wire(reader)
    created_by = reader.text("createdBy", most=MAX_LABEL)
    reader.done()
    return values, created_by or None


def change_from_wire(data: Any, stored: Schedule) -> dict[str, Any]:
    """What is to be changed; whatever was left out or is null stays."""
    reader = Reader(data)
    values = _plain_from_wire(reader)
    job_type = _job_type(reader) or TYPE_OF_KIND[stored.kind]
    if "jobConfiguration" in reader:
        given = reader.raw("jobConfiguration")
        values |= _configuration(reader, job_type, given, stored, False)
    elif job_type != TYPE_OF_KIND[stored.kind]:
        reader.refuse("jobConfiguration", "A new jobType needs its configuration.", "required")
    values |= timing_from_wire(reader, stored)
    reader.done()
    return values


def _job_type(reader: Reader) -> str | None:
    return reader.choice("jobType", tuple(JOB_TYPES), JOB_TYPE_NUMBERS)


def _configuration(
    reader: Reader, job_type: str, given: Any, stored: Schedule | None, allow_masks: bool
) -> dict[str, Any]:
    """All that is wrong with a body is told at once."""
    retry_codes = _retry_codes(reader)
    if retry_codes and job_type == "HttpCall" and isinstance(given, dict):
        given = {"retryOnStatusCodes": retry_codes, **given}
    try:
        return configuration_from_wire(job_type, given, stored, allow_masks=allow_masks)
    except InvalidInput as error:
        reader.errors.extend(error.errors)
        return {}


def _retry_codes(reader: Reader) -> Any:
    policy = reader.raw("retryPolicy")
    return policy.get("shouldRetryHttpStatusCodes") if isinstance(policy, dict) else None


def _plain_from_wire(reader: Reader) -> dict[str, Any]:
    """The members that mean the same in a new job and in a change."""
    tags = reader.items("tags", read_text, 1000)
    read: dict[str, Any] = {
        "name": reader.text("name"),
        "description": reader.text("description", most=MAX_DESCRIPTION),
        "timeout_seconds": reader.integer("timeoutSeconds", 1, MAX_TIMEOUT_SECONDS),
        "timezone": reader.text("timezone", most=64),
        "is_enabled": reader.boolean("isEnabled"),
        "misfire": MISFIRES.get(reader.choice("misfireHandling", tuple(MISFIRES)) or ""),
        "overlap": OVERLAPS.get(reader.choice("concurrencyPolicy", tuple(OVERLAPS)) or ""),
        "tags": None if tags is None else [*dict.fromkeys(t.strip() for t in tags if t.strip())],
    }
    if read["tags"] is not None and len(read["tags"]) > MAX_TAGS:
        reader.refuse("tags", f"May have {MAX_TAGS} items at most.")
    values = {name: value for name, value in read.items() if value is not None}
    policy = reader.reader("retryPolicy")
    return values if policy is None else values | _retries_from_wire(policy)


def _retries_from_wire(policy: Reader) -> dict[str, Any]:
    # The second names are those of the original's generated client.
    retries = _first(
        policy.integer("maxAttempts", 0, MAX_RETRIES),
        policy.integer("maxRetryAttempts", 0, MAX_RETRIES),
    )
    delay = _first(
        policy.integer("delaySeconds", 0, MAX_DELAY_SECONDS),
        policy.integer("retryDelaySeconds", 0, MAX_DELAY_SECONDS),
    )
    curve = policy.choice("backoffType", tuple(CURVES), CURVE_NUMBERS) or policy.choice(
        "retryBackoffType", tuple(CURVES), CURVE_NUMBERS
    )
    cap = policy.integer("maxDelaySeconds", 0, MAX_DELAY_SECONDS)
    if policy.raw("retryOnExceptions"):
        policy.refuse("retryOnExceptions", "Is not supported: any failure is tried again.")
    read = {
        "max_attempts": None if retries is None else retries + 1,
        "retry_base_seconds": delay,
        "retry_curve": CURVES.get(curve or ""),
        "retry_cap_seconds": cap,
    }
    return {name: value for name, value in read.items() if value is not None}


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


# -- Out -------------------------------------------------------------------------------------------


def job_to_wire(
    schedule: Schedule,
    policy: ClusterPolicy,
    depends_on: Sequence[UUID] = (),
    names: Mapping[UUID, str] | None = None,
) -> dict[str, Any]:
    return {
        "id": str(schedule.pk),
        "name": schedule.name,
        "description": schedule.description,
        "jobType": TYPE_OF_KIND[schedule.kind],
        **timing_to_wire(schedule),
        "jobConfiguration": configuration_to_wire(schedule),
        "retryPolicy": retries_to_wire(schedule, policy),
        "timeoutSeconds": number_to_wire(
            schedule.timeout_seconds or policy.default_timeout_seconds
        ),
        "timezone": schedule.timezone,
        "isEnabled": schedule.is_enabled,
        "isPaused": schedule.is_paused,
        "isDeleted": schedule.deleted_at is not None,
        "status": WORD_OF_STATUS[schedule.status],
        "currentStatus": current_status_of(schedule),
        "nextRunAt": time_to_wire(schedule.next_run_at),
        "tags": schedule.tags,
        "createdBy": schedule.created_by,
        "lastModifiedBy": schedule.updated_by,
        "createdAt": time_to_wire(schedule.created_at),
        "updatedAt": time_to_wire(schedule.updated_at),
        "lastExecutedAt": time_to_wire(schedule.last_run_at),
        "lastExecutionStatus": EXECUTION_STATUSES.get(schedule.last_state or ""),
        "consecutiveFailures": schedule.consecutive_failures,
        "schedulerJobId": f"scheduler-job:{schedule.pk}",
        "misfireHandling": WORD_OF_MISFIRE[schedule.misfire],
        "concurrencyPolicy": WORD_OF_OVERLAP[schedule.overlap],
        "exclusions": exclusions_to_wire(schedule),
        "dependencies": dependencies_to_wire(schedule, depends_on, names),
        "pendingSchedule": pending_to_wire(schedule),
        "skippedOccurrences": schedule.left_out,
        "pausedBy": "global" if schedule.is_paused_by_all else schedule.paused_by,
        "pauseReason": schedule.pause_reason,
        "pausedUntil": time_to_wire(schedule.resume_at),
        "scheduleError": schedule.error,
    }


def retries_to_wire(schedule: Schedule, policy: ClusterPolicy) -> dict[str, Any]:
    """The policy that holds; what the schedule leaves open is as the cluster's settings say."""
    attempts = schedule.max_attempts or policy.default_max_attempts
    base = schedule.retry_base_seconds
    cap = schedule.retry_cap_seconds
    curve = schedule.retry_curve
    word = next((word for word, ours in CURVES.items() if ours == curve), None)
    if curve is not None and word is None:
        # A list of waits has no word here, nor has a ramp; the first of them says the most.
        base, word = first_wait(curve), "Fixed"
    return {
        "maxAttempts": attempts - 1,
        "delaySeconds": number_to_wire(policy.retry_base_seconds if base is None else base),
        # Waits by chance below a bound that doubles are nearest to this.
        "backoffType": word or "Exponential",
        "maxDelaySeconds": number_to_wire(policy.retry_cap_seconds if cap is None else cap),
    }


def current_status_of(schedule: Schedule) -> str:
    if schedule.status in (Status.DELETED, Status.PAUSED, Status.DISABLED):
        return WORD_OF_STATUS[schedule.status]
    return "Failed" if schedule.last_state == State.FAILED else "Active"
