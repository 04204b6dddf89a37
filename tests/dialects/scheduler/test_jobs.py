"""POST, GET and DELETE of jobs."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models import Fire, Job, Schedule
from jobs.states import State
from tests.dialects.scheduler.conftest import CRON_JOB, MISSING, Caller, check_problem
from tests.factories import make_job
from tests.jobs.schedule_cases import make_schedule


def stored() -> Schedule:
    return Schedule.objects.get()


def test_what_is_left_out_has_the_defaults_of_the_original(api: Caller) -> None:
    made = api.make()
    assert made["timezone"] == "UTC"
    assert made["isEnabled"] is True
    assert made["tags"] == [] and made["description"] == ""
    assert made["timeoutSeconds"] == 300
    assert made["retryPolicy"] == {
        "maxAttempts": 3,
        "delaySeconds": 60,
        "backoffType": "Fixed",
        "maxDelaySeconds": 86400,
    }
    assert made["concurrencyPolicy"] == "Skip" and made["misfireHandling"] == "Relaxed"
    row = stored()
    assert (row.max_attempts, row.retry_curve, row.has_variables) == (4, "fixed", True)
    assert row.updated_by.startswith("key:") and row.created_by == row.updated_by


def test_the_creator_may_be_named_and_the_caller_is_kept_beside_him(api: Caller) -> None:
    assert api.make(createdBy="ops-team")["createdBy"] == "ops-team"
    assert stored().updated_by.startswith("key:")


@pytest.mark.once
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"jobType": "codeexecution"}, {"jobType": "CodeExecution"}),
        ({"jobType": 3}, {"jobType": "CodeExecution"}),
        ({"scheduleType": "cron"}, {"scheduleType": "Cron"}),
        ({"tags": [" a ", "", "b", "a"]}, {"tags": ["a", "b"]}),
        ({"name": "  spaced  "}, {"name": "spaced"}),
        ({"description": None, "timezone": None}, {"description": "", "timezone": "UTC"}),
        ({"isEnabled": False}, {"status": "Disabled", "nextRunAt": None}),
        ({"intervalSeconds": 60, "runAt": "2001-01-01"}, {"intervalSeconds": None, "runAt": None}),
        ({"whatever": {"is": "ignored"}, "NAME": "named"}, {"name": "named"}),
        ({"misfireHandling": "strict"}, {"misfireHandling": "Strict"}),
        ({"concurrencyPolicy": "Queue"}, {"concurrencyPolicy": "Queue"}),
    ],
)
def test_input_is_read_as_the_original_reads_it(
    given: dict[str, Any], wanted: dict[str, Any], api: Caller
) -> None:
    body = {key: value for key, value in CRON_JOB.items() if key.lower() not in _lower(given)}
    response = api.post("jobs", {**body, **given})
    assert response.status_code == 201, response.content
    assert {key: response.json()[key] for key in wanted} == wanted


def _lower(given: dict[str, Any]) -> set[str]:
    return {key.lower() for key in given}


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({"maxAttempts": 0, "delaySeconds": 1}, (1, 1, "fixed", 86400)),
        ({"maxRetryAttempts": 2, "retryDelaySeconds": 5, "retryBackoffType": 2}, (3, 5, "linear", 86400)),
        ({"backoffType": "exponential", "maxDelaySeconds": 900}, (4, 60, "exponential", 900)),
        ({"backoffType": 3, "delaySeconds": 86400}, (4, 86400, "exponential", 86400)),
    ],
)  # fmt: skip
def test_retries_are_counted_after_the_first_try(
    policy: dict[str, Any], wanted: tuple[Any, ...], api: Caller
) -> None:
    api.make(retryPolicy=policy)
    row = stored()
    found = (row.max_attempts, row.retry_base_seconds, row.retry_curve, row.retry_cap_seconds)
    assert found == wanted


def test_a_time_without_an_offset_is_utc(api: Caller) -> None:
    made = api.make(scheduleType="OneTime", runAt="2035-03-04T05:06:07", timezone="Asia/Tokyo")
    assert made["runAt"] == made["nextRunAt"] == "2035-03-04T05:06:07Z"
    other = api.make(name="b", scheduleType="OneTime", runAt="2035-03-04T05:06:07.1234567+02:00")
    assert other["runAt"] == "2035-03-04T03:06:07.123456Z"


def test_a_name_is_there_once_whatever_its_case(api: Caller) -> None:
    api.make(name="Report")
    response = api.post("jobs", {**CRON_JOB, "name": " rePORT "})
    check_problem(response, 400, "duplicate_name", "name", title="Create job failed")
    assert Schedule.objects.count() == 1


def test_a_handler_that_nobody_knows_is_refused(api: Caller) -> None:
    for name in ("os.system", "subprocess.run", "demo:other", "../x", "a b"):
        response = api.post("jobs", {**CRON_JOB, "jobConfiguration": {"handlerType": name}})
        check_problem(response, 400, "unknown_handler", "jobConfiguration.handlerType")
    assert not Schedule.objects.exists()


def test_where_no_node_lives_a_handler_may_be_on_its_way(alpha: object, operator_key: str) -> None:
    from tests.factories import make_node

    make_node("dead", types=["demo:other"])
    assert Caller(operator_key).post("jobs", CRON_JOB).status_code == 201


def test_a_method_is_part_of_the_handlers_name(api: Caller) -> None:
    configuration = {"handlerType": "Acme.CleanUp", "methodName": "Run", "parameters": None}
    made = api.make(jobConfiguration=configuration)
    assert made["jobConfiguration"] == configuration
    assert stored().type == "Acme.CleanUp/Run"


def test_reading_a_job_tells_its_version(api: Caller) -> None:
    made = api.make()
    response = api.get(f"jobs/{made['id'].upper()}")
    assert response.json() == made
    assert response["ETag"] == '"1"'


def test_what_is_missing_is_404_for_readers_only(api: Caller) -> None:
    problem = check_problem(api.get(f"jobs/{MISSING}"), 404, "job_not_found")
    assert problem["title"] == "Job not found"
    check_problem(api.get(f"jobs/{MISSING}/executions"), 404, "job_not_found")
    check_problem(api.get("jobs/no-guid"), 404, "not_found")
    for method, path, title in (
        ("PUT", "", "Update job failed"),
        ("DELETE", "", "Delete job failed"),
        ("PATCH", "/reschedule", "Reschedule job failed"),
        ("POST", "/pause", "Pause job failed"),
        ("POST", "/resume", "Resume job failed"),
        ("POST", "/trigger", "Trigger job failed"),
        ("POST", "/exclusions", "Add exclusions failed"),
        ("POST", "/dependencies", "Add dependencies failed"),
        ("POST", "/restore", "Restore job failed"),
    ):
        response = api(method, f"jobs/{MISSING}{path}", {})
        check_problem(response, 400, "job_not_found", title=title)


def test_deleting_hides_a_job_and_keeps_its_executions(api: Caller) -> None:
    job_id = api.make()["id"]
    execution = api.post(f"jobs/{job_id}/trigger").json()
    response = api.delete(f"jobs/{job_id}")
    assert (response.status_code, response.content) == (204, b"")
    check_problem(api.get(f"jobs/{job_id}"), 404, "job_not_found")
    check_problem(api.delete(f"jobs/{job_id}"), 400, "job_not_found")
    assert api.get("jobs").json()["totalCount"] == 0
    assert api.get(f"executions/{execution}").status_code == 200
    assert api.get(f"jobs/{job_id}/executions").json()["totalCount"] == 1
    (shown,) = api.get("jobs?status=deleted").json()["items"]
    assert (shown["status"], shown["isDeleted"], shown["nextRunAt"]) == ("Deleted", True, None)
    assert api.get("jobs?includeDeleted=true").json()["totalCount"] == 1
    api.make()  # the name is free again


def test_a_deleted_job_comes_back_and_goes_on(api: Caller) -> None:
    made = api.make()
    check_problem(api.post(f"jobs/{made['id']}/restore"), 400, "job_not_deleted")
    api.delete(f"jobs/{made['id']}")
    back = api.post(f"jobs/{made['id']}/restore").json()
    assert back["isDeleted"] is False and back["nextRunAt"] == made["nextRunAt"]
    api.delete(f"jobs/{made['id']}")
    api.make()
    response = api.post(f"jobs/{made['id']}/restore")
    check_problem(response, 400, "duplicate_name", "name")


def test_deleting_for_good_takes_the_executions_along_and_needs_an_admin(
    api: Caller, admin: Caller
) -> None:
    job_id = api.make()["id"]
    execution = api.post(f"jobs/{job_id}/trigger").json()
    running = make_job(State.RUNNING, schedule_id=job_id, trigger="schedule")
    check_problem(api.delete(f"jobs/{job_id}?hardDelete=true"), 403, "permission_denied")
    assert api.delete(f"jobs/{job_id}").status_code == 204
    stale = admin.delete(f"jobs/{job_id}?hardDelete=true", if_match='"1"')
    check_problem(stale, 412, "precondition_failed")
    assert admin.delete(f"jobs/{job_id}?hardDelete=true").status_code == 204
    assert not Schedule.objects.exists() and not Fire.objects.exists()
    check_problem(api.get(f"executions/{execution}"), 404, "execution_not_found")
    running.refresh_from_db()
    assert running.cancel_requested_at is not None and running.schedule_id is None
    check_problem(
        admin.delete(f"jobs/{job_id}?hardDelete=maybe"), 400, "validation_failed", "hardDelete"
    )


def test_a_job_that_others_need_is_not_deleted_for_good(admin: Caller) -> None:
    first, second = admin.make(), admin.make(name="second")
    body = {"dependsOnJobIds": [first["id"]], "condition": "AnySucceeded"}
    assert admin.post(f"jobs/{second['id']}/dependencies", body).status_code == 200
    check_problem(admin.delete(f"jobs/{first['id']}?hardDelete=true"), 400, "job_in_use")
    assert admin.delete(f"jobs/{first['id']}").status_code == 204
    warnings = admin.get(f"jobs/{second['id']}/dependencies").json()["warnings"]
    assert warnings == ["nightly is deleted"]


def test_schedules_made_in_another_way_are_shown_as_far_as_they_can_be(api: Caller) -> None:
    native = make_schedule(
        name="native", timing="interval", expression=None, interval_seconds=1.5,
        retry_curve="1,5,30", overlap="replace", payload=[1, 2], tags=["x"],
    )  # fmt: skip
    make_schedule(name="shell", kind="shell", type="", payload={"argv": ["/bin/true"]})
    (shown,) = api.get("jobs").json()["items"]
    assert shown["id"] == str(native.pk)
    assert shown["intervalSeconds"] == 1.5
    assert shown["concurrencyPolicy"] == "Replace"
    assert shown["jobConfiguration"] == {"handlerType": "demo:noop", "parameters": [1, 2]}
    assert shown["retryPolicy"]["delaySeconds"] == 1 and shown["retryPolicy"]["maxAttempts"] == 2
    assert shown["timeoutSeconds"] == 300
    shell = Schedule.objects.get(name="shell")
    check_problem(api.get(f"jobs/{shell.pk}"), 404, "job_not_found")
    check_problem(api.post(f"jobs/{shell.pk}/trigger"), 400, "job_not_found")
    assert not Job.objects.exists()
