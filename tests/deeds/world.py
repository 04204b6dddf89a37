"""A cluster with one of everything that something can be done to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from jobs.engine import alert_rules, bulk, calendars, schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import AlertRule, Fire, FireReason, FireState, Job, Secret
from tests.api.test_failures import make_failure
from tests.factories import make_job, make_node, make_queue

NIGHTLY: dict[str, Any] = {
    "kind": "python",
    "type": "demo:noop",
    "timing": "cron",
    "expression": "0 3 * * *",
    "timezone": "UTC",
}
# A job of steps, as the Tork API takes it; it needs a grant, which the callers have.
STEPS = {"name": "x", "tasks": [{"name": "t", "run": "true"}]}
LONG_AGO = timedelta(days=400)


def build() -> dict[str, str]:
    """Make it in the bound cluster, by nobody; returns the names and ids of what is in it."""
    then = timezone.now() - LONG_AGO
    node = make_node(types=["demo:noop"])
    made: dict[str, Any] = {
        "node": node.pk,
        "drained": make_node("draining").pk,
        "ready": make_job().pk,
        "scheduled": make_job("scheduled").pk,
        "failed": make_job("failed").pk,
        "held": make_job("failed", is_held=True).pk,
        "succeeded": make_job("succeeded", created_at=then, finished_at=then).pk,
        "retrying": make_job("scheduled", attempts=1).pk,
    }
    Secret.objects.create_secret("token", "a long value", by="test")
    alert = alert_rules.create(
        {"name": "late", "kind": "oldest_ready", "webhook_url": "https://hooks.example/x"},
        by="test",
    )
    AlertRule.objects.update(state="firing")
    made["alert"] = alert.pk
    made["failure"] = make_failure(7).pk
    make_queue("mail")
    make_queue("slow", is_paused=True)
    nightly, other, paused, deleted, sent = (
        schedules.create({"name": name, **NIGHTLY}, by="test").pk
        for name in ("nightly", "other", "paused", "deleted", "sent")
    )
    made |= {"nightly": nightly, "other": other, "paused": paused, "deleted": deleted, "sent": sent}
    schedules.pause(paused, by="test")
    schedules.delete(deleted, by="test")
    schedules.change(other, {"exclusions": {"dates": ["2034-01-01"]}}, by="test", depends_on=[sent])
    made["run_failed"] = make_job(
        "failed", schedule_id=nightly, trigger="schedule", created_at=then
    ).pk
    made["run_open"] = make_job(schedule_id=nightly, trigger="schedule").pk
    flow = workflows.create("flow", [NewNode(sent)], by="test").pk
    ended = workflows.start_run(flow, by="test").pk
    workflows.cancel_run(ended, by="test")
    made |= {
        "flow": flow,
        "ended": ended,
        "going": workflows.start_run(flow, by="test").pk,
        "loose": workflows.create("loose", [NewNode(sent)], by="test").pk,
    }
    gap = Fire.objects.create(
        schedule_id=nightly,
        due_at=then.replace(hour=3, minute=0, second=0, microsecond=0),
        state=FireState.MISSED,
        reason=FireReason.MISFIRE,
    )
    made["gap"] = gap.pk
    calendars.create("holidays", ["2034-01-01"], by="test")
    operation = bulk.request("cancel", {"queue": "mail"}, reason="test", by="test")
    made["operation"] = operation.pk
    return {name: str(pk) for name, pk in made.items()}


def rows_of_jobs() -> list[tuple[Any, ...]]:
    """What a deed may change about jobs, to see that a refusal changed nothing."""
    return [*Job.objects.order_by("pk").values_list("pk", "state", "queue", "priority", "run_at")]
