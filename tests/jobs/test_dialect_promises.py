"""What dialects promise of their jobs beyond our own words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from jobs.engine.enqueue import NewJob, enqueue, enqueue_many
from jobs.engine.idempotency import KeyReused, once
from jobs.errors import InvalidJob, QueueInUse
from jobs.models import IdempotencyKey, Job, JobDependency, Queue
from jobs.states import RETRYABLE_FROM, Reason, State
from tests.factories import make_job, make_queue

NOTES = {"signature": "é\t\\", "n": 2**60, "list": ["a"]}
MISSING = UUID("0190a1b2-0000-7000-8000-000000000000")


@pytest.mark.parametrize("count", [1, 3, 30])
def test_notes_are_kept_word_for_word_however_many_jobs_come(count: int, alpha: object) -> None:
    make_queue("counted", max_entries=100)
    for queue in ("default", "counted"):
        news = [NewJob("a", queue=queue, notes={**NOTES, "at": at}) for at in range(count)]
        news.append(NewJob("a", queue=queue))
        ids = [one.job_id for one in enqueue_many(news, by="test")]
        kept = [Job.objects.get(pk=job_id).dialect_notes for job_id in ids]
        assert kept == [*({**NOTES, "at": at} for at in range(count)), None]
    one = enqueue(NewJob("a", notes=NOTES), by="test").job
    assert one.dialect_notes == NOTES == Job.objects.get(pk=one.pk).dialect_notes


def test_a_job_may_be_late_only_where_that_was_promised(alpha: object) -> None:
    past = timezone.now() - timedelta(days=1)
    with pytest.raises(InvalidJob):
        enqueue(NewJob("a", expires_at=past), by="test")
    job = enqueue(NewJob("a", expires_at=past, may_be_late=True), by="test").job
    assert (job.state, job.expires_at) == (State.READY, past)
    with pytest.raises(InvalidJob):
        enqueue(NewJob("a", deadline_at=past, may_be_late=True), by="test")


def test_parents_may_be_missing_only_where_that_was_promised(alpha: object) -> None:
    with pytest.raises(InvalidJob):
        enqueue(NewJob("a", depends_on=[MISSING]), by="test")
    assert not Job.objects.exists()
    parent = make_job()
    new = NewJob("a", depends_on=[parent.pk, MISSING], lost_parents=["x" * 150])
    job = enqueue(new, by="test").job
    assert (job.state, job.reason) == (State.FAILED, Reason.DEPENDENCY)
    assert str(MISSING) in (job.error or "") and "x" * 100 in (job.error or "")
    assert "x" * 101 not in (job.error or "") and str(parent.pk) not in (job.error or "")
    assert not JobDependency.objects.exists()
    parent.refresh_from_db()
    assert not parent.has_dependants


def test_who_waits_for_a_lost_job_of_the_same_call_is_lost_too(alpha: object) -> None:
    first, second, third = (UUID(int=MISSING.int + n) for n in (1, 2, 3))
    news = [
        NewJob("a", id=third, depends_on=[second], lost_parents=[]),
        NewJob("a", id=second, depends_on=[first], lost_parents=[]),
        NewJob("a", id=first, lost_parents=["gone"]),
        NewJob("b"),
    ]
    enqueue_many(news, by="test")
    reasons = Job.objects.filter(type="a").values_list("reason", flat=True)
    assert [*reasons] == [Reason.DEPENDENCY] * 3
    assert Job.objects.get(type="b").state == State.READY


def test_a_restart_says_what_each_job_was(alpha: object) -> None:
    jobs = {state: make_job(state) for state in State}
    found = Job.objects.filter(pk__in=[job.pk for job in jobs.values()]).restart()
    assert {pk: was for pk, (was, _) in found.items()} == {job.pk: s for s, job in jobs.items()}
    due = {State(found[jobs[state].pk].was) for state in State if found[jobs[state].pk].is_due}
    assert due == {*RETRYABLE_FROM, State.SCHEDULED, State.READY}
    assert Job.objects.filter(state=State.READY, run_at__lte=timezone.now()).count() == 5
    assert Job.objects.filter(pk=MISSING).restart() == {}


def test_a_restart_takes_of_one_unique_key_the_newest(alpha: object) -> None:
    older, newer = (make_job(State.FAILED, unique_key="k") for _ in "ab")
    found = Job.objects.filter(unique_key="k").restart()
    assert (found[older.pk].is_due, found[newer.pk].is_due) == (False, True)


def test_a_queue_that_takes_its_jobs_along_takes_them_all_or_none(alpha: object) -> None:
    queue = make_queue("q")
    for _ in range(3):
        make_job(State.READY, queue="q")
    named = Queue.objects.filter(name="q")
    with pytest.raises(QueueInUse):
        named.delete_with_waiting(2)
    assert Job.objects.filter(state=State.READY).count() == 3
    assert named.delete_with_waiting(3) == 1
    assert Job.objects.filter(state=State.CANCELLED).count() == 3
    assert not Queue.objects.filter(pk=queue.pk).exists()
    assert Queue.objects.filter(name="none").delete_with_waiting(3) == 0


def test_kept_replies_have_a_window_and_a_scope(alpha: object) -> None:
    def reply(text: str, **more: Any) -> Any:
        return once("me", "k", "hash", lambda: (200, text), **more).body

    assert reply("native") == reply("other") == "native"
    assert reply("dialect", scope="d") == reply("again", scope="d") == "dialect"
    with pytest.raises(KeyReused):
        once("me", "k", "another", lambda: (200, "x"), scope="d")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    window = timedelta(minutes=10)
    assert reply("newer", scope="d", kept_for=window) == "newer"
    assert reply("other") == "native"
    assert reply("newest", scope="d", holds=lambda body: body != "newer") == "newest"
    # What no longer holds is as good as new, whatever was asked.
    done = once("me", "k", "another", lambda: (200, "x"), scope="d", holds=lambda _: False)
    assert (done.body, done.is_repeat) == ("x", False)
    assert once("me", "k", "another", lambda: (200, "y"), scope="d").is_repeat


def test_runs_of_a_schedule_may_expire(alpha: object) -> None:
    from jobs.engine import fires
    from tests.jobs.schedule_cases import make_schedule

    schedule = make_schedule(expires_in_seconds=45.0)
    fires.trigger(schedule.pk, by="test")
    job = Job.objects.get()
    assert job.expires_at and job.expires_at - job.run_at == timedelta(seconds=45)
