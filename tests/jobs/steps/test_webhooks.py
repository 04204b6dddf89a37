"""Webhooks of jobs made of steps: what is told, to whom, once each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connections
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from clusters.policy import ClusterPolicy
from jobs.engine import webhooks
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.requeue import requeue
from jobs.engine.ticks import promote_due
from jobs.errors import InvalidJob
from jobs.models import Job, StepsRun, WebhookEvent
from jobs.sealing import is_sealed, opened
from jobs.states import Outcome, State
from tests.jobs.steps.cases import Fails, TestNode, do, run, submit

pytestmark = pytest.mark.usefixtures("alpha")


def hook(event: str | None = None, **more: Any) -> dict[str, Any]:
    told = {} if event is None else {"event": event}
    return {"url": "https://hooks.example/x", **told, **more}


def deliveries() -> list[Job]:
    return list(Job.objects.filter(kind="webhook").order_by("pk"))


def told(*path: str) -> list[Any]:
    """What deliveries say at a place in their bodies, in the order in which they were made."""
    found = []
    for job in deliveries():
        value = opened(job.payload).payload["body"]
        for part in path:
            value = value[part]
        found.append(value)
    return found


def look() -> None:
    """What upkeep does every second."""
    webhooks.tell_open(TestNode().using, ClusterPolicy())


def test_a_job_is_told_of_from_its_enqueue_to_its_end() -> None:
    job = run(do("a"), do("b"), webhooks=[hook(format="tork")])
    assert job.state == State.SUCCEEDED
    assert told("state") == ["PENDING", "RUNNING", "COMPLETED"]
    first, second, last = told()
    assert (first["id"], first["taskCount"], first["position"]) == (job.pk.hex, 2, 0)
    assert "startedAt" not in first
    assert first["createdBy"]["username"] == "guest"
    assert "startedAt" in second
    assert "completedAt" not in second
    assert (last["position"], last["progress"], "failedAt" in last) == (3, 100, False)
    look()
    assert len(deliveries()) == 3
    assert StepsRun.objects.get(pk=job.pk).is_watched is False


def test_the_enqueue_tells_in_its_own_transaction() -> None:
    submit(do("a"), webhooks=[hook()])
    assert told("job", "state") == ["ready"]
    (delivery,) = deliveries()
    assert (delivery.max_attempts, delivery.timeout_seconds) == (5, 5.0)


def test_a_failure_and_the_restart_after_it_are_told() -> None:
    fails = [True]

    def work(claimed: Any) -> Any:
        if claimed.kind == "python" and fails[0]:
            raise Fails("no luck")

    node = TestNode(work)
    job = run(do("a"), node=node, webhooks=[hook(format="tork")])
    assert told("state") == ["PENDING", "RUNNING", "FAILED"]
    assert "no luck" in told()[-1]["error"]
    fails[0] = False
    job.retry()
    node.run()
    assert told("state") == ["PENDING", "RUNNING", "FAILED", "RESTART", "RUNNING", "COMPLETED"]


def test_a_job_that_is_cancelled_before_it_starts_is_told_of_by_the_next_look() -> None:
    job = submit(do("a"), webhooks=[hook(format="tork")])
    job.cancel()
    look()
    look()
    assert told("state") == ["PENDING", "CANCELLED"]


def test_all_jobs_are_looked_at_in_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BATCH", 2)
    jobs = [submit(do("a"), webhooks=[hook(format="tork")]) for _ in range(5)]
    look()
    look()
    # Whoever is looked at first is not the only one.
    jobs[0].cancel()
    look()
    assert told("state").count("CANCELLED") == 1
    assert webhooks._told_until == {}


def test_steps_are_told_of_one_by_one() -> None:
    run(
        do("a", "result", var="v"),
        do("b", {"fail": "why"}, continue_on_error=True),
        do("c", **{"if": "false"}),
        {"name": "both", "parallel": [do("d")]},
        webhooks=[hook("task.StateChange", format="tork")],
    )
    look()
    by_name: dict[str, list[str]] = {}
    for body in told():
        by_name.setdefault(body["name"], []).append(body["state"])
    assert by_name == {
        "a": ["SCHEDULED", "RUNNING", "COMPLETED"],
        "b": ["SCHEDULED", "RUNNING", "FAILED"],
        "c": ["SKIPPED"],
        "both": ["PENDING", "RUNNING", "COMPLETED"],
        "d": ["SCHEDULED", "RUNNING", "COMPLETED"],
    }
    ended = [body for body in told() if body["name"] == "a"][-1]
    assert (ended["result"], ended["var"], ended["position"]) == ("result", "v", 1)
    assert [body["error"] for body in told() if body["name"] == "b" and "error" in body] == ["why"]


def test_each_try_of_a_step_is_told() -> None:
    tries: list[int] = []
    node = TestNode()

    def work(claimed: Any) -> Any:
        if claimed.kind == "python":
            tries.append(claimed.attempts)
            if len(tries) == 1:
                raise Fails("the first time")

    node.work = work
    node.do = _transient(node)  # type: ignore[method-assign]
    submit(
        do("a", max_attempts=2, retry_base_seconds=0),
        webhooks=[hook("task.StateChange", format="tork")],
    )
    node.run()
    Job.objects.filter(state=State.SCHEDULED).update(run_at=Now())
    promote_due(node.using, ClusterPolicy())
    node.run()
    look()
    assert [(body["state"], body.get("error")) for body in told()] == [
        ("SCHEDULED", None),
        ("RUNNING", None),
        ("FAILED", "the first time"),
        ("SCHEDULED", None),
        ("RUNNING", None),
        ("COMPLETED", None),
    ]


def _transient(node: TestNode) -> Any:
    """Work whose failures are worth another attempt."""

    def do_it(job: Any) -> None:
        try:
            node.work(job)
        except Fails as error:
            node.end(job, Outcome.FAILED, error=str(error))
        else:
            node.end(job, Outcome.SUCCEEDED)

    return do_it


def test_progress_is_told() -> None:
    run(*(do(f"s{n}") for n in range(4)), webhooks=[hook("job.Progress")])
    assert told("job", "progress_percent") == [25.0, 50.0, 75.0, 100.0]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{{ job.State == 'COMPLETED' }}", ["COMPLETED"]),
        ("job.State == 'COMPLETED'", ["COMPLETED"]),
        ("job.Name == 'other'", []),
        ("job.TaskCount", []),
        ("job.Tags[7] == 1", []),
    ],
)
def test_a_condition_says_what_is_told(condition: str, expected: list[str]) -> None:
    run(do("a"), webhooks=[hook(format="tork", **{"if": condition})])
    assert told("state") == expected


def test_a_condition_may_name_the_step() -> None:
    condition = "task.Name == 'b' && task.State == 'RUNNING'"
    run(do("a"), do("b"), webhooks=[hook("task.StateChange", **{"if": condition})])
    look()
    assert told("step", "name") == ["b"]


def test_headers_are_rendered_and_sealed_with_the_secrets_in_them() -> None:
    headers = {"X-Key": "{{ secrets.key }}", "X-Region": "{{ inputs.region }}"}
    run(
        do("a"),
        webhooks=[hook(headers=headers)],
        secrets={"key": "canary-1"},
        inputs={"region": "eu", "copy": "canary-1"},
    )
    for job in deliveries():
        assert is_sealed(job.payload)
        assert opened(job.payload).payload["headers"] == {"X-Key": "canary-1", "X-Region": "eu"}
    assert "canary-1" not in json.dumps(told())


def test_a_delivery_that_nobody_could_make_keeps_no_other_from_being_made() -> None:
    bad = hook(headers={"X-Job-Id": "ours"})
    job = run(do("a"), webhooks=[bad, hook(format="tork")])
    assert job.state == State.SUCCEEDED
    assert told("state") == ["PENDING", "RUNNING", "COMPLETED"]


def test_an_event_that_does_not_exist_never_comes() -> None:
    run(do("a"), webhooks=[hook("job.Surprise")], dialect="tork")
    assert deliveries() == []


def test_steps_that_were_cancelled_keep_nothing_from_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Red without: the note that a cancelled step is settled."""
    monkeypatch.setattr(webhooks, "STEPS_AT_ONCE", 3)
    node = TestNode()
    hooks = [hook(format="tork"), hook("task.StateChange", format="tork")]
    job = submit(
        {"name": "all", "each": {"list": list(range(8)), "step": do("item")}}, webhooks=hooks
    )
    node.turn()
    node.turn()
    assert Job.objects.filter(kind="python").count() == 8
    job.cancel()
    node.run()
    for _ in range(12):
        look()
    assert [body["state"] for body in told() if body["id"] == job.pk.hex][-1] == "CANCELLED"
    assert "CANCELLED" not in [body["state"] for body in told() if body["id"] != job.pk.hex]
    assert StepsRun.objects.get(pk=job.pk).is_watched is False


def test_a_delivery_can_be_made_again_and_nobody_else_can_make_one() -> None:
    run(do("a"), webhooks=[hook()])
    first = deliveries()[0]
    assert requeue(first, by="test").payload == first.payload
    with pytest.raises(InvalidJob) as refused:
        enqueue(NewJob(kind="webhook", payload=first.payload), by="test")
    assert refused.value.field == "kind"


def test_what_is_told_is_forgotten_with_the_job() -> None:
    job = run(do("a"), webhooks=[hook(), hook("task.StateChange")])
    look()
    assert WebhookEvent.objects.exists()
    job.delete_final()
    assert not WebhookEvent.objects.exists()


def test_jobs_without_webhooks_ask_nothing_of_them() -> None:
    node = TestNode()
    alias = connections[node.using]
    with CaptureQueriesContext(alias) as queries:
        run(do("a"), do("b"), node=node)
    assert not [one["sql"] for one in queries if "webhook_event" in one["sql"]]
    with CaptureQueriesContext(alias) as queries:
        look_at = webhooks.tell_open(node.using, ClusterPolicy())
    assert (look_at, len(queries)) == (0, 1)


@pytest.mark.parametrize("form", ["xml", 3])
def test_a_format_that_does_not_exist_is_refused(form: Any) -> None:
    with pytest.raises(InvalidJob) as refused:
        submit(do("a"), webhooks=[hook(format=form)])
    assert refused.value.field == "payload.webhooks[0].format"
