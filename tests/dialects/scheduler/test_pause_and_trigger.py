"""Pausing, resuming and triggering a job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs.models import Job, Schedule
from tests.dialects.scheduler.conftest import GUID, Caller, check_problem
from tests.jobs.schedule_cases import end_run


def test_pausing_stops_what_is_due_and_leaves_the_rest(api: Caller) -> None:
    made = api.make()
    response = api.post(f"jobs/{made['id']}/pause")
    assert (response.status_code, response.content) == (200, b"")
    paused = api.job(made["id"])
    assert (paused["status"], paused["isPaused"], paused["isEnabled"]) == ("Paused", True, True)
    assert paused["nextRunAt"] is None and paused["pausedBy"].startswith("key:")
    check_problem(
        api.post(f"jobs/{made['id']}/pause"), 400, "job_already_paused", title="Pause job failed"
    )
    response = api.post(f"jobs/{made['id']}/resume")
    assert (response.status_code, response.content) == (200, b"")
    assert api.job(made["id"])["nextRunAt"] == made["nextRunAt"]
    check_problem(api.post(f"jobs/{made['id']}/resume"), 400, "job_not_paused")


def test_a_pause_may_have_a_reason_and_an_end(api: Caller) -> None:
    made = api.make()
    until = (timezone.now() + timedelta(hours=3)).replace(microsecond=0)
    body = {"reason": "maintenance", "until": until.isoformat()}
    assert api.post(f"jobs/{made['id']}/pause", body).status_code == 200
    paused = api.job(made["id"])
    assert paused["pauseReason"] == "maintenance"
    assert paused["pausedUntil"] == until.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"until": "2001-01-01"}, "until"),
        ({"until": 5}, "until"),
        ({"reason": 5}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ([], "body"),
    ],
)
def test_a_bad_pause_is_none(body: Any, field: str, api: Caller) -> None:
    made = api.make()
    check_problem(api.post(f"jobs/{made['id']}/pause", body), 400, "validation_failed", field)
    assert api.job(made["id"])["isPaused"] is False


def test_a_trigger_tells_the_execution_and_leaves_the_timing_alone(api: Caller) -> None:
    made = api.make(createdBy="ops@example.com")
    before = timezone.now()
    response = api.post(f"jobs/{made['id']}/trigger")
    assert response.status_code == 202
    guid = response.json()
    assert GUID.match(guid)
    assert response["Location"] == f"/api/v1/scheduler/executions/{guid}"
    assert api.get(response["Location"]).json()["triggerType"] == "Manual"
    job = Job.objects.get()
    # Midnight may have been in between.
    assert job.payload["day"] in {f"{day:%Y-%m-%d}" for day in (before, timezone.now())}
    assert api.job(made["id"])["nextRunAt"] == made["nextRunAt"]


def test_parameters_of_a_trigger_lie_over_the_stored_ones(api: Caller) -> None:
    configuration = {"handlerType": "demo:noop", "parameters": {"a": "1", "b": "{{Job.Name}}"}}
    made = api.make(jobConfiguration=configuration)
    body = {"parameters": {"a": 2, "c": "{{Job.Name}}"}}
    assert api.post(f"jobs/{made['id']}/trigger", body).status_code == 202
    assert Job.objects.get().payload == {"a": 2, "b": "nightly", "c": "nightly"}
    assert Schedule.objects.get().payload == configuration["parameters"]


def test_what_has_no_parameters_takes_none(api: Caller) -> None:
    configuration = {"url": "https://example.com/", "method": "GET"}
    made = api.make(jobType="HttpCall", jobConfiguration=configuration)
    response = api.post(f"jobs/{made['id']}/trigger", {"parameters": {"a": 1}})
    check_problem(response, 400, "validation_failed", "parameters")
    assert not Job.objects.exists()
    assert api.post(f"jobs/{made['id']}/trigger", {"parameters": {}}).status_code == 202


@pytest.mark.parametrize("body", [{"parameters": []}, {"parameters": "x"}])
def test_parameters_are_an_object(body: Any, api: Caller) -> None:
    made = api.make()
    response = api.post(f"jobs/{made['id']}/trigger", body)
    check_problem(response, 400, "validation_failed", "parameters")


def test_a_paused_job_may_be_triggered_and_a_disabled_one_not(api: Caller) -> None:
    made = api.make()
    api.post(f"jobs/{made['id']}/pause")
    assert api.post(f"jobs/{made['id']}/trigger").status_code == 202
    api.put(f"jobs/{made['id']}", {"isEnabled": False})
    response = api.post(f"jobs/{made['id']}/trigger")
    check_problem(response, 400, "job_disabled", title="Trigger job failed")


def test_a_second_trigger_waits_for_the_first(api: Caller) -> None:
    made = api.make()
    first = api.post(f"jobs/{made['id']}/trigger").json()
    second = api.post(f"jobs/{made['id']}/trigger").json()
    waiting = api.get(f"executions/{second}").json()
    assert (waiting["status"], waiting["waitingOn"]) == ("Pending", [made["id"]])
    end_run(Job.objects.get(pk=first))
    assert api.get(f"executions/{second}").json()["waitingOn"] == []
    api.put(f"jobs/{made['id']}", {"concurrencyPolicy": "Allow"})
    third = api.post(f"jobs/{made['id']}/trigger").json()
    assert api.get(f"executions/{third}").json()["waitingOn"] == []


def test_the_same_trigger_twice_is_one_execution(api: Caller) -> None:
    made = api.make()
    address = f"jobs/{made['id']}/trigger"
    first = api.post(address, {}, Idempotency_Key="k")
    again = api.post(address, {}, Idempotency_Key="k")
    assert first.json() == again.json()
    assert again["Idempotent-Replayed"] == "true"
    assert again["Location"] == first["Location"]
    assert Job.objects.count() == 1
    other = api.post(address, {"parameters": {"a": 1}}, Idempotency_Key="k")
    check_problem(other, 400, "idempotency_key_reused")
    bad = api.post(address, {}, Idempotency_Key="k" * 256)
    check_problem(bad, 400, "validation_failed", "Idempotency-Key")
    assert Job.objects.count() == 1
