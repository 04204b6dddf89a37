"""What webhooks send in this format: the summary of a job or of a task, with no envelope."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobs.dialects.tork.wire.people import user_to_wire
from jobs.dialects.tork.wire.times import moment_to_wire
from jobs.engine.webhook_bodies import ENDED, position_of, word_of
from jobs.engine.webhooks import Happened, Watched
from jobs.executors.steps import value_of
from jobs.redaction import redaction_of

_NEVER_LEFT_OUT = ("createdAt", "position")


def webhook_body(watched: Watched, one: Happened) -> dict[str, Any]:
    return _job(watched, one) if one.step is None else _task(one)


def _job(watched: Watched, one: Happened) -> dict[str, Any]:
    job = watched.job
    word = one.word if one.event == "job.StateChange" else word_of(job)
    redaction = redaction_of(watched.masks)
    inputs = watched.definition.get("inputs")
    ended = _moment(job.finished_at)
    return _lean(
        {
            "id": job.pk.hex,
            "name": watched.run.name,
            "description": watched.run.description,
            "tags": job.tags,
            "inputs": inputs if redaction is None else redaction.value(inputs),
            "state": word,
            "createdAt": _moment(job.created_at),
            "startedAt": None if word == "PENDING" else _moment(job.started_at),
            "completedAt": ended if word == "COMPLETED" else None,
            "failedAt": ended if word == "FAILED" else None,
            "position": position_of(watched, one),
            "taskCount": len(watched.definition.get("steps") or ()),
            "result": _text(job.result) if word == "COMPLETED" else None,
            "error": one.error if word == "FAILED" else None,
            "progress": job.progress_percent if word != "PENDING" else None,
            "createdBy": user_to_wire(job.enqueued_by, {}),
        }
    )


def _task(one: Happened) -> dict[str, Any]:
    step = one.step
    assert step is not None
    job = step.job
    word = one.word if one.event == "task.StateChange" else "RUNNING"
    result = value_of(job.kind, job.result) if job.result is not None else None
    return _lean(
        {
            "id": step.job_id.hex,
            "jobId": step.root_id.hex,
            "position": step.position,
            "progress": job.progress_percent,
            "name": step.name,
            "description": (step.definition or {}).get("description"),
            "state": word,
            "createdAt": _moment(job.created_at),
            "scheduledAt": _moment(job.created_at),
            "startedAt": None if word in ("PENDING", "SCHEDULED") else _moment(job.started_at),
            "completedAt": _moment(job.finished_at) if word in ENDED and word != "FAILED" else None,
            "error": one.error if word == "FAILED" else None,
            "result": _text(result) if word == "COMPLETED" else None,
            "var": step.var,
            "tags": job.tags,
        }
    )


def _lean(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in shown.items()
        if key in _NEVER_LEFT_OUT or value not in (None, "", 0, [], {})
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else moment_to_wire(at)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
