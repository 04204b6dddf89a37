"""What the verbs of people and of the clock have in common: traces, counts, and no more than they may."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.policy import ClusterPolicy
from jobs.engine import ticks
from jobs.engine.dependencies import attach
from jobs.engine.ticks import expire_due, fail_overdue
from jobs.errors import InvalidJob, InvalidTransition, UniqueKeyTaken, UnknownQueue
from jobs.models import Job, JobDependency, JobListing, JobMetadata, Tally, job_queryset
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.states import FINAL, STOPPABLE, UNSTARTED, Reason, State
from tests.factories import make_job, make_queue

USING = "cluster-alpha"
POLICY = ClusterPolicy()
STARTED_OR_FINAL = sorted(set(State) - set(UNSTARTED))


def waiting_for(parent: Job, **columns) -> Job:
    with transaction.atomic(using=USING):
        child = make_job(State.BLOCKED, **columns)
        attach(USING, child.pk, [parent.pk])
    return child


def tallies() -> list[tuple[str, str, str, int]]:
    return sorted(Tally.objects.values_list("queue", "type", "event", "count"))


def past(seconds: float = 5):
    return timezone.now() - timedelta(seconds=seconds)


def future(seconds: float = 3600):
    return timezone.now() + timedelta(seconds=seconds)


# -- Cancel ----------------------------------------------------------------------------------------


def test_a_cancel_says_how_many_were_cancelled_and_how_many_were_asked(alpha):
    for state in State.values:
        make_job(state)
    assert Job.objects.all().cancel().outcomes == {
        "cancelled": len(UNSTARTED),
        "cancel_requested": len(STOPPABLE),
    }
    assert Job.objects.all().cancel().outcomes == {}


def test_a_cancel_is_told_to_those_who_wait_and_tallied(alpha):
    parent = make_job(queue="one", type="send")
    child = waiting_for(parent, queue="two", type="send")
    grandchild = waiting_for(child, queue="two", type="send")
    parent.cancel()
    states = {Job.objects.get(pk=pk).state for pk in (child.pk, grandchild.pk)}
    assert states == {State.FAILED}
    # Two levels of the cascade, each its own statement.
    assert [row for row in tallies() if row[0] == "one"] == [("one", "send", "cancelled", 1)]
    assert sum(n for queue, _, event, n in tallies() if (queue, event) == ("two", "failed")) == 2


def test_asking_a_running_job_to_stop_ends_nothing_yet(alpha):
    parent = make_job()
    child = waiting_for(parent)
    Job.objects.filter(pk=parent.pk).update(
        state=State.RUNNING, fence=1, attempts=1, node_id=parent.pk, started_at=timezone.now()
    )
    parent.cancel()
    assert Job.objects.get(pk=child.pk).state == State.BLOCKED
    assert tallies() == []


def test_parents_and_children_cancelled_in_one_batch_end_once(alpha):
    parent = make_job()
    children = [waiting_for(parent) for _ in range(3)]
    assert Job.objects.all().cancel() == 4
    assert set(Job.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert Job.objects.filter(pk__in=[child.pk for child in children]).count() == 3
    assert [row[2:] for row in tallies()] == [("cancelled", 4)]


@pytest.mark.parametrize(
    "verb,state",
    [("cancel", State.READY), ("run_now", State.SCHEDULED), ("retry", State.FAILED)],
)
def test_a_thousand_cost_as_many_statements_as_ten(alpha, verb, state):
    def statements(count: int) -> int:
        columns = {"reason": Reason.ERROR, "finished_at": past()} if state == State.FAILED else {}
        Job.objects.all().delete()
        Job.objects.bulk_create(
            Job(
                type="demo:noop",
                state=state,
                enqueued_by="test",
                timeout_seconds=1,
                max_attempts=1,
                run_at=future(),
                **columns,
            )
            for _ in range(count)
        )
        ids = list(Job.objects.values_list("pk", flat=True))
        with CaptureQueriesContext(connections[USING]) as queries:
            assert getattr(Job.objects.filter(pk__in=ids), verb)() == count
        return len(queries)

    assert statements(1000) == statements(10) <= 6


# -- Retry -----------------------------------------------------------------------------------------


def test_an_unfiltered_retry_leaves_held_jobs_to_a_person(alpha):
    held = make_job(State.FAILED, is_held=True)
    free = make_job(State.FAILED)
    assert [*Job.objects.all().retryable()] == [free]
    assert set(Job.objects.all().retryable(include_held=True)) == {free, held}
    Job.objects.all().retryable().retry()
    assert Job.objects.get(pk=held.pk).state == State.FAILED


def test_a_retry_while_another_holds_the_unique_key_is_refused_in_words(alpha):
    old = make_job(State.FAILED, unique_key="invoice-7")
    make_job(State.READY, unique_key="invoice-7")
    with pytest.raises(UniqueKeyTaken, match="invoice-7"):
        old.retry()
    assert old.state == State.FAILED


def test_a_retry_of_many_leaves_out_those_whose_unique_key_is_held(alpha):
    make_job(State.FAILED, unique_key="held")
    make_job(State.RUNNING, unique_key="held")
    older = make_job(State.FAILED, unique_key="twice")
    newer = make_job(State.CANCELLED, unique_key="twice")
    plain = make_job(State.FAILED)
    retried = Job.objects.all().retry()
    assert retried == 2
    assert retried.outcomes == {"retried": 2, "unique_key_taken": 2}
    ready = set(Job.objects.filter(state=State.READY).values_list("pk", flat=True))
    assert ready == {newer.pk, plain.pk}
    assert Job.objects.get(pk=older.pk).state == State.FAILED


def test_a_key_that_is_taken_between_the_look_and_the_write_is_a_conflict_and_no_error(
    alpha, monkeypatch
):
    old = make_job(State.FAILED, unique_key="invoice-7")
    original = job_queryset._unless_passed
    taken = []

    def take_it(column: str):
        # Called just before the UPDATE. In its own savepoint, it goes with the first try.
        if not taken:
            taken.append(make_job(State.READY, unique_key="invoice-7"))
        return original(column)

    monkeypatch.setattr(job_queryset, "_unless_passed", take_it)
    assert Job.objects.filter(pk=old.pk).retry() == 1
    assert taken


def test_a_retry_drops_a_time_that_has_passed_and_keeps_one_that_has_not(alpha):
    late = make_job(State.FAILED, expires_at=past(), deadline_at=past())
    late.retry()
    assert (late.expires_at, late.deadline_at) == (None, None)
    expires_at, deadline_at = future(60), future(90)
    early = make_job(State.FAILED, expires_at=expires_at, deadline_at=deadline_at)
    early.retry()
    assert (early.expires_at, early.deadline_at) == (expires_at, deadline_at)


def test_a_full_queue_takes_what_a_person_retries(alpha):
    make_queue("small", max_entries=1)
    make_job(queue="small")
    old = make_job(State.FAILED, queue="small")
    old.retry()
    assert old.state == State.READY


def test_a_retried_job_belongs_to_no_group_of_failures(alpha):
    old = make_job(State.FAILED, fingerprint="0123456789abcdef")
    old.retry()
    assert old.fingerprint is None


# -- Expire, overdue -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", UNSTARTED)
def test_what_was_not_started_in_time_expires(alpha, state):
    late, early, timeless = (
        make_job(state, expires_at=past()),
        make_job(state, expires_at=future()),
        make_job(state),
    )
    assert expire_due(USING, POLICY) == 1
    late.refresh_from_db()
    assert (late.state, late.reason) == (State.FAILED, Reason.EXPIRED)
    assert late.finished_at is not None
    assert "expired" in late.error
    assert {Job.objects.get(pk=j.pk).state for j in (early, timeless)} == {state}
    assert [row[2:] for row in tallies()] == [("failed", 1)]


@pytest.mark.parametrize("state", UNSTARTED)
def test_what_has_not_started_by_its_deadline_fails_as_timeout(alpha, state):
    late, early = make_job(state, deadline_at=past()), make_job(state, deadline_at=future())
    assert fail_overdue(USING, POLICY) == 1
    late.refresh_from_db()
    assert (late.state, late.reason) == (State.FAILED, Reason.TIMEOUT)
    assert "deadline" in late.error
    assert Job.objects.get(pk=early.pk).state == state


@pytest.mark.parametrize("state", STARTED_OR_FINAL)
def test_what_has_started_neither_expires_nor_is_overdue(alpha, state):
    begun = make_job(state, expires_at=past(), deadline_at=past())
    before = Job.objects.filter(pk=begun.pk).values().get()
    assert Job.objects.all().expire() == Job.objects.all().fail_overdue() == 0
    assert expire_due(USING, POLICY) == fail_overdue(USING, POLICY) == 0
    assert Job.objects.filter(pk=begun.pk).values().get() == before


@pytest.mark.parametrize("column,duty", [("expires_at", expire_due), ("deadline_at", fail_overdue)])
def test_those_who_wait_for_a_late_job_are_told(alpha, column, duty):
    parent = make_job(**{column: past()})
    child = waiting_for(parent)
    assert duty(USING, POLICY) == 1
    assert Job.objects.get(pk=child.pk).reason == Reason.DEPENDENCY


@pytest.mark.parametrize("column,duty", [("expires_at", expire_due), ("deadline_at", fail_overdue)])
def test_late_jobs_end_batch_by_batch(alpha, monkeypatch, column, duty):
    monkeypatch.setattr(ticks, "BATCH", 4)
    for _ in range(10):
        make_job(**{column: past()})
    assert [duty(USING, POLICY) for _ in range(4)] == [4, 4, 2, 0]


@pytest.mark.parametrize("duty", [expire_due, fail_overdue])
def test_an_idle_look_takes_no_lock(alpha, duty):
    make_job(expires_at=future(), deadline_at=future())
    with CaptureQueriesContext(connections[USING]) as queries:
        assert duty(USING, POLICY) == 0
    assert len(queries) == 1
    assert "FOR UPDATE" not in queries[0]["sql"]


@pytest.mark.parametrize(
    "column,index", [("expires_at", "job_expiring"), ("deadline_at", "job_deadline")]
)
def test_late_jobs_are_found_by_their_index(alpha, is_postgresql, column, index):
    """Idle nodes look every second, however many jobs there are."""
    now = timezone.now()
    Job.objects.bulk_create(
        Job(
            type="demo:noop",
            state=State.SUCCEEDED,
            enqueued_by="test",
            timeout_seconds=1,
            max_attempts=1,
            finished_at=now,
            **{column: now},
        )
        for _ in range(2000)
    )
    make_job(**{column: past()})
    with CaptureQueriesContext(connections[USING]) as queries:
        assert len(ticks._late(USING, column, 500)) == 1
    with connections[USING].cursor() as cursor:
        cursor.execute("ANALYZE job")
        explain = "EXPLAIN " if is_postgresql else "EXPLAIN QUERY PLAN "
        cursor.execute(explain + queries[0]["sql"].replace("%", "%%"))
        plan = str(cursor.fetchall())
    assert index in plan, plan


@pytest.mark.django_db(transaction=True)
def test_a_late_job_that_somebody_is_just_claiming_is_stepped_over(patience, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has one writer: nobody can be claiming meanwhile")
    with cluster_bound("alpha"):
        claimed, other = make_job(expires_at=past()), make_job(expires_at=past())
        is_locked, is_done = threading.Event(), threading.Event()

        def claim() -> None:
            with cluster_bound("alpha"), transaction.atomic(using=USING):
                list(Job.objects.filter(pk=claimed.pk).select_for_update())
                is_locked.set()
                is_done.wait(60)
            connections.close_all()

        thread = threading.Thread(target=claim)
        thread.start()
        assert is_locked.wait(60)
        began = time.monotonic()
        assert expire_due(USING, POLICY) == 1
        assert time.monotonic() - began < patience
        is_done.set()
        thread.join(120)
        assert Job.objects.get(pk=other.pk).state == State.FAILED
        assert Job.objects.get(pk=claimed.pk).state == State.READY


# -- Move, priority --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", UNSTARTED)
def test_a_job_that_has_not_started_moves_to_another_queue(alpha, state):
    make_queue("fast")
    moving = make_job(state)
    assert Job.objects.filter(pk=moving.pk).move("fast").outcomes == {"moved": 1}
    assert Job.objects.get(pk=moving.pk).queue == "fast"
    assert JobListing.objects.get(job_id=moving.pk).queue == "fast"
    assert Job.objects.filter(pk=moving.pk).move("fast") == 0


@pytest.mark.parametrize("state", STARTED_OR_FINAL)
def test_what_has_started_stays_where_it_is_and_as_it_is(alpha, state):
    make_queue("fast")
    begun = make_job(state)
    assert Job.objects.all().move("fast") == Job.objects.all().set_priority(7) == 0
    begun.refresh_from_db()
    assert (begun.queue, begun.priority) == ("default", 0)


def test_nothing_moves_to_a_queue_that_does_not_exist(alpha):
    moving = make_job()
    with pytest.raises(UnknownQueue):
        Job.objects.all().move("nowhere")
    assert Job.objects.get(pk=moving.pk).queue == "default"


def test_the_priority_of_many_is_set_at_once(alpha):
    make_job(priority=3)
    make_job()
    assert Job.objects.all().set_priority(3).outcomes == {"changed": 1}
    assert set(Job.objects.values_list("priority", flat=True)) == {3}


@pytest.mark.parametrize("priority", [HIGHEST_PRIORITY - 1, LOWEST_PRIORITY + 1, 40_000])
def test_a_priority_out_of_range_is_refused(alpha, priority):
    make_job()
    with pytest.raises(InvalidJob) as caught:
        Job.objects.all().set_priority(priority)
    assert caught.value.field == "priority"


def test_nodes_are_told_of_moved_jobs(alpha, monkeypatch):
    hints: list[set[str]] = []
    monkeypatch.setattr(job_queryset, "hint_ready", lambda using, queues: hints.append(queues))
    make_queue("fast")
    make_job()
    Job.objects.all().move("fast")
    Job.objects.all().move("fast")
    assert hints == [{"fast"}]


# -- Delete ----------------------------------------------------------------------------------------


def test_a_job_that_an_open_one_depends_on_is_kept(alpha):
    parent = make_job(State.SUCCEEDED)
    child = waiting_for(parent)
    assert child.pk  # freed at once, and not ended yet
    with pytest.raises(InvalidTransition, match="depend"):
        Job.objects.get(pk=parent.pk).delete_final()
    deleted = Job.objects.all().delete_final()
    assert (deleted, deleted.outcomes) == (0, {"has_dependants": 1})
    Job.objects.filter(pk=child.pk).cancel()
    assert Job.objects.all().delete_final().outcomes == {"deleted": 2}
    assert not Job.objects.exists()
    assert not JobDependency.objects.exists()


def test_metadata_goes_with_its_job(alpha):
    _, kept = make_job(State.FAILED, metadata={"a": 1}), make_job(metadata={"a": 1})
    assert Job.objects.all().delete_final() == 1
    assert [*JobMetadata.objects.values_list("job_id", flat=True)] == [kept.pk]


def test_every_final_state_may_be_deleted_with_one_word(alpha):
    for state in FINAL:
        make_job(state)
    assert Job.objects.all().delete_final().outcomes == {"deleted": len(FINAL)}
