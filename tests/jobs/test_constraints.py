"""The database refuses half-finished rows, whoever writes them."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from clusters.models import Node, NodeStatus
from jobs.models import Attempt, IdempotencyKey, Job, Queue
from jobs.states import FINAL, Outcome, Reason, State
from tests.factories import make_attempt, make_job, make_node, make_queue

pytestmark = pytest.mark.usefixtures("alpha")


def refused(constraint: str, rows, **columns) -> None:
    with pytest.raises(IntegrityError) as caught, transaction.atomic(using="cluster-alpha"):
        rows.update(**columns)
    assert constraint in str(caught.value)


def row(state: str = State.READY):
    return Job.objects.filter(pk=make_job(state).pk)


@pytest.mark.parametrize("state", State.values)
def test_the_factory_makes_a_row_of_every_state_that_the_database_accepts(state):
    assert Job.objects.get(pk=make_job(state).pk).state == state


def test_a_state_is_one_of_ours():
    refused("job_state_known", row(), state="done")


@pytest.mark.parametrize("state", FINAL)
def test_a_final_job_has_an_end(state):
    refused("job_finished_at_tells_the_end", row(state), finished_at=None)


@pytest.mark.parametrize("state", sorted(set(State) - set(FINAL)))
def test_a_job_that_goes_on_has_no_end(state):
    refused("job_finished_at_tells_the_end", row(state), finished_at=timezone.now())


@pytest.mark.parametrize("column", [{"node": None}, {"fence": 0}, {"started_at": None}])
def test_a_running_job_has_a_holder_a_fence_and_a_start(column):
    refused("job_running_has_a_holder", row(State.RUNNING), **column)


def test_a_failed_job_has_a_reason_that_is_known():
    refused("job_reason_goes_with_failed", row(State.FAILED), reason=None)
    refused("job_reason_goes_with_failed", row(State.FAILED), reason="bad luck")


@pytest.mark.parametrize("state", sorted(set(State) - {State.FAILED}))
def test_only_a_failed_job_has_a_reason(state):
    refused("job_reason_goes_with_failed", row(state), reason=Reason.ERROR)


def test_only_a_failed_job_can_be_held():
    refused("job_held_is_failed", row(State.READY), is_held=True)
    assert row(State.FAILED).update(is_held=True) == 1


@pytest.mark.parametrize("priority", [-101, 101])
def test_priority_has_a_range(priority):
    refused("job_priority_range", row(), priority=priority)


@pytest.mark.parametrize("limit", [{"max_attempts": 0}, {"timeout_seconds": 0}])
def test_limits_are_positive(limit):
    refused("job_limits_positive", row(), **limit)


def test_a_queue_exists_once():
    make_queue("mail")
    with pytest.raises(IntegrityError), transaction.atomic(using="cluster-alpha"):
        make_queue("mail")


@pytest.mark.parametrize("column", [{"paused_at": None}, {"paused_by": None}, {"is_paused": False}])
def test_a_pause_tells_when_and_who(column):
    queue = make_queue(is_paused=True)
    refused("queue_pause_tells_when_and_who", Queue.objects.filter(pk=queue.pk), **column)


def test_a_node_has_a_known_status():
    node = make_node(NodeStatus.CLOSED)
    refused("node_status_known", Node.objects.filter(pk=node.pk), status="asleep")


@pytest.mark.parametrize("status", NodeStatus.values)
def test_a_node_is_closed_exactly_when_it_has_an_end(status):
    node = make_node(status)
    changed = timezone.now() if node.closed_at is None else None
    refused("node_closed_at_tells_the_end", Node.objects.filter(pk=node.pk), closed_at=changed)


def test_an_attempt_has_a_known_outcome():
    job = make_job(State.FAILED)
    make_attempt(job)
    refused("attempt_outcome_known", Attempt.objects.filter(job_id=job.pk), outcome="so-so")


def test_there_is_one_attempt_for_each_fence():
    job = make_job(State.FAILED)
    make_attempt(job, fence=7)
    with pytest.raises(IntegrityError), transaction.atomic(using="cluster-alpha"):
        make_attempt(job, Outcome.SUCCEEDED, fence=7)


def test_an_idempotency_key_exists_once_for_each_principal():
    IdempotencyKey.objects.create(principal="a", key="k", request_hash="x")
    IdempotencyKey.objects.create(principal="b", key="k", request_hash="x")
    with pytest.raises(IntegrityError), transaction.atomic(using="cluster-alpha"):
        IdempotencyKey.objects.create(principal="a", key="k", request_hash="x")


def test_the_checks_of_the_hot_table_are_stored_in_few_words(is_postgresql):
    """PostgreSQL reads all of them at every statement that writes a job."""
    if not is_postgresql:
        pytest.skip("SQLite has no such cost")
    with connections["cluster-alpha"].cursor() as cursor:
        cursor.execute(
            "SELECT sum(length(conbin::text)) FROM pg_constraint"
            " WHERE conrelid = 'job'::regclass AND contype = 'c' AND convalidated"
        )
        assert 5_000 < cursor.fetchone()[0] < 14_000
        cursor.execute(
            "SELECT count(*) FROM pg_constraint WHERE conrelid = 'job'::regclass"
            " AND contype = 'c' AND NOT convalidated"
        )
        assert cursor.fetchone()[0] == 0
