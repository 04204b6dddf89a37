"""Deleting finished jobs, with all that hangs on them."""

from __future__ import annotations

import pytest

from jobs.errors import InvalidTransition
from jobs.models import Attempt, Job, JobTag, LogLine
from jobs.states import FINAL, State
from tests.factories import make_attempt, make_job

pytestmark = pytest.mark.usefixtures("alpha")


def with_everything(state: str) -> Job:
    job = make_job(state, tags=["eu"])
    make_attempt(job)
    LogLine.objects.create(job=job, fence=1, stream="stdout", message="hello")
    return job


@pytest.mark.parametrize("state", FINAL)
def test_a_finished_job_goes_with_its_attempts_logs_and_tags(state):
    job, other = with_everything(state), with_everything(state)
    job.delete_final()
    for rows in (Attempt.objects, LogLine.objects, JobTag.objects):
        assert [*rows.values_list("job_id", flat=True)] == [other.pk]
    assert [*Job.objects.all()] == [other]


@pytest.mark.parametrize("state", sorted(set(State) - set(FINAL)))
def test_a_job_that_has_not_ended_stays(state):
    job = with_everything(state)
    with pytest.raises(InvalidTransition):
        job.delete_final()
    assert Job.objects.get() == job
    assert LogLine.objects.count() == Attempt.objects.count() == JobTag.objects.count() == 1


def test_many_are_deleted_with_one_word_and_counted():
    for state in State.values:
        with_everything(state)
    assert Job.objects.all().delete_final() == len(FINAL)
    left = set(Job.objects.values_list("pk", flat=True))
    assert set(LogLine.objects.values_list("job_id", flat=True)) == left
    assert Job.objects.all().delete_final() == 0
