"""One thing of each sort in a cluster, and the names of things that nobody has."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from authn.keys import create_key
from authn.models import UserRole
from clusters.binding import cluster_bound
from clusters.log import Category, Level, LogEntry
from jobs.engine import alert_rules, bulk, calendars, workflows
from jobs.engine.workflows import NewNode
from jobs.models import Failure, FailureHour, Secret, Step
from tests.factories import (
    make_attempt,
    make_job,
    make_node,
    make_queue,
    make_step_beside_a_program,
)
from tests.jobs.schedule_cases import make_schedule

Things = dict[str, str]
NOBODYS = "0190a1b2-0000-7000-8000-000000000000"
_SLOT = re.compile(r"<(?:\w+:)?(\w+)>")
# What a part of an address names, where it does not name that itself; in dialects also by surface.
_MEANS = {
    ("scheduler", "job_id"): "schedule",
    ("scheduler", "execution_id"): "execution",
    ("asyncjobs", "task_id"): "job",
    ("tork", "task_id"): "step",
    ("tork", "job_id"): "steps job",
    ("tork", "schedule_id"): "steps schedule",
}


def missing_things() -> Things:
    """Names that are well-formed, and stand for nothing in any cluster."""
    return {
        **dict.fromkeys(
            (
                *("job", "step", "steps job", "execution", "node", "schedule", "steps schedule"),
                *("workflow", "run", "operation", "alert"),
            ),
            NOBODYS,
        ),
        **dict.fromkeys(("name", "queue", "calendar"), "of-nobody"),
        "fingerprint": "f" * 16,
        "line": "99900000",
        "key": "f" * 16,
        "role": "user-99900000",
    }


def make_things(cluster: str, number: int) -> Things:
    """One of each in this cluster; all that can have a name have the same one."""
    name = f"of-{cluster}"
    with cluster_bound(cluster):
        make_queue(name)
        job = make_job("failed", queue=name, type=name)
        make_attempt(job)
        step = make_step_beside_a_program(queue=name)
        steps_job = Step.objects.get(job_id=Step.objects.get(job_id=step.pk).parent_id).parent_id
        schedule = make_schedule(name=name, queue=name)
        execution = make_job("failed", queue=name, schedule_id=schedule.pk)
        steps = {"steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]}
        steps_schedule = make_schedule(kind="steps", type="steps", payload=steps)
        calendars.create(name, ["2030-01-01"], by="test")
        workflow = workflows.create(name, [NewNode(schedule.pk)], by="test")
        run = workflows.start_run(workflow.pk, by="test")
        operation = bulk.request("cancel", {"queue": name}, by="test", reason="x")
        Secret.objects.all().create_secret(name, f"the secret of {cluster}", by="test")
        line = LogEntry.objects.create(
            id=77_700_000 + number, category=Category.API, level=Level.INFO, message=name
        )
        fingerprint = _make_failure(number, str(job.pk), name)
        return {
            "job": str(job.pk),
            "step": str(step.pk),
            "steps job": str(steps_job),
            "execution": str(execution.pk),
            "steps schedule": str(steps_schedule.pk),
            "node": str(make_node().pk),
            "schedule": str(schedule.pk),
            "workflow": str(workflow.pk),
            "run": str(run.pk),
            "operation": str(operation.pk),
            "alert": str(alert_rules.create({"name": name, "kind": "dead_nodes"}, by="test").pk),
            "fingerprint": fingerprint,
            "line": str(line.pk),
            "key": create_key(name, "viewer", [cluster])[0].public_id,
            "role": _make_role(cluster),
            **dict.fromkeys(("name", "queue", "calendar"), name),
        }


def _make_role(cluster: str) -> str:
    user = get_user_model().objects.create_user(f"somebody of {cluster}")
    return f"user-{UserRole.objects.create(user=user, cluster_id=cluster, role='viewer').pk}"


def filled(surface: str, text: str, cluster: str, things: Things) -> str:
    """An address, or a body, with the names of these things in it."""

    def name(slot: re.Match[str]) -> str:
        if slot[1] == "cluster_id":
            return cluster
        return things[_MEANS.get((surface, slot[1]), slot[1].removesuffix("_id"))]

    return _SLOT.sub(name, text)


def names_a_thing(text: str) -> bool:
    return any(name != "cluster_id" for name in _SLOT.findall(text))


def _make_failure(number: int, job: str, name: str) -> str:
    now = timezone.now()
    fingerprint = f"{number:016x}"
    FailureHour.objects.create(
        fingerprint=fingerprint,
        starts_at=now.replace(minute=0, second=0, microsecond=0),
        count=1,
    )
    columns: dict[str, Any] = {
        "error_type": "ValueError",
        "message": name,
        "frame": "mail/tasks.py:send",
        "type": name,
        "queue": name,
        "job_id": job,
        "example": name,
        "count": 1,
        "first_seen_at": now - timedelta(days=1),
        "last_seen_at": now,
    }
    Failure.objects.create(fingerprint=fingerprint, **columns)
    return fingerprint
