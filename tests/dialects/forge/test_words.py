"""The words for states: rows, filters and counts say the same of every job there can be."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from jobs.dialects.forge.wire.words import STATUSES, asked_of
from jobs.filters import filtered
from jobs.models import Job
from jobs.states import State
from tests.dialects.forge.conftest import Caller
from tests.factories import make_job

EXPECTED = {
    ("blocked", 0): "pending",
    ("scheduled", 0): "pending",
    ("scheduled", 1): "failed",
    ("ready", 0): "pending",
    ("ready", 1): "pending",
    ("running", 1): "in_progress",
    ("waiting", 1): "in_progress",
    ("succeeded", 1): "done",
    ("failed", 1): "dead",
    ("cancelled", 0): "dead",
    ("skipped", 0): "dead",
}


@pytest.fixture
def jobs(alpha: object) -> dict[str, str]:
    """One job of every sort, and its word."""
    made = {}
    for (state, attempts), word in EXPECTED.items():
        made[str(make_job(state, attempts=attempts).pk)] = word
    assert {state for state, _ in EXPECTED} == set(State.values)
    return made


def test_every_state_has_its_word(jobs: dict[str, str], viewer: Caller) -> None:
    assert {pk: viewer.row(pk)["status"] for pk in jobs} == jobs


@pytest.mark.parametrize("number", range(len(STATUSES) + 1))
def test_filters_find_what_rows_say(number: int, jobs: dict[str, str], viewer: Caller) -> None:
    for statuses in combinations(STATUSES, number):
        wanted = {pk for pk, word in jobs.items() if not statuses or word in statuses}
        assert set(viewer.listed(statuses=list(statuses))) == wanted, statuses
        # The search words of lists mean the same in the ORM.
        rows: Any = filtered(Job.objects.all(), asked_of(statuses))
        assert {str(pk) for pk in rows.values_list("pk", flat=True)} == wanted, statuses


def test_counts_are_of_the_same_jobs(jobs: dict[str, str], viewer: Caller) -> None:
    counts = viewer.queue()["counts"]
    words = list(jobs.values())
    assert counts["in_progress"] == words.count("in_progress") == 2
    assert counts["done"] == words.count("done") == 1
    assert counts["failed"] == words.count("failed") == 1
    assert counts["dead"] == words.count("dead") == 3
    # Of the pending ones those that are not due are told apart.
    assert (counts["pending"], counts["scheduled"]) == (2, 2)
    assert sum(counts.values()) == len(jobs)


def test_jobs_failed_are_those_that_wait_for_another_attempt(
    jobs: dict[str, str], viewer: Caller
) -> None:
    (row,) = viewer.read("jobs/failed?limit=10")
    assert jobs[row["id"]] == row["status"] == "failed"


def test_jobs_scheduled_are_the_deferred_ones(jobs: dict[str, str], viewer: Caller) -> None:
    (row,) = viewer.read("jobs/scheduled")
    assert row["status"] == "pending"
    assert Job.objects.get(pk=row["id"]).state == State.SCHEDULED
