"""Retention: what goes, what stays, and that pruners are in nobody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connections
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.log import LogEntry
from clusters.models import Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs.engine import prune
from jobs.engine.prune import Pruner
from jobs.models import (
    Attempt,
    BulkAction,
    BulkOperation,
    BulkStatus,
    Failure,
    FailureHour,
    Job,
    JobDependency,
    JobListing,
    JobMetadata,
    JobTag,
    LogLine,
    Rollup,
)
from jobs.states import FINAL, State
from tests.factories import make_attempt, make_job, make_node, make_queue

DAY = timedelta(days=1)
POLICY = ClusterPolicy()
THEIRS = (Attempt, LogLine, JobTag, JobMetadata, JobListing)


def ago(**since: float) -> Any:
    return timezone.now() - timedelta(**since)


def old_job(state: str = State.SUCCEEDED, days: float = 40, **columns: Any) -> Job:
    created = ago(days=days)
    columns = {"created_at": created, "run_at": created, "finished_at": created, **columns}
    if state not in FINAL:
        del columns["finished_at"]
    if state in (State.RUNNING, State.SUCCEEDED, State.FAILED):
        columns.setdefault("started_at", created)
    return make_job(state, **columns)


def with_everything(job: Job) -> Job:
    """What a job leaves in other tables."""
    make_attempt(job)
    LogLine.objects.create(job=job, fence=1, stream="log", message="hello")
    JobMetadata.objects.create(job=job, key="k", value="1", created_at=job.created_at)
    return job


def run(policy: ClusterPolicy = POLICY, pruner: Callable[..., int] | None = None) -> int:
    """A whole run; returns the number of its rounds that did something."""
    pruner = pruner or Pruner()
    rounds = 0
    while pruner("cluster-alpha", policy):
        rounds += 1
        assert rounds < 1000
    return rounds


def left() -> set[Any]:
    return {*Job.objects.values_list("pk", flat=True)}


# -- Jobs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "days", "goes"),
    [
        (State.SUCCEEDED, 8, True),
        (State.SUCCEEDED, 6, False),
        (State.CANCELLED, 8, True),
        (State.SKIPPED, 8, True),
        (State.FAILED, 8, False),
        (State.FAILED, 31, True),
        (State.READY, 400, False),
        (State.SCHEDULED, 400, False),
        (State.BLOCKED, 400, False),
        (State.RUNNING, 400, False),
        (State.WAITING, 400, False),
    ],
)
def test_finished_jobs_go_after_their_time_and_open_ones_never(alpha, state, days, goes):
    job = old_job(state, days)
    run()
    assert left() == (set() if goes else {job.pk})


def test_all_that_belongs_to_a_job_goes_with_it_and_nothing_of_others(alpha):
    gone = with_everything(old_job(tags=["a", "b"]))
    stays = with_everything(old_job(days=1, tags=["a", "b"]))
    JobDependency.objects.create(child=gone, parent=old_job(days=1), satisfied_at=timezone.now())
    run()
    assert gone.pk not in left()
    for model in THEIRS:
        assert not model.objects.filter(job_id=gone.pk).exists(), model
        assert model.objects.filter(job_id=stays.pk).exists(), model
    assert not JobDependency.objects.exists()


def test_it_counts_from_the_end_not_from_the_beginning(alpha):
    job = old_job(days=100, finished_at=ago(hours=1))
    run()
    assert left() == {job.pk}


def test_a_queue_may_keep_its_jobs_longer_or_shorter(alpha):
    make_queue("long", retain_succeeded_seconds=3650 * 86400.0)
    make_queue("short", retain_succeeded_seconds=60.0)
    old_job(queue="short", days=0.1)
    keep = [
        old_job(queue="long", days=300),
        old_job(queue="default", days=0.1),
        old_job(State.FAILED, queue="short", days=0.1),
        old_job(queue="short", days=0.1, finished_at=ago(seconds=5)),
    ]
    run()
    assert left() == {job.pk for job in keep}


def test_a_job_that_an_open_job_waits_for_stays_until_that_one_has_ended(alpha):
    parent = old_job(has_dependants=True)
    child = old_job(State.BLOCKED)
    edge = JobDependency.objects.create(child=child, parent=parent)
    run()
    assert left() == {parent.pk, child.pk}
    assert JobDependency.objects.get(pk=edge.pk)
    Job.objects.filter(pk=child.pk).update(
        state=State.CANCELLED, finished_at=timezone.now(), pending_dependencies=0
    )
    run()
    assert left() == {child.pk}
    assert not JobDependency.objects.exists()


def test_what_waits_for_a_person_is_not_taken_from_them(alpha):
    held = old_job(State.FAILED, 300, is_held=True)
    run()
    assert left() == {held.pk}


def test_many_jobs_go_in_short_transactions(alpha, monkeypatch):
    monkeypatch.setattr(prune, "BATCH", 3)
    # A busy machine must not make them smaller.
    monkeypatch.setattr(prune, "WHOLE_SECONDS", dict.fromkeys(prune.WHOLE_SECONDS, 1e9))
    for _ in range(10):
        old_job()
    young = old_job(days=1)
    assert run() == 4
    assert left() == {young.pk}


def test_jobs_of_one_moment_are_not_lost_between_two_pages(alpha, monkeypatch):
    monkeypatch.setattr(prune, "BATCH", 2)
    same = ago(days=50)
    for number in range(7):
        # Every other one is not due: it stays behind the cursor.
        ended = same if number % 2 else ago(days=1)
        make_job(State.SUCCEEDED, created_at=same, finished_at=ended)
    run()
    assert Job.objects.count() == 4


def test_what_is_not_due_is_not_looked_at_again_and_again(alpha, monkeypatch):
    monkeypatch.setattr(prune, "BATCH", 5)
    for _ in range(50):
        old_job(finished_at=ago(days=1))
    pruner = Pruner()
    assert run(pruner=pruner) == 10
    assert run(pruner=pruner) == 0
    old_job(days=50)  # behind the cursor
    fresh = old_job(days=7.5, finished_at=ago(days=7.5))  # before it
    assert run(pruner=pruner) == 1
    assert fresh.pk not in left()
    assert Job.objects.count() == 51
    for walk in pruner._walks:
        assert prune.AGAIN_SOONEST <= walk.again_at - prune.countdown() <= prune.AGAIN_LATEST
        walk.again_at = 0.0  # time goes by
    run(pruner=pruner)
    assert Job.objects.count() == 50


def test_a_retention_that_is_made_shorter_is_heeded_at_once(alpha):
    pruner = Pruner()
    old_job(days=2)
    old_job(days=8, finished_at=ago(days=2))
    run(pruner=pruner)
    assert Job.objects.count() == 2
    run(ClusterPolicy(retain_succeeded_seconds=86400), pruner=pruner)
    assert Job.objects.count() == 0


def test_a_batch_that_takes_too_long_is_smaller_the_next_time(alpha, monkeypatch):
    monkeypatch.setitem(prune.WHOLE_SECONDS, connections["cluster-alpha"].vendor, 0.0)
    monkeypatch.setattr(prune, "BATCH", 8)
    for _ in range(14):
        old_job()
    assert run() == 3  # 8, 4, 2
    monkeypatch.setitem(prune.WHOLE_SECONDS, connections["cluster-alpha"].vendor, 100.0)
    pruner = Pruner()
    pruner._batch = 1
    for _ in range(15):
        old_job()
    assert run(pruner=pruner) == 4  # 1, 2, 4, 8


def test_a_job_that_was_retried_meanwhile_is_let_be(alpha):
    job = old_job(State.FAILED)
    Job.objects.filter(pk=job.pk).retry()
    still = prune.Q(state=State.FAILED, finished_at__lte=job.finished_at)
    assert prune.delete_jobs("cluster-alpha", [job.pk], still) == 0
    again = old_job(State.FAILED)
    Job.objects.filter(pk=again.pk).update(finished_at=timezone.now())
    still = prune.Q(state=State.FAILED, finished_at__lte=again.finished_at)
    assert prune.delete_jobs("cluster-alpha", [again.pk], still) == 0


# -- Beside others ---------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_only_one_prunes_at_a_time_and_the_other_does_not_wait(patience, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has one lock, and whoever has it is alone")
    old_job()
    other = connections["cluster-alpha"].copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [prune.ADVISORY_LOCK])
            begun = time.monotonic()
            assert run() == 0
            assert time.monotonic() - begun < patience
            assert Job.objects.count() == 1
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    assert run() == 1
    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_job_that_somebody_is_changing_is_left_for_later(patience, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has one lock, and whoever has it is alone")
    busy, _ = old_job(State.FAILED), old_job(State.FAILED)
    other = connections["cluster-alpha"].copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE job SET priority = 1 WHERE id = %s", [busy.pk])
            begun = time.monotonic()
            run()
            assert time.monotonic() - begun < patience
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    assert left() == {busy.pk}


@pytest.mark.django_db(transaction=True)
def test_pruners_and_people_do_not_meet_in_a_deadlock(alpha, monkeypatch):
    """Several prune while somebody retries, cancels and deletes the same jobs."""
    monkeypatch.setattr(prune, "BATCH", 20)
    for _ in range(150):
        with_everything(old_job(State.FAILED))
    errors: list[Exception] = []

    def beside(work: Callable[[], object]) -> threading.Thread:
        def body() -> None:
            try:
                with cluster_bound("alpha"):
                    for _ in range(4):
                        work()
            except Exception as error:
                errors.append(error)
            finally:
                connections["cluster-alpha"].close()

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    threads = [
        beside(run),
        beside(run),
        beside(lambda: Job.objects.filter(priority=0).order_by("-pk").retry()),
        beside(lambda: Job.objects.all().cancel()),
    ]
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert not Attempt.objects.exclude(job_id__in=left()).exists()
    assert not JobListing.objects.exclude(job_id__in=left()).exists()


# -- Other rows ------------------------------------------------------------------------------------


def test_old_lines_go_even_of_a_job_that_still_runs(alpha, monkeypatch):
    monkeypatch.setattr(prune, "LOG_BATCH", 4)
    job = make_job(State.RUNNING)
    for number in range(10):
        LogLine.objects.create(
            job=job, fence=1, stream="log", message=f"{number}", logged_at=ago(days=8)
        )
    LogLine.objects.create(job=job, fence=1, stream="log", message="new", logged_at=ago(days=6))
    run()
    assert [line.message for line in LogLine.objects.all()] == ["new"]
    assert left() == {job.pk}


def test_old_lines_of_the_clusters_own_log_go(alpha, monkeypatch):
    monkeypatch.setattr(prune, "LOG_BATCH", 4)
    for number in range(10):
        LogEntry.objects.create(
            category="api", level="info", message=f"{number}", logged_at=ago(days=8)
        )
    LogEntry.objects.create(category="api", level="info", message="new", logged_at=ago(days=6))
    run()
    assert [line.message for line in LogEntry.objects.all()] == ["new"]


def test_a_transaction_that_took_too_long_is_a_smaller_one_next_time(alpha, monkeypatch):
    def stopped(*args: object) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    old_job()
    monkeypatch.setattr(prune, "delete_jobs", stopped)
    monkeypatch.setitem(prune.WHOLE_SECONDS, connections["cluster-alpha"].vendor, 0.0)
    pruner = Pruner()
    sizes = []
    for _ in range(3):
        with pytest.raises(OperationalError):
            pruner("cluster-alpha", POLICY)
        sizes.append(pruner._batch)
    assert sizes == [prune.BATCH // 2, prune.BATCH // 4, prune.BATCH // 8]


def test_roll_ups_and_failures_are_left_to_compaction(alpha):
    """Stats add up minutes and hours of two days, however short the cluster keeps hours."""
    for resolution in (60, 3600):
        Rollup.objects.create(
            starts_at=ago(hours=47), resolution_seconds=resolution, queue="q", type="t"
        )
    Failure.objects.create(
        fingerprint="old", first_seen_at=ago(days=2), last_seen_at=ago(days=2), job_id=uuid4()
    )
    FailureHour.objects.create(fingerprint="old", starts_at=ago(days=2), count=1)
    run(policy=ClusterPolicy(retain_rollup_seconds=86400))
    counts = [model.objects.count() for model in (Rollup, Failure, FailureHour)]
    assert counts == [2, 1, 1]


@pytest.mark.parametrize(
    ("status", "days", "goes"),
    [
        (NodeStatus.DEAD, 2, True),
        (NodeStatus.CLOSED, 2, True),
        (NodeStatus.DEAD, 0.5, False),
        (NodeStatus.LIVE, 300, False),
        (NodeStatus.DRAINING, 300, False),
    ],
)
def test_rows_of_nodes_that_ended_long_ago_go(alpha, status, days, goes):
    node = make_node(status, started_at=ago(days=days))
    if node.closed_at:
        Node.objects.filter(pk=node.pk).update(closed_at=ago(days=days))
    run()
    assert Node.objects.filter(pk=node.pk).exists() != goes


def test_a_node_whose_jobs_were_not_rescued_yet_stays(alpha):
    node = make_node(NodeStatus.DEAD)
    Node.objects.filter(pk=node.pk).update(closed_at=ago(days=9))
    make_job(State.RUNNING, node=node)
    run()
    assert Node.objects.filter(pk=node.pk).exists()


def test_bulk_operations_go_a_month_after_their_end(alpha):
    def make(days: float, **columns: Any) -> BulkOperation:
        at = ago(days=days)
        columns = {"status": BulkStatus.FINISHED, "finished_at": at, **columns}
        return BulkOperation.objects.create(
            action=BulkAction.CANCEL, reason="x", requested_by="t", created_at=at, **columns
        )

    make(31)
    keep = [make(29), make(31, finished_at=ago(days=1))]
    keep.append(make(300, status=BulkStatus.RUNNING, finished_at=None))
    run()
    assert {*BulkOperation.objects.all()} == {*keep}


# -- The plan --------------------------------------------------------------------------------------


def test_candidates_are_found_along_the_index(alpha, is_postgresql):
    walk = prune.Walk(State.SUCCEEDED)
    walk.begin(prune.Retention(86400))
    walk.after = (ago(days=3), uuid4())
    query = prune._oldest("cluster-alpha", walk, timezone.now())[:2000]
    with connections["cluster-alpha"].cursor() as cursor:
        if is_postgresql:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
    plan = query.explain()
    assert "job_final" in plan
    assert "Sort" not in plan and "TEMP B-TREE" not in plan
