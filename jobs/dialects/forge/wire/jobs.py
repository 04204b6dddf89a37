"""Jobs: rows, one with its payload and errors, what lists ask for, and new ones."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.dialects.forge.wire.queues import process_id
from jobs.dialects.forge.wire.reading import Body, refuse
from jobs.dialects.forge.wire.words import STATUSES, asked_of, status_of, time_to_wire
from jobs.engine.new_job import NewJob
from jobs.models import Attempt, Job
from jobs.secrets import shown_payload
from jobs.states import State

MAX_LIMIT, MAX_OFFSET = 500, 10_000
MAX_NAMES = 50
MAX_ERROR_IN_LISTS = 4096
MAX_SEARCH = 200
DEFAULT_ATTEMPTS = 5
MAX_PRIORITY = 2**31


def row_to_wire(
    job: Job, heartbeats: Mapping[UUID, datetime], *, is_whole: bool = False
) -> dict[str, Any]:
    is_held = job.state == State.RUNNING and job.node_id is not None
    error = job.error if is_whole or job.error is None else job.error[:MAX_ERROR_IN_LISTS]
    return {
        "id": str(job.pk),
        "queue_name": job.queue,
        "kind": job.type,
        "status": status_of(job),
        "priority": job.priority,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "enqueued_at": time_to_wire(job.created_at),
        "scheduled_at": time_to_wire(job.run_at),
        "started_at": time_to_wire(job.started_at),
        "completed_at": time_to_wire(job.finished_at),
        "last_error": error,
        "process_id": process_id(job.queue, job.node_id, job.pk) if is_held else None,
        "dedupe_key": job.unique_key,
        "heartbeat_at": time_to_wire(heartbeats.get(job.node_id) if is_held else None),  # type: ignore[arg-type]
    }


def inspect_to_wire(
    job: Job, heartbeats: Mapping[UUID, datetime], attempts: Iterable[Attempt]
) -> dict[str, Any]:
    data = job.payload_bytes
    return {
        "row": row_to_wire(job, heartbeats, is_whole=True),
        # Bytes, which this API knows nothing of, are shown as an object.
        "payload": shown_payload(job.kind, job.payload)
        if data is None
        else {"payload_base64": base64.b64encode(bytes(data)).decode()},
        "error_history": [
            {
                "at": time_to_wire(attempt.finished_at),
                "attempt": attempt.number,
                "message": attempt.error,
            }
            for attempt in attempts
        ],
    }


# -- What is asked for -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PageAsked:
    """Search words, a text that the payload holds, and which part of what is found."""

    asked: Mapping[str, Any]
    payload_holds: str | None
    limit: int
    offset: int


def page_from_wire(body: Body) -> PageAsked:
    given = body.object("filter")
    asked: dict[str, Any] = asked_of(statuses_from_wire(given))
    for name, word in (("queues", "queues"), ("kinds", "types")):
        if names := given.texts(name, MAX_NAMES, longest=200):
            asked[word] = list(dict.fromkeys(names))
    for name, word in (("from", "created_after"), ("to", "created_before")):
        if (moment := given.moment(name)) is not None:
            asked[word] = moment
    return PageAsked(
        asked,
        given.text("payload_search", MAX_SEARCH) or None,
        body.number("limit", 1, MAX_LIMIT),
        body.number("offset", 0, MAX_OFFSET),
    )


def statuses_from_wire(given: Body) -> list[str]:
    found = given.texts("statuses", MAX_NAMES)
    for status in found:
        _check_status(status, given.field("statuses"), STATUSES)
    return found


def status_from_wire(body: Body, allowed: Iterable[str] = STATUSES) -> str:
    body.need("status")
    return _check_status(body.text("status") or "", "status", allowed)


def _check_status(status: str, field: str, allowed: Iterable[str]) -> str:
    if status not in allowed:
        refuse(field, f"Must be one of {', '.join(allowed)}.")
    return status


def ids_from_wire(body: Body) -> list[UUID]:
    """The ids that may be ours; of any other there is no job."""
    body.need("ids")
    keys = (parse_id(text) for text in body.texts("ids", longest=200))
    return list(dict.fromkeys(key for key in keys if key is not None))


def parse_id(text: str) -> UUID | None:
    try:
        key = UUID(text)
    except ValueError:
        return None
    # Not in other spellings than the one in which ids come out.
    return key if str(key) == text.lower() else None


# -- New jobs --------------------------------------------------------------------------------------


def new_job_from_wire(body: Body) -> NewJob:
    kind = (body.text("kind") or "").strip()
    if not kind:
        refuse("kind", "Must not be blank.", "required")
    queue = body.text("queue_name")
    if not queue:
        refuse("input", "queue_name is required: there is no queue to choose by the kind.")
    if not body.has("payload"):
        refuse("payload", "This field is required; it may be null.", "required")
    return NewJob(
        type=kind,
        payload=body.raw("payload"),
        queue=queue,
        unique_key=body.text("dedupe_key"),
        run_at=body.moment("run_at"),
        priority=body.integer("priority", -MAX_PRIORITY, MAX_PRIORITY),
        max_attempts=_attempts(body),
    )


def _attempts(body: Body) -> int:
    given = body.integer("max_attempts", -MAX_PRIORITY, MAX_PRIORITY)
    return DEFAULT_ATTEMPTS if given is None else given
