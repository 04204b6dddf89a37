"""Bulk operations with a limit: the oldest so many that match and that the action is for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from jobs import listing
from jobs.engine import bulk, bulk_asking
from jobs.engine.bulk_count import TooSlow
from jobs.engine.bulk_walk import Seen, Stretch
from jobs.errors import InvalidBulkOperation
from jobs.models import BulkStatus, Job
from jobs.states import State
from tests.factories import make_job, make_queue
from tests.jobs.test_bulk import ask, carry_out, done

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(bulk, "BUSY_PAUSE", 0.0)


@pytest.fixture
def small_batches(monkeypatch):
    for vendor in ("postgresql", "sqlite"):
        monkeypatch.setitem(bulk.FIRST_BATCH, vendor, 4)
        monkeypatch.setitem(bulk.SMALLEST_BATCH, vendor, 4)
    monkeypatch.setattr(bulk, "LARGEST_BATCH", 4)


def make_row(*states: str, **columns) -> list[Job]:
    """Jobs of these states, the first one the oldest."""
    now = timezone.now()
    return [
        make_job(state, created_at=now - timedelta(minutes=len(states) - n), **columns)
        for n, state in enumerate(states)
    ]


def ready() -> set:
    return set(Job.objects.filter(state=State.READY).values_list("pk", flat=True))


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_the_oldest_so_many_are_done_and_no_others(small_batches, limit):
    jobs = make_row(*["failed"] * 11)
    assert done("retry", {"state": ["failed"]}, limit=limit) == {"retried": limit}
    assert ready() == {job.pk for job in jobs[:limit]}


def test_a_limit_that_is_not_reached_is_none():
    make_row(*["failed"] * 3)
    assert done("retry", {"state": ["failed"]}, limit=10) == {"retried": 3}


def test_what_the_action_is_not_for_does_not_count(small_batches):
    row = make_row(*["succeeded"] * 9, "failed", "ready", "cancelled", "failed")
    row[9].is_held = True
    row[9].save()
    assert done("retry", {"all": True}, limit=2) == {"retried": 2}
    assert ready() == {row[10].pk, row[11].pk, row[12].pk}
    assert done("retry", {"is_held": True}, limit=2) == {"retried": 1}


def test_what_could_not_be_done_is_made_up_for_by_the_next_ones(small_batches):
    row = make_row(*["failed"] * 8)
    Job.objects.filter(pk=row[1].pk).update(unique_key="k")
    make_job(State.READY, unique_key="k")
    assert done("retry", {"state": ["failed"]}, limit=4) == {"retried": 4, "unique_key_taken": 1}
    assert {row[n].pk for n in (0, 2, 3, 4)} <= ready()
    make_queue("b")
    Job.objects.filter(pk=row[0].pk).update(queue="b")
    assert done("move", {"state": ["ready"]}, queue="b", limit=2) == {"moved": 2, "unchanged": 1}


def test_jobs_that_are_busy_keep_their_place(small_batches, monkeypatch):
    jobs = make_row(*["failed"] * 8)
    act, rounds = bulk._act, Counter()

    def busy_at_first(using, operation, asked, seen):
        held = [job for job in seen if job.pk == jobs[1].pk and not rounds[job.pk]]
        rounds.update(job.pk for job in held)
        outcomes, busy = act(using, operation, asked, [job for job in seen if job not in held])
        return outcomes, [*busy, *(job.pk for job in held)]

    monkeypatch.setattr(bulk, "_act", busy_at_first)
    assert done("retry", {"state": ["failed"]}, limit=3) == {"retried": 3}
    assert ready() == {job.pk for job in jobs[:3]}


def test_the_place_of_one_that_stays_busy_goes_to_the_next(small_batches, monkeypatch):
    jobs = make_row(*["failed"] * 8)
    act = bulk._act

    def busy_for_ever(using, operation, asked, seen):
        held = [job for job in seen if job.pk == jobs[1].pk]
        outcomes, busy = act(using, operation, asked, [job for job in seen if job not in held])
        return outcomes, [*busy, *(job.pk for job in held)]

    monkeypatch.setattr(bulk, "_act", busy_for_ever)
    assert done("retry", {"state": ["failed"]}, limit=3) == {"retried": 3, "busy": 1}
    assert ready() == {jobs[n].pk for n in (0, 2, 3)}


def test_what_is_expected_and_tried_out_is_no_more_than_the_limit():
    jobs = make_row("succeeded", "ready", *["failed"] * 7)
    found = bulk.dry_run("retry", {"all": True}, {"limit": 3})
    assert (found.count, found.eligible, found.size) == (7, 3, 3)
    assert [job.pk for job in found.sample] == [job.pk for job in jobs[2:]]
    assert bulk.dry_run("retry", {"all": True}, {"limit": 30}).eligible == 7
    whole = bulk.dry_run("retry", {"all": True})
    assert (whole.count, whole.eligible) == (9, 7)
    operation = carry_out(ask("retry", {"all": True}, limit=3))
    assert (operation.status, operation.expected, operation.seen) == (BulkStatus.FINISHED, 3, 3)


def test_where_the_action_is_for_none_of_them_all_are_left_alone():
    make_row("failed", "failed")
    assert bulk.dry_run("cancel", {"state": ["failed"]}, {"limit": 1}).eligible == 0
    assert done("cancel", {"state": ["failed"]}, limit=1) == {"unchanged": 2}


@pytest.mark.parametrize("limit", [0, -1, 1_000_001, 1.0, True, None, "3"])
def test_a_limit_is_a_number_of_jobs(limit):
    with pytest.raises(InvalidBulkOperation) as caught:
        ask("retry", {"all": True}, limit=limit)
    assert caught.value.field == "arguments.limit"


# -- At a glance -----------------------------------------------------------------------------------


def test_a_glance_is_at_those_that_the_action_is_for():
    jobs = make_row("succeeded", "ready", *["failed"] * 7)
    make_job("failed", is_held=True)
    for words in ({"all": True}, {"queue": "default"}, {"state": ["failed", "ready"]}):
        found = bulk.glance("retry", words)
        assert (found.count, found.size, found.is_exact) == (7, 7, True)
        assert found.by_state == {"failed": 7}
        assert [job.pk for job in found.sample] == [job.pk for job in jobs[2:]]
    assert bulk.glance("retry", {"all": True}, {"limit": 3}).size == 3
    assert bulk.glance("cancel", {"state": ["failed"]}).size == 0
    # To which queue is chosen on the page.
    assert bulk.glance("move", {"all": True}).size == 1


def test_where_a_count_takes_too_long_a_glance_walks_as_far_as_it_gets(monkeypatch):
    def too_slow(*_):
        raise TooSlow

    jobs = make_row(*["failed"] * 7, "succeeded")
    monkeypatch.setattr(bulk_asking, "at_most", too_slow)
    found = bulk.glance("retry", {"queue": "default"})
    assert (found.count, found.is_exact, found.by_state) == (7, True, {"failed": 7})
    assert bulk.glance("retry", {"error": "none"}).size == 0

    first = Stretch([Seen(*[None] * 9)._replace(pk=jobs[0].pk)], (jobs[0].created_at, jobs[0].pk))
    monkeypatch.setattr(bulk_asking, "read_stretch", lambda *_: first)
    monkeypatch.setattr(bulk_asking, "WALK_SECONDS", 0.01)
    found = bulk.glance("retry", {"queue": "default"})
    assert not found.is_exact
    # How far it comes changes from one look to the next: nobody is told of it as a number.
    assert found.told is None and not found.has_grown(None)
    # But it is no more than there are: whoever saw fewer looks again.
    assert found.count > 1 and found.has_grown(1)


def test_more_than_a_list_counts_are_told_as_that_many(monkeypatch):
    make_row(*["failed"] * 4)
    for module in (listing, bulk_asking):
        monkeypatch.setattr(module, "COUNT_LIMIT", 3)
    found = bulk.glance("retry", {"all": True})
    assert (found.count, found.is_exact, found.by_state) == (3, False, {})
    assert [found.has_grown(before) for before in (2, 3)] == [True, False]


def test_it_has_grown_where_a_tenth_was_added():
    make_row(*["failed"] * 11)
    found = bulk.dry_run("retry", {"state": ["failed"]})
    assert [found.has_grown(before) for before in (9, 10, 11, 2000, None)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    # What nobody could count then and nobody can now has not.
    assert not replace(found, count=None, eligible=None).has_grown(None)
    # Ten are ten, however many there are.
    assert not bulk.dry_run("retry", {"state": ["failed"]}, {"limit": 10}).has_grown(10)
