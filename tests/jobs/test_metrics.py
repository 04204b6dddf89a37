from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from django.db import connections
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from clusters.policy import ClusterPolicy
from jobs import metrics, tallies
from jobs.engine.rollup import compact, fold_tallies
from jobs.metrics import _stretches, stats, timeline
from jobs.models import Rollup, Tally
from jobs.models.rollup import DAY, HOUR, MINUTE, Event

USING = "cluster-alpha"
POLICY = ClusterPolicy()
START = datetime(2026, 1, 1, tzinfo=UTC)


def ago(**age: float) -> datetime:
    return timezone.now() - timedelta(**age)


def make_tally(event: str = Event.ENQUEUED, *, at: datetime | None = None, **columns: object):
    minute = (at or timezone.now()).replace(second=0, microsecond=0)
    defaults = {"minute": minute, "queue": "mail", "type": "send", "count": 1}
    return Tally.objects.create(event=event, **{**defaults, **columns})


def the(found: metrics.Stats) -> metrics.Figures:
    ((_, figures),) = found.groups
    return figures


@pytest.mark.parametrize("is_folded", [False, True])
def test_figures_are_the_same_before_and_after_folding(alpha, is_folded):
    make_tally(Event.ENQUEUED, count=7)
    make_tally(Event.STARTED, bucket=0, count=3)
    make_tally(Event.STARTED, bucket=40)
    make_tally(Event.SUCCEEDED, bucket=20, count=3)
    make_tally(Event.FAILED, bucket=20)
    if is_folded:
        fold_tallies(USING, POLICY)
    figures = the(stats(USING, POLICY, ago(hours=1), timezone.now()))
    assert figures.counts["enqueued"] == 7
    assert figures.wait == {0: 3, 40: 1}
    assert figures.run == {20: 4}
    assert (figures.finished, figures.failure_rate) == (4, 0.25)


def test_what_is_folded_and_what_is_not_add_up(alpha):
    make_tally(Event.STARTED, bucket=3, count=2)
    fold_tallies(USING, POLICY)
    make_tally(Event.STARTED, bucket=3, count=5)
    found = stats(USING, POLICY, ago(hours=1), timezone.now())
    assert the(found).wait == {3: 7}
    assert found.as_of >= ago(seconds=100)


@pytest.mark.parametrize("is_folded", [False, True])
def test_queue_and_type_choose_and_group(alpha, is_folded):
    for queue, kind, count in (("mail", "send", 5), ("mail", "read", 2), ("web", "send", 1)):
        make_tally(queue=queue, type=kind, count=count)
    if is_folded:
        fold_tallies(USING, POLICY)

    def counts(**asked):
        found = stats(USING, POLICY, ago(hours=1), timezone.now(), **asked)
        return [(name, figures.counts["enqueued"]) for name, figures in found.groups]

    assert counts() == [("", 8)]
    assert counts(queue="mail") == [("", 7)]
    assert counts(type="send") == [("", 6)]
    assert counts(queue="mail", type="send") == [("", 5)]
    assert counts(queue="nowhere") == [("", 0)]
    assert counts(group_by="queue") == [("mail", 7), ("web", 1)]
    assert counts(group_by="type") == [("send", 6), ("read", 2)]
    assert counts(group_by="type", queue="mail") == [("send", 5), ("read", 2)]
    assert counts(group_by="queue", queue="web") == [("web", 1)]


def test_only_the_busiest_groups_are_told(alpha, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_GROUPS", 2)
    for number in range(5):
        make_tally(queue=f"queue-{number}", count=number + 1)
    found = stats(USING, POLICY, ago(hours=1), timezone.now(), group_by="queue")
    assert [name for name, _ in found.groups] == ["queue-4", "queue-3"]


def test_tallies_beyond_what_is_read_along_move_the_moment_up_to_which_all_is_counted(
    alpha, monkeypatch
):
    monkeypatch.setattr(metrics, "MAX_TAIL", 3)
    then = ago(minutes=30).replace(second=0, microsecond=0)
    for number in range(5):
        make_tally(at=then + timedelta(minutes=number))
    found = stats(USING, POLICY, ago(hours=1), timezone.now())
    assert the(found).counts["enqueued"] == 3
    assert found.as_of == then + timedelta(minutes=2)


def test_what_is_outside_of_the_time_asked_for_is_not_counted(alpha):
    for hours in (1, 3, 5):
        make_tally(at=ago(hours=hours))
    fold_tallies(USING, POLICY)
    make_tally(at=ago(hours=3))
    make_tally(at=ago(hours=5))
    figures = the(stats(USING, POLICY, ago(hours=4), ago(hours=2)))
    assert figures.counts["enqueued"] == 2


def test_any_length_of_time_says_what_the_minutes_say(alpha):
    dice = random.Random(3)
    moments = [ago(hours=dice.uniform(0, 47)) for _ in range(200)]
    for moment in moments:
        make_tally(at=moment)
    while fold_tallies(USING, POLICY):
        pass
    for _ in range(20):
        one, other = sorted(ago(hours=dice.uniform(0, 47)) for _ in range(2))
        found = stats(USING, POLICY, one, other)
        minutes = Rollup.objects.filter(
            resolution_seconds=MINUTE,
            queue="",
            type="",
            starts_at__gte=found.start,
            starts_at__lt=found.end,
        )
        assert the(found).counts["enqueued"] == sum(row.enqueued for row in minutes)
        assert found.start <= one < found.start + timedelta(minutes=1)
        assert found.end - timedelta(minutes=1) < other <= found.end


@given(
    st.integers(0, 200_000),
    st.integers(1, 200_000),
    st.sampled_from([MINUTE, HOUR, DAY]),
)
def test_stretches_cover_the_time_once(first, length, unit):
    start = START + timedelta(seconds=first * unit)
    end = start + timedelta(seconds=length * unit)
    stretches = sorted(_stretches(start, end, unit), key=lambda s: s[1])
    assert stretches[0][1] == start
    assert stretches[-1][2] == end
    for (_, _, high), (_, low, _) in pairwise(stretches):
        assert high == low
    assert len(stretches) <= 5
    for seconds, low, high in stretches:
        assert seconds >= unit
        assert (low - START).total_seconds() % seconds == 0
        assert (high - START).total_seconds() % seconds == 0


def test_long_ago_figures_are_told_by_the_hour_and_by_the_day(alpha):
    for age in (timedelta(days=3), timedelta(days=60), timedelta(days=200)):
        make_tally(at=timezone.now() - age)
    while fold_tallies(USING, POLICY):
        pass
    while compact(USING, POLICY):
        pass
    found = stats(USING, POLICY, ago(days=3.1), ago(days=2.9))
    assert (found.start.minute, found.end.minute) == (0, 0)
    assert the(found).counts["enqueued"] == 1
    found = stats(USING, POLICY, ago(days=300), timezone.now())
    assert (found.start.hour, the(found).counts["enqueued"]) == (0, 3)


# -- Step by step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", metrics.STEPS)
@pytest.mark.parametrize("is_folded", [False, True])
def test_each_step_has_its_own_figures_and_gaps_are_zeros(alpha, step, is_folded):
    moments = [ago(hours=hours) for hours in (1, 1, 7)]
    for moment in moments:
        make_tally(Event.STARTED, at=moment, bucket=5)
    if is_folded:
        fold_tallies(USING, POLICY)
    found = timeline(USING, POLICY, ago(hours=10), timezone.now(), step_seconds=step)
    assert (found.end - found.start).total_seconds() == step * len(found.points)
    assert [at for at, _ in found.points] == [
        found.start + timedelta(seconds=step * index) for index in range(len(found.points))
    ]
    expected = [
        sum(at <= moment < at + timedelta(seconds=step) for moment in moments)
        for at, _ in found.points
    ]
    assert [figures.counts["started"] for _, figures in found.points] == expected
    assert sum(expected) == 3
    assert [sum(figures.wait.values()) for _, figures in found.points] == expected


def test_a_step_shorter_than_what_is_kept_is_refused(alpha):
    with pytest.raises(metrics.TooFine):
        timeline(USING, POLICY, ago(hours=49), ago(hours=40), step_seconds=900)
    assert timeline(USING, POLICY, ago(hours=48), timezone.now(), step_seconds=900).points
    with pytest.raises(metrics.TooFine):
        timeline(USING, POLICY, ago(days=91), ago(days=80), step_seconds=3600)


def test_too_many_points_are_refused(alpha):
    with pytest.raises(metrics.TooManyPoints):
        timeline(USING, POLICY, ago(hours=26), timezone.now(), step_seconds=60)


@pytest.mark.parametrize(
    ("hours", "step"), [(1, 60), (8, 60), (24, 300), (47, 900), (168, 3600), (24 * 60, 86400)]
)
def test_unless_told_a_step_makes_a_chart_of_500_points_at_most(alpha, hours, step):
    found = timeline(USING, POLICY, ago(hours=hours), timezone.now())
    assert found.step_seconds == step
    assert len(found.points) <= 502


def test_one_statement_answers(alpha, django_assert_max_num_queries):
    # One more asks PostgreSQL for its time.
    with django_assert_max_num_queries(2, using=USING):
        stats(USING, POLICY, ago(days=300), timezone.now(), group_by="queue")
    with django_assert_max_num_queries(2, using=USING):
        timeline(USING, POLICY, ago(days=3), timezone.now())


@pytest.mark.django_db(transaction=True)
def test_figures_never_miss_or_double_what_is_just_being_folded(alpha):
    """A reader sees each tally once: as a tally, or in the roll-up."""
    for _ in range(30):
        tallies.count(USING, [("mail", "send", "enqueued", 1)])
    stop, seen = threading.Event(), []

    def fold() -> None:
        try:
            while not stop.is_set():
                fold_tallies(USING, POLICY)
                tallies.count(USING, [("mail", "send", "cancelled", 1)])
        finally:
            connections[USING].close()

    folder = threading.Thread(target=fold)
    folder.start()
    try:
        for _ in range(40):
            seen.append(the(stats(USING, POLICY, ago(hours=1), ago(minutes=-5))).counts["enqueued"])
    finally:
        stop.set()
        folder.join()
    assert set(seen) == {30}
