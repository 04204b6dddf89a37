"""Tasks: jobs as this API shows them, and jobs from what it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jobs.dialects.asyncjobs.errors import refuse
from jobs.dialects.asyncjobs.wire.payloads import canonical_json, payload_data, to_base64
from jobs.dialects.asyncjobs.wire.policies import DEFAULT_CURVE
from jobs.dialects.asyncjobs.wire.reading import NAME, Body
from jobs.dialects.asyncjobs.wire.signatures import check_signature, signed_text
from jobs.dialects.asyncjobs.wire.states import state_to_wire
from jobs.dialects.asyncjobs.wire.times import Moment, moment_to_wire
from jobs.engine.new_job import FARTHEST, MAX_PARENTS, NewJob
from jobs.models import Job, JobDependency
from jobs.states import State

FIELDS = frozenset(
    {
        "type", "queue", "payload", "payload_base64", "deadline", "max_tries", "dependencies",
        "load_dependencies", "signature", "id", "created",
    }
)  # fmt: skip
DEFAULT_TRIES = 10
MAX_PARENT_LENGTH = 200
# What is read of a job to show it as a task.
COLUMNS = (
    *("id", "kind", "type", "queue", "state", "reason", "attempts", "max_attempts", "created_at"),
    *("payload", "payload_bytes", "started_at", "finished_at", "expires_at", "error", "result"),
    "dialect_notes",
)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
# So far ahead nobody looks; a task with a later deadline expires then.
_FAR = FARTHEST - timedelta(days=1)


def parse_id(text: str) -> UUID | None:
    """An id of a task; there is one way to write it."""
    return UUID(text) if _ID.match(text) else None


# -- From a request --------------------------------------------------------------------------------


def new_task(body: Body, default_queue: str) -> NewJob:
    """The job that a request asks for, its signature checked."""
    payload, data = body.payload()
    task_type = body.text("type")
    if not NAME.match(task_type):
        refuse("task_type_invalid", "a type has letters, digits and _ : - only", "type")
    given_id = body.text("id")
    task_id = parse_id(given_id)
    if given_id and task_id is None:
        refuse("task_id_invalid", "an id is a UUID in lower case", "id")
    queue = body.text("queue").strip() or default_queue
    tries = body.integer("max_tries", "task_invalid", 1)
    created, deadline = body.moment("created"), body.moment("deadline")
    notes = _notes(body, created, deadline)
    new = NewJob(
        type=task_type,
        id=task_id,
        queue=queue,
        payload=payload,
        payload_bytes=data,
        max_attempts=DEFAULT_TRIES if tries is None else tries,
        is_limited_by_queue=True,
        may_be_late=True,
        retry_curve=DEFAULT_CURVE,
        notes=notes or None,
    )
    _set_deadline(new, deadline)
    _set_parents(new, notes.get("dependencies", []))
    check_signature(
        body.text("signature"),
        lambda: signed_text(
            task_id=given_id,
            queue=queue,
            task_type=task_type,
            max_tries=new.max_attempts or DEFAULT_TRIES,
            created=created,
            deadline=deadline,
            payload=canonical_json(payload).encode() if data is None else data,
        ),
    )
    return new


def _notes(body: Body, created: Moment | None, deadline: Moment | None) -> dict[str, Any]:
    """What the task says later as it was said here."""
    notes: dict[str, Any] = {}
    if deadline is not None:
        notes["deadline"] = deadline.text
    if parents := list(dict.fromkeys(body.texts("dependencies"))):
        notes["dependencies"] = parents
    if body.boolean("load_dependencies"):
        notes["load_dependencies"] = True
    if signature := body.text("signature"):
        # What it covers must stay to be read as it was signed.
        notes["signature"] = signature
        notes["max_tries"] = body.integer("max_tries", "task_invalid", 1) or DEFAULT_TRIES
        if created is not None:
            notes["created"] = created.text
    elif created is not None:
        refuse("task_invalid", "created is for tasks that are signed", "created")
    return notes


def _set_deadline(new: NewJob, deadline: Moment | None) -> None:
    if deadline is None:
        return
    if deadline.at - datetime.now(UTC) < _FAR:
        new.expires_at = deadline.at
    else:
        new.expires_in_seconds = _FAR.total_seconds()


def _set_parents(new: NewJob, parents: Sequence[str]) -> None:
    if not parents:
        return
    if len(parents) > MAX_PARENTS:
        refuse("task_invalid", f"at most {MAX_PARENTS} dependencies", "dependencies")
    if any(len(parent) > MAX_PARENT_LENGTH for parent in parents):
        message = f"an id has at most {MAX_PARENT_LENGTH} characters"
        refuse("task_invalid", message, "dependencies")
    ids = {parent: parse_id(parent) for parent in parents}
    new.depends_on = [found for found in ids.values() if found is not None]
    new.lost_parents = [parent for parent, found in ids.items() if found is None]


# -- To a response ---------------------------------------------------------------------------------


def tasks_to_wire(
    using: str, jobs: Sequence[Job], *, are_made_here: bool = False
) -> list[dict[str, Any]]:
    """Jobs as tasks; what they depend on is read for all of them at once.

    Of those that were made here all is noted with the job.
    """
    parents = _parents_of(using, jobs, are_made_here)
    results = _results_of(using, jobs, parents)
    return [_task_to_wire(job, parents.get(job.pk, []), results) for job in jobs]


def _parents_of(using: str, jobs: Sequence[Job], are_made_here: bool) -> dict[UUID, list[str]]:
    parents: dict[UUID, list[str]] = {}
    unsaid = []
    for job in jobs:
        if said := (job.dialect_notes or {}).get("dependencies"):
            parents[job.pk] = said
        elif not are_made_here:
            unsaid.append(job.pk)
    if unsaid:
        edges = JobDependency.objects.using(using).filter(child__id__any_of=unsaid)
        for child, parent in edges.order_by("parent_id").values_list("child_id", "parent_id"):
            parents.setdefault(child, []).append(str(parent))
    return parents


def _results_of(
    using: str, jobs: Iterable[Job], parents: Mapping[UUID, list[str]]
) -> dict[str, dict[str, Any]]:
    """Results of complete parents, for those tasks that want them."""
    wanted = {
        found
        for job in jobs
        if (job.dialect_notes or {}).get("load_dependencies")
        for found in map(parse_id, parents.get(job.pk, []))
        if found is not None
    }
    if not wanted:
        return {}
    complete = Job.objects.using(using).filter(pk__any_of=list(wanted), state=State.SUCCEEDED)
    rows = complete.values_list("pk", "result", "finished_at")
    return {str(pk): _result(result, ended) for pk, result, ended in rows}


def _result(result: Any, finished_at: datetime | None) -> dict[str, Any]:
    assert finished_at is not None
    return {"payload": result, "completed": moment_to_wire(finished_at)}


def _task_to_wire(
    job: Job, parents: list[str], results: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    notes = job.dialect_notes or {}
    task: dict[str, Any] = {
        "id": str(job.pk),
        "type": job.type,
        "queue": job.queue,
        "state": state_to_wire(job),
        "created": notes.get("created") or moment_to_wire(job.created_at),
        "payload": to_base64(payload_data(job.kind, job.payload, job.payload_bytes)),
        "max_tries": notes.get("max_tries") or job.max_attempts,
    }
    if deadline := _deadline(job, notes):
        task["deadline"] = deadline
    if parents:
        task["dependencies"] = parents
    if notes.get("load_dependencies"):
        task["load_dependencies"] = True
        if loaded := {parent: results[parent] for parent in parents if parent in results}:
            task["dependency_results"] = loaded
    if job.attempts:
        if job.started_at is not None:
            task["tried"] = moment_to_wire(job.started_at)
        task["tries"] = job.attempts
    if job.error:
        task["last_err"] = job.error
    if job.state == State.SUCCEEDED:
        task["result"] = _result(job.result, job.finished_at)
    if "signature" in notes:
        task["signature"] = notes["signature"]
    return task


def _deadline(job: Job, notes: Mapping[str, Any]) -> str | None:
    """As it was given, while it holds: a retry drops one that has passed. The queue may have set one,
    too, but what is signed is told as it was signed."""
    given: str | None = notes.get("deadline")
    if "signature" in notes or job.expires_at is None:
        return given if "signature" in notes else None
    return given or moment_to_wire(job.expires_at)
