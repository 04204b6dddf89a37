"""Cancelling: at once where nothing runs, by asking where something does."""

from __future__ import annotations

import pytest

from jobs.errors import InvalidTransition
from jobs.models import Job
from jobs.states import FINAL, STOPPABLE, UNSTARTED, State
from tests.factories import make_job

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.mark.parametrize("state", UNSTARTED)
def test_a_job_that_has_not_started_is_cancelled_at_once(state):
    job = make_job(state)
    job.cancel()
    assert job.state == State.CANCELLED
    assert job.finished_at is not None
    assert job.cancel_requested_at is not None


def test_cancelling_a_running_job_only_asks_it_to_stop():
    job = make_job(State.RUNNING)
    job.cancel()
    assert job.state == State.RUNNING
    assert job.finished_at is None
    assert job.cancel_requested_at is not None


def test_asking_a_running_job_twice_is_no_error_and_keeps_the_first_time():
    job = make_job(State.RUNNING)
    job.cancel()
    first = job.cancel_requested_at
    job.cancel()
    assert job.cancel_requested_at == first


@pytest.mark.parametrize("state", FINAL)
def test_a_job_that_has_ended_cannot_be_cancelled(state):
    job = make_job(state)
    before = Job.objects.filter(pk=job.pk).values().get()
    with pytest.raises(InvalidTransition) as caught:
        job.cancel()
    assert state in str(caught.value)
    assert Job.objects.filter(pk=job.pk).values().get() == before


def test_the_database_and_not_the_copy_in_hand_says_what_state_a_job_is_in():
    job = make_job(State.READY)
    Job.objects.filter(pk=job.pk).update(state=State.SUCCEEDED, finished_at=job.created_at)
    with pytest.raises(InvalidTransition):
        job.cancel()
    assert job.state == State.SUCCEEDED


def test_many_are_cancelled_with_one_word_and_counted():
    for state in State.values:
        make_job(state)
    assert Job.objects.all().cancel() == len(UNSTARTED) + len(STOPPABLE)
    assert Job.objects.filter(state=State.CANCELLED).count() == len(UNSTARTED) + 1


def test_a_second_cancel_of_many_touches_nothing():
    make_job(State.RUNNING)
    make_job(State.READY)
    assert Job.objects.all().cancel() == 2
    assert Job.objects.all().cancel() == 0
