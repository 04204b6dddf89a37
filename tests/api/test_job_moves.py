"""Get, cancel, retry, run now and delete one job."""

from __future__ import annotations

import pytest

from jobs.models import Attempt, Job, JobTag, LogLine
from jobs.states import FINAL, RETRYABLE_FROM, UNSTARTED, State
from tests.api.conftest import Api, check_problem
from tests.factories import make_attempt, make_job

STATES = [state for state in State if state != State.WAITING]


@pytest.mark.parametrize("state", STATES)
def test_what_has_not_started_is_cancelled_and_what_runs_is_asked(
    state: State, alpha: object, api: Api
) -> None:
    job = make_job(state)
    response = api.post(f"alpha/jobs/{job.pk}/cancel")
    if state in UNSTARTED:
        assert response.json()["state"] == "cancelled"
        assert response.json()["finished_at"] is not None
    elif state == State.RUNNING:
        assert response.json()["state"] == "running"
        assert response.json()["cancel_requested_at"] is not None
        assert api.post(f"alpha/jobs/{job.pk}/cancel").status_code == 200
    else:
        check_problem(response, 409, "invalid_transition")


@pytest.mark.parametrize("state", STATES)
def test_what_has_stopped_is_retried(state: State, alpha: object, api: Api) -> None:
    job = make_job(state)
    response = api.post(f"alpha/jobs/{job.pk}/retry")
    if state in RETRYABLE_FROM:
        assert response.status_code == 200
        assert response.json()["state"] == "ready"
        assert response.json()["reason"] is None
        assert response.json()["max_attempts"] > response.json()["attempts"]
    else:
        problem = check_problem(response, 409, "invalid_transition")
        assert state in problem["detail"]


@pytest.mark.parametrize("state", STATES)
def test_what_is_scheduled_runs_now(state: State, alpha: object, api: Api) -> None:
    job = make_job(state)
    response = api.post(f"alpha/jobs/{job.pk}/run-now")
    if state == State.SCHEDULED:
        assert response.json()["state"] == "ready"
    else:
        check_problem(response, 409, "invalid_transition")


@pytest.mark.parametrize("state", STATES)
def test_what_is_finished_is_deleted_with_all_that_is_its(
    state: State, alpha: object, admin: Api
) -> None:
    job = make_job(state, tags=["a"])
    if state in FINAL:
        make_attempt(job)
        LogLine.objects.create(job_id=job.pk, fence=1, stream="log", message="x")
    response = admin.delete(f"alpha/jobs/{job.pk}")
    if state in FINAL:
        assert (response.status_code, response.content) == (204, b"")
        check_problem(admin.get(f"alpha/jobs/{job.pk}"), 404, "not_found")
        for model in (Job, Attempt, LogLine, JobTag):
            assert not model.objects.exists()
    else:
        check_problem(response, 409, "invalid_transition")
        assert Job.objects.exists()


@pytest.mark.parametrize(
    "identifier",
    [
        "x",
        "1",
        "0190a1b2-0000-7000-8000-000000000000",
        "0190a1b2000070008000000000000000",
        "%00",
        "%0A",
        "..%2F..",
        "count%20",
        "{0190a1b2-0000-7000-8000-000000000000}",
        "a" * 3000,
    ],
)
def test_what_names_no_job_is_404(identifier: str, alpha: object, admin: Api) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/run-now"),
        ("GET", "/attempts"),
        ("GET", "/logs"),
    ):
        check_problem(admin(method, f"alpha/jobs/{identifier}{path}"), 404, "not_found")


def test_a_job_deleted_by_somebody_else_meanwhile_is_404(
    alpha: object, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(State.SCHEDULED)
    monkeypatch.setattr(Job, "_only_me", lambda self: Job.objects.none())
    original = Job.refresh_from_db

    def gone(self: Job, *args: object, **kwargs: object) -> None:
        Job.objects.filter(pk=self.pk).delete()
        original(self, *args, **kwargs)

    monkeypatch.setattr(Job, "refresh_from_db", gone)
    check_problem(api.post(f"alpha/jobs/{job.pk}/run-now"), 404, "not_found")
