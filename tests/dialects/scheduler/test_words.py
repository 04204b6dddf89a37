"""Our schedules are jobs here, and our jobs executions: in every sentence, and nowhere else."""

from __future__ import annotations

from uuid import UUID

import pytest

from jobs.dialects.scheduler.wire.naming import words_to_wire
from jobs.models import Job, Schedule
from tests.dialects.scheduler.conftest import MISSING, Caller, check_problem
from tests.jobs.schedule_cases import end_run, fire, hours_ago, put_back


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("the schedule is paused already", "the job is paused already"),
        ("a schedule cannot depend on itself", "a job cannot depend on itself"),
        ("Schedules would wait for each other.", "Jobs would wait for each other."),
        ("cannot cancel a job that is failed", "cannot cancel an execution that is failed"),
        ("there is a schedule named 'my schedule'", "there is a job named 'my schedule'"),
        (
            """others need this schedule: "it's a job", 'b'""",
            """others need this job: "it's a job", 'b'""",
        ),
        ("the schedule's own job", "the job's own execution"),
        ("lies before effective_from", "lies before effectiveFrom"),
        ("max_attempts must be 1", "retryPolicy.maxAttempts must be 1"),
        ("rescheduled jobless", "rescheduled jobless"),
    ],
)
def test_sentences_are_said_in_the_words_of_this_api(ours: str, theirs: str) -> None:
    assert words_to_wire(ours) == theirs


def test_no_refusal_speaks_of_schedules(admin: Caller) -> None:
    job, other = admin.make()["id"], admin.make(name="the schedule")["id"]
    admin.post(f"jobs/{job}/pause")
    admin.post(
        f"jobs/{other}/dependencies", {"dependsOnJobIds": [job], "condition": "AnySucceeded"}
    )
    disabled = admin.make(name="off", isEnabled=False)["id"]

    def depend(one: str, *on: str) -> object:
        body = {"dependsOnJobIds": list(on), "condition": "AllSucceeded"}
        return admin.post(f"jobs/{one}/dependencies", body)

    for response, code in (
        (admin.post(f"jobs/{job}/pause"), "job_already_paused"),
        (admin.post(f"jobs/{disabled}/resume"), "job_not_paused"),
        (admin.post(f"jobs/{disabled}/trigger"), "job_disabled"),
        (admin.post(f"jobs/{job}/restore"), "job_not_deleted"),
        (admin.put(f"jobs/{job}", {"name": "The Schedule"}), "duplicate_name"),
        (depend(job, other), "dependency_cycle"),
        (depend(job, job), "validation_failed"),
        (depend(job, disabled, disabled), "validation_failed"),
        (depend(job, MISSING), "validation_failed"),
        (admin.delete(f"jobs/{job}?hardDelete=true"), "job_in_use"),
    ):
        body = check_problem(response, 400, code)
        told = [
            body["detail"],
            body["title"],
            *(t for texts in body.get("errors", {}).values() for t in texts),
        ]
        for text in told:
            assert "schedule" not in text.replace("'the schedule'", "").replace(
                "'The Schedule'", ""
            ), text
    stale = admin.put(f"jobs/{job}", {"description": "x"}, If_Match='"99"')
    assert "schedule" not in check_problem(stale, 412, "precondition_failed")["detail"]
    report = admin.post(
        "admin/import?detailed=true&mode=upsert", [{**admin.job(job), "timezone": "No/Zone"}]
    )
    assert "schedule" not in str(report.json()["errors"])


def test_executions_and_histories_speak_of_jobs_too(api: Caller) -> None:
    first, job = api.make(name="first")["id"], api.make()["id"]
    rule = {"dependsOnJobIds": [first], "condition": "AllSucceeded"}
    api.post(f"jobs/{job}/dependencies", rule)
    Schedule.objects.filter(pk=job).update(misfire="all", overlap="allow")
    put_back(Schedule.objects.get(pk=job), hours_ago(50))
    fire()
    errors = [one["errorMessage"] for one in api.get(f"jobs/{job}/executions").json()["items"]]
    assert sum(error is not None and "the jobs it depends on" in error for error in errors) >= 1
    assert not any(error and "schedule" in error for error in errors)
    # What a handler said is said as it was.
    last = Job.objects.get(schedule_id=UUID(job), finished_at=None)
    end_run(last, "failed")
    Job.objects.filter(pk=last.pk).update(error="ValueError: no such schedule")
    shown = api.get(f"executions/{last.pk}").json()
    assert shown["errorMessage"] == "ValueError: no such schedule"


def test_empty_answers_have_no_type(admin: Caller) -> None:
    job = admin.make()["id"]
    dates = {"excludedDates": ["2034-01-01"]}
    for response in (
        admin.post(f"jobs/{job}/pause"),
        admin.post(f"jobs/{job}/resume"),
        admin.post(f"jobs/{job}/exclusions", dates),
        admin.delete(f"jobs/{job}/exclusions"),
        admin.post("admin/pause-all"),
        admin.delete(f"jobs/{job}"),
    ):
        assert response.status_code in (200, 204)
        assert response.content == b""
        assert "Content-Type" not in response
