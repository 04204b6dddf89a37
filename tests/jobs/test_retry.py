"""Retry and run-now: what people bring back or bring forward."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.errors import InvalidTransition
from jobs.models import Job
from jobs.states import RETRYABLE_FROM, Reason, State
from tests.factories import make_attempt, make_job

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.mark.parametrize("state", RETRYABLE_FROM)
def test_a_job_that_did_not_succeed_becomes_ready_again(state):
    job = make_job(state)
    job.retry()
    assert job.state == State.READY
    assert (job.reason, job.finished_at, job.cancel_requested_at) == (None, None, None)


@pytest.mark.parametrize("state", sorted(set(State) - set(RETRYABLE_FROM)))
def test_no_other_job_can_be_retried(state):
    job = make_job(state)
    with pytest.raises(InvalidTransition):
        job.retry()
    assert Job.objects.get(pk=job.pk).state == state


def test_a_retry_has_at_least_one_attempt_left():
    job = make_job(State.FAILED, attempts=3, max_attempts=3)
    job.retry()
    assert (job.attempts, job.max_attempts) == (3, 4)


def test_a_retry_leaves_the_attempts_that_were_left():
    job = make_job(State.CANCELLED, attempts=1, max_attempts=5)
    job.retry()
    assert (job.attempts, job.max_attempts) == (1, 5)


def test_a_retry_forgives_the_crashes_and_lets_go_of_a_held_job():
    job = make_job(State.FAILED, reason=Reason.POISONED, crashes=3, is_held=True)
    job.retry()
    assert (job.crashes, job.is_held) == (0, False)


def test_a_retry_never_resets_the_fence_and_keeps_the_history():
    job = make_job(State.FAILED, fence=7)
    make_attempt(job, fence=7)
    job.retry()
    assert job.fence == 7
    assert job.attempt_set.count() == 1


def test_a_retry_is_due_now():
    job = make_job(State.FAILED, run_at=timezone.now() - timedelta(days=2))
    job.retry()
    assert abs((job.run_at - timezone.now()).total_seconds()) < 60


def test_many_are_retried_with_one_word_and_counted():
    for state in State.values:
        make_job(state)
    assert Job.objects.all().retry() == len(RETRYABLE_FROM)
    assert Job.objects.all().retry() == 0


def test_run_now_makes_a_scheduled_job_ready():
    job = make_job(State.SCHEDULED)
    job.run_now()
    assert job.state == State.READY
    assert job.run_at <= timezone.now() + timedelta(seconds=1)


@pytest.mark.parametrize("state", sorted(set(State) - {State.SCHEDULED}))
def test_run_now_is_for_scheduled_jobs_only(state):
    job = make_job(state)
    with pytest.raises(InvalidTransition):
        job.run_now()
    assert Job.objects.get(pk=job.pk).state == state
