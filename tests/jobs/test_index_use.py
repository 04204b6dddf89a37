"""Lists use the index made for them; the database itself says so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from uuid_utils.compat import uuid7

from jobs.models import Attempt, Job, LogLine
from jobs.states import State

START = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = START + timedelta(seconds=2500)
STATES = [State.SUCCEEDED] * 74 + [State.FAILED] * 2 + [State.READY] * 20 + [State.SCHEDULED] * 4


def analyze(table: str) -> None:
    with connections["cluster-alpha"].cursor() as cursor:
        cursor.execute(f"ANALYZE {table}")


@pytest.fixture
def many(alpha):
    """Enough jobs that reading them all would be the wrong way."""
    jobs = []
    for number in range(5000):
        state, moment = STATES[number % 100], START + timedelta(seconds=number)
        jobs.append(
            Job(
                type=f"type-{number % 40}",
                queue=f"queue-{number % 39}",
                state=state,
                reason="error" if state == State.FAILED else None,
                enqueued_by="test",
                timeout_seconds=1,
                max_attempts=1,
                created_at=moment,
                run_at=moment,
                finished_at=moment if state in (State.SUCCEEDED, State.FAILED) else None,
            )
        )
    Job.objects.bulk_create(jobs, batch_size=1000)
    analyze("job")


def uses(rows, index: str) -> None:
    plan = rows.explain()
    assert re.search(rf"\b{index}\b", plan), f"{index} is not used:\n{plan}"
    # Read in the order of the index: nothing is sorted, however large the table is.
    assert not re.search(r"Sort|TEMP B-TREE", plan), plan


def test_lists_newest_first_are_read_in_the_order_of_their_index(many):
    for filters, index in (
        ({}, "job_newest"),
        ({"state": State.FAILED}, "job_newest_by_state"),
        ({"queue": "queue-7"}, "job_newest_by_queue"),
        ({"type": "type-7"}, "job_newest_by_type"),
    ):
        rows = Job.objects.filter(**filters).order_by("-created_at", "-id")
        uses(rows[:10], index)
        uses(rows.filter(created_at__lte=MIDDLE)[:10], index)


def test_the_engines_questions_are_read_in_the_order_of_their_index(many):
    ready = Job.objects.filter(state="ready", queue="queue-7", kind="python")
    uses(ready.order_by("priority", "run_at", "id")[:3], "job_ready")
    due = Job.objects.filter(state="scheduled", run_at__lte=MIDDLE)
    uses(due.order_by("run_at")[:10], "job_due")
    old = Job.objects.filter(finished_at__lt=START + timedelta(seconds=60))
    uses(old.order_by("finished_at")[:10], "job_finished")


def test_the_log_and_the_attempts_of_a_job_are_found_by_its_id(alpha, is_postgresql):
    ids = [uuid7() for _ in range(500)]
    LogLine.objects.bulk_create(
        LogLine(job_id=pk, fence=1, stream="log", message="x") for pk in ids for _ in range(5)
    )
    Attempt.objects.bulk_create(
        Attempt(
            job_id=pk,
            fence=fence,
            number=fence,
            node_id=pk,
            outcome="failed",
            started_at=START,
            finished_at=START,
        )
        for pk in ids
        for fence in (1, 2, 3)
    )
    analyze("job_log")
    analyze("attempt")
    uses(LogLine.objects.all().of_job(ids[7])[:3], "job_log_in_order")
    primary_key = "attempt_pkey" if is_postgresql else "sqlite_autoindex_attempt_1"
    uses(Attempt.objects.all().of_job(ids[7]), primary_key)
