"""Sightings of failures become groups."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import rollup, sightings
from jobs.engine.sightings import fold_sightings
from jobs.errors import InvalidFailure
from jobs.fingerprints import fingerprint, message_of, parts
from jobs.models import Attempt, Failure, FailureHour, FailureMinute, FailureSighting, Job
from jobs.models.failure import MOST_SEEN_ON
from jobs.states import State
from tests.factories import make_attempt, make_job, make_node

USING = "cluster-alpha"
POLICY = ClusterPolicy()
NOON = datetime(2026, 1, 31, 12, 34, tzinfo=UTC)
TRACE = """Traceback (most recent call last):
  File "/srv/shop/mail/tasks.py", line 33, in send
    raise ValueError("no order 17")
ValueError: no order 17
"""
PRINT = fingerprint("ValueError", "no order 17", TRACE)


def make_sighting(
    seen_at: datetime = NOON, print_: str = PRINT, job: Job | None = None, fence: int = 1
) -> FailureSighting:
    job = job or fail()
    return FailureSighting.objects.create(
        fingerprint=print_, job_id=job.pk, fence=fence, seen_at=seen_at
    )


def fail(trace: str = TRACE, **columns: object) -> Job:
    job = make_job(State.FAILED, **columns)
    make_attempt(job, error_type="ValueError", error=trace)
    return job


def fold_all() -> int:
    folded = 0
    while number := fold_sightings(USING, POLICY):
        folded += number
    return folded


def test_sightings_become_a_group_with_its_latest_as_an_example(alpha):
    make_sighting(NOON - timedelta(hours=3))
    latest = fail(TRACE.replace("17", "18"), queue="mail", type="mail:send")
    make_sighting(NOON + timedelta(minutes=1), job=latest)
    make_sighting(NOON)
    assert fold_sightings(USING, POLICY) == 3
    group = Failure.objects.get()
    assert group.fingerprint == PRINT
    assert (group.count, group.job_id) == (3, latest.pk)
    assert (group.queue, group.type) == ("mail", "mail:send")
    assert group.first_seen_at == NOON - timedelta(hours=3)
    assert group.last_seen_at == NOON + timedelta(minutes=1)
    assert group.error_type == "ValueError"
    assert group.message == "no order <number>"
    assert group.frame == "mail/tasks.py:send"
    assert group.example == TRACE.replace("17", "18")
    assert not FailureSighting.objects.exists()


def test_each_hour_is_counted(alpha):
    for minutes in (0, 1, 30, 31, 120):
        make_sighting(NOON + timedelta(minutes=minutes))
        fold_sightings(USING, POLICY)
    hours = FailureHour.objects.order_by("starts_at").values_list("starts_at", "count")
    assert [(f"{starts_at:%H:%M}", count) for starts_at, count in hours] == [
        ("12:00", 2),
        ("13:00", 2),
        ("14:00", 1),
    ]
    assert Failure.objects.get().count == 5


def test_an_older_sighting_that_comes_late_is_no_example(alpha):
    make_sighting(NOON, job=(newest := fail()))
    fold_sightings(USING, POLICY)
    make_sighting(NOON - timedelta(days=1), job=fail(queue="other"))
    fold_sightings(USING, POLICY)
    group = Failure.objects.get()
    assert (group.job_id, group.queue) == (newest.pk, "default")
    assert (group.first_seen_at, group.last_seen_at) == (NOON - timedelta(days=1), NOON)
    assert group.count == 2


def test_a_job_that_is_gone_leaves_the_example_of_another(alpha):
    kept = fail(queue="mail")
    gone = fail(queue="gone")
    make_sighting(NOON, job=kept)
    make_sighting(NOON + timedelta(minutes=1), job=gone)
    gone.delete_final()
    fold_sightings(USING, POLICY)
    group = Failure.objects.get()
    assert (group.queue, group.job_id, group.count) == ("mail", kept.pk, 2)
    assert group.last_seen_at == NOON + timedelta(minutes=1)
    make_sighting(NOON + timedelta(minutes=2), job=gone)
    fold_sightings(USING, POLICY)
    group.refresh_from_db()
    assert (group.queue, group.job_id, group.count) == ("mail", kept.pk, 3)


def test_a_group_of_which_no_job_is_left_is_counted_all_the_same(alpha):
    gone = fail()
    make_sighting(job=gone)
    gone.delete_final()
    assert fold_sightings(USING, POLICY) == 1
    group = Failure.objects.get()
    assert (group.count, group.job_id, group.example) == (1, gone.pk, "")


def test_the_attempt_that_was_seen_is_the_example_and_not_the_jobs_last(alpha):
    job = make_job(State.SCHEDULED, attempts=2)
    make_attempt(job, error_type="ValueError", error=TRACE, node_id=make_node().pk)
    make_attempt(job, error_type="KeyError", error="another", node_id=make_node().pk)
    make_sighting(job=job, fence=1)
    fold_sightings(USING, POLICY)
    assert Failure.objects.get().error_type == "ValueError"


def test_an_error_without_a_trace_is_its_own_message(alpha):
    job = fail("example.com answered 503")
    make_sighting(job=job)
    fold_sightings(USING, POLICY)
    group = Failure.objects.get()
    assert (group.message, group.frame) == ("example.com answered 503", "")


@pytest.mark.parametrize(
    "raised",
    [ValueError("no order 17"), ValueError(""), KeyError("x"), ValueError("two\nlines: of text")],
)
def test_the_message_of_a_group_is_that_of_its_fingerprint(raised):
    import traceback

    try:
        raise raised
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        told = parts(type(error).__name__, str(error) or repr(error), trace)
    read = parts(type(raised).__name__, message_of(trace), trace)
    assert read.frame == told.frame
    if str(raised):
        assert read.message == told.message


def test_folding_nothing_does_nothing(alpha, django_assert_num_queries):
    with django_assert_num_queries(1, using=USING):
        assert fold_sightings(USING, POLICY) == 0


def test_a_call_takes_a_bounded_number_with_a_fixed_number_of_statements(
    alpha, monkeypatch, django_assert_max_num_queries
):
    monkeypatch.setattr(sightings, "FOLD_SIGHTINGS", 15)
    for number in range(20):
        make_sighting(print_=f"{number:016x}")
    with django_assert_max_num_queries(13, using=USING):
        assert fold_sightings(USING, POLICY) == 15
    assert fold_sightings(USING, POLICY) == 5
    assert Failure.objects.count() == 20


@pytest.mark.django_db(transaction=True)
def test_nodes_that_fold_at_once_lose_and_double_nothing(alpha, monkeypatch):
    monkeypatch.setattr(sightings, "FOLD_SIGHTINGS", 20)
    job = fail()
    for number in range(300):
        make_sighting(NOON + timedelta(minutes=number), f"{number % 7:016x}", job=job)
    folded, errors = [], []

    def work() -> None:
        try:
            folded.append(fold_all())
        except Exception as error:  # shown by the assertion below
            errors.append(error)
        finally:
            connections[USING].close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(folded) == 300
    groups = Failure.objects.all()
    assert {group.count for group in groups} == {42, 43}
    for group in groups:
        hours = FailureHour.objects.filter(fingerprint=group.pk)
        assert sum(hour.count for hour in hours) == group.count


@pytest.mark.django_db(transaction=True)
def test_a_fold_that_fails_leaves_the_sightings(alpha):
    make_sighting()
    fold_sightings(USING, POLICY)
    Failure.objects.update(count=2**63 - 1)
    with connections[USING].cursor() as cursor:
        if connections[USING].vendor == "sqlite":
            cursor.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON failure"
                " BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
    try:
        make_sighting(job=Job.objects.get())
        with pytest.raises(Exception, match=r"range|refused"):
            fold_sightings(USING, POLICY)
    finally:
        with connections[USING].cursor() as cursor:
            if connections[USING].vendor == "sqlite":
                cursor.execute("DROP TRIGGER refuse")
    assert FailureSighting.objects.count() == 1
    assert Attempt.objects.exists()
    assert FailureHour.objects.get().count == 1


# -- Where and when, and what people say -----------------------------------------------------------


def test_minutes_tell_the_ends_of_jobs_from_tries(alpha):
    ended = fail(queue="mail", type="mail:send", fence=2)
    make_sighting(NOON, job=ended, fence=1)
    make_sighting(NOON, job=ended, fence=2)
    make_sighting(NOON, job=make_job(State.SCHEDULED, queue="mail", type="mail:send", fence=1))
    make_sighting(NOON + timedelta(minutes=1), job=fail(queue="web", type="x"))
    fold_sightings(USING, POLICY)
    rows = FailureMinute.objects.order_by("starts_at")
    assert [*rows.values_list("queue", "type", "count", "failed")] == [
        ("mail", "mail:send", 3, 1),
        ("web", "x", 1, 1),
    ]


def test_a_group_knows_where_it_was_seen_of_late(alpha):
    for number in range(MOST_SEEN_ON + 5):
        node = make_node(host=f"w{number}", pid=7, version=f"1.{number}")
        job = make_job(State.FAILED, type=f"t{number}", node=node)
        make_attempt(job, error_type="ValueError", error=TRACE)
        make_sighting(NOON + timedelta(minutes=number), job=job)
        if number % 3 == 0:
            fold_sightings(USING, POLICY)
    fold_all()
    group = Failure.objects.get()
    wanted = range(5, MOST_SEEN_ON + 5)
    assert group.was_seen_on("nodes") == [f"w{number}:7" for number in wanted]
    assert group.was_seen_on("versions") == [f"1.{number}" for number in wanted]
    assert group.was_seen_on("types") == [f"t{number}" for number in wanted]


@pytest.mark.parametrize(
    ("days", "mark", "after"),
    [
        (8, "known", "returned"),
        (8, "muted", "muted"),
        (6, "known", "known"),
        (8, "new", "returned"),
    ],
)
def test_a_group_that_comes_again_after_a_week_has_returned(alpha, days, mark, after):
    make_sighting(NOON - timedelta(days=days))
    fold_all()
    Failure.objects.update(mark=mark)
    make_sighting(NOON)
    fold_all()
    group = Failure.objects.get()
    assert group.mark == after
    assert group.returned_at == (NOON if after == "returned" else None)


def test_a_mute_ends_by_itself(alpha):
    for number, until in ((1, -1), (2, 1)):
        make_sighting(print_=f"{number:016x}")
        fold_all()
        ends = timezone.now() + timedelta(hours=until)
        Failure.objects.filter(pk=f"{number:016x}").update(mark="muted", muted_until=ends)
    assert [group.pk for group in Failure.objects.all().muted()] == [f"{2:016x}"]
    assert Failure.objects.all().end_mutes() == 1
    assert [*Failure.objects.order_by("pk").values_list("mark", flat=True)] == ["known", "muted"]


def test_what_people_said_something_of_is_kept_for_longer(alpha):
    for number in (1, 2):
        make_sighting(timezone.now() - timedelta(days=60), print_=f"{number:016x}")
    fold_all()
    Failure.objects.filter(pk=f"{2:016x}").update(mark="muted")
    while rollup.compact(USING, POLICY):
        pass
    assert [group.pk for group in Failure.objects.all()] == [f"{2:016x}"]
    assert not FailureMinute.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"mark": "returned"}, "mark"),
        ({"mark": "known", "until": NOON}, "muted_until"),
        ({"mark": "muted", "until": NOON}, "muted_until"),
        ({"mark": "muted", "until": NOON + timedelta(days=9999)}, "muted_until"),
        ({"owner": "x" * 201}, "owner"),
        ({"ticket": "javascript:alert(1)"}, "ticket"),
        ({"ticket": "https://"}, "ticket"),
        ({"ticket": "http://[x"}, "ticket"),
        ({"reason": "\0"}, "reason"),
    ],
)
def test_what_cannot_be_said_of_a_group_is_refused(alpha, said, field):
    make_sighting()
    fold_all()
    before = Failure.objects.values().get()
    with pytest.raises(InvalidFailure) as refusal:
        Failure.objects.all().annotate_group(PRINT, by="test", **said)
    assert refusal.value.field == field
    assert Failure.objects.values().get() == before
