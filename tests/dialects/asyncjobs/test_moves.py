"""Retrying and deleting tasks, one at a time and many."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.models import Job
from jobs.states import Reason, State
from tests.dialects.asyncjobs.conftest import MISSING, Caller, check_error
from tests.factories import make_job, make_step_beside_a_program
from tests.refusals import refused, the_refusal

USING = "cluster-alpha"
MAY = [
    (State.READY, "new"),
    (State.SCHEDULED, "new"),
    (State.FAILED, "retry"),
    (State.CANCELLED, "new"),
    (State.SKIPPED, "new"),
]
MAY_NOT = [
    (State.RUNNING, "task_already_active"),
    (State.WAITING, "task_already_active"),
    (State.SUCCEEDED, "task_already_in_state"),
    (State.BLOCKED, "task_cannot_enqueue"),
]


@pytest.mark.parametrize(("state", "word"), MAY)
def test_a_task_that_does_not_run_may_be_retried(state: State, word: str, api: Caller) -> None:
    job = make_job(state)
    response = api.post(f"v1/tasks/{job.pk}/retry")
    assert response.status_code == 200
    assert (response.json()["id"], response.json()["state"]) == (str(job.pk), word)
    job.refresh_from_db()
    assert job.state == State.READY and job.run_at <= timezone.now()
    assert job.max_attempts > job.attempts


@pytest.mark.parametrize(("state", "reason"), MAY_NOT)
def test_a_retry_that_may_not_be_is_a_conflict(state: State, reason: str, api: Caller) -> None:
    job = make_job(state)
    check_error(api.post(f"v1/tasks/{job.pk}/retry"), 409, "conflict", reason)
    job.refresh_from_db()
    assert job.state == state
    assert not AuditEntry.objects.exists()


def test_a_retry_drops_what_would_end_the_task_again(api: Caller) -> None:
    task = api.make(deadline="2001-01-01T00:00:00Z", max_tries=1)
    Job.objects.all().expire()
    found = api.post(f"v1/tasks/{task['id']}/retry").json()
    assert found["state"] == "new" and "deadline" not in found
    Job.objects.update(
        state=State.FAILED, reason=Reason.ERROR, attempts=1, finished_at=timezone.now()
    )
    assert api.task(task["id"])["state"] == "expired"
    found = api.post(f"v1/tasks/{task['id']}/retry").json()
    assert (found["state"], found["tries"], found["max_tries"]) == ("retry", 1, 2)


def test_a_task_whose_unique_key_is_taken_is_not_retried(api: Caller) -> None:
    old = make_job(State.FAILED, unique_key="k")
    make_job(State.READY, unique_key="k")
    check_error(api.post(f"v1/tasks/{old.pk}/retry"), 409, "conflict", "unique_key_taken")
    (result,) = api.post("v1/tasks/retry", {"ids": [str(old.pk)]}).json()["results"]
    assert result["status"] == "failed" and "unique key" in result["error"]


def test_many_have_an_outcome_each_in_the_order_they_were_named(api: Caller) -> None:
    jobs = {state: make_job(state) for state, _ in MAY + MAY_NOT}
    ids = [*(str(job.pk) for job in jobs.values()), "no uuid", MISSING, str(jobs[State.FAILED].pk)]
    response = api.post("v1/tasks/retry", {"ids": ids})
    results = response.json()["results"]
    assert [result["id"] for result in results] == ids
    statuses = [result["status"] for result in results]
    assert statuses == ["ok"] * 5 + ["failed"] * 4 + ["not_found"] * 2 + ["ok"]
    assert all(("error" in result) is (result["status"] != "ok") for result in results)
    assert Job.objects.filter(state=State.READY).count() == 5
    assert AuditEntry.objects.get().verb == "jobs.retry"


def test_many_take_as_many_statements_as_a_few(api: Caller) -> None:
    def statements(number: int) -> int:
        ids = [str(make_job(State.FAILED).pk) for _ in range(number)]
        ids += [str(make_job(State.SCHEDULED).pk) for _ in range(number)]
        with CaptureQueriesContext(connections[USING]) as found:
            results = api.post("v1/tasks/retry", {"ids": ids}).json()["results"]
        assert {result["status"] for result in results} == {"ok"}
        return len(found)

    assert statements(2) == statements(50) <= 25


@pytest.mark.parametrize("verb", ["single", "bulk"])
def test_a_kind_that_needs_a_grant_needs_it_here_too(verb: str, api: Caller, make_key: Any) -> None:
    job = make_job(State.FAILED, kind="shell", type="shell", payload={"command": ["true"]})
    granted = Caller(make_key("operator", grants=("shell",)))
    if verb == "single":
        response = api.post(f"v1/tasks/{job.pk}/retry")
        check_error(response, 403, "invalid_argument", "permission_denied", "kind")
        assert granted.post(f"v1/tasks/{job.pk}/retry").status_code == 200
        return
    for caller, status in ((api, "failed"), (granted, "ok")):
        answer = caller.post("v1/tasks/retry", {"ids": [str(job.pk)]})
        (result,) = answer.json()["results"]
        assert result["status"] == status
        if caller is api:
            the_refusal(answer, "jobs.retry", "key:operator-1", kind="shell")
    assert len(refused()) == 1


@pytest.mark.parametrize("verb", ["single", "bulk"])
def test_a_step_needs_the_grants_of_those_beside_it(verb: str, api: Caller, make_key: Any) -> None:
    job = make_step_beside_a_program()
    granted = Caller(make_key("operator", grants=("shell",)))
    if verb == "single":
        response = api.post(f"v1/tasks/{job.pk}/retry")
        check_error(response, 403, "invalid_argument", "permission_denied", "kind")
        assert granted.post(f"v1/tasks/{job.pk}/retry").status_code == 200
        return
    for caller, status in ((api, "failed"), (granted, "ok")):
        (result,) = caller.post("v1/tasks/retry", {"ids": [str(job.pk)]}).json()["results"]
        assert result["status"] == status


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({}, "ids_required", "ids"),
        ({"ids": None}, "ids_required", "ids"),
        ({"ids": []}, "ids_required", "ids"),
        ({"ids": ["x"] * 101}, "ids_too_many", "ids"),
        ({"ids": "x"}, "invalid_json", "ids"),
        ({"ids": [7]}, "invalid_json", "ids[0]"),
        ({"ids": ["x"], "more": 1}, "invalid_json", "more"),
        ([], "invalid_json", None),
    ],
)
def test_bad_bodies_of_a_bulk_retry(body: Any, reason: str, field: str | None, api: Caller) -> None:
    response = api.post("v1/tasks/retry", body)
    check_error(response, 400, "invalid_argument", reason, field)


# -- Delete ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [s for s in State if s not in (State.RUNNING, State.WAITING)])
def test_a_task_that_does_not_run_can_be_deleted(state: State, admin: Caller) -> None:
    job = make_job(state)
    assert admin.delete(f"v1/tasks/{job.pk}").status_code == 204
    check_error(admin.get(f"v1/tasks/{job.pk}"), 404, "not_found", "task_not_found")
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_id) == ("jobs.delete", str(job.pk))


@pytest.mark.parametrize("state", [State.RUNNING, State.WAITING])
def test_an_active_task_is_not_deleted(state: State, admin: Caller) -> None:
    job = make_job(state)
    check_error(admin.delete(f"v1/tasks/{job.pk}"), 409, "conflict", "task_already_active")
    job.refresh_from_db()
    assert job.state == state and job.cancel_requested_at is None


def test_a_deleted_task_takes_those_that_wait_for_it_along(admin: Caller) -> None:
    parent = admin.make()["id"]
    child = admin.make(dependencies=[parent])["id"]
    assert admin.delete(f"v1/tasks/{parent}").status_code == 204
    assert admin.task(child)["state"] == "unreachable"


def test_a_task_that_others_still_need_is_kept(admin: Caller) -> None:
    from tests.dialects.asyncjobs.test_create import end

    first, second = admin.make()["id"], admin.make()["id"]
    admin.make(dependencies=[first, second])
    end(first, 1)
    check_error(admin.delete(f"v1/tasks/{first}"), 409, "conflict", "task_has_dependants")
    assert admin.task(first)["state"] == "complete"


def test_without_its_trace_nothing_is_done(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(State.SCHEDULED, run_at=timezone.now() + timedelta(hours=1))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("django.db.models.query.QuerySet.create", broken)
    for method, path in (("DELETE", f"{job.pk}"), ("POST", f"{job.pk}/retry"), ("POST", "retry")):
        body = {"ids": [str(job.pk)]} if path == "retry" else None
        assert admin(method, f"v1/tasks/{path}", body).status_code == 500
    monkeypatch.undo()
    job.refresh_from_db()
    assert job.state == State.SCHEDULED
