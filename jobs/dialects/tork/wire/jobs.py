"""Jobs and schedules as this API shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from jobs.dialects.tork.wire.definition import seconds_of
from jobs.dialects.tork.wire.documents import definition_to_wire, lean
from jobs.dialects.tork.wire.keeping import document_of, masks_of, payload_of
from jobs.dialects.tork.wire.people import role_to_wire, user_to_wire
from jobs.dialects.tork.wire.redaction import Redactor
from jobs.dialects.tork.wire.states import JOB_STATES
from jobs.dialects.tork.wire.times import moment_to_wire
from jobs.models import Job, Schedule
from jobs.states import State

Known = Mapping[str, datetime]


@dataclass
class Shown:
    """A job, and what is known of it from other rows."""

    job: Job
    # Who asked for it; of what a schedule started, whoever made the schedule.
    author: str
    # The outermost step that has been made last.
    reached: int = 0
    parent_id: str | None = None
    redactor: Redactor = field(default_factory=Redactor)

    @cached_property
    def definition(self) -> dict[str, Any]:
        """As it was submitted, or else as far as it can be said."""
        return document_of(self.job) or definition_to_wire(payload_of(self.job))

    @property
    def task_count(self) -> int:
        steps = payload_of(self.job).get("steps")
        return len(steps) if isinstance(steps, list) else 0

    @property
    def position(self) -> int:
        if self.job.state == State.SUCCEEDED:
            return self.task_count + 1
        return min(self.reached, self.task_count + 1)


def redactor_of(*jobs: Job | Schedule) -> Redactor:
    """For what is told of these: the secrets of all of them."""
    values: set[str] = set()
    for job in jobs:
        values |= masks_of(job)
    return Redactor(values)


def summary_to_wire(shown: Shown, known: Known) -> dict[str, Any]:
    job, definition = shown.job, shown.definition
    said = lean(
        {
            **_head(shown),
            "inputs": definition.get("inputs"),
            "taskCount": shown.task_count,
            **_outcome(shown),
        }
    )
    return dict(
        shown.redactor.value(
            said
            | {
                "createdBy": user_to_wire(shown.author, known),
                "createdAt": moment_to_wire(job.created_at),
                "position": shown.position,
            }
        )
    )


def job_to_wire(
    shown: Shown, known: Known, execution: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> dict[str, Any]:
    job, definition = shown.job, shown.definition
    payload = payload_of(job)
    secrets = payload.get("secrets")
    kept = ("inputs", "output", "defaults", "webhooks", "autoDelete")
    said = lean(
        {
            **_head(shown),
            **{key: definition.get(key) for key in kept},
            "secrets": secrets,
            "taskCount": shown.task_count,
            "permissions": permissions_to_wire(definition, known),
            "deleteAt": _delete_at(job, definition),
            **_outcome(shown),
        }
    )
    context = {
        "job": {"id": job.pk.hex, "name": payload.get("name") or ""},
        "inputs": payload.get("inputs"),
        "secrets": secrets,
        "tasks": {key: _text(value) for key, value in results.items()},
    }
    return dict(
        shown.redactor.value(
            said
            | {
                "createdBy": user_to_wire(shown.author, known),
                "createdAt": moment_to_wire(job.created_at),
                "tasks": [lean(task) for task in definition.get("tasks") or ()],
                "execution": [*execution],
                "position": shown.position,
                "context": {key: item for key, item in context.items() if item},
            }
        )
    )


def permissions_to_wire(definition: Mapping[str, Any], known: Known) -> list[dict[str, Any]]:
    return [
        {"user": user_to_wire(f"user:{one['user']}", known)}
        if one.get("user")
        else {"role": role_to_wire(one["role"])}
        for one in definition.get("permissions") or ()
    ]


def _head(shown: Shown) -> dict[str, Any]:
    job, definition = shown.job, shown.definition
    state = JOB_STATES[job.state]
    ended = None if job.finished_at is None else moment_to_wire(job.finished_at)
    return {
        "id": job.pk.hex,
        "parentId": shown.parent_id,
        "name": payload_of(job).get("name") or definition.get("name"),
        "description": definition.get("description"),
        "tags": job.tags,
        "state": state,
        "startedAt": None if job.started_at is None else moment_to_wire(job.started_at),
        "completedAt": ended if state == "COMPLETED" else None,
        "failedAt": ended if state == "FAILED" else None,
    }


def _outcome(shown: Shown) -> dict[str, Any]:
    job = shown.job
    percent = 100.0 if job.state == State.SUCCEEDED else job.progress_percent
    return {
        "result": _text(job.result),
        "error": job.error if job.state == State.FAILED else None,
        "progress": _number(percent),
        "schedule": None if job.schedule_id is None else {"id": job.schedule_id.hex},
    }


def _number(percent: float | None) -> float | None:
    """Two digits behind the point, and none where there are none."""
    rounded = round(percent or 0.0, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _delete_at(job: Job, definition: Mapping[str, Any]) -> str | None:
    seconds = seconds_of((definition.get("autoDelete") or {}).get("after"))
    if seconds is None or job.state != State.SUCCEEDED or job.finished_at is None:
        return None
    try:
        return moment_to_wire(job.finished_at + timedelta(seconds=seconds))
    except OverflowError:
        return None


def _text(value: Any) -> Any:
    """Results are text here."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


# -- Schedules -------------------------------------------------------------------------------------


def schedule_definition(schedule: Schedule) -> dict[str, Any]:
    return document_of(schedule) or definition_to_wire(payload_of(schedule))


def schedule_summary_to_wire(schedule: Schedule, known: Known) -> dict[str, Any]:
    definition = schedule_definition(schedule)
    said = lean(
        {
            **_schedule_head(schedule, definition),
            "inputs": definition.get("inputs"),
        }
    )
    return dict(redactor_of(schedule).value(said | _schedule_rest(schedule, known)))


def schedule_to_wire(schedule: Schedule, known: Known) -> dict[str, Any]:
    definition = schedule_definition(schedule)
    kept = ("inputs", "defaults", "autoDelete", "webhooks", "secrets", "output")
    said = lean(
        {
            **_schedule_head(schedule, definition),
            **{key: definition.get(key) for key in kept},
            "permissions": permissions_to_wire(definition, known),
        }
    )
    tasks = [lean(task) for task in definition.get("tasks") or ()]
    return dict(
        redactor_of(schedule).value(said | _schedule_rest(schedule, known) | {"tasks": tasks})
    )


def _schedule_head(schedule: Schedule, definition: Mapping[str, Any]) -> dict[str, Any]:
    cron = schedule.expression
    if cron is None and schedule.interval_seconds:
        cron = f"@every {schedule.interval_seconds:g}s"
    return {
        "id": schedule.pk.hex,
        "name": definition.get("name") or schedule.name,
        "description": definition.get("description"),
        "tags": schedule.tags,
        "cron": cron,
    }


def _schedule_rest(schedule: Schedule, known: Known) -> dict[str, Any]:
    return {
        "createdBy": user_to_wire(schedule.created_by, known),
        "createdAt": moment_to_wire(schedule.created_at),
        "state": "PAUSED" if schedule.is_paused or not schedule.is_enabled else "ACTIVE",
    }
