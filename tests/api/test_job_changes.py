"""Change a job that has not started, and enqueue a copy of one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from jobs.models import Job
from jobs.redaction import REDACTED
from jobs.sealing import seal
from jobs.states import UNSTARTED, State
from tests.api.conftest import Api, check_problem, fields
from tests.factories import WITH_A_PROGRAM, make_job, make_queue

STARTED_OR_FINAL = sorted(set(State) - set(UNSTARTED))


@pytest.mark.parametrize("state", UNSTARTED)
def test_a_job_that_has_not_started_is_changed(state: State, alpha: object, api: Api) -> None:
    make_queue("fast")
    job = make_job(state, payload={"a": 1})
    response = api.patch(
        f"alpha/jobs/{job.pk}", {"queue": "fast", "priority": -3, "payload": {"a": 2}}
    )
    assert response.status_code == 200
    body = response.json()
    assert (body["queue"], body["priority"], body["payload"]) == ("fast", -3, {"a": 2})
    assert body["state"] == state
    assert api.get(f"alpha/jobs/{job.pk}").json() == body


@pytest.mark.parametrize("state", STARTED_OR_FINAL)
def test_a_job_that_has_started_or_ended_is_not_changed(
    state: State, alpha: object, api: Api
) -> None:
    job = make_job(state)
    response = api.patch(f"alpha/jobs/{job.pk}", {"priority": 1})
    assert state in check_problem(response, 409, "invalid_transition")["detail"]
    assert Job.objects.get(pk=job.pk).priority == 0


def test_bytes_take_the_place_of_a_payload(alpha: object, api: Api) -> None:
    job = make_job(payload=1)
    data = base64.b64encode(b"\0\xff").decode()
    body = api.patch(f"alpha/jobs/{job.pk}", {"payload_base64": data}).json()
    assert (body["payload"], body["payload_base64"]) == (None, data)
    body = api.patch(f"alpha/jobs/{job.pk}", {"payload": None}).json()
    assert (body["payload"], body["payload_base64"]) == (None, None)


@pytest.mark.once
@pytest.mark.parametrize(
    "body,field",
    [
        ({}, "body"),
        ([], "body"),
        ({"priority": 101}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"priority": None}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": ""}, "queue"),
        ({"queue": 7}, "queue"),
        ({"queue": "a\0b"}, "queue"),
        ({"payload": "a\0b"}, "payload"),
        ({"payload_base64": "***"}, "payload_base64"),
        ({"payload_base64": None}, "payload_base64"),
        ({"payload": 1, "payload_base64": ""}, "payload_base64"),
        ({"state": "succeeded"}, "state"),
        ({"fence": 9}, "fence"),
        ({"id": "0190a1b2-0000-7000-8000-000000000000"}, "id"),
        ({"run_at": "2030-01-01T00:00:00Z"}, "run_at"),
        ({"priority": 1, "nonsense": 1}, "nonsense"),
    ],
)
def test_a_bad_change_names_the_field_and_changes_nothing(
    body: Any, field: str, alpha: object, api: Api
) -> None:
    job = make_job(payload={"a": 1})
    before = Job.objects.filter(pk=job.pk).values().get()
    response = api.patch(f"alpha/jobs/{job.pk}", body)
    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert Job.objects.filter(pk=job.pk).values().get() == before


def test_an_unknown_queue_is_refused(alpha: object, api: Api) -> None:
    job = make_job()
    response = api.patch(f"alpha/jobs/{job.pk}", {"queue": "nowhere"})
    assert check_problem(response, 400, "unknown_queue")["errors"][0]["field"] == "queue"


def test_a_payload_that_is_too_large_is_refused(alpha: object, api: Api) -> None:
    job = make_job()
    response = api.patch(f"alpha/jobs/{job.pk}", {"payload": "x" * 300_000})
    check_problem(response, 400, "payload_too_large")
    data = base64.b64encode(b"x" * 300_000).decode()
    response = api.patch(f"alpha/jobs/{job.pk}", {"payload_base64": data})
    check_problem(response, 400, "payload_too_large")


def test_a_payload_that_its_kind_refuses_is_refused(alpha: object, api: Api) -> None:
    job = make_job(kind="http", type="http", payload={"url": "http://example.com/"})
    assert "payload" in fields(api.patch(f"alpha/jobs/{job.pk}", {"payload": {"url": 7}}))[0]


def test_an_etag_guards_against_somebody_else(alpha: object, api: Api) -> None:
    job = make_job(payload=1)
    path = f"alpha/jobs/{job.pk}"
    etag = api.get(path)["ETag"]
    first = api.patch(path, {"payload": 2}, if_match=etag)
    assert first.status_code == 200
    assert first["ETag"] != etag
    check_problem(api.patch(path, {"payload": 3}, if_match=etag), 412, "precondition_failed")
    assert Job.objects.get(pk=job.pk).payload == 2
    for given in (f'"x", {first["ETag"]}', "*"):
        assert api.patch(path, {"payload": 2}, if_match=given).status_code == 200
    for given in ("", '""', "W/x", "\x7f"):
        check_problem(api.patch(path, {"payload": 4}, if_match=given), 412, "precondition_failed")


def test_a_job_that_can_no_longer_be_changed_has_no_etag(alpha: object, api: Api) -> None:
    assert not api.get(f"alpha/jobs/{make_job(State.RUNNING).pk}").has_header("ETag")


def test_a_viewer_changes_nothing(alpha: object, viewer: Api) -> None:
    job = make_job()
    check_problem(viewer.patch(f"alpha/jobs/{job.pk}", {"priority": 1}), 403, "permission_denied")
    check_problem(viewer.post(f"alpha/jobs/{job.pk}/requeue"), 403, "permission_denied")
    assert Job.objects.get().priority == 0


def test_another_program_needs_the_grant_of_its_kind(
    alpha: object, api: Api, make_key: Callable[..., str]
) -> None:
    job = make_job(kind="shell", type="shell", payload={"script": "true"})
    path = f"alpha/jobs/{job.pk}"
    for response in (
        api.patch(path, {"payload": {"script": "false"}}),
        api.post(f"{path}/requeue"),
    ):
        check_problem(response, 403, "kind_not_granted")
    assert api.patch(path, {"priority": 1}).status_code == 200
    assert Job.objects.get().payload == {"script": "true"}
    granted = Api(make_key("operator", grants=("shell",)))
    assert granted.post(f"{path}/requeue").status_code == 201


def test_a_payload_is_judged_by_what_its_masks_mean(alpha: object, api: Api) -> None:
    job = make_job(kind="steps", type="steps", payload=seal(WITH_A_PROGRAM, ["shell"]))
    path = f"alpha/jobs/{job.pk}"
    shown = api.get(path).json()["payload"]
    assert shown["steps"][1]["kind"] == REDACTED
    check_problem(api.patch(path, {"payload": shown}), 403, "kind_not_granted")


def test_a_composite_step_is_not_requeued(alpha: object, api: Api) -> None:
    job = make_job("failed", kind="group", type="group", payload={"parallel": []})
    problem = check_problem(api.post(f"alpha/jobs/{job.pk}/requeue"), 409, "invalid_transition")
    assert "a part of another job" in problem["detail"]
    assert Job.objects.count() == 1


# -- Requeue ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_a_copy_is_a_new_job(state: State, alpha: object, api: Api) -> None:
    job = make_job(state, payload={"a": 1}, tags=["eu"])
    response = api.post(f"alpha/jobs/{job.pk}/requeue")
    assert response.status_code == 201
    body = response.json()
    assert body["id"] != str(job.pk)
    assert (body["state"], body["attempts"], body["payload"]) == ("ready", 0, {"a": 1})
    assert response["Location"] == f"/jm-api/alpha/jobs/{body['id']}"
    assert api.get(response["Location"]).json()["id"] == body["id"]
    assert Job.objects.get(pk=body["id"]).copy_of == job.pk
    assert Job.objects.get(pk=body["id"]).enqueued_by.startswith("key:")


def test_a_repeated_request_makes_one_copy(alpha: object, api: Api) -> None:
    job = make_job(State.FAILED)
    path = f"alpha/jobs/{job.pk}/requeue"
    first = api.post(path, idempotency_key="once")
    again = api.post(path, idempotency_key="once")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again["Idempotent-Replayed"] == "true"
    assert Job.objects.count() == 2


def test_a_unique_key_that_is_held_is_a_conflict(alpha: object, api: Api) -> None:
    failed = make_job(State.FAILED, unique_key="invoice-7")
    make_job(unique_key="invoice-7")
    for verb in ("requeue", "retry"):
        problem = check_problem(api.post(f"alpha/jobs/{failed.pk}/{verb}"), 409, "unique_key_taken")
        assert problem["errors"][0]["field"] == "unique_key"
    assert Job.objects.count() == 2


def test_a_requeue_says_all_with_its_address(alpha: object, api: Api) -> None:
    job = make_job(State.FAILED)
    assert fields(api.post(f"alpha/jobs/{job.pk}/requeue?x=1")) == ["x"]
    assert fields(api.post(f"alpha/jobs/{job.pk}/requeue", {"priority": 1})) == ["priority"]
    assert Job.objects.count() == 1


@pytest.mark.parametrize("identifier", ["x", "0190a1b2-0000-7000-8000-000000000000", "%00"])
def test_what_names_no_job_is_404(identifier: str, alpha: object, api: Api) -> None:
    check_problem(api.patch(f"alpha/jobs/{identifier}", {"priority": 1}), 404, "not_found")
    check_problem(api.post(f"alpha/jobs/{identifier}/requeue"), 404, "not_found")
