"""Bulk operations beside others: real connections, real processes, both databases."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.policy import DEFAULTS
from jobs.engine import bulk
from jobs.models import BulkOperation, BulkStatus, Job
from jobs.states import State
from tests.factories import make_job
from tests.processes import ROOT, worker_environment

USING = "cluster-alpha"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cluster `alpha`, with batches of 20 and no pauses."""
    for vendor in ("postgresql", "sqlite"):
        monkeypatch.setitem(bulk.FIRST_BATCH, vendor, 20)
        monkeypatch.setitem(bulk.SMALLEST_BATCH, vendor, 20)
    monkeypatch.setattr(bulk, "LARGEST_BATCH", 20)
    monkeypatch.setattr(bulk, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(bulk, "BUSY_PAUSE", 0.01)
    with cluster_bound("alpha"):
        yield


def make_jobs(count: int, state: str = State.READY) -> None:
    now = timezone.now()
    final = {"finished_at": now} if state == State.SUCCEEDED else {}
    Job.objects.bulk_create(
        Job(
            type="t",
            state=state,
            enqueued_by="t",
            timeout_seconds=1,
            max_attempts=1,
            created_at=now,
            run_at=now,
            **final,
        )
        for _ in range(count)
    )


def ask(action: str, **words: Any) -> BulkOperation:
    return bulk.request(action, words, reason="a test", by="cli:test")


def carry_out(operation: BulkOperation) -> BulkOperation:
    while bulk.advance(USING, DEFAULTS):
        pass
    operation.refresh_from_db()
    return operation


def beside(*works: Callable[[], Any]) -> None:
    """Run these in threads with connections of their own; what one of them raises is raised here."""
    errors: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            with cluster_bound("alpha"):
                work()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def until_all_is_done() -> None:
    while BulkOperation.objects.all().open().exists():
        bulk.advance(USING, DEFAULTS)


def test_two_nodes_that_advance_at_once_do_each_job_once(cluster):
    make_jobs(400)
    operation = ask("cancel", state=["ready"])
    barrier = threading.Barrier(2)

    def node() -> None:
        barrier.wait(60)
        until_all_is_done()

    beside(node, node)
    operation.refresh_from_db()
    assert operation.status == BulkStatus.FINISHED, operation.error
    assert operation.outcomes == {"cancelled": 400}
    assert operation.seen == 400


def test_a_batch_that_another_node_has_done_meanwhile_is_let_go(cluster, monkeypatch):
    """It was read, and before it was written the other one had it."""
    make_jobs(50)
    operation = ask("cancel", state=["ready"])
    monkeypatch.setattr(bulk, "WORK_SECONDS", 0.0)
    bulk.advance(USING, DEFAULTS)
    write, writes = bulk._write, []

    def written_by_another_first(*args: Any) -> Any:
        writes.append(None)
        if len(writes) == 1:
            bulk.advance(USING, DEFAULTS)  # the other node
        return write(*args)

    monkeypatch.setattr(bulk, "_write", written_by_another_first)
    assert bulk.advance(USING, DEFAULTS) == 0
    operation.refresh_from_db()
    assert (operation.seen, operation.outcomes) == (20, {"cancelled": 20})
    assert carry_out(operation).outcomes == {"cancelled": 50}


def test_a_node_that_is_killed_in_a_batch_leaves_it_undone_and_another_goes_on(cluster):
    make_jobs(100)
    operation = ask("cancel", state=["ready"])
    script = """
import os, django
django.setup()
from clusters.binding import cluster_bound
from clusters.policy import DEFAULTS
from jobs.engine import bulk
from jobs.models.bulk_operation import BulkOperationQuerySet
bulk.FIRST_BATCH = {"postgresql": 20, "sqlite": 20}
bulk.LARGEST_BATCH = 20
bulk.SMALLEST_BATCH = {"postgresql": 20, "sqlite": 20}
go_on, batches = BulkOperationQuerySet.go_on, []
def killed_in_the_third(self, **columns):
    batches.append(columns)
    rows = go_on(self, **columns)
    if len(batches) == 3:
        os.kill(os.getpid(), 9)
    return rows
BulkOperationQuerySet.go_on = killed_in_the_third
with cluster_bound("alpha"):
    while bulk.advance("cluster-alpha", DEFAULTS):
        pass
"""
    connections[USING].close()
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=worker_environment(), timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    operation.refresh_from_db()
    assert (operation.status, operation.seen) == (BulkStatus.RUNNING, 40)
    assert operation.outcomes == {"cancelled": 40}
    assert Job.objects.filter(state=State.CANCELLED).count() == 40
    assert carry_out(operation).outcomes == {"cancelled": 100}
    assert operation.seen == 100


def test_a_job_that_ends_while_its_operation_runs_keeps_its_end(cluster):
    make_jobs(100)
    jobs = [make_job(State.RUNNING) for _ in range(30)]
    operation = ask("cancel", state=["ready", "running"])

    def complete() -> None:
        for job in jobs:
            ended = Job.objects.filter(pk=job.pk, state="running")
            ended.update(state="succeeded", finished_at=timezone.now())

    beside(until_all_is_done, complete)
    operation.refresh_from_db()
    assert operation.status == BulkStatus.FINISHED, operation.error
    assert sum(operation.outcomes.values()) == operation.seen
    assert operation.outcomes["cancelled"] == 100
    assert Job.objects.filter(state=State.SUCCEEDED).count() == 30


def test_a_stop_waits_for_the_batch_that_runs_and_there_is_none_after_it(cluster, monkeypatch):
    make_jobs(200)
    operation = ask("cancel", state=["ready"])
    begun = threading.Event()
    act = bulk._act

    def slow(*args: Any) -> Any:
        done = act(*args)
        begun.set()
        threading.Event().wait(0.05)
        return done

    monkeypatch.setattr(bulk, "_act", slow)
    stopped = []

    def stop() -> None:
        begun.wait(60)
        stopped.append(bulk.cancel(operation.pk, by="anna"))

    beside(until_all_is_done, stop)
    operation.refresh_from_db()
    assert (operation.status, operation.cancelled_by) == (BulkStatus.CANCELLED, "anna")
    cancelled = Job.objects.filter(state=State.CANCELLED).count()
    assert operation.outcomes == {"cancelled": cancelled}
    assert 20 <= cancelled < 200
    # What the caller was told is the end of it.
    assert stopped[0].seen == operation.seen


# -- Locks: PostgreSQL only; on SQLite one writer keeps all others out ------------------------------


@pytest.fixture
def holding(is_postgresql: bool) -> Iterator[Callable[[Any], Callable[[], None]]]:
    """Lock a job on another connection until the returned function is called."""
    if not is_postgresql:
        pytest.skip("SQLite has no row locks")
    releases: list[Callable[[], None]] = []

    def hold(pk: Any) -> Callable[[], None]:
        locked, let_go = threading.Event(), threading.Event()

        def work() -> None:
            with cluster_bound("alpha"), transaction.atomic(using=USING):
                Job.objects.select_for_update().get(pk=pk)
                locked.set()
                let_go.wait(30)
            connections.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        assert locked.wait(60)

        def release() -> None:
            let_go.set()
            thread.join(120)

        releases.append(release)
        return release

    yield hold
    for release in releases:
        release()


def test_a_job_that_is_locked_is_passed_by_and_done_at_the_end(cluster, holding, monkeypatch):
    make_jobs(60)
    held = Job.objects.order_by("created_at", "pk")[5].pk
    release = holding(held)
    monkeypatch.setattr(bulk, "WORK_SECONDS", 0.0)
    operation = ask("cancel", state=["ready"])
    for _ in range(5):
        bulk.advance(USING, DEFAULTS)
    operation.refresh_from_db()
    assert (operation.status, operation.seen) == (BulkStatus.RUNNING, 60)
    assert operation.outcomes == {"cancelled": 59}
    release()
    assert carry_out(operation).outcomes == {"cancelled": 60}
    assert Job.objects.get(pk=held).state == State.CANCELLED


def test_a_job_that_stays_locked_is_counted_as_busy(cluster, holding):
    make_jobs(3)
    holding(Job.objects.first().pk)
    operation = carry_out(ask("cancel", state=["ready"]))
    assert operation.status == BulkStatus.FINISHED
    assert operation.outcomes == {"cancelled": 2, "busy": 1}


def test_what_is_busy_is_looked_at_anew(cluster, holding, monkeypatch):
    """Whoever had it locked may have changed it: then it is not what was meant."""
    make_jobs(3, State.SUCCEEDED)
    held = Job.objects.first().pk
    release = holding(held)
    monkeypatch.setattr(bulk, "WORK_SECONDS", 0.0)
    operation = ask("delete", queue="default", state=["succeeded"])
    for _ in range(3):
        bulk.advance(USING, DEFAULTS)
    release()
    Job.objects.filter(pk=held).update(state="cancelled")
    assert carry_out(operation).outcomes == {"deleted": 2, "conflict": 1}


# -- The length of a batch -------------------------------------------------------------------------


def test_batches_that_take_too_long_become_smaller_and_quick_ones_larger(cluster, monkeypatch):
    make_jobs(400)
    monkeypatch.setattr(bulk, "LARGEST_BATCH", 1000)
    monkeypatch.setattr(bulk, "WORK_SECONDS", 0.0)
    operation = ask("cancel", state=["ready"])
    bulk.advance(USING, DEFAULTS)
    sizes = []
    for seconds in (60, 60, 1e-9, 1e-9):
        for vendor in ("postgresql", "sqlite"):
            monkeypatch.setitem(bulk.BATCH_SECONDS, vendor, seconds)
        bulk.advance(USING, DEFAULTS)
        operation.refresh_from_db()
        sizes.append(operation.cursor["size"])
    assert sizes == [40, 80, 20, 20]


def test_a_batch_that_the_statement_limit_ends_is_tried_smaller_and_then_parked(
    cluster, monkeypatch
):
    class Cancelled(Exception):
        sqlstate = "57014"

    def too_long(*args: Any) -> None:
        raise OperationalError("canceling statement due to statement timeout") from Cancelled()

    make_jobs(5)
    operation = ask("cancel", state=["ready"])
    bulk._step(USING, operation.pk)
    BulkOperation.objects.update(cursor=bulk._Cursor(size=300).to_json())
    monkeypatch.setattr(bulk, "_act", too_long)
    sizes = []
    for _ in range(3):
        with pytest.raises(OperationalError):
            bulk.advance(USING, DEFAULTS)
        operation.refresh_from_db()
        sizes.append(operation.cursor["size"])
        if sizes[-1] == 20:
            break
    assert sizes == [75, 20]
    assert bulk.advance(USING, DEFAULTS)
    operation.refresh_from_db()
    assert operation.status == BulkStatus.FAILED
    assert "statement timeout" in operation.error
