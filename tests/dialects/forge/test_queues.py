"""Queues: the overview, who works on them, and what may be set."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import (
    RESTORED,
    AuditEntry,
    ClusterSetting,
    Node,
    current_policy,
    forget_policies,
)
from jobs.dialects.forge.views import queues as views
from jobs.engine import ticks
from jobs.models import Job, Queue
from tests.dialects.forge.conftest import TIME, Caller, check_envelope, fixture
from tests.factories import make_job, make_node, make_queue

ALIAS = "cluster-alpha"


def of(name: str = "default") -> Queue:
    return Queue.objects.get(name=name)


# -- The overview ----------------------------------------------------------------------------------


def test_the_overview_has_the_members_of_the_manual(viewer: Caller) -> None:
    node = make_node(queues=["gh"])
    make_queue(
        "gh", max_concurrency=3, retain_succeeded_seconds=7 * 86400.0,
        retain_failed_seconds=30 * 86400.0, is_backoff_enabled=False,
        retry_base_seconds=60.0, retry_cap_seconds=1800.0,
    )  # fmt: skip
    example = fixture("overview")
    for state, count in (("ready", 42), ("scheduled", 3), ("running", 5), ("succeeded", 10)):
        for _ in range(count):
            make_job(state, queue="gh", node=node, created_at=timezone.now() - timedelta(minutes=2))
    make_job("scheduled", queue="gh", attempts=1)
    make_job("failed", queue="gh", node=node)
    Job.objects.filter(state="ready").update(run_at=timezone.now() - timedelta(seconds=30))
    shown = viewer.queue("gh")
    assert set(shown) == set(example)
    assert set(shown["processes"][0]) == set(example["processes"][0])
    assert 30 <= shown.pop("oldest_pending_age_seconds") <= 60
    assert len(shown.pop("processes")) == 5
    expected = {key: example[key] for key in shown}
    expected["counts"] = {
        "pending": 42, "scheduled": 3, "in_progress": 5, "done": 10, "failed": 1, "dead": 1,
    }  # fmt: skip
    assert shown == expected


def test_the_overview_is_by_name_and_says_what_is_not_set(viewer: Caller) -> None:
    make_node(concurrency=4)
    make_node(concurrency=2, queues=["b"])
    for name in ("b", "a"):
        make_queue(name)
    found = viewer.read("queue/overview")
    assert [one["name"] for one in found] == ["a", "b", "default"]
    # Where nobody has limited it, all places of the nodes that serve it.
    assert [one["max_workers"] for one in found] == [4, 6, 4]
    assert found[0]["oldest_pending_age_seconds"] == 0
    assert (found[0]["retain_done_days"], found[0]["retain_dead_days"]) == (7, 30)


def test_the_overview_asks_as_often_for_many_queues_as_for_one(viewer: Caller) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connections[ALIAS]) as captured:
            viewer.read("queue/overview")
        return len(captured)

    node = make_node()
    queries()  # the settings of the cluster are read once
    before = queries()
    for index in range(30):
        make_job("running", queue=f"q{index}", node=node)
        make_job("scheduled", queue=f"q{index}", attempts=index % 2)
    assert queries() == before <= 12


def test_a_queue_that_used_up_its_rate_is_throttled(viewer: Caller) -> None:
    now = timezone.now().timestamp()
    make_queue("slow", rate_limit=2, rate_period_seconds=60.0, rate_grants=[[now, 2]])
    until = viewer.queue("slow")["throttled_until"]
    assert TIME.match(until)
    assert viewer.queue()["throttled_until"] is None


# -- Processes and workers -------------------------------------------------------------------------


def test_processes_are_the_slots_of_nodes(viewer: Caller) -> None:
    node = make_node(queues=["a"])
    make_queue("a")
    make_queue("b")
    (free,) = viewer.read("queue/processes")
    assert free == {
        "process_id": f"a-0-{node.pk}",
        "queue_name": "a",
        "host_id": str(node.pk),
        "started_at": free["started_at"],
        "heartbeat_at": free["heartbeat_at"],
        "current_job_id": None,
    }
    assert TIME.match(free["started_at"])
    job = make_job("running", queue="a", node=node)
    (busy,) = viewer.read("queue/processes?queue_name=a")
    assert busy["current_job_id"] == str(job.pk)
    row = viewer.row(job)
    assert row["process_id"] == busy["process_id"]
    assert row["heartbeat_at"] == busy["heartbeat_at"]
    assert viewer.read("queue/processes?queue_name=b") == []
    check_envelope(viewer.get("queue/processes?queue_name=c"), 404, "not_found")


def test_workers_and_the_queues_that_nobody_serves(viewer: Caller) -> None:
    for name in ("gh", "slack"):
        make_queue(name, max_concurrency=2 if name == "gh" else None)
    make_queue("asleep", is_paused=True)
    node = make_node(queues=["gh", "asleep"], concurrency=4, running_jobs=1)
    make_node(lease_until=timezone.now() - timedelta(seconds=1))  # not heard of any more
    make_node("draining")
    found = viewer.read("queue/workers")
    worker = next(one for one in found["workers"] if one["host_id"] == str(node.pk))
    assert worker.pop("heartbeat_age_seconds") >= 0
    assert TIME.match(worker.pop("heartbeat_at"))
    assert worker == {
        "host_id": str(node.pk),
        "worker_name": str(node),
        "queues": ["gh", "asleep"],
        "slots": [{"queue_name": "gh", "slots": 2}],
        "workers_live": 4,
        "in_flight": 1,
    }
    assert len(found["workers"]) == 2
    assert found["unassigned_queues"] == ["asleep", "default", "slack"]
    Node.objects.all().delete()
    everything = ["asleep", "default", "gh", "slack"]
    assert viewer.read("queue/workers") == {"workers": [], "unassigned_queues": everything}


# -- Settings --------------------------------------------------------------------------------------


def test_max_workers_is_the_limit_of_the_queue(admin: Caller) -> None:
    assert admin.do("queue/default/max-workers", {"n": 4}) is None
    assert of().max_concurrency == 4
    assert admin.queue()["max_workers"] == 4
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_id) == ("queues.change", "default")
    assert entry.after == {"max_concurrency": 4}


def test_no_workers_is_a_pause_that_the_next_number_ends(admin: Caller) -> None:
    admin.do("queue/default/max-workers", {"n": 0})
    assert of().is_paused
    shown = admin.queue()
    assert (shown["paused"], shown["max_workers"]) == (False, 0)
    admin.do("queue/default/max-workers", {"n": 2})
    assert (of().is_paused, of().max_concurrency) == (False, 2)


def test_a_pause_of_somebody_else_is_left_alone(admin: Caller) -> None:
    Queue.objects.all().pause(by="alice", reason="a leak")
    admin.do("queue/default/max-workers", {"n": 0})
    assert (of().is_paused, of().pause_reason) == (True, "a leak; max_workers is 0")
    admin.do("queue/default/max-workers", {"n": 3})
    assert (of().is_paused, of().paused_by, of().pause_reason) == (True, "alice", "a leak")


@pytest.mark.parametrize(
    ("deeds", "paused", "workers", "rests"),
    [
        ([0, True, 4], True, 4, True),
        ([True, 0, 4], True, 4, True),
        ([True, 0, False], False, 0, True),
        ([0, True, False], False, 0, True),
        ([0, True, False, 4], False, 4, False),
        ([True, 0, 0, 4, False], False, 4, False),
    ],
)
def test_a_pause_and_no_workers_are_kept_apart(
    deeds: list[int | bool], paused: bool, workers: int, rests: bool, admin: Caller
) -> None:
    for deed in deeds:
        if isinstance(deed, bool):
            admin.do("queue/default/paused", {"paused": deed})
        else:
            admin.do("queue/default/max-workers", {"n": deed})
    shown = admin.queue()
    assert (shown["paused"], shown["max_workers"]) == (paused, workers)
    assert of().is_paused is rests


def test_a_pause_that_ends_by_itself_leaves_no_workers(admin: Caller) -> None:
    Queue.objects.all().pause(by="alice", reason="a leak", resume_in_seconds=60)
    admin.do("queue/default/max-workers", {"n": 0})
    Queue.objects.update(resume_at=timezone.now() - timedelta(seconds=1))
    assert [ticks.resume_due(ALIAS, current_policy()) for _ in range(2)] == [1, 0]
    shown = admin.queue()
    assert (shown["paused"], shown["max_workers"], of().is_paused) == (False, 0, True)


def test_pausing_and_resuming(api: Caller) -> None:
    assert api.do("queue/default/paused", {"paused": True}) is None
    assert (of().is_paused, of().pause_reason) == (True, views.REASON)
    first = of().paused_at
    api.do("queue/default/paused", {"paused": True})
    assert of().paused_at == first
    assert api.queue()["paused"] is True
    api.do("queue/default/paused", {"paused": False})
    assert of().is_paused is False
    verbs = AuditEntry.objects.order_by("at", "pk").values_list("verb", flat=True)
    assert list(verbs) == ["queues.pause", "queues.resume"]


def test_retention_in_days(admin: Caller) -> None:
    admin.do("queue/default/retention", {"done_days": 2, "dead_days": 0})
    assert (of().retain_succeeded_seconds, of().retain_failed_seconds) == (2 * 86400.0, 60.0)
    shown = admin.queue()
    assert (shown["retain_done_days"], shown["retain_dead_days"]) == (2, 0)


def test_the_curve_of_retries(admin: Caller) -> None:
    curve = {"enabled": False, "base_seconds": 60, "max_seconds": 86_400}
    admin.do("queue/default/backoff", curve)
    queue = of()
    assert queue.is_backoff_enabled is False
    assert (queue.retry_base_seconds, queue.retry_cap_seconds) == (60.0, 86_400.0)
    shown = admin.queue()
    assert (shown["backoff_base_seconds"], shown["backoff_max_seconds"]) == (60, 86_400)
    admin.do("queue/default/backoff", {**curve, "enabled": True, "base_seconds": 86_400})
    assert admin.queue()["backoff_enabled"] is True


BAD: list[tuple[str, Any, str]] = [
    ("max-workers", {}, "n"),
    ("max-workers", {"n": -1}, "n"),
    ("max-workers", {"n": 65}, "n"),
    ("max-workers", {"n": "4"}, "n"),
    ("max-workers", {"n": True}, "n"),
    ("max-workers", {"n": 1.5}, "n"),
    ("max-workers", [], "json"),
    ("paused", {}, "paused"),
    ("paused", {"paused": 1}, "paused"),
    ("paused", {"paused": None}, "paused"),
    ("retention", {"dead_days": 1}, "done_days"),
    ("retention", {"done_days": 1}, "dead_days"),
    ("retention", {"done_days": -1, "dead_days": 1}, "done_days"),
    ("retention", {"done_days": 1, "dead_days": 10**9}, "dead_days"),
    ("backoff", {"base_seconds": 1, "max_seconds": 2}, "enabled"),
    ("backoff", {"enabled": True, "base_seconds": 0, "max_seconds": 2}, "base_seconds"),
    ("backoff", {"enabled": True, "base_seconds": 1, "max_seconds": 86_401}, "max_seconds"),
    ("backoff", {"enabled": True, "base_seconds": 10, "max_seconds": 9}, "base_seconds"),
]


@pytest.mark.once
@pytest.mark.parametrize(("path", "body", "field"), BAD)
def test_what_a_queue_cannot_have_is_named_and_not_stored(
    path: str, body: Any, field: str, admin: Caller
) -> None:
    before = Queue.objects.values().get()
    check_envelope(admin.post(f"queue/default/{path}", body), 400, "validation", field)
    assert Queue.objects.values().get() == before
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "name", ["nothing", "a b", "%00", "x" * 300, "\ud800".encode("utf-8", "replace")]
)
def test_an_unknown_queue_is_not_taken_for_one(name: str, admin: Caller) -> None:
    for path, body in (
        ("max-workers", {"n": 0}),
        ("max-workers", {"n": 2}),
        ("paused", {"paused": True}),
        ("retention", {"done_days": 1, "dead_days": 1}),
        ("backoff", {"enabled": True, "base_seconds": 1, "max_seconds": 1}),
    ):
        check_envelope(admin.post(f"queue/{name}/{path}", body), 404, "not_found")
    assert not AuditEntry.objects.exists()


def test_cleanup_deletes_what_is_due(admin: Caller) -> None:
    long_ago = timezone.now() - timedelta(days=60)
    for state in ("succeeded", "succeeded", "failed", "cancelled"):
        make_job(state, created_at=long_ago, finished_at=long_ago)
    kept = make_job("succeeded")
    held = make_job("failed", is_held=True, created_at=long_ago, finished_at=long_ago)
    assert admin.do("queue/cleanup") == {"done_deleted": 2, "dead_deleted": 2}
    assert set(Job.objects.values_list("pk", flat=True)) == {kept.pk, held.pk}
    told = list(AuditEntry.objects.values_list("after", flat=True))
    for word in ("done_deleted", "dead_deleted"):
        assert sum(after[word] for after in told) == 2
    assert admin.do("queue/cleanup") == {"done_deleted": 0, "dead_deleted": 0}


def test_nothing_is_cleaned_up_in_a_cluster_that_was_restored(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = timezone.now() - timedelta(days=60)
    make_job("succeeded", created_at=long_ago, finished_at=long_ago)
    ClusterSetting.objects.create(name=RESTORED, value=True, updated_by="cli:root")
    forget_policies()
    check_envelope(admin.post("queue/cleanup"), 409, "conflict")
    assert Job.objects.exists()
    ClusterSetting.objects.all().delete()
    forget_policies()
    assert admin.do("queue/cleanup")["done_deleted"] == 1
