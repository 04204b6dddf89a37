"""Executions: lists, one of them, its log, cancel and retry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from jobs.models import Job, LogLine, Schedule
from jobs.states import State
from tests.dialects.scheduler.conftest import MISSING, Caller, check_problem
from tests.factories import make_attempt, make_job
from tests.jobs.schedule_cases import make_schedule, runs_of

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run_of(job_id: str, state: str = State.SUCCEEDED, **columns: Any) -> Job:
    return make_job(state, schedule_id=job_id, **{"trigger": "schedule", **columns})


@pytest.fixture
def job_id(api: Caller) -> str:
    return api.make()["id"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("blocked", "Pending"),
        ("scheduled", "Pending"),
        ("ready", "Pending"),
        ("running", "Running"),
        ("waiting", "Running"),
        ("succeeded", "Succeeded"),
        ("failed", "Failed"),
        ("cancelled", "Cancelled"),
        ("skipped", "Cancelled"),
    ],
)
def test_every_state_has_a_word(state: str, status: str, api: Caller, job_id: str) -> None:
    job = run_of(job_id, state)
    shown = api.get(f"executions/{job.pk}").json()
    assert shown["status"] == status
    assert (shown["startedAt"] is None) == (status in ("Pending", "Cancelled"))
    assert (shown["completedAt"] is None) == (status in ("Pending", "Running"))
    listed = api.get(f"jobs/{job_id}/executions?status={status.upper()}").json()["items"]
    assert [item["id"] for item in listed] == [str(job.pk)]


def test_durations_are_written_as_dotnet_does(api: Caller, job_id: str) -> None:
    for took, text in (
        (timedelta(seconds=61, milliseconds=250), "00:01:01.2500000"),
        (timedelta(days=1, hours=2), "1.02:00:00"),
        (timedelta(), "00:00:00"),
    ):
        job = run_of(job_id, started_at=AT, finished_at=AT + took)
        shown = api.get(f"executions/{job.pk}").json()
        assert shown["duration"] == text
        assert shown["durationMs"] == round(took.total_seconds() * 1000)


def test_one_execution_spans_all_its_tries(api: Caller, job_id: str) -> None:
    job = run_of(job_id, State.FAILED, attempts=2, fence=2, started_at=AT + timedelta(minutes=5),
                 finished_at=AT + timedelta(minutes=6))  # fmt: skip
    for fence, minutes in ((1, 0), (2, 5)):
        begun = AT + timedelta(minutes=minutes)
        make_attempt(job, fence=fence, number=fence, started_at=begun,
                     finished_at=begun + timedelta(minutes=1), error_type="HttpStatus")  # fmt: skip
    shown = api.get(f"executions/{job.pk}").json()
    assert shown["startedAt"] == "2026-03-01T12:00:00Z"
    assert shown["duration"] == "00:06:00"
    assert (shown["retryCount"], shown["failureReason"]) == (1, "HttpStatus")
    assert [a["status"] for a in shown["attempts"]] == ["Failed", "Failed"]
    assert shown["attempts"][1]["errorType"] == "HttpStatus"
    (listed,) = api.get(f"jobs/{job_id}/executions").json()["items"]
    assert listed == {k: v for k, v in shown.items() if k in listed}
    assert shown.keys() - listed.keys() == {"output", "responseStatusCode", "attempts"}


@pytest.mark.parametrize(
    ("reason", "error_type", "wanted"),
    [
        ("timeout", None, "TimedOut"),
        ("expired", None, "TimedOut"),
        ("lost", None, "Lost"),
        ("poisoned", None, "Lost"),
        ("bad_definition", None, "Configuration"),
        ("error", "AddressRefused", "Configuration"),
        ("error", "HttpStatus", "HttpStatus"),
        ("error", "ValueError", "Exception"),
    ],
)
def test_why_it_failed(
    reason: str, error_type: str | None, wanted: str, api: Caller, job_id: str
) -> None:
    job = run_of(job_id, State.FAILED, reason=reason)
    if error_type:
        make_attempt(job, fence=job.fence, error_type=error_type)
    assert api.get(f"executions/{job.pk}").json()["failureReason"] == wanted


def test_waiting_for_another_try_is_pending_and_tells_when(api: Caller, job_id: str) -> None:
    at = datetime(2035, 1, 1, tzinfo=UTC)
    job = run_of(job_id, State.SCHEDULED, attempts=1, started_at=AT, run_at=at)
    shown = api.get(f"executions/{job.pk}").json()
    assert (shown["status"], shown["startedAt"]) == ("Pending", None)
    assert shown["nextAttemptAt"] == "2035-01-01T00:00:00Z"


def test_the_output_is_text_and_that_of_a_request_is_its_body(api: Caller) -> None:
    schedule = make_schedule(kind="http", type="", payload={"url": "https://example.com/"})
    result = {"status": 207, "headers": {}, "body": "héllo", "is_truncated": False}
    job = run_of(str(schedule.pk), kind="http", type="http", result=result)
    shown = api.get(f"executions/{job.pk}").json()
    assert (shown["output"], shown["responseStatusCode"]) == ("héllo", 207)
    other = make_schedule()
    for result, text in (({"a": [1]}, '{"a": [1]}'), ("plain", "plain"), (None, None)):
        job = run_of(str(other.pk), result=result)
        assert api.get(f"executions/{job.pk}").json()["output"] == text


def test_lists_are_filtered_by_when_executions_began(api: Caller, job_id: str) -> None:
    for day in (1, 2, 3):
        at = AT.replace(day=day)
        run_of(job_id, created_at=at - timedelta(minutes=1), started_at=at, finished_at=at)
    run_of(job_id, State.READY, created_at=AT.replace(day=4))

    def days(query: str) -> list[str]:
        items = api.get(f"jobs/{job_id}/executions?{query}").json()["items"]
        return [(item["startedAt"] or item["createdAt"])[8:10] for item in items]

    assert days("") == ["04", "03", "02", "01"]
    assert days("fromDate=2026-03-02T12:00:00Z") == ["04", "03", "02"]
    assert days("toDate=2026-03-02T12:00:00") == ["02", "01"]
    assert days("toDate=2026-03-02") == ["02", "01"]
    assert days("fromDate=2026-03-02T13:00:00%2B01:00&toDate=2026-03-03T12:00:00Z") == ["03", "02"]
    assert days("fromDate=2026-03-04") == ["04"]
    for query, field in (
        ("fromDate=yesterday", "fromDate"),
        ("toDate=2026-13-01", "toDate"),
        ("status=Done", "status"),
        ("pageSize=0", "pageSize"),
    ):
        response = api.get(f"jobs/{job_id}/executions?{query}")
        check_problem(response, 400, "validation_failed", field)


def test_words_of_the_originals_client_are_known(api: Caller, job_id: str) -> None:
    run_of(job_id)
    run_of(job_id, State.FAILED)
    out = run_of(job_id, State.FAILED, reason="timeout")
    count = lambda status: api.get(f"executions?status={status}").json()["totalCount"]  # noqa: E731
    assert (count("success"), count("failed"), count("TimedOut")) == (1, 2, 1)
    assert api.get("executions?status=timedout").json()["items"][0]["id"] == str(out.pk)


def test_executions_of_all_jobs_and_of_no_others(api: Caller, job_id: str) -> None:
    other = api.make(name="other")["id"]
    first, second = run_of(job_id), run_of(other)
    make_job()
    shell = make_schedule(kind="shell", type="", payload={"argv": ["/bin/true"]})
    hidden = run_of(str(shell.pk), kind="shell", type="shell")
    ids = [item["id"] for item in api.get("executions").json()["items"]]
    assert ids == [str(second.pk), str(first.pk)]
    assert api.get(f"executions?jobId={other}").json()["totalCount"] == 1
    check_problem(api.get("executions?jobId=x"), 400, "validation_failed", "jobId")
    check_problem(api.get(f"executions/{hidden.pk}"), 404, "execution_not_found")


def test_a_page_of_executions_costs_few_questions(api: Caller, job_id: str) -> None:
    def questions() -> int:
        with CaptureQueriesContext(connections["cluster-alpha"]) as captured:
            assert api.get("executions?pageSize=200").status_code == 200
        return len(captured)

    def one_of_each() -> None:
        run_of(job_id, State.FAILED, attempts=2)
        run_of(job_id, State.BLOCKED, waits_for="schedules")
        run_of(job_id, State.BLOCKED)

    one_of_each()
    before = questions()
    for _ in range(3):
        one_of_each()
    assert questions() == before


# -- Cancel and retry ------------------------------------------------------------------------------


def test_cancelling(api: Caller, job_id: str) -> None:
    guid = api.post(f"jobs/{job_id}/trigger").json()
    response = api.post(f"executions/{guid}/cancel")
    assert (response.status_code, response.content) == (200, b"")
    assert api.get(f"executions/{guid}").json()["status"] == "Cancelled"
    problem = check_problem(api.post(f"executions/{guid}/cancel"), 409, "execution_finished")
    assert problem["title"] == "Cancel execution failed"
    check_problem(api.post(f"executions/{MISSING}/cancel"), 404, "execution_not_found")
    running = run_of(job_id, State.RUNNING)
    assert api.post(f"executions/{running.pk}/cancel").status_code == 200
    shown = api.get(f"executions/{running.pk}").json()
    assert (shown["status"], shown["cancelRequested"]) == ("Running", True)
    assert api.job(job_id)["consecutiveFailures"] == 0


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_retry_is_an_execution_of_its_own(state: str, api: Caller, job_id: str) -> None:
    old = run_of(job_id, state, due_at=AT, payload={"x": 1}, max_attempts=7, unique_key="u")
    response = api.post(f"executions/{old.pk}/retry")
    assert response.status_code == 202
    guid = response.json()
    assert response["Location"] == f"/api/v1/scheduler/executions/{guid}"
    shown = api.get(response["Location"]).json()
    assert (shown["retryParentId"], shown["triggerType"]) == (str(old.pk), "Retry")
    assert (shown["jobId"], shown["scheduledFor"]) == (job_id, "2026-03-01T12:00:00Z")
    new = Job.objects.get(pk=guid)
    assert (new.payload, new.max_attempts, new.attempts) == ({"x": 1}, 7, 0)
    old.refresh_from_db()
    assert old.state == state
    # It may run beside no other: a second one waits.
    second = api.post(f"executions/{old.pk}/retry").json()
    assert api.get(f"executions/{second}").json()["waitingOn"] == [job_id]


def test_a_retry_is_made_once_under_one_key(api: Caller, job_id: str) -> None:
    old = run_of(job_id, State.FAILED)
    address = f"executions/{old.pk}/retry"
    first = api.post(address, Idempotency_Key="k")
    assert api.post(address, Idempotency_Key="k").json() == first.json()
    assert len(runs_of(Schedule.objects.get())) == 2


@pytest.mark.parametrize("state", ["ready", "running", "succeeded"])
def test_only_what_did_not_succeed_is_retried(state: str, api: Caller, job_id: str) -> None:
    job = run_of(job_id, state)
    response = api.post(f"executions/{job.pk}/retry")
    check_problem(response, 400, "execution_not_retryable", title="Retry execution failed")
    assert Job.objects.count() == 1


def test_of_a_deleted_job_nothing_is_retried(api: Caller, job_id: str) -> None:
    job = run_of(job_id, State.FAILED)
    api.delete(f"jobs/{job_id}")
    check_problem(api.post(f"executions/{job.pk}/retry"), 400, "job_not_found")
    check_problem(api.post(f"executions/{MISSING}/retry"), 400, "execution_not_found")
    assert Job.objects.count() == 1


# -- Logs ------------------------------------------------------------------------------------------


def test_a_log_is_read_line_by_line(api: Caller, job_id: str) -> None:
    job = run_of(job_id, State.RUNNING)
    for number in range(3):
        LogLine.objects.create(job=job, fence=1, stream="log", level="info", message=str(number))
    LogLine.objects.create(job=job, fence=1, stream="stderr", message="oh")
    page = api.get(f"executions/{job.pk}/logs?limit=3").json()
    assert [line["message"] for line in page["items"]] == ["0", "1", "2"]
    assert set(page["items"][0]) == {"seq", "timestamp", "level", "message"}
    assert page["isComplete"] is False
    rest = api.get(f"executions/{job.pk}/logs?after={page['nextAfter']}").json()
    assert [(line["message"], line["level"]) for line in rest["items"]] == [("oh", "error")]
    assert rest["isComplete"] is False  # it still runs
    Job.objects.filter(pk=job.pk).update(state="cancelled", finished_at=AT)
    end = api.get(f"executions/{job.pk}/logs?after={rest['nextAfter']}").json()
    assert end == {"items": [], "nextAfter": rest["nextAfter"], "isComplete": True}
    check_problem(api.get(f"executions/{MISSING}/logs"), 404, "execution_not_found")
    for query in ("after=-1", "limit=0", "limit=1001", "after=x"):
        check_problem(api.get(f"executions/{job.pk}/logs?{query}"), 400, "validation_failed")
