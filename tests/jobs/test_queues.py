"""Queues: making, changing, pausing, deleting them, and what people are told of them."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections
from django.db.models import F
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.policy import DEFAULTS
from jobs.engine import schedules
from jobs.engine.ticks import restore_queues, resume_due
from jobs.engine.upkeep import Upkeep
from jobs.engine.watchdog import Watchdog
from jobs.errors import DuplicateQueue, InvalidQueue, QueueInUse
from jobs.models import Job, Overflow, Queue
from jobs.models.queue import LONGEST_PAUSE
from jobs.models.queue_policies import POLICIES
from jobs.queue_load import load_of
from jobs.states import FINAL, State
from tests.factories import make_job, make_node, make_queue
from tests.jobs.schedule_cases import make_schedule

USING = "cluster-alpha"
HOUR = timedelta(hours=1)


def queue(name: str = "default") -> Queue:
    return Queue.objects.get(name=name)


def refused_field(call, *args, **kwargs) -> str:
    with pytest.raises(InvalidQueue) as refusal:
        call(*args, **kwargs)
    return refusal.value.field


# -- create, change --------------------------------------------------------------------------------


def test_a_queue_is_made_with_its_policies(alpha):
    made = Queue.objects.all().create_queue(
        "mail", description="Letters", max_concurrency=3, overflow="drop_oldest", max_entries=10
    )
    assert (made.name, made.version, made.max_concurrency) == ("mail", 1, 3)
    assert made.overflow == Overflow.DROP_OLDEST
    assert made.created_at is not None
    assert queue("mail").policies() == made.policies()


@pytest.mark.once
@pytest.mark.parametrize("name", ["", "a b", "-a", "ä", "a/b", "a" * 101, "a\n", "count", 1, None])
def test_a_name_that_cannot_be_is_refused(alpha, name):
    assert refused_field(Queue.objects.all().create_queue, name) == "name"
    assert Queue.objects.count() == 1


def test_a_second_queue_of_that_name_is_refused_and_spoils_no_transaction(alpha):
    with pytest.raises(DuplicateQueue) as refusal:
        Queue.objects.all().create_queue("default")
    assert refusal.value.field == "name"
    assert Queue.objects.count() == 1


NUMBERS = [name for name, policy in POLICIES.items() if policy.kind in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_up_to_both_ends_of_its_range_and_no_further(alpha, name):
    policy = POLICIES[name]
    rows = Queue.objects.all()
    for end in (policy.minimum, policy.maximum):
        rows.change(**{name: policy.kind(end)})
        assert getattr(queue(), name) == end
    for beyond in (policy.minimum - 0.001, policy.maximum + 1, policy.maximum * 10**400):
        value = policy.kind(beyond) if beyond < policy.minimum - 1 else beyond
        assert refused_field(rows.change, **{name: value}) == name
    assert getattr(queue(), name) == policy.maximum


@pytest.mark.once
@pytest.mark.parametrize("name", POLICIES)
def test_a_value_of_another_type_is_refused_by_its_name(alpha, name):
    bad = [[], {}, float("nan"), float("inf"), float("-inf"), b"1", object()]
    if POLICIES[name].kind is not bool:
        bad += [True]
    if POLICIES[name].kind is not str:
        bad += ["1", ""]
    if POLICIES[name].kind not in (int, float):
        bad += [1, 0]
    if not POLICIES[name].is_nullable:
        bad += [None]
    before = queue().policies()
    for value in bad:
        assert refused_field(Queue.objects.all().change, **{name: value}) == name
        assert refused_field(Queue.objects.all().create_queue, "new", **{name: value}) == name
    assert queue().policies() == before
    assert Queue.objects.count() == 1


@pytest.mark.parametrize("name", [n for n, policy in POLICIES.items() if policy.is_nullable])
def test_a_policy_that_may_be_null_is_taken_back(alpha, name):
    Queue.objects.all().change(**{name: POLICIES[name].kind(POLICIES[name].maximum)})
    Queue.objects.all().change(**{name: None})
    assert getattr(queue(), name) is None


@pytest.mark.parametrize("name", ["rate_grants", "is_paused", "version", "name", "id"])
def test_what_is_not_for_people_is_not_changed(alpha, name):
    assert refused_field(Queue.objects.all().change, **{name: 1}) == name


@pytest.mark.parametrize("text", ["x" * 501, "a\0", "\ud800"])
def test_a_description_that_cannot_be_stored_is_refused(alpha, text):
    assert refused_field(Queue.objects.all().change, description=text) == "description"


@pytest.mark.parametrize(
    ("before", "change", "field"),
    [
        ({}, {"retry_base_seconds": 60, "retry_cap_seconds": 30}, "retry_cap_seconds"),
        ({"retry_base_seconds": 60}, {"retry_cap_seconds": 30}, "retry_cap_seconds"),
        ({"retry_cap_seconds": 30}, {"retry_base_seconds": 60}, "retry_base_seconds"),
        ({}, {"overflow": "drop_oldest"}, "overflow"),
        ({"max_entries": 5, "overflow": "drop_oldest"}, {"max_entries": None}, "max_entries"),
    ],
)
def test_policies_that_do_not_go_together_are_refused_by_what_was_changed(
    alpha, before, change, field
):
    make_queue("odd", **before)
    rows = Queue.objects.filter(name="odd")
    assert refused_field(rows.change, **change) == field
    assert queue("odd").version == 1
    both = {**before, **change}
    assert refused_field(Queue.objects.all().create_queue, "new", **both) in both


def test_a_change_of_many_queues_is_made_in_all_or_none(alpha):
    make_queue("capped", retry_cap_seconds=10)
    assert refused_field(Queue.objects.order_by("name").change, retry_base_seconds=60)
    assert {q.retry_base_seconds for q in Queue.objects.all()} == {None}
    assert Queue.objects.all().change(retry_base_seconds=5) == 2


def test_changes_that_are_sound_alone_cannot_make_an_unsound_queue_together(transactional_db):
    make = Queue.objects.using(USING).create
    barrier = threading.Barrier(2)
    refused = []

    def change(**policies):
        barrier.wait()
        try:
            Queue.objects.using(USING).filter(name=name).change(**policies)
        except InvalidQueue:
            refused.append(name)
        finally:
            connections[USING].close()

    for number in range(20):
        name = make(name=f"queue-{number}").name
        threads = [
            threading.Thread(target=change, kwargs={"retry_base_seconds": 60}),
            threading.Thread(target=change, kwargs={"retry_cap_seconds": 30}),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    unsound = Queue.objects.using(USING).filter(retry_cap_seconds__lt=F("retry_base_seconds"))
    assert not unsound.exists()
    assert len(refused) == 20


# -- pause, resume ---------------------------------------------------------------------------------


def test_a_second_pause_has_the_last_word_and_not_another_beginning(alpha):
    Queue.objects.all().pause(by="ann", reason="deploy", resume_in_seconds=60)
    first = queue()
    assert Queue.objects.all().pause(by="bob", reason="fire") == 1
    second = queue()
    assert (second.paused_by, second.pause_reason, second.resume_at) == ("bob", "fire", None)
    assert first.resume_at - first.paused_at == timedelta(seconds=60)
    assert second.paused_at == first.paused_at
    assert second.version == first.version + 1


@pytest.mark.once
@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("resume_at", {"resume_at": timezone.now() - timedelta(seconds=1)}),
        ("resume_at", {"resume_at": timezone.now() + LONGEST_PAUSE + HOUR}),
        ("resume_at", {"resume_at": timezone.now().replace(tzinfo=None) + HOUR}),
        ("resume_in_seconds", {"resume_in_seconds": 0}),
        ("resume_in_seconds", {"resume_in_seconds": -1}),
        ("resume_in_seconds", {"resume_in_seconds": float("nan")}),
        ("resume_in_seconds", {"resume_in_seconds": float("inf")}),
        (
            "resume_in_seconds",
            {"resume_in_seconds": 5, "resume_at": timezone.now() + HOUR},
        ),
        ("reason", {"reason": "x" * 501}),
        ("reason", {"reason": "\0"}),
    ],
)
def test_a_pause_that_cannot_be_is_refused_and_nothing_is_paused(alpha, field, given):
    assert refused_field(Queue.objects.all().pause, by="ann", **given) == field
    assert not queue().is_paused


def test_a_pause_of_no_queue_is_no_error(alpha):
    assert Queue.objects.none().pause(by="ann", resume_at=timezone.now() - HOUR) == 0


def test_a_name_of_any_length_may_pause(alpha):
    Queue.objects.all().pause(by="x" * 300)
    assert len(queue().paused_by) == 200


def test_queues_are_resumed_when_their_time_has_come_and_no_others(alpha):
    past, ahead = timezone.now() - HOUR, timezone.now() + HOUR
    make_queue("past", is_paused=True, resume_at=past)
    make_queue("ahead", is_paused=True, resume_at=ahead)
    make_queue("open-end", is_paused=True)
    assert resume_due(USING, DEFAULTS) == 1
    paused = {q.name for q in Queue.objects.filter(is_paused=True)}
    assert paused == {"ahead", "open-end"}
    assert queue("past").resume_at is None
    assert resume_due(USING, DEFAULTS) == 0


# -- delete, restore -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [s for s in State if s not in FINAL])
def test_a_queue_with_an_open_job_is_not_deleted_and_says_what_is_left(alpha, state):
    make_job(state, queue="mail")
    make_job("succeeded", queue="mail")
    with pytest.raises(QueueInUse, match=f"1 {state}"):
        queue("mail").delete_unused()
    assert Queue.objects.filter(name="mail").exists()


def test_a_queue_that_a_schedule_fills_is_not_deleted(alpha):
    mail = make_queue("mail")
    schedule = make_schedule(name="nightly", queue="mail")
    with pytest.raises(QueueInUse, match="'nightly'"):
        mail.delete_unused()
    with pytest.raises(QueueInUse, match="'nightly'"):
        Queue.objects.filter(pk=mail.pk).delete_with_waiting(5)
    schedules.delete(schedule.pk, by="test")
    mail.delete_unused()
    assert not Queue.objects.filter(name="mail").exists()


def test_a_queue_whose_jobs_have_ended_is_deleted_and_they_stay(alpha):
    for state in FINAL:
        make_job(state, queue="mail")
    make_job("ready", queue="other")
    queue("mail").delete_unused()
    assert not Queue.objects.filter(name="mail").exists()
    assert Job.objects.filter(queue="mail").count() == len(FINAL)


def test_the_default_queue_stays(alpha):
    with pytest.raises(QueueInUse, match="default"):
        queue().delete_unused()
    assert Queue.objects.all().delete_unused() == 0


def test_of_many_queues_those_that_are_empty_are_deleted(alpha):
    make_queue("empty")
    make_job("scheduled", queue="used")
    assert Queue.objects.all().delete_unused() == 1
    assert {q.name for q in Queue.objects.all()} == {"default", "used"}


def test_a_large_number_of_jobs_left_is_not_counted_to_its_end(alpha, monkeypatch):
    monkeypatch.setattr("jobs.models.queue.COUNTED_IN_REFUSALS", 2)
    for _ in range(3):
        make_job("ready", queue="mail")
    with pytest.raises(QueueInUse, match="2 or more ready"):
        queue("mail").delete_unused()


def test_a_deleted_queue_with_ready_jobs_comes_back(alpha):
    for name in ("a", "b", "c"):
        make_job("ready", queue=name)
        make_job("ready", queue=name)
    make_job("succeeded", queue="d")
    Queue.objects.filter(name__in=["a", "c", "d"]).delete()
    assert restore_queues(USING, DEFAULTS) == 2
    assert {q.name for q in Queue.objects.all()} == {"a", "b", "c", "default"}
    assert restore_queues(USING, DEFAULTS) == 0


def test_upkeep_resumes_and_restores(transactional_db, eventually):
    rows = Queue.objects.using(USING)
    rows.update(is_paused=True, paused_by="x", paused_at=timezone.now(), resume_at=timezone.now())
    with cluster_bound("alpha"):
        make_job("ready", queue="gone")
    rows.filter(name="gone").delete()
    upkeep = Upkeep("alpha", str(uuid4()), Watchdog("test"), lambda: None)
    upkeep.start()
    try:
        eventually(lambda: rows.filter(name="gone").exists())
        eventually(lambda: not rows.filter(is_paused=True).exists())
    finally:
        upkeep.stop(10)


# -- Load ------------------------------------------------------------------------------------------


def test_the_load_counts_open_jobs_by_state(alpha):
    for state, count in (("ready", 3), ("scheduled", 2), ("running", 1), ("blocked", 1)):
        for _ in range(count):
            make_job(state)
    make_job("waiting")
    make_job("failed")
    make_job("ready", queue="other")
    load = load_of(queue())
    assert load.jobs == {"blocked": 1, "scheduled": 2, "ready": 3, "running": 1, "waiting": 1}
    assert load.is_exact


def test_counting_stops_at_its_limit_and_says_so(alpha, monkeypatch):
    monkeypatch.setattr("jobs.queue_load.COUNT_LIMIT", 2)
    for _ in range(2):
        make_job("ready")
    assert load_of(queue()).is_exact
    make_job("ready")
    load = load_of(queue())
    assert (load.jobs["ready"], load.is_exact) == (2, False)


def test_the_oldest_ready_job_is_found_whatever_its_kind_and_priority(alpha):
    assert load_of(queue()).oldest_ready_seconds is None
    now = timezone.now()
    make_job("ready", run_at=now - timedelta(minutes=1), priority=-5)
    make_job("ready", run_at=now - timedelta(minutes=2), priority=0, kind="http")
    make_job("ready", run_at=now - timedelta(minutes=9), priority=90)
    make_job("ready", run_at=now - timedelta(minutes=3), priority=90)
    make_job("ready", run_at=now - timedelta(hours=9), queue="other")
    assert 540 <= load_of(queue()).oldest_ready_seconds < 560


def test_a_due_time_ahead_of_the_databases_clock_is_no_negative_age(alpha):
    make_job("ready", run_at=timezone.now() + HOUR)
    assert load_of(queue()).oldest_ready_seconds == 0


def test_nodes_that_serve_the_queue_are_counted(alpha):
    make_node(queues=None)
    make_node(queues=["default", "mail"])
    make_node(queues=["mail"])
    make_node("dead", queues=None)
    make_node("draining", queues=None)
    make_node(queues=None, lease_until=timezone.now() - HOUR)
    assert load_of(queue()).nodes == 2


def test_the_room_of_a_rate_is_what_has_not_started_within_its_period(alpha):
    assert load_of(queue()).rate_room is None
    Queue.objects.all().change(rate_limit=10, rate_period_seconds=100)
    assert load_of(queue()).rate_room == 10
    now = timezone.now().timestamp()
    Queue.objects.update(rate_grants=[[now - 200, 5], [now - 50, 3], [now - 1, 1]])
    assert load_of(queue()).rate_room == 6
    # Other limits take what has started for what it is.
    Queue.objects.all().change(rate_limit=3)
    assert load_of(queue()).rate_room == 0


def test_the_load_reads_only_indexes_of_open_jobs(alpha, is_postgresql):
    from jobs.models.queue import _COUNT_OPEN
    from jobs.queue_load import _OLDEST_READY

    states = [State.SUCCEEDED] * 2 + [State.READY] * 4 + [State.SCHEDULED] * 4
    Job.objects.bulk_create(
        Job(
            type="demo:noop",
            queue=f"queue-{number % 397}",
            state=states[number % 10],
            priority=number % 3,
            enqueued_by="test",
            timeout_seconds=1,
            max_attempts=1,
            finished_at=timezone.now() if states[number % 10] == State.SUCCEEDED else None,
        )
        for number in range(8000)
    )
    explain = "EXPLAIN" if is_postgresql else "EXPLAIN QUERY PLAN"
    plans = []
    with connections[USING].cursor() as cursor:
        cursor.execute("ANALYZE job")
        for question in (_COUNT_OPEN, _OLDEST_READY):
            cursor.execute(f"{explain} {question}", {"queue": "queue-7", "limit": 10})
            plans.append("\n".join(str(row) for row in cursor.fetchall()))
    counts, oldest = plans
    assert counts.count("job_unready") == 3, counts
    assert "job_ready" in counts, counts
    assert "job_holder" in counts, counts
    assert oldest.count("job_ready") == 2, oldest
    # What runs is few, whatever waits: SQLite reads all of it.
    slow = "Seq Scan on job|SCAN job(?! USING COVERING INDEX job_holder)|Sort"
    assert not re.search(slow, counts + oldest), counts + oldest
