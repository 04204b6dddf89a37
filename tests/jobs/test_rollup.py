from __future__ import annotations

import os
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import rollup
from jobs.engine.rollup import compact, fold_tallies
from jobs.histogram import merge
from jobs.models import Failure, FailureHour, Rollup, Tally
from jobs.models.rollup import ALL, DAY, HOUR, MINUTE, TOTAL, Event

USING = "cluster-alpha"
POLICY = ClusterPolicy()
NOON = datetime(2026, 1, 31, 12, 34, tzinfo=UTC)


def make_tally(event: str = Event.ENQUEUED, **columns: object) -> Tally:
    defaults = {"minute": NOON, "queue": "mail", "type": "send", "count": 1}
    return Tally.objects.create(event=event, **{**defaults, **columns})


def make_tallies(number: int, seed: int = 1) -> list[Tally]:
    dice = random.Random(seed)
    rows = [
        Tally(
            minute=NOON + timedelta(minutes=dice.randrange(3)),
            queue=f"queue-{dice.randrange(3)}",
            type=f"type-{dice.randrange(3)}",
            event=dice.choice(Event.values),
            bucket=dice.choice([None, *range(5)]),
            count=dice.randrange(1, 9),
        )
        for _ in range(number)
    ]
    return Tally.objects.using(USING).bulk_create(rows)


def row(resolution: int = MINUTE, queue: str = "mail", type_: str = "send") -> Rollup:
    return Rollup.objects.get(resolution_seconds=resolution, queue=queue, type=type_)


def fold_all(fold=fold_tallies) -> int:
    folded = 0
    while number := fold(USING, POLICY):
        folded += number
    return folded


def check_sums(tallies: list[Tally]) -> None:
    """Every row of every level says what the tallies say."""
    for resolution, queues, types in (
        *((length, q, t) for length in (MINUTE, HOUR, DAY) for q in (1, 0) for t in (1, 0)),
        (TOTAL, 1, 0),
    ):
        expected: dict = {}
        for tally in tallies:
            seconds = int(tally.minute.timestamp())
            starts = seconds // resolution * resolution if resolution else 0
            key = (starts, tally.queue if queues else ALL, tally.type if types else ALL)
            counts, waits, runs = expected.setdefault(key, ({}, {}, {}))
            counts[tally.event] = counts.get(tally.event, 0) + tally.count
            if tally.bucket is not None:
                histogram = waits if tally.event == Event.STARTED else runs
                histogram[tally.bucket] = histogram.get(tally.bucket, 0) + tally.count
        rows = Rollup.objects.filter(resolution_seconds=resolution)
        rows = rows.exclude(queue=ALL) if queues else rows.filter(queue=ALL)
        rows = rows.exclude(type=ALL) if types else rows.filter(type=ALL)
        found = {
            (int(r.starts_at.timestamp()), r.queue, r.type): (
                {event: n for event in Event.values if (n := getattr(r, event))},
                merge([r.wait_histogram]),
                merge([r.run_histogram]),
            )
            for r in rows
        }
        assert found == expected, (resolution, queues, types)


def test_tallies_become_counts_and_histograms(alpha):
    make_tally(Event.ENQUEUED, count=5)
    make_tally(Event.STARTED, bucket=3, count=2)
    make_tally(Event.STARTED, bucket=-7)
    make_tally(Event.SUCCEEDED, bucket=3, count=2)
    make_tally(Event.RETRIED, bucket=3)
    make_tally(Event.CANCELLED, bucket=None)
    assert fold_tallies(USING, POLICY) == 6
    found = row()
    assert found.starts_at == NOON
    assert (found.enqueued, found.started, found.succeeded) == (5, 3, 2)
    assert (found.retried, found.cancelled, found.failed) == (1, 1, 0)
    assert found.wait_histogram == {"3": 2, "-7": 1}
    assert found.run_histogram == {"3": 3}
    assert not Tally.objects.exists()


def test_a_second_fold_adds_to_what_is_there(alpha):
    for _ in range(3):
        make_tally(Event.STARTED, bucket=3, count=2)
        make_tally(Event.STARTED, bucket=4)
        make_tally(Event.ENQUEUED)
        fold_tallies(USING, POLICY)
    assert (row().started, row().enqueued) == (9, 3)
    assert row().wait_histogram == {"3": 6, "4": 3}
    assert row().run_histogram == {}


def test_folding_nothing_does_nothing_and_writes_nothing(alpha, django_assert_num_queries):
    with django_assert_num_queries(1, using=USING):
        assert fold_tallies(USING, POLICY) == 0
    assert not Rollup.objects.exists()


def test_hours_days_and_totals_are_counted_beside_the_minutes(alpha):
    make_tally(minute=NOON)
    make_tally(minute=NOON + timedelta(minutes=1))
    make_tally(minute=NOON + timedelta(hours=1))
    make_tally(minute=NOON + timedelta(days=1), queue="other")
    fold_tallies(USING, POLICY)

    def starts(length, **names):
        rows = Rollup.objects.filter(resolution_seconds=length, **names).order_by("starts_at")
        return [(f"{r.starts_at:%d %H:%M}", r.enqueued) for r in rows]

    every = {"queue": ALL, "type": ALL}
    assert starts(HOUR, **every) == [("31 12:00", 2), ("31 13:00", 1), ("01 12:00", 1)]
    assert starts(DAY, **every) == [("31 00:00", 3), ("01 00:00", 1)]
    assert starts(DAY, queue="mail", type=ALL) == [("31 00:00", 3)]
    assert starts(TOTAL, queue="mail", type=ALL) == [("01 00:00", 3)]


def test_every_level_says_what_the_tallies_said(alpha):
    tallies = make_tallies(500)
    fold_all()
    check_sums(tallies)


def test_a_call_takes_a_bounded_number(alpha, monkeypatch):
    monkeypatch.setattr(rollup, "FOLD_TALLIES", {"postgresql": 40, "sqlite": 40})
    tallies = make_tallies(100)
    assert fold_tallies(USING, POLICY) == 40
    assert Tally.objects.count() == 60
    assert fold_all() == 60
    check_sums(tallies)


@pytest.mark.django_db(transaction=True)
def test_a_fold_that_fails_leaves_everything_as_it_was(alpha):
    """What is taken and what is added are one transaction, whatever stops it in between."""
    make_tally(Event.ENQUEUED)
    fold_tallies(USING, POLICY)
    # Above what the column holds: the tally cannot be added.
    Rollup.objects.filter(resolution_seconds=HOUR).update(enqueued=2**63 - 1)
    with connections[USING].cursor() as cursor:
        if connections[USING].vendor == "sqlite":
            cursor.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON rollup WHEN NEW.resolution_seconds = 86400"
                " BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
    try:
        make_tally(Event.ENQUEUED)
        with pytest.raises(Exception, match=r"range|refused"):
            fold_tallies(USING, POLICY)
    finally:
        with connections[USING].cursor() as cursor:
            if connections[USING].vendor == "sqlite":
                cursor.execute("DROP TRIGGER refuse")
    assert Tally.objects.count() == 1
    assert row(MINUTE).enqueued == 1


def fold_in_threads(number: int, fold=fold_tallies) -> int:
    folded, errors = [], []

    def work() -> None:
        try:
            folded.append(fold_all(fold))
        except Exception as error:  # shown by the assertion below
            errors.append(error)
        finally:
            connections[USING].close()

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    return sum(folded)


@pytest.mark.django_db(transaction=True)
def test_nodes_that_fold_at_once_lose_and_double_nothing(alpha, monkeypatch):
    monkeypatch.setattr(rollup, "FOLD_TALLIES", {"postgresql": 50, "sqlite": 50})
    tallies = make_tallies(1500)
    assert fold_in_threads(4) == len(tallies)
    assert not Tally.objects.exists()
    check_sums(tallies)


@pytest.mark.django_db(transaction=True)
def test_what_is_tallied_while_others_fold_is_folded_too(alpha, monkeypatch):
    monkeypatch.setattr(rollup, "FOLD_TALLIES", {"postgresql": 20, "sqlite": 20})
    written: list[Tally] = []
    done = threading.Event()

    def write() -> None:
        try:
            for seed in range(40):
                written.extend(make_tallies(10, seed))
        finally:
            connections[USING].close()
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        fold_in_threads(2)
    writer.join()
    fold_all()
    assert len(written) == 400
    check_sums(written)


@pytest.mark.django_db(transaction=True)
def test_a_node_killed_while_it_folds_has_folded_all_of_a_batch_or_none(alpha, monkeypatch):
    monkeypatch.setattr(rollup, "FOLD_TALLIES", {"postgresql": 10, "sqlite": 10})
    tallies = make_tallies(1000)
    dice = random.Random(7)
    kills = 0
    for _ in range(12):
        connections.close_all()
        child = os.fork()
        if child == 0:
            try:
                fold_all()
            finally:
                os._exit(0)
        time.sleep(dice.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    assert kills >= 3
    fold_all()
    check_sums(tallies)


# -- What is too old -------------------------------------------------------------------------------


def make_rollup(length: int, age: timedelta, **columns: object) -> Rollup:
    starts_at = timezone.now() - age
    defaults = {"queue": "mail", "type": "send", "enqueued": 1}
    return Rollup.objects.create(
        resolution_seconds=length, starts_at=starts_at, **{**defaults, **columns}
    )


@pytest.mark.parametrize(
    ("length", "kept", "gone"),
    [
        (MINUTE, timedelta(hours=48.9), timedelta(hours=49.1)),
        (HOUR, timedelta(days=89), timedelta(days=91)),
        (DAY, timedelta(days=400), timedelta(days=403)),
    ],
)
def test_roll_ups_are_kept_as_long_as_is_promised(length, kept, gone, alpha):
    make_rollup(length, kept, queue="kept")
    make_rollup(length, gone, queue="gone")
    assert compact(USING, POLICY) == 1
    assert Rollup.objects.get().queue == "kept"
    assert compact(USING, POLICY) == 0


def test_the_cluster_says_how_long_hours_are_kept(alpha):
    make_rollup(HOUR, timedelta(days=5))
    make_rollup(DAY, timedelta(days=500))
    assert compact(USING, ClusterPolicy(retain_rollup_seconds=1000 * 86400)) == 0
    assert compact(USING, ClusterPolicy(retain_rollup_seconds=86400)) == 2


def test_totals_are_kept_for_ever(alpha):
    make_rollup(TOTAL, timedelta(days=20_000))
    assert compact(USING, POLICY) == 0


def test_hours_say_the_same_before_and_after_their_minutes_are_gone(alpha):
    then = timezone.now().replace(second=0, microsecond=0) - timedelta(days=3)
    make_tally(minute=then, count=4)
    make_tally(minute=then, event=Event.STARTED, bucket=2, count=3)
    fold_tallies(USING, POLICY)
    compact(USING, POLICY)
    assert not Rollup.objects.filter(resolution_seconds=MINUTE).exists()
    assert (row(HOUR).enqueued, row(HOUR).wait_histogram) == (4, {"2": 3})


def test_deleting_is_bounded_and_goes_on(alpha, monkeypatch):
    monkeypatch.setattr(rollup, "DELETE_ROWS", 10)
    for number in range(25):
        make_rollup(MINUTE, timedelta(days=3), queue=f"queue-{number}")
    assert [compact(USING, POLICY) for _ in range(4)] == [10, 10, 5, 0]


def make_failure(fingerprint: str, age: timedelta, **columns: object) -> Failure:
    seen = timezone.now() - age
    hour = seen.replace(minute=0, second=0, microsecond=0)
    FailureHour.objects.create(fingerprint=fingerprint, starts_at=hour, count=2)
    return Failure.objects.create(
        fingerprint=fingerprint,
        job_id="0190a1b2-0000-7000-8000-000000000000",
        first_seen_at=seen,
        last_seen_at=seen,
        count=2,
        **columns,
    )


def test_failures_not_seen_for_long_are_forgotten_with_their_hours(alpha):
    make_failure("a" * 16, timedelta(days=29))
    make_failure("b" * 16, timedelta(days=31))
    assert compact(USING, POLICY) == 1
    assert Failure.objects.get().fingerprint == "a" * 16
    assert FailureHour.objects.get().fingerprint == "a" * 16
    assert compact(USING, ClusterPolicy(retain_failed_seconds=28 * 86400)) == 1


def test_the_hours_of_a_failure_that_goes_on_are_kept_as_long_as_days_are(alpha):
    failure = make_failure("a" * 16, timedelta(days=450))
    Failure.objects.filter(pk=failure.pk).update(last_seen_at=timezone.now())
    assert compact(USING, POLICY) == 1
    assert not FailureHour.objects.exists()
    assert Failure.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_nodes_that_delete_at_once_delete_each_row_once(alpha, monkeypatch):
    monkeypatch.setattr(rollup, "DELETE_ROWS", 5)
    for number in range(60):
        make_rollup(MINUTE, timedelta(days=3), queue=f"queue-{number}")
    assert fold_in_threads(3, compact) == 60
    assert not Rollup.objects.exists()
