"""How many jobs a queue has: counted as far as costs little, and estimated beyond that."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

import pytest
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs import queue_counts
from jobs.models import Queue, Rollup, Tally
from jobs.models.rollup import DAY, TOTAL
from jobs.states import State
from tests.factories import make_job, make_node, make_queue

USING = "cluster-alpha"
POLICY = ClusterPolicy()


def counts() -> dict[str, queue_counts.QueueCounts]:
    return queue_counts.counts(USING, POLICY, list(Queue.objects.all()))


def counted(queue: str = "default") -> dict[str, int]:
    found = counts()[queue]
    return {state: number for state, number in found.by_state.items() if number}


@pytest.fixture(autouse=True)
def _bound(alpha: object) -> None:
    """In the cluster `alpha`."""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting stops after three."""
    for name in ("LEAST_OF_A_QUEUE", "MOST_OF_A_QUEUE", "ENDED_LOOKED_AT"):
        monkeypatch.setattr(queue_counts, name, 3)


def rollup(days_ago: int, resolution: int = DAY, queue: str = "default", **counts: int) -> None:
    day = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    starts_at = day - timedelta(days=days_ago)
    Rollup.objects.create(
        resolution_seconds=resolution, starts_at=starts_at, queue=queue, type="", **counts
    )


def test_every_state_is_counted_by_queue() -> None:
    node = make_node()
    expected: dict[str, dict[str, int]] = {"a": {}, "b": {}}
    for index, state in enumerate(State.values):
        for queue, number in (("a", index % 3), ("b", 1)):
            for _ in range(number):
                holder: dict[str, Any] = {"node": node} if state == State.RUNNING else {}
                make_job(state, queue=queue, **holder)
            if number:
                expected[queue][state] = number
    assert counted("a") == expected["a"]
    assert counted("b") == expected["b"]
    assert counted() == {}


def test_what_waits_for_another_attempt_is_told_apart() -> None:
    for attempts in (0, 0, 1, 2, 3):
        make_job("scheduled", attempts=attempts)
    found = counts()["default"]
    assert (found.by_state[State.SCHEDULED], found.retrying) == (5, 3)


def test_beyond_the_limit_there_are_as_many_as_have_not_ended(few: None) -> None:
    for _ in range(5):
        make_job("ready")
    make_job("scheduled")
    assert counted() == {"ready": 3, "scheduled": 1}
    rollup(0, TOTAL, enqueued=100, succeeded=40, failed=10)
    assert counted() == {"ready": 49, "scheduled": 1}
    make_queue("b")
    make_job("ready", queue="b")
    rollup(0, TOTAL, queue="b", enqueued=100)
    assert counted("b") == {"ready": 1}  # counted to its end


def test_what_is_not_folded_yet_counts_too(few: None) -> None:
    for _ in range(4):
        make_job("ready")
        make_job("succeeded")
    now = timezone.now().replace(second=0, microsecond=0)
    for event, number in (("enqueued", 50), ("succeeded", 20)):
        Tally.objects.create(minute=now, queue="default", type="t", event=event, count=number)
    rollup(0, succeeded=100)
    rollup(0, TOTAL, enqueued=110, succeeded=100)
    assert counted() == {"ready": 40, "succeeded": 120}


def test_an_estimate_never_says_less_than_was_counted(few: None) -> None:
    for _ in range(5):
        make_job("ready")
        make_job("succeeded")
    rollup(0, TOTAL, enqueued=2)
    rollup(0, succeeded=1)
    assert counted() == {"ready": 3, "succeeded": 4}


def test_beyond_the_limit_there_are_as_many_as_ended_while_they_are_kept(few: None) -> None:
    make_queue("short", retain_succeeded_seconds=86400.0 * 2)
    for queue in ("default", "short"):
        for _ in range(4):
            make_job("succeeded", queue=queue)
        for days_ago in (0, 1, 5, 9):
            rollup(days_ago, queue=queue, succeeded=100, failed=7)
    assert counted() == {"succeeded": 300}  # of the last seven days
    assert 150 <= counted("short")["succeeded"] <= 300
    # What was counted to its end is exact, whatever the roll-ups say.
    assert State.FAILED not in counted()


def test_a_day_at_the_edge_counts_in_part(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    noon = timezone.now().astimezone(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    monkeypatch.setattr(queue_counts, "database_now", lambda connection: noon)
    for hours, expected in ((36, 2000), (18, 1250), (6, 500), (1000, 3500)):
        name = f"kept-{hours}-hours"
        make_queue(name, retain_succeeded_seconds=hours * 3600.0)
        for _ in range(4):
            make_job("succeeded", queue=name)
        # A thousand a day; this one is half over.
        for days_ago, number in ((0, 1000), (1, 1000), (2, 1000), (3, 500)):
            rollup(days_ago, queue=name, succeeded=number)
        assert counted(name) == {"succeeded": expected}, name


def test_jobs_of_a_queue_that_is_gone_do_no_harm() -> None:
    make_job("ready", queue="gone")
    Queue.objects.filter(name="gone").delete()
    for state in ("running", "failed"):
        make_job(state, queue="gone")
        Queue.objects.filter(name="gone").delete()
    assert set(counts()) == {"default"}
