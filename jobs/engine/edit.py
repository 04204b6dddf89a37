"""Edit: what may be changed about a job that has not started."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from clusters.deeds import deed
from clusters.models import current_policy
from jobs.engine.new_job import NewJob, check
from jobs.engine.started_kinds import check_kinds
from jobs.errors import InvalidJob, InvalidTransition, JobError, JobNotFound, OutdatedJob
from jobs.executors import kinds_started
from jobs.hints import hint_ready
from jobs.models import Job
from jobs.models.job_queryset import check_priority, check_queue
from jobs.sealing import Sealed, is_sealed, opened
from jobs.secrets import shown_payload
from jobs.states import State


class Unchanged:
    """In place of a value that is left as it is; None is a value."""


UNCHANGED = Unchanged()


@dataclass(frozen=True, slots=True)
class Changes:
    """Only what is to be different. A payload takes the place of bytes, and bytes of a payload."""

    queue: str | Unchanged = UNCHANGED
    priority: int | Unchanged = UNCHANGED
    payload: Any = UNCHANGED
    payload_bytes: bytes | Unchanged = UNCHANGED


def edit(job: Job, changes: Changes, *, versions: Collection[str] | None = None) -> None:
    """Change a job that has not started, all of it or nothing.

    ``versions``: only if it still has one of these, as ``version_of`` tells them; otherwise the last
    one to write wins.
    """
    jobs = Job.objects.using(job._state.db)
    columns = _columns(job, changes)
    with deed("jobs.change", "job", job.pk, using=jobs.db) as trace:
        if "payload" in columns:
            # Another payload is another program.
            check_kinds(jobs.db, kinds_started(job.kind, columns["payload"]))
        row = jobs.select_for_update(no_key=True).filter(pk=job.pk).first()
        if row is None:
            raise JobNotFound
        if versions is not None and version_of(row) not in versions:
            raise OutdatedJob
        if not jobs.filter(pk=job.pk).edit(**columns):
            raise InvalidTransition(f"cannot change a job that is {row.state}", field="state")
        if row.state == State.READY and columns.get("queue", row.queue) != row.queue:
            hint_ready(jobs.db, {columns["queue"]})
        if trace.is_wanted:
            trace.before = told_of(row, {name: getattr(row, name) for name in columns})
            trace.after = told_of(row, columns)
    job.refresh_from_db()


def told_of(job: Job, values: Mapping[str, Any]) -> dict[str, Any]:
    """Some columns as a trace tells them; secrets are masked as everywhere."""
    payload = {"payload": shown_payload(job.kind, values["payload"])} if "payload" in values else {}
    return {**values, **payload}


def version_of(job: Job) -> str:
    """Names what may be changed as it is now: equal for equal contents, whatever the state."""
    data = None if job.payload_bytes is None else bytes(job.payload_bytes).hex()
    content = [job.queue, job.priority, job.payload, data]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _columns(job: Job, changes: Changes) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if not isinstance(changes.queue, Unchanged):
        check_queue(job._state.db, changes.queue)
        columns["queue"] = changes.queue
    if not isinstance(changes.priority, Unchanged):
        check_priority(changes.priority)
        columns["priority"] = changes.priority
    has_payload = not isinstance(changes.payload, Unchanged)
    has_bytes = not isinstance(changes.payload_bytes, Unchanged)
    if has_payload or has_bytes:
        payload = changes.payload if has_payload else None
        data = changes.payload_bytes if isinstance(changes.payload_bytes, bytes) else None
        columns |= {"payload": _checked(job, payload, data), "payload_bytes": data}
    if not columns:
        raise InvalidJob("names nothing to change")
    return columns


def _checked(job: Job, payload: Any, data: bytes | None) -> Any:
    """What is stored of the payload; what is asked of one of a new job of this kind is asked of it."""
    if payload is not None and is_sealed(job.payload) and not is_sealed(payload):
        # What must not be seen of it has come from elsewhere too.
        payload = Sealed(payload, opened(job.payload).masks)
    new = NewJob(type=job.type, kind=job.kind, payload=payload, payload_bytes=data)
    try:
        (checked,) = check([new], current_policy(), None)
        return checked.new.payload
    except JobError as error:
        error.index = None
        raise
