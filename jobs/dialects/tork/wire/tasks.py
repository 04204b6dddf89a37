"""Steps as this API shows them: a row for each, and one more for each earlier try that failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.dialects.tork.wire.documents import each_to_wire, lean, step_to_wire, work_to_wire
from jobs.dialects.tork.wire.ids import node_id, try_id
from jobs.dialects.tork.wire.keeping import payload_of
from jobs.dialects.tork.wire.states import WAITING, task_state
from jobs.dialects.tork.wire.times import duration_to_wire, moment_to_wire
from jobs.engine.new_job import MAX_TIMEOUT_SECONDS
from jobs.executors import CONDUCTED
from jobs.executors.steps import value_of
from jobs.models import Attempt, Step, StepsRun
from jobs.states import FINAL, Outcome
from jobs.step_words import GROUP

# Tries that are rows of their own; those that a node gave back are none.
FAILED = (Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST)


@dataclass(slots=True)
class Row:
    """A step with its job, and of the earlier tries those that failed."""

    step: Step
    tries: Sequence[Attempt] = ()
    # Of one that is made of others.
    run: StepsRun | None = None


def is_earlier(step: Step, attempt: Attempt) -> bool:
    """Whether a try of a step has a row of its own."""
    return is_own_row(attempt, step.job.fence, step.job.state)


def is_own_row(attempt: Attempt, fence: int, state: str) -> bool:
    """The same, by the last fence and the state of its job: the last try of an ended one is the job's."""
    return attempt.outcome in FAILED and not (attempt.fence == fence and state in FINAL)


def rows_to_wire(row: Row) -> list[dict[str, Any]]:
    """The rows of one step: its tries that failed, and itself."""
    earlier = [attempt for attempt in row.tries if is_earlier(row.step, attempt)]
    return [*(try_to_wire(row, attempt) for attempt in earlier), task_to_wire(row)]


def task_to_wire(row: Row) -> dict[str, Any]:
    job, step = row.step.job, row.step
    state = task_state(job.kind, job.state)
    ended = None if job.finished_at is None else moment_to_wire(job.finished_at)
    result = job.result if job.kind not in CONDUCTED or isinstance(job.result, str) else None
    said = {
        **_said(row, sum(is_earlier(step, attempt) for attempt in row.tries)),
        "id": job.pk.hex,
        "state": state,
        "startedAt": None if job.started_at is None else moment_to_wire(job.started_at),
        "completedAt": ended if state in ("COMPLETED", "SKIPPED") else None,
        "failedAt": ended if state == "FAILED" else None,
        "error": job.error if state == "FAILED" else None,
        "nodeId": node_id(job.node_id) if job.node_id and job.kind not in CONDUCTED else None,
        "result": _text(value_of(job.kind, result) if result is not None else None),
        "progress": round(job.progress_percent or 0.0, 2),
    }
    if state in WAITING:
        # When and where it began is said of the try before, which has a row of its own.
        said |= dict.fromkeys(("startedAt", "nodeId", "progress"))
    return dict(lean(said))


def try_to_wire(row: Row, attempt: Attempt) -> dict[str, Any]:
    """An earlier try, with an id of its own."""
    job = row.step.job
    said = {
        **_said(row, attempt.number - 1),
        "id": try_id(job.pk, attempt.number).hex,
        "state": "FAILED",
        "startedAt": moment_to_wire(attempt.started_at),
        "failedAt": moment_to_wire(attempt.finished_at),
        "error": attempt.error,
        "nodeId": node_id(attempt.node_id),
    }
    return dict(lean(said))


def _said(row: Row, tries: int) -> dict[str, Any]:
    step, job = row.step, row.step.job
    definition: Mapping[str, Any] = step.definition or {}
    is_composite = job.kind in CONDUCTED
    said: dict[str, Any] = {
        **(_form(row) if is_composite else work_to_wire(job.kind, payload_of(job))),
        "jobId": step.root_id.hex,
        "parentId": step.parent_id.hex if step.parent_id != step.root_id else None,
        "position": step.position,
        "name": step.name,
        "description": definition.get("description"),
        "createdAt": moment_to_wire(job.created_at),
        "var": step.var,
        "if": definition.get("if"),
        "tags": job.tags,
        "priority": max(-job.priority, 0),
    }
    if not is_composite:
        limit = max(job.max_attempts - 1, 0)
        said["scheduledAt"] = moment_to_wire(job.created_at)
        said["queue"] = job.queue
        said["retry"] = {"limit": limit, "attempts": tries} if limit else None
        if job.timeout_seconds < MAX_TIMEOUT_SECONDS:
            said["timeout"] = duration_to_wire(job.timeout_seconds)
    return said


def _form(row: Row) -> dict[str, Any]:
    job = row.step.job
    payload = payload_of(job)
    if job.kind != GROUP:
        return work_to_wire(job.kind, payload)
    run, state = row.run, row.run.state if row.run is not None else {}
    left = 0 if run is None else run.open_steps
    if "each" in payload:
        items = state.get("items")
        size = state.get("size") or (len(items) if isinstance(items, list) else 0)
        made = state.get("next") or 0
        counts = {"size": size, "completions": max(made - left, 0), "index": made}
        return {"each": each_to_wire(payload["each"]) | counts}
    steps = payload.get("parallel") or ()
    if not steps:
        return {}
    done = max(len(steps) - left, 0) if run is not None and job.started_at else 0
    return {"parallel": {"tasks": [step_to_wire(one) for one in steps], "completions": done}}


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else json.dumps(value)
