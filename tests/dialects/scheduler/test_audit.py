"""Every deed leaves its trace, and what was refused leaves none."""

from __future__ import annotations

from typing import Any

import pytest

from clusters.models import AuditEntry
from jobs.models import Job, Schedule
from tests.dialects.scheduler.conftest import CRON_JOB, Caller

NODE = {"dependsOnJobIds": ["{other}"], "condition": "AllSucceeded"}
# Each deed after the ones before it, with the verb and the sort of thing its trace names.
DEEDS: list[tuple[str, str, Any, str, str]] = [
    ("PUT", "jobs/{job}", {"name": "n", "jobConfiguration": {"handlerType": "demo:noop",
     "parameters": {"token": "hush"}}}, "schedules.change", "schedule"),
    ("PATCH", "jobs/{job}/reschedule", {"scheduleType": "Interval", "intervalSeconds": 9000},
     "schedules.reschedule", "schedule"),
    ("POST", "jobs/{job}/pause", {"reason": "r"}, "schedules.pause", "schedule"),
    ("POST", "jobs/{job}/resume", None, "schedules.resume", "schedule"),
    ("POST", "jobs/{job}/trigger", None, "schedules.trigger", "schedule"),
    ("POST", "executions/{execution}/cancel", None, "jobs.cancel", "job"),
    ("POST", "executions/{execution}/retry", None, "jobs.retry", "job"),
    ("POST", "jobs/{job}/exclusions", {"excludedDates": ["2034-01-01"]}, "schedules.change", "schedule"),
    ("PUT", "jobs/{job}/exclusions", {"excludedDates": ["2034-01-02"]}, "schedules.change", "schedule"),
    ("DELETE", "jobs/{job}/exclusions", None, "schedules.change", "schedule"),
    ("POST", "jobs/{job}/dependencies", NODE, "schedules.change", "schedule"),
    ("DELETE", "jobs/{job}/dependencies", None, "schedules.change", "schedule"),
    ("POST", "workflows", {"name": "w", "jobs": [{"jobId": "{job}"}]}, "workflows.create", "workflow"),
    ("PUT", "workflows/{workflow}", {"name": "v"}, "workflows.change", "workflow"),
    ("POST", "workflows/{workflow}/trigger", None, "workflows.trigger", "workflow"),
    ("DELETE", "workflows/{workflow}", None, "workflows.delete", "workflow"),
    ("POST", "admin/pause-all", None, "schedules.pause_all", "cluster"),
    ("POST", "admin/resume-all", None, "schedules.resume_all", "cluster"),
    ("DELETE", "admin/clear-logs", {"olderThanDays": 1}, "jobs.delete", "cluster"),
    ("POST", "admin/import", [{**CRON_JOB, "name": "imported"}], "schedules.import", "schedule"),
    ("DELETE", "jobs/{job}", None, "schedules.delete", "schedule"),
    ("POST", "jobs/{job}/restore", None, "schedules.restore", "schedule"),
    ("DELETE", "jobs/{job}?hardDelete=true", None, "schedules.delete_for_good", "schedule"),
]  # fmt: skip


def test_every_deed_leaves_one_trace(admin: Caller) -> None:
    import json

    known = {"job": admin.make()["id"], "other": admin.make(name="other")["id"]}
    assert [entry.verb for entry in AuditEntry.objects.all()] == ["schedules.create"] * 2

    def filled(value: Any) -> Any:
        text = json.dumps(value)
        for name, guid in known.items():
            text = text.replace(f"{{{name}}}", guid)
        return json.loads(text)

    for method, path, body, verb, target in DEEDS:
        seen = set(AuditEntry.objects.values_list("pk", flat=True))
        response = admin(method, filled(path), filled(body))
        assert response.status_code < 300, (path, response.content)
        if path.endswith("jobs/{job}/trigger"):
            known["execution"] = response.json()
        if path == "workflows":
            known["workflow"] = response.json()
        (trace,) = AuditEntry.objects.exclude(pk__in=seen)
        assert (trace.verb, trace.target_type) == (verb, target), path
        assert trace.target_id and trace.actor.startswith("key:")
        assert trace.address == "127.0.0.1"
        assert trace.request_id == response["X-Request-ID"]
        assert "hush" not in json.dumps([trace.before, trace.after])
    reason = AuditEntry.objects.get(verb="schedules.pause").reason
    assert reason == "r"


def test_changes_of_rules_tell_what_was_before(api: Caller) -> None:
    job, other = api.make()["id"], api.make(name="other")["id"]

    def last() -> tuple[Any, Any]:
        (newest, *_) = api.get(f"jobs/{job}/history").json()["items"]
        assert newest["action"] == "Updated"
        return newest["changes"].get("before"), newest["changes"].get("after")

    def dates(document: Any) -> Any:
        return document["exclusions"] and document["exclusions"]["excludedDates"]

    path = f"jobs/{job}/exclusions"
    for method, body, before, after in (
        ("POST", {"excludedDates": ["2034-01-01"]}, None, ["2034-01-01"]),
        ("POST", {"excludedDates": ["2034-01-02"]}, ["2034-01-01"], ["2034-01-01", "2034-01-02"]),
        ("PUT", {"excludedDates": ["2034-01-03"]}, ["2034-01-01", "2034-01-02"], ["2034-01-03"]),
        ("DELETE", None, ["2034-01-03"], None),
    ):
        assert api(method, path, body).status_code in (200, 204)
        assert [dates(one) for one in last()] == [before, after], method
    rule = {"dependsOnJobIds": [other], "condition": "AllSucceeded"}
    api.post(f"jobs/{job}/dependencies", rule)
    assert last() == ({"dependencies": None}, {"dependencies": rule})
    api.delete(f"jobs/{job}/dependencies")
    assert last() == ({"dependencies": rule}, {"dependencies": None})


def test_what_is_refused_or_repeated_leaves_none(api: Caller) -> None:
    job = api.make()["id"]
    api.post(f"jobs/{job}/trigger", {}, Idempotency_Key="k")
    count = AuditEntry.objects.count()
    assert api.post("jobs", CRON_JOB).status_code == 400
    assert api.put(f"jobs/{job}", {"timezone": "Nowhere"}).status_code == 400
    assert api.post(f"jobs/{job}/resume").status_code == 400
    assert api.post(f"jobs/{job}/trigger", {}, Idempotency_Key="k").status_code == 202
    assert AuditEntry.objects.count() == count


def test_without_its_trace_nothing_is_done(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    job = api.make()["id"]

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("django.db.models.query.QuerySet.create", broken)
    assert api.post(f"jobs/{job}/pause").status_code == 500
    assert api.post(f"jobs/{job}/trigger").status_code == 500
    monkeypatch.undo()
    assert not Schedule.objects.get().is_paused
    assert not Job.objects.exists()
