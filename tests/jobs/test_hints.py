"""Hints may be lost, doubled or come in floods: only the delay changes, for polling is the truth."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from django.db import connections

from clusters.models import Node
from jobs import hints
from jobs.engine.enqueue import NewJob, enqueue_many
from jobs.hints import ANY_QUEUE, CHANNEL
from jobs.models import Attempt, Job
from jobs.states import State
from tests.factories import make_queue
from tests.jobs import test_worker
from tests.jobs.test_worker import (  # noqa: F401  run again here, with hints dropped
    add,
    cluster,
    ends,
    log_of,
    state_of,
    test_a_crash_is_charged_to_the_job_that_caused_it_and_to_no_other,
    test_a_failing_job_is_tried_again_and_keeps_every_attempt,
    test_a_killed_node_loses_nothing_and_its_jobs_run_again_elsewhere,
    test_jobs_wait_for_their_time_and_for_their_queue,
    worker,
)
from tests.processes import worker_environment

pytestmark = pytest.mark.django_db(transaction=True)
USING = "cluster-alpha"
JOBS = 300
Eventually = Callable[..., None]


@pytest.fixture(autouse=True)
def _only_where_there_are_hints(is_postgresql: bool) -> None:
    if not is_postgresql:
        pytest.skip("SQLite has no hints, so all tests run without")


@pytest.fixture(autouse=True)
def _dropped(request, settings, monkeypatch) -> None:
    """Nobody sends a hint and nobody listens, unless a test wants them."""
    if "hinted" in request.fixturenames:
        return
    settings.NOTIFY = False
    deaf = partial(worker_environment, YARDMASTER_NOTIFY="no")
    monkeypatch.setattr(test_worker, "worker_environment", deaf)


@pytest.fixture
def hinted(settings) -> None:
    assert settings.NOTIFY


def is_up() -> bool:
    return Node.objects.exists()


def wait_of(job: Job) -> float:
    return (job.started_at - job.created_at).total_seconds()


def add_ledgers(path: Path, queue: str = "default") -> list[Job]:
    new = [NewJob(type="test:ledger", payload={"path": str(path)}, queue=queue)] * JOBS
    return [made.job for made in enqueue_many(new, by="test")]


def each_ran_once(path: Path, jobs: list[Job], eventually: Eventually) -> None:
    eventually(lambda: not Job.objects.exclude(state=State.SUCCEEDED).exists(), seconds=30)
    starts = Counter(
        line.split()[1] for line in path.read_text().splitlines() if line.startswith("S ")
    )
    assert starts == {str(job.pk): 1 for job in jobs}
    # A fence may be higher: a child that is slow to stop another job hands back what it has not begun.
    assert not Job.objects.exclude(attempts=1).exists()
    assert Attempt.objects.count() == len(jobs)


# -- Lost ------------------------------------------------------------------------------------------


def test_a_hint_that_cannot_be_sent_is_no_error_of_what_was_committed(hinted, monkeypatch):
    monkeypatch.setattr(hints, "_last_sent", {})

    def on_a_connection_that_is_gone() -> None:
        try:
            connections[USING].ensure_connection()
            connections[USING].connection.close()
            hints._notify(USING, {"default"})
        finally:
            connections[USING].close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(on_a_connection_that_is_gone).result()
    assert hints._last_sent


def test_without_hints_an_idle_node_finds_a_job_by_its_next_poll(eventually):
    with worker():
        eventually(is_up, seconds=60)
        time.sleep(1.5)  # polls are at their rarest now
        # Of several one must not have waited; a busy machine may hold up the others.
        waits = [wait_of(ends(add("demo:echo", n), eventually)) for n in range(3)]
    assert min(waits) < 1


def test_a_node_that_waits_for_hints_finds_a_job_whose_hint_was_lost(hinted, settings, eventually):
    with worker():
        eventually(is_up, seconds=60)
        time.sleep(1.5)
        settings.NOTIFY = False  # of this process, which enqueues
        job = ends(add("demo:echo", 1), eventually)
    assert wait_of(job) < 20


def test_without_hints_two_nodes_run_every_job_once(tmp_path, eventually):
    path = tmp_path / "ledger"
    with worker(), worker():
        eventually(lambda: Node.objects.count() == 2, seconds=60)
        each_ran_once(path, add_ledgers(path), eventually)


def test_without_hints_a_cancel_reaches_running_work(eventually):
    job = add("test:cooperative", {"seconds": 60})
    with worker():
        eventually(lambda: log_of(job) == [("log", "begun")], seconds=60)
        job.cancel()
        assert ends(job, eventually).state == State.CANCELLED


# -- Doubled, and too many -------------------------------------------------------------------------


@pytest.fixture
def flood() -> Iterator[None]:
    """Thousands of hints: of queues with jobs, without, paused, and of none that exists."""
    queues = ["default", ANY_QUEUE, "empty", "closed", "no-such-queue", "x" * 7000]
    stop, sent = threading.Event(), Counter[str]()

    def send() -> None:
        connection = connections[USING].copy()
        try:
            with connection.cursor() as cursor:
                while not stop.wait(0.001):
                    for _ in range(2):
                        cursor.execute(
                            "SELECT pg_notify(%s, q) FROM unnest(%s::text[]) AS q",
                            [CHANNEL, queues],
                        )
                    sent["hints"] += 2 * len(queues)
        finally:
            connection.close()

    thread = threading.Thread(target=send)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert sent["hints"] > 1000


def test_a_flood_of_hints_changes_nothing(hinted, flood, tmp_path, eventually):
    make_queue("empty")
    make_queue("closed", is_paused=True)
    path = tmp_path / "ledger"
    parked = add("demo:echo", 1, queue="closed")
    later = add("demo:echo", 2, delay_seconds=3600)
    with worker(), worker("--queues", "default,empty"):
        eventually(lambda: Node.objects.count() == 2, seconds=60)
        jobs = add_ledgers(path)
        cancelled = add("test:cooperative", {"seconds": 60}, priority=-1)
        eventually(lambda: log_of(cancelled) == [("log", "begun")], seconds=60)
        cancelled.cancel()
        assert ends(cancelled, eventually).state == State.CANCELLED
        assert (state_of(parked), state_of(later)) == (State.READY, State.SCHEDULED)
        assert Job.objects.filter(pk__in=[parked.pk, later.pk], attempts=0).count() == 2
        Attempt.objects.filter(job_id=cancelled.pk).delete()
        Job.objects.filter(pk__in=[parked.pk, later.pk, cancelled.pk]).delete()
        each_ran_once(path, jobs, eventually)
        last = max(Node.objects.values_list("heartbeat_at", flat=True))
        eventually(lambda: Node.objects.alive().filter(heartbeat_at__gt=last).count() == 2)
