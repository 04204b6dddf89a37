"""PUT and PATCH of jobs: what is left out stays, and the timing moves only where it is meant to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs.models import Schedule
from tests.dialects.scheduler.conftest import Caller, check_problem
from tests.jobs.schedule_cases import fire, hours_ago, put_back, runs_of


def soon(**length: float) -> str:
    return (timezone.now() + timedelta(**length)).isoformat()


def test_null_and_left_out_both_keep_the_value(api: Caller) -> None:
    made = api.make(description="d", tags=["a"], timezone="Europe/Berlin")
    everything = dict.fromkeys(made)
    changed = api.put(f"jobs/{made['id']}", everything).json()
    for name in made.keys() - {"updatedAt"}:
        assert changed[name] == made[name], name
    assert api.put(f"jobs/{made['id']}", {}).status_code == 200


def test_a_description_and_tags_are_cleared_by_what_is_empty(api: Caller) -> None:
    made = api.make(description="d", tags=["a"])
    changed = api.put(f"jobs/{made['id']}", {"description": "", "tags": []}).json()
    assert (changed["description"], changed["tags"]) == ("", [])


def test_the_creator_stays_and_the_last_to_change_it_is_told(api: Caller, admin: Caller) -> None:
    made = api.make(createdBy="ops-team")
    changed = admin.put(f"jobs/{made['id']}", {"createdBy": "somebody", "name": "n"}).json()
    assert changed["createdBy"] == "ops-team"
    assert changed["lastModifiedBy"] != made["lastModifiedBy"]


def test_what_leaves_the_timing_alone_does_not_move_the_next_run(api: Caller) -> None:
    made = api.make(scheduleType="Interval", intervalSeconds=5400)
    body = {"name": "other", "scheduleType": "Interval", "intervalSeconds": 5400, "isEnabled": True}
    changed = api.put(f"jobs/{made['id']}", body).json()
    assert changed["name"] == "other"
    assert Schedule.objects.get().next_run_at is not None
    for _ in range(2):
        again = api.put(f"jobs/{made['id']}", {"tags": ["t"], "timezone": "UTC"}).json()
        assert again["nextRunAt"] == changed["nextRunAt"]


def test_a_changed_timing_counts_from_now_and_fires_nothing(api: Caller) -> None:
    made = api.make()
    put_back(Schedule.objects.get(), hours_ago(3))
    changed = api.put(f"jobs/{made['id']}", {"scheduleExpression": "30 4 1 1 *"}).json()
    assert changed["nextRunAt"].endswith("-01-01T04:30:00Z")
    assert fire() == 0
    assert runs_of(Schedule.objects.get()) == []


def test_another_type_of_schedule_needs_its_own_field(api: Caller) -> None:
    made = api.make()
    response = api.put(f"jobs/{made['id']}", {"scheduleType": "Interval"})
    check_problem(response, 400, "validation_failed", "intervalSeconds")
    changed = api.put(f"jobs/{made['id']}", {"scheduleType": "Interval", "intervalSeconds": 60})
    assert changed.json()["scheduleExpression"] is None
    # What belongs to another type is ignored.
    again = api.put(f"jobs/{made['id']}", {"scheduleExpression": "0 0 * * *"}).json()
    assert again["scheduleType"] == "Interval" and again["intervalSeconds"] == 60
    assert api.put(f"jobs/{made['id']}", {"scheduleType": "interval"}).status_code == 200


def test_another_type_of_job_needs_its_configuration(api: Caller) -> None:
    made = api.make()
    response = api.put(f"jobs/{made['id']}", {"jobType": "HttpCall"})
    check_problem(response, 400, "validation_failed", "jobConfiguration")
    configuration = {"url": "https://example.com/a", "method": "get"}
    body = {"jobType": "HttpCall", "jobConfiguration": configuration}
    changed = api.put(f"jobs/{made['id']}", body).json()
    assert changed["jobType"] == "HttpCall"
    assert changed["jobConfiguration"]["method"] == "GET"
    row = Schedule.objects.get()
    assert (row.kind, row.type) == ("http", "http")


def test_disabling_stops_it_and_enabling_does_not_resume_it(api: Caller) -> None:
    made = api.make()
    address = f"jobs/{made['id']}"
    off = api.put(address, {"isEnabled": False}).json()
    assert (off["status"], off["nextRunAt"]) == ("Disabled", None)
    api.post(f"{address}/pause")
    assert api.job(made["id"])["status"] == "Paused"
    on = api.put(address, {"isEnabled": True}).json()
    assert (on["status"], on["isEnabled"], on["isPaused"]) == ("Paused", True, True)
    api.put(address, {"isEnabled": False})
    api.post(f"{address}/resume")
    assert api.job(made["id"])["status"] == "Disabled"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_who_has_seen_another_version_is_told(method: str, api: Caller) -> None:
    made = api.make()
    address = f"jobs/{made['id']}" + ("/reschedule" if method == "PATCH" else "")
    body = {"scheduleType": "Interval", "intervalSeconds": 7200}
    for stale in ('"0"', '"99"', "nonsense", '"x"'):
        response = api(method, address, body, if_match=stale)
        check_problem(response, 412, "precondition_failed")
    assert api.job(made["id"])["scheduleType"] == "Cron"
    assert api(method, address, body, if_match='"7", "1"').status_code in (200, 204)


def test_the_version_grows_with_each_change(api: Caller) -> None:
    made = api.make()
    response = api.put(f"jobs/{made['id']}", {"name": "b"}, if_match='"1"')
    assert response["ETag"] == '"2"'
    assert api.put(f"jobs/{made['id']}", {"name": "c"}, if_match="*")["ETag"] == '"3"'


# -- Reschedule ------------------------------------------------------------------------------------


def reschedule(api: Caller, job_id: str, **body: Any) -> Any:
    return api("PATCH", f"jobs/{job_id}/reschedule", body)


def test_a_new_timing_holds_at_once_and_an_interval_counts_from_now(api: Caller) -> None:
    made = api.make()
    changed = reschedule(api, made["id"], scheduleType="Interval", intervalSeconds=7200).json()
    row = Schedule.objects.get()
    assert row.next_run_at is not None and row.anchor_at is not None
    assert row.next_run_at - row.anchor_at == timedelta(hours=2)
    assert changed["pendingSchedule"] is None
    past = soon(hours=-5)
    again = reschedule(api, made["id"], scheduleType="Cron", scheduleExpression="0 0 1 1 *",
                       effectiveFrom=past).json()  # fmt: skip
    assert again["scheduleExpression"] == "0 0 1 1 *" and again["pendingSchedule"] is None


def test_until_its_time_the_old_timing_goes_on(api: Caller) -> None:
    made = api.make(scheduleExpression="* * * * *")
    at = soon(hours=5)
    changed = reschedule(
        api, made["id"], scheduleType="Interval", intervalSeconds=60, effectiveFrom=at
    ).json()
    assert changed["scheduleType"] == "Cron"
    assert changed["pendingSchedule"]["intervalSeconds"] == 60
    assert changed["nextRunAt"] < changed["pendingSchedule"]["effectiveFrom"]
    # A later timing takes the place of the one that waits, and so does an update.
    reschedule(api, made["id"], scheduleType="OneTime", runAt=soon(days=9), effectiveFrom=at)
    assert api.job(made["id"])["pendingSchedule"]["scheduleType"] == "OneTime"
    updated = api.put(f"jobs/{made['id']}", {"scheduleExpression": "5 * * * *"}).json()
    assert updated["pendingSchedule"] is None


def test_one_time_before_it_counts_is_refused(api: Caller) -> None:
    made = api.make()
    response = reschedule(
        api, made["id"], scheduleType="OneTime", runAt=soon(hours=1), effectiveFrom=soon(hours=2)
    )
    check_problem(response, 400, "validation_failed", "runAt", title="Reschedule job failed")
    assert api.job(made["id"])["pendingSchedule"] is None


def test_what_was_paused_or_disabled_stays_so(api: Caller) -> None:
    made = api.make(isEnabled=False)
    changed = reschedule(api, made["id"], scheduleType="Interval", intervalSeconds=60).json()
    assert (changed["status"], changed["nextRunAt"]) == ("Disabled", None)
    api.post(f"jobs/{made['id']}/pause")
    changed = reschedule(api, made["id"], scheduleType="Interval", intervalSeconds=90).json()
    assert changed["status"] == "Paused"


def test_what_has_run_once_is_completed_and_may_be_given_another_time(api: Caller) -> None:
    made = api.make(scheduleType="OneTime", runAt=soon(minutes=1))
    row = Schedule.objects.get()
    put_back(row, timezone.now() - timedelta(seconds=9))
    assert fire() == 1
    done = api.job(made["id"])
    assert (done["status"], done["nextRunAt"], done["isEnabled"]) == ("Completed", None, True)
    assert api.get("jobs?status=completed").json()["totalCount"] == 1
    assert api.get("jobs?status=enabled").json()["totalCount"] == 0
    renamed = api.put(f"jobs/{made['id']}", {"name": "again"}).json()
    assert renamed["status"] == "Completed"
    again = reschedule(api, made["id"], scheduleType="OneTime", runAt=soon(days=1)).json()
    assert again["status"] == "Enabled" and again["nextRunAt"] is not None


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "scheduleType"),
        ({"scheduleType": "Cron"}, "scheduleExpression"),
        ({"scheduleType": "Cron", "scheduleExpression": None}, "scheduleExpression"),
        ({"scheduleType": "OneTime", "runAt": "2001-01-01T00:00:00Z"}, "runAt"),
        ({"scheduleType": "Interval", "intervalSeconds": 0}, "intervalSeconds"),
        ({"scheduleType": "Interval", "intervalSeconds": "60"}, "intervalSeconds"),
        ({"scheduleType": "Interval", "intervalSeconds": 60, "effectiveFrom": 7}, "effectiveFrom"),
        (
            {"scheduleType": "Interval", "intervalSeconds": 60, "effectiveFrom": "2999-01-01"},
            "effectiveFrom",
        ),
    ],
)
def test_bad_timings_are_refused_and_change_nothing(
    body: dict[str, Any], field: str, api: Caller
) -> None:
    made = api.make()
    check_problem(reschedule(api, made["id"], **body), 400, "validation_failed", field)
    assert api.job(made["id"]) == made
