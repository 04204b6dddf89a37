"""The work of a schedule as a job to be enqueued, with the variables of its payload filled in."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from jobs.engine.new_job import NewJob, Origin
from jobs.models import Schedule
from jobs.sealing import Sealed, taken
from jobs.variables import fill


def as_new_job(schedule: Schedule) -> NewJob:
    """The work as it is written."""
    data = schedule.payload_bytes
    return NewJob(
        type=schedule.type,
        kind=schedule.kind,
        payload=taken(schedule.payload),
        payload_bytes=None if data is None else bytes(data),
        queue=schedule.queue,
        priority=schedule.priority,
        timeout_seconds=schedule.timeout_seconds,
        expires_in_seconds=schedule.expires_in_seconds,
        max_attempts=schedule.max_attempts,
        retry_base_seconds=schedule.retry_base_seconds,
        retry_cap_seconds=schedule.retry_cap_seconds,
        retry_curve=schedule.retry_curve,
        on_lost=schedule.on_lost,
        tags=schedule.tags,
        metadata=schedule.metadata,
        notes=schedule.dialect_notes,
    )


def as_sample_job(schedule: Schedule) -> NewJob:
    """The work as a run might have it: where a variable stands, a value of it is what must fit."""
    new = as_new_job(schedule)
    if schedule.has_variables:
        at = schedule.created_at
        new.payload = _filled(new.payload, _known(schedule, schedule.pk, at, at))
    return new


def made_by(
    schedule: Schedule, origin: Origin, now: datetime, *, job_id: UUID | None = None
) -> NewJob:
    """The job that a schedule makes; ``origin`` says for which instant and by whose doing."""
    new = as_new_job(schedule)
    new.origin = origin
    new.id = job_id or uuid7()
    if schedule.has_variables:
        new.payload = _filled(new.payload, _known(schedule, new.id, origin.due_at or now, now))
    return new


def _filled(payload: Any, known: dict[str, str]) -> Any:
    if isinstance(payload, Sealed):
        if payload.problem is not None:
            return payload
        return Sealed(fill(payload.payload, known), payload.masks)
    return fill(payload, known)


def _known(schedule: Schedule, job_id: Any, due_at: datetime, now: datetime) -> dict[str, str]:
    return {
        "Today": f"{now:%Y-%m-%d}",
        "Now": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
        "DueAt": f"{due_at:%Y-%m-%dT%H:%M:%S.%fZ}",
        "Job.Id": str(schedule.pk),
        "Job.Name": schedule.name,
        "Execution.Id": str(job_id),
        "User.Email": schedule.created_by,
        "Environment.MachineName": socket.gethostname(),
    }
