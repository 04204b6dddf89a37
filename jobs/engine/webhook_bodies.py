"""What webhooks send natively, and what their conditions may name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobs.executors import CONDUCTED
from jobs.executors.steps import value_of
from jobs.models import Job, Step
from jobs.redaction import redaction_of
from jobs.states import State

if TYPE_CHECKING:
    from jobs.engine.webhooks import Happened, Watched

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "SKIPPED")
_NATIVE: Mapping[str, str] = {
    "PENDING": State.READY,
    "SCHEDULED": State.READY,
    "RESTART": State.READY,
    "RUNNING": State.RUNNING,
    "COMPLETED": State.SUCCEEDED,
    "FAILED": State.FAILED,
    "CANCELLED": State.CANCELLED,
    "SKIPPED": State.SKIPPED,
}


def native(watched: Watched, one: Happened) -> dict[str, Any]:
    """The body of a delivery: what happened, to which job, and to which of its steps."""
    body = {"event": one.event, "job": _job(watched, one)}
    if one.step is not None:
        body["step"] = _step(one.step, one)
    return body


def _job(watched: Watched, one: Happened) -> dict[str, Any]:
    job = watched.job
    is_own = one.step is None and one.event.endswith("StateChange")
    state = _NATIVE[one.word] if is_own else job.state
    return {
        "id": str(job.pk),
        "name": watched.run.name,
        "tags": job.tags,
        "state": "running" if state == State.WAITING else state,
        "progress_percent": job.progress_percent,
        **_end(job, one.word if is_own else "", one.error),
    }


def _step(step: Step, one: Happened) -> dict[str, Any]:
    job = step.job
    is_state = one.event.endswith("StateChange")
    return {
        "id": str(step.job_id),
        "parent_id": str(step.parent_id),
        "name": step.name,
        "position": step.position,
        "var": step.var,
        "tags": job.tags,
        "attempt": max(one.fence, 1),
        "state": _NATIVE[one.word] if is_state else job.state,
        "progress_percent": job.progress_percent,
        **_end(job, one.word if is_state else "", one.error),
    }


def _end(job: Job, word: str, error: str | None) -> dict[str, Any]:
    return {
        "created_at": moment(job.created_at),
        "started_at": moment(job.started_at) if word not in ("PENDING", "SCHEDULED") else None,
        "finished_at": moment(job.finished_at) if word in ENDED else None,
        "result": job.result if word == "COMPLETED" else None,
        "error": error if word == "FAILED" else None,
    }


def moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


# -- Conditions ------------------------------------------------------------------------------------


def names_of_fields(watched: Watched, one: Happened) -> dict[str, Any]:
    """`job` and `task`, by the names that conditions written for Tork use."""
    job, definition = watched.job, watched.definition
    is_state = one.event.endswith("StateChange")
    redaction = redaction_of(watched.masks)
    inputs = definition.get("inputs") or {}
    names: dict[str, Any] = {
        "job": {
            "ID": job.pk.hex,
            "Name": watched.run.name,
            "Description": watched.run.description,
            "Tags": job.tags,
            "State": one.word if one.step is None and is_state else word_of(job),
            "Inputs": inputs if redaction is None else redaction.value(inputs),
            "Progress": job.progress_percent or 0,
            "Position": position_of(watched, one),
            "TaskCount": len(definition.get("steps") or ()),
            "Error": (one.error if one.step is None else job.error) or "",
            "Result": _text(job.result),
            "CreatedAt": moment(job.created_at),
            "StartedAt": moment(job.started_at),
            "CompletedAt": moment(job.finished_at),
        }
    }
    if one.step is not None:
        step, own = one.step, one.step.job
        names["task"] = {
            "ID": step.job_id.hex,
            "JobID": step.root_id.hex,
            "ParentID": "" if step.parent_id == step.root_id else step.parent_id.hex,
            "Name": step.name,
            "Description": str((step.definition or {}).get("description") or ""),
            "Position": step.position,
            "State": one.word if is_state else "RUNNING",
            "Var": step.var or "",
            "Tags": own.tags,
            "Progress": own.progress_percent or 0,
            "Error": one.error or "",
            "Result": _text(value_of(own.kind, own.result)) if own.result is not None else "",
            "CreatedAt": moment(own.created_at),
            "StartedAt": moment(own.started_at),
            "CompletedAt": moment(own.finished_at),
        }
    return names


def word_of(job: Job) -> str:
    """The state of a job, of whose steps something is told."""
    ended = {State.SUCCEEDED: "COMPLETED", State.FAILED: "FAILED", State.CANCELLED: "CANCELLED"}
    return ended.get(
        State(job.state), "RUNNING" if job.kind in CONDUCTED and job.fence else "PENDING"
    )


def position_of(watched: Watched, one: Happened) -> int:
    """The outermost step that it is at, as far as its progress tells."""
    count = len(watched.definition.get("steps") or ())
    if one.word == "COMPLETED" and one.step is None:
        return count + 1
    if one.word == "PENDING" and one.step is None:
        return 0
    if one.step is not None:
        return one.step.position
    done = round((watched.job.progress_percent or 0) * count / 100)
    return min(done + 1, count)


def _text(value: Any) -> Any:
    return "" if value is None else value
