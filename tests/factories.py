"""Rows for tests, in the bound cluster: give a state, and the columns that go with it fit."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from django.utils import timezone

from clusters.models import ALIVE, Node, NodeStatus
from jobs.models import Attempt, Job, JobMetadata, JobTag, Queue, Step, StepsRun
from jobs.states import FINAL, Outcome, Reason, State

_numbers = itertools.count(1)
# States of jobs that some node has begun.
_BEGUN = (State.RUNNING, State.WAITING, State.SUCCEEDED, State.FAILED)


def make_queue(name: str | None = None, **columns: Any) -> Queue:
    if columns.get("is_paused"):
        columns = {"paused_at": timezone.now(), "paused_by": "test", **columns}
    return Queue.objects.create(name=name or f"queue-{next(_numbers)}", **columns)


def make_node(status: str = NodeStatus.LIVE, **columns: Any) -> Node:
    now = timezone.now()
    defaults: dict[str, Any] = {
        "host": "test-host",
        "pid": next(_numbers),
        "version": "0.0.test",
        "kinds": ["python", "http"],
        "types": ["demo:noop"],
        "concurrency": 4,
        "lease_until": now + timedelta(seconds=30),
    }
    if status == NodeStatus.DRAINING:
        defaults["drain_requested_at"] = now
    if status not in ALIVE:
        defaults.update(closed_at=now, lease_until=now - timedelta(seconds=1))
    return Node.objects.create(status=status, **{**defaults, **columns})


def make_job(state: str = State.READY, **columns: Any) -> Job:
    """A job in this state; its queue is made when it does not exist."""
    now = timezone.now()
    defaults: dict[str, Any] = {
        "type": "demo:noop",
        "enqueued_by": "test",
        "timeout_seconds": 30.0,
        "max_attempts": 3,
        "created_at": now,
        "run_at": now,
    }
    if state == State.SCHEDULED:
        defaults["run_at"] = now + timedelta(hours=1)
    if state == State.BLOCKED:
        defaults["pending_dependencies"] = 1
    if state in _BEGUN:
        defaults.update(attempts=1, fence=1, started_at=now)
        if "node" not in columns and "node_id" not in columns:
            defaults["node"] = make_node()
    if state in FINAL:
        defaults["finished_at"] = now
    if state == State.FAILED:
        defaults.update(reason=Reason.ERROR, error="RuntimeError: as the test wanted", attempts=3)
    if state == State.CANCELLED:
        defaults["cancel_requested_at"] = now
    job = Job.objects.create(state=state, **{**defaults, **columns})
    Queue.objects.get_or_create(name=job.queue)
    JobTag.objects.bulk_create(JobTag.objects.all().of([job]))
    JobMetadata.objects.bulk_create(JobMetadata.objects.all().of([job]))
    return job


# Steps, one of which needs a grant.
WITH_A_PROGRAM: dict[str, Any] = {
    "steps": [
        {
            "name": "sub",
            "subjob": {"steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]},
        },
        {"name": "sh", "kind": "shell", "payload": {"script": "true"}},
    ]
}


def make_step_beside_a_program(state: str = State.FAILED, **columns: Any) -> Job:
    """A step that needs no grant, in a sub-job of a job that has a step which does."""
    inner = WITH_A_PROGRAM["steps"][0]["subjob"]
    top, sub = (
        make_job(State.FAILED, kind="steps", type="steps", payload=payload, has_dependants=is_step)
        for payload, is_step in ((WITH_A_PROGRAM, False), (inner, True))
    )
    job = make_job(state, has_dependants=True, **columns)
    for part, parent in ((sub, top), (job, sub)):
        Step.objects.create(
            job=part, parent=parent, root=parent, key="0", name="a", position=1, index=0
        )
    StepsRun.objects.bulk_create([StepsRun(job=top), StepsRun(job=sub)])
    return job


def make_attempt(job: Job, outcome: str = Outcome.FAILED, **columns: Any) -> Attempt:
    """A finished try of the job: its next one, unless the columns say otherwise."""
    now = timezone.now()
    before = Attempt.objects.filter(job_id=job.pk).count()
    defaults: dict[str, Any] = {
        "fence": before + 1,
        "number": before + 1,
        "node_id": job.node_id or make_node().pk,
        "started_at": job.started_at or now,
        "finished_at": max(now, job.started_at or now),
    }
    if outcome == Outcome.FAILED:
        defaults.update(error_type="RuntimeError", error="RuntimeError: as the test wanted")
    return Attempt.objects.create(job_id=job.pk, outcome=outcome, **{**defaults, **columns})
