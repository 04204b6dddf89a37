"""Administration: pausing all, clearing, export and import."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.engine import schedules
from jobs.models import Job, Schedule
from tests.dialects.scheduler.conftest import CRON_JOB, Caller, check_problem
from tests.factories import make_job


def statuses(admin: Caller) -> dict[str, str]:
    return {job["name"]: job["status"] for job in admin.get("jobs").json()["items"]}


def test_resuming_all_leaves_those_alone_that_were_paused_alone(admin: Caller) -> None:
    for name in ("a", "b"):
        admin.make(name=name)
    admin.make(name="off", isEnabled=False)
    alone = admin.make(name="alone")["id"]
    admin.post(f"jobs/{alone}/pause")
    for _ in range(2):
        response = admin.post("admin/pause-all")
        assert (response.status_code, response.content) == (200, b"")
    assert statuses(admin) == {"a": "Paused", "b": "Paused", "off": "Disabled", "alone": "Paused"}
    assert admin.job(alone)["pausedBy"].startswith("key:")
    for _ in range(2):
        response = admin.post("admin/resume-all")
        assert (response.status_code, response.content) == (200, b"")
    assert statuses(admin) == {"a": "Enabled", "b": "Enabled", "off": "Disabled", "alone": "Paused"}


@pytest.mark.django_db(transaction=True)
def test_all_are_paused_and_resumed_in_portions_with_a_trace_each(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "PORTION", 2)
    for number in range(5):
        admin.make(name=f"job {number}")
    written: list[int] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        connection = context["connection"]
        if sql.startswith('UPDATE "schedule"'):
            # Of the transaction that holds them: none around the portion's own.
            written.append(len([one for one in connection.savepoint_ids if one is not None]))
        return execute(sql, params, many, context)

    with connections["cluster-alpha"].execute_wrapper(note):
        assert admin.post("admin/pause-all").status_code == 200
    assert written == [0, 0, 0]
    assert set(statuses(admin).values()) == {"Paused"}
    assert admin.post("admin/resume-all").status_code == 200
    assert set(statuses(admin).values()) == {"Enabled"}
    traces = AuditEntry.objects.filter(target_type="cluster").order_by("at", "id")
    assert [(one.verb, one.after) for one in traces] == [
        *[("schedules.pause_all", {"paused": count}) for count in (2, 2, 1)],
        *[("schedules.resume_all", {"resumed": count}) for count in (2, 2, 1)],
    ]


def test_a_portion_is_not_paused_without_its_trace(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "PORTION", 2)
    for number in range(5):
        admin.make(name=f"job {number}")
    told: list[str] = []

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(f'INSERT INTO "{AuditEntry._meta.db_table}"'):
            told.append(sql)
            if len(told) == 2:
                raise IntegrityError("the disk is full")
        return execute(sql, params, many, context)

    with connections["cluster-alpha"].execute_wrapper(fail):
        assert admin.post("admin/pause-all").status_code == 500
    assert sorted(statuses(admin).values()) == ["Enabled"] * 3 + ["Paused"] * 2
    assert AuditEntry.objects.get(verb="schedules.pause_all").after == {"paused": 2}


def test_clearing_deletes_executions_that_have_ended_and_are_old(admin: Caller) -> None:
    job_id = admin.make()["id"]
    old, young = timezone.now() - timedelta(days=8), timezone.now() - timedelta(days=6)
    for state, at in (("succeeded", old), ("failed", old), ("running", old), ("succeeded", young)):
        make_job(state, schedule_id=job_id, trigger="schedule", created_at=at)
    kept = make_job("succeeded", created_at=old)  # of no schedule
    assert admin.delete("admin/clear-logs", body={"olderThanDays": 7}).json() == 2
    assert admin.delete("admin/clear-logs", body={"olderThanDays": 7}).json() == 0
    assert Job.objects.filter(schedule_id=job_id).count() == 2
    assert Job.objects.filter(pk=kept.pk).exists()
    # The body wins over the query, which stands in for it.
    response = admin.delete("admin/clear-logs?olderThanDays=1", body={"olderThanDays": 30})
    assert response.json() == 0
    assert admin.delete("admin/clear-logs?olderThanDays=1").json() == 1


def test_clearing_goes_on_behind_those_that_are_kept(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.engine.schedule_runs.DELETED_AT_ONCE", 1)
    from jobs.engine.dependencies import Waits, attach_many

    job_id = admin.make()["id"]
    at = timezone.now() - timedelta(days=9)
    parent = make_job("running", schedule_id=job_id, trigger="schedule", created_at=at)
    child = make_job("ready", created_at=at)
    attach_many("cluster-alpha", [Waits(child.pk, [parent.pk], "all", "fail", {})])
    Job.objects.filter(pk=parent.pk).update(state="succeeded", finished_at=at)
    make_job("failed", schedule_id=job_id, trigger="schedule", created_at=at)
    assert admin.delete("admin/clear-logs?olderThanDays=1").json() == 1
    assert Job.objects.filter(schedule_id=job_id).get() == parent


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", {}),
        ("", {"olderThanDays": 0}),
        ("", {"olderThanDays": -1}),
        ("", {"olderThanDays": "7"}),
        ("", {"olderThanDays": 1.5}),
        ("", []),
        ("?olderThanDays=0", {}),
        ("?olderThanDays=x", {}),
    ],
)
def test_clearing_needs_an_age(query: str, body: Any, admin: Caller) -> None:
    job_id = admin.make()["id"]
    at = timezone.now() - timedelta(days=900)
    make_job("succeeded", schedule_id=job_id, trigger="schedule", created_at=at)
    response = admin.delete(f"admin/clear-logs{query}", body=body)
    check_problem(response, 400, "validation_failed")
    assert Job.objects.count() == 1


# -- Export and import -----------------------------------------------------------------------------


def filled(admin: Caller) -> list[dict[str, Any]]:
    """Three jobs, of which one is excluded on Sundays and depends on another."""
    first = admin.make(name="first", tags=["t"], createdBy="ops")
    second = admin.make(name="second", scheduleType="Interval", intervalSeconds=90)
    admin.make(name="third", scheduleType="OneTime", runAt="2035-01-01T00:00:00Z")
    admin.post(f"jobs/{second['id']}/exclusions", {"excludedDaysOfWeek": ["Sunday"]})
    body = {"dependsOnJobIds": [first["id"]], "condition": "AnySucceeded"}
    admin.post(f"jobs/{second['id']}/dependencies", body)
    response = admin.get("admin/export")
    assert response["Content-Disposition"] == 'attachment; filename="scheduler-jobs-export.json"'
    assert response["Content-Type"] == "application/json"
    assert b"\n  {" in response.content
    exported: list[dict[str, Any]] = response.json()
    return exported


def test_an_export_finds_its_way_back(admin: Caller) -> None:
    exported = filled(admin)
    assert exported[1]["dependencies"]["dependsOnJobNames"] == ["first"]
    for job in exported:
        assert admin.delete(f"jobs/{job['id']}").status_code == 204
    response = admin.post("admin/import", {"jsonPayload": json.dumps(exported)})
    assert (response.status_code, response.json()) == (200, 3)
    back = admin.get("jobs?sortBy=name").json()["items"]
    own = {"id", "createdAt", "updatedAt", "nextRunAt", "schedulerJobId", "dependencies"}
    for was, now in zip(exported, back, strict=True):
        assert was["id"] != now["id"]
        assert {k: v for k, v in was.items() if k not in own} == {
            k: v for k, v in now.items() if k not in own
        }
    assert back[1]["dependencies"] == {
        "dependsOnJobIds": [back[0]["id"]],
        "condition": "AnySucceeded",
    }


def test_what_is_there_is_skipped_changed_or_gets_another_name(admin: Caller) -> None:
    exported = filled(admin)
    exported[0]["description"] = "new"

    def imported(mode: str) -> dict[str, Any]:
        return admin.post(f"admin/import?detailed=true&mode={mode}", exported).json()

    nothing = {"created": 0, "updated": 0, "skipped": 0, "errors": [], "warnings": []}
    assert imported("skip") == {**nothing, "skipped": 3}
    assert admin.job(exported[0]["id"])["description"] == ""
    assert imported("Upsert") == {**nothing, "updated": 3}
    assert admin.job(exported[0]["id"])["description"] == "new"
    assert admin.get("jobs").json()["totalCount"] == 3
    assert imported("rename") == {**nothing, "created": 3}
    names = {job["name"] for job in admin.get("jobs").json()["items"]}
    assert names == {"first", "second", "third", "first (2)", "second (2)", "third (2)"}
    response = admin.post("admin/import?mode=merge", exported)
    check_problem(response, 400, "validation_failed", "mode")


def questions_of_schedules(admin: Caller, path: str, items: list[Any]) -> int:
    with CaptureQueriesContext(connections["cluster-alpha"]) as captured:
        assert admin.post(path, items).status_code == 200
    return sum(bool(re.match(r'SELECT .*(FROM|JOIN) "?schedule"? ', q["sql"])) for q in captured)


def test_names_are_looked_up_for_all_items_at_once(admin: Caller) -> None:
    admin.make(name="Nightly")
    bad = [{**CRON_JOB, "name": f"bad {n}", "scheduleExpression": "x"} for n in range(30)]
    assert questions_of_schedules(admin, "admin/import", bad) == 1
    # As many of one name: each takes the next number, without trying those before it again.
    same = [{**CRON_JOB, "name": name} for name in ("nightly", "NIGHTLY") * 15]
    assert questions_of_schedules(admin, "admin/import?mode=rename", same) <= 2 * 30
    assert {f"nightly ({n})" for n in range(2, 32)} == {
        name.lower() for name in names_of(admin)
    } - {"nightly"}


def test_names_of_any_script_are_the_same_as_the_database_says(admin: Caller) -> None:
    first, second = {**CRON_JOB, "name": "ÄRGER"}, {**CRON_JOB, "name": "zweite"}
    second["dependencies"] = {"dependsOnJobNames": ["ÄRGER"], "condition": "AllSucceeded"}
    unsound = {**CRON_JOB, "name": "no\nname"}
    assert admin.post("admin/import?detailed=true", [unsound]).json()["created"] == 0
    for mode, wanted in (("skip", (2, 0)), ("skip", (0, 2)), ("rename", (2, 0))):
        report = admin.post(f"admin/import?detailed=true&mode={mode}", [first, second]).json()
        assert (report["created"], report["skipped"], report["errors"]) == (*wanted, [])


def names_of(admin: Caller) -> list[str]:
    return [job["name"] for job in admin.get("jobs?pageSize=200").json()["items"]]


def test_each_item_is_checked_by_itself(admin: Caller) -> None:
    items = [
        CRON_JOB,
        {**CRON_JOB, "name": "no cron", "scheduleExpression": "x"},
        {**CRON_JOB, "name": "no handler", "jobConfiguration": {"handlerType": "os.system"}},
        "nonsense",
        {"name": 7},
        {**CRON_JOB, "name": "waits", "dependencies": {"dependsOnJobNames": ["nobody"],
                                                       "condition": "AllSucceeded"}},
    ]  # fmt: skip
    report = admin.post("admin/import?detailed=true", items).json()
    assert report["created"] == 2
    assert {e["index"]: sorted(e["errors"]) for e in report["errors"]} == {
        1: ["scheduleExpression"],
        2: ["jobConfiguration.handlerType"],
        3: ["body"],
        4: ["jobConfiguration", "jobType", "name", "scheduleType"],
        5: ["dependencies.dependsOnJobNames[0]"],
    }
    assert set(statuses(admin)) == {"nightly", "waits"}


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "jsonPayload"),
        ({"jsonPayload": None}, "jsonPayload"),
        ({"jsonPayload": ""}, "jsonPayload"),
        ({"jsonPayload": "[]"}, "jsonPayload"),
        ({"jsonPayload": "{}"}, "jsonPayload"),
        ({"jsonPayload": "[NaN]"}, "jsonPayload"),
        ({"jsonPayload": "[" * 5000}, "jsonPayload"),
        ({"jsonPayload": []}, "jsonPayload"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_nothing_to_import_is_refused(body: Any, field: str, admin: Caller) -> None:
    response = admin.post("admin/import", body)
    check_problem(response, 400, "validation_failed", field)
    assert not Schedule.objects.exists()


def test_secrets_are_neither_exported_nor_lost(admin: Caller) -> None:
    configuration = {
        "url": "https://example.com/",
        "method": "GET",
        "headers": {"X-Api-Key": "hush"},
    }
    made = admin.make(jobType="HttpCall", jobConfiguration=configuration)
    exported = admin.get("admin/export")
    assert b"hush" not in exported.content
    assert admin.post("admin/import?mode=upsert", exported.json()).json() == 0
    assert Schedule.objects.get().payload["headers"] == {"X-Api-Key": "hush"}
    admin.delete(f"jobs/{made['id']}")
    # Nothing is known of the secret any more: the job waits for somebody to give it.
    report = admin.post("admin/import?detailed=true", exported.json()).json()
    assert report["created"] == 1
    assert "jobConfiguration.headers.X-Api-Key" in report["warnings"][0]["message"]
    assert statuses(admin) == {"nightly": "Disabled"}
