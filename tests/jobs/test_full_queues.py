"""Queues that hold so many jobs and no more: the newest is refused, or the oldest dropped."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.engine.enqueue import COPY_FROM, NewJob, enqueue, enqueue_many
from jobs.engine.overflow import _waiting
from jobs.errors import QueueFull
from jobs.models import Job, Overflow, Tally
from jobs.states import State
from tests.factories import make_job, make_queue

NEW = NewJob("demo:noop", queue="mail")


def waiting() -> int:
    return Job.objects.filter(queue="mail", state__in=["ready", "scheduled", "blocked"]).count()


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(alpha):
    make_queue("mail", max_entries=2)
    first = enqueue(NEW, by="test").job
    enqueue(NewJob("demo:noop", queue="mail", delay_seconds=60), by="test")
    with pytest.raises(QueueFull) as caught:
        enqueue(NEW, by="test")
    assert (caught.value.field, caught.value.index) == ("queue", None)
    assert waiting() == 2
    first.cancel()
    assert enqueue(NEW, by="test").created


def test_what_has_started_takes_no_room(alpha):
    make_queue("mail", max_entries=1)
    for state in (State.RUNNING, State.WAITING, State.SUCCEEDED, State.FAILED):
        make_job(state, queue="mail")
    assert enqueue(NEW, by="test").created
    make_job()  # nor does another queue's
    with pytest.raises(QueueFull):
        enqueue(NEW, by="test")


@pytest.mark.parametrize("how_many", [3, COPY_FROM + 1])
def test_of_many_all_find_room_or_none(alpha, how_many):
    make_queue("mail", max_entries=how_many)
    news = [NEW] * how_many
    assert len(enqueue_many(news, by="test")) == how_many
    Job.objects.all().cancel()
    Tally.objects.all().delete()
    with pytest.raises(QueueFull):
        enqueue_many([*news, NEW], by="test")
    assert waiting() == 0
    assert not Tally.objects.exists()


def test_a_repeat_needs_no_room(alpha):
    make_queue("mail", max_entries=1)
    new = NewJob("demo:noop", queue="mail", id=uuid.uuid4(), unique_key="one")
    assert enqueue(new, by="test").created
    assert not enqueue(new, by="test").created
    assert not enqueue(NewJob("demo:noop", queue="mail", unique_key="one"), by="test").created


@pytest.mark.parametrize("state", [State.READY, State.SCHEDULED, State.BLOCKED])
def test_the_oldest_is_dropped_whatever_it_waits_for(alpha, state):
    make_queue("mail", max_entries=2, overflow=Overflow.DROP_OLDEST)
    now = timezone.now()
    oldest = make_job(state, queue="mail", type="old", created_at=now - timedelta(hours=2))
    make_job(queue="mail", created_at=now - timedelta(hours=1))
    other = make_job(created_at=now - timedelta(days=1))
    assert enqueue(NEW, by="test").job.state == State.READY
    oldest.refresh_from_db()
    other.refresh_from_db()
    assert (oldest.state, other.state) == (State.CANCELLED, State.READY)
    assert oldest.finished_at is not None
    assert "may hold 2 jobs" in (oldest.error or "")
    assert waiting() == 2
    tallies = {(t.type, t.event): t.count for t in Tally.objects.all()}
    assert tallies == {("old", "cancelled"): 1, ("demo:noop", "enqueued"): 1}


@pytest.mark.parametrize("how_many", [5, COPY_FROM + 5])
def test_more_than_the_queue_holds_leave_the_newest(alpha, how_many):
    make_queue("mail", max_entries=3, overflow=Overflow.DROP_OLDEST)
    answers = enqueue_many([NEW] * how_many, by="test")
    states = [answer.job.state for answer in answers]
    assert states == [State.CANCELLED] * (how_many - 3) + [State.READY] * 3


def test_those_that_wait_for_a_dropped_job_are_told(alpha):
    make_queue("mail", max_entries=1, overflow=Overflow.DROP_OLDEST)
    parent = enqueue(NEW, by="test").job
    child = enqueue(NewJob("demo:noop", depends_on=[parent.pk]), by="test").job
    skipped = NewJob("demo:noop", depends_on=[parent.pk], on_dependency_failure="skip")
    other = enqueue(skipped, by="test").job
    enqueue(NEW, by="test")
    parent.refresh_from_db()
    child.refresh_from_db()
    other.refresh_from_db()
    assert (parent.state, child.state, child.reason) == (State.CANCELLED, "failed", "dependency")
    assert other.state == State.SKIPPED


def test_a_refusal_leaves_the_callers_transaction_usable(alpha):
    make_queue("mail", max_entries=1)
    with transaction.atomic(using="cluster-alpha"):
        enqueue(NEW, by="test")
        with pytest.raises(QueueFull):
            enqueue(NEW, by="test")
        enqueue(NewJob("demo:noop"), by="test")
    assert Job.objects.count() == 2


@pytest.mark.parametrize("overflow", Overflow.values)
@pytest.mark.django_db(transaction=True)
def test_many_at_once_never_exceed_the_limit(overflow):
    limit, each = 30, 12
    errors: list[BaseException] = []
    accepted: list[int] = []
    gate = threading.Barrier(6)
    with cluster_bound("alpha"):
        make_queue("mail", max_entries=limit, overflow=overflow)

    def work(size: int) -> None:
        try:
            with cluster_bound("alpha"):
                gate.wait(60)
                for _ in range(each):
                    try:
                        accepted.append(len(enqueue_many([NEW] * size, by="test")))
                    except QueueFull:
                        assert overflow == Overflow.REFUSE
                    if waiting() > limit:
                        raise AssertionError("more than may be")
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(1 + seed % 3,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    with cluster_bound("alpha"):
        assert waiting() == limit
        assert Job.objects.count() == sum(accepted)


def test_what_waits_is_counted_by_an_index(alpha, is_postgresql):
    queue = make_queue("mail")
    now = timezone.now()
    names = [f"queue-{number}" for number in range(30)]
    rows = [
        Job(
            type="demo:noop", queue=name, state=state, enqueued_by="test", timeout_seconds=1,
            max_attempts=1, created_at=now, run_at=now,
        )
        for name in names
        for state in [State.READY] * 20 + [State.SCHEDULED] * 20
    ]  # fmt: skip
    Job.objects.bulk_create(rows, batch_size=500)
    with connections["cluster-alpha"].cursor() as cursor:
        cursor.execute("ANALYZE job")
        if is_postgresql:
            cursor.execute("SET LOCAL enable_seqscan = off")  # the table is small enough to be read
    for half, index in zip(
        _waiting("cluster-alpha", queue), ("job_ready", "job_unready"), strict=True
    ):
        assert index in half.values("pk").explain()
