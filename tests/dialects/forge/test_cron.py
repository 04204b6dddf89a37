"""Cron schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.engine import schedules
from jobs.models import Job, Schedule
from tests.dialects.forge.conftest import TIME, Caller, check_envelope
from tests.factories import WITH_A_PROGRAM, make_queue
from tests.jobs.schedule_cases import make_schedule

MEMBERS = {
    "name", "kind", "payload", "queue_name", "cron_expr", "enabled", "max_attempts", "dedupe_key",
    "last_fired_at", "next_fire_at", "last_error", "created_at", "updated_at",
}  # fmt: skip


def shown(caller: Caller, name: str = "nightly") -> dict[str, Any]:
    (found,) = [one for one in caller.read("cron") if one["name"] == name]
    return found


def stored() -> Schedule:
    return Schedule.objects.get(name="nightly")


def test_a_schedule_has_the_members_of_the_manual(viewer: Caller) -> None:
    make_queue("reports")
    make_schedule(
        name="nightly", type="report", payload={}, expression="0 3 * * *", timing="cron",
        queue="reports", max_attempts=2, overlap="allow",
    )  # fmt: skip
    found = shown(viewer)
    assert set(found) == MEMBERS
    for name in ("next_fire_at", "created_at", "updated_at"):
        assert TIME.match(found.pop(name))
    assert found == {
        "name": "nightly", "kind": "report", "payload": {}, "queue_name": "reports",
        "cron_expr": "0 0 3 * * *", "enabled": True, "max_attempts": 2, "dedupe_key": None,
        "last_fired_at": None, "last_error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("timing", "expression"),
    [
        ({"timing": "cron", "expression": "*/5 1-3 * * MON"}, "0 */5 1-3 * * MON"),
        ({"timing": "cron", "expression": "@daily"}, "0 0 0 * * *"),
        ({"timing": "cron", "expression": "@every 1h30m"}, "@every 1h30m"),
        ({"timing": "interval", "interval_seconds": 90}, "@every 90s"),
        ({"timing": "interval", "interval_seconds": 1.5}, "@every 1.5s"),
    ],
)
def test_every_way_to_repeat_has_an_expression(
    timing: dict[str, Any], expression: str, admin: Caller
) -> None:
    make_schedule(name="nightly", **timing)
    assert shown(admin)["cron_expr"] == expression
    # What comes out goes in again.
    before = stored().next_due_at
    admin.do("cron/nightly/expr", {"expr": expression})
    assert shown(admin)["cron_expr"] == expression
    if not expression.startswith("@every"):
        assert stored().next_due_at == before


def test_schedules_that_do_not_repeat_are_not_shown(viewer: Caller) -> None:
    make_schedule(name="b")
    make_schedule(name="A")
    once = timezone.now() + timezone.timedelta(hours=1)
    make_schedule(name="once", timing="once", run_at=once)
    gone = make_schedule(name="gone")
    schedules.delete(gone.pk, by="test")
    assert [one["name"] for one in viewer.read("cron")] == ["A", "b"]
    for name in ("once", "gone"):
        check_envelope(viewer.get(f"cron/{name}"), 404, "not_found")


def test_one_switch_for_our_two(api: Caller) -> None:
    make_schedule(name="nightly")
    assert api.do("cron/nightly/enabled", {"enabled": False}) is None
    assert (stored().is_enabled, stored().next_due_at) == (False, None)
    assert (shown(api)["enabled"], shown(api)["next_fire_at"]) == (False, None)
    api.do("cron/nightly/enabled", {"enabled": True})
    assert shown(api)["next_fire_at"] is not None
    schedules.pause(stored().pk, by="test")
    assert shown(api)["enabled"] is False
    api.do("cron/nightly/enabled", {"enabled": True})
    assert (stored().is_paused, shown(api)["enabled"]) == (False, True)
    entry = AuditEntry.objects.order_by("at", "pk").first()
    assert (entry.verb, entry.after["enabled"]) == ("schedules.change", False)


@pytest.mark.parametrize("expression", ["0 */5 * * * *", "00 */5 * * * *", "*/5 * * * *"])
def test_an_expression_has_five_or_six_fields(expression: str, api: Caller) -> None:
    make_schedule(name="nightly", timing="interval", interval_seconds=60)
    assert api.do("cron/nightly/expr", {"expr": expression}) is None
    assert (stored().timing, stored().expression) == ("cron", "*/5 * * * *")
    assert stored().next_due_at.second == 0


@pytest.mark.once
@pytest.mark.parametrize(
    "expression",
    [
        "5 * * * * *", "*/10 * * * * *", "* * * * * *", "0,30 * * * * *", "x", "", "1 0 3 * * *",
        "61 * * * *", "0 0 0 30 2 *", "* * * *", "* * * * * * *", "0 " * 200, "\u0660 * * * * *",
    ],
)  # fmt: skip
def test_an_expression_that_cannot_be_kept_is_refused(expression: str, api: Caller) -> None:
    make_schedule(name="nightly")
    before = Schedule.objects.values().get()
    response = api.post("cron/nightly/expr", {"expr": expression})
    check_envelope(response, 400, "validation", "cron_expr")
    assert Schedule.objects.values().get() == before
    assert not AuditEntry.objects.exists()


def test_deduplication_is_whether_runs_may_overlap(api: Caller) -> None:
    make_schedule(name="nightly", overlap="allow")
    api.do("cron/nightly/dedupe", {"dedupe": True})
    assert (stored().overlap, shown(api)["dedupe_key"]) == ("skip", "nightly")
    api.do("cron/nightly/dedupe", {"dedupe": False})
    assert (stored().overlap, shown(api)["dedupe_key"]) == ("allow", None)


def test_a_trigger_makes_a_job_even_of_a_disabled_one(api: Caller) -> None:
    make_schedule(name="nightly", type="report", payload={"n": 1})
    due = stored().next_due_at
    job_id = api.do("cron/nightly/trigger")
    assert api.row(job_id)["status"] == "pending"
    assert stored().next_due_at == due
    assert shown(api)["last_fired_at"] is not None
    Job.objects.all().cancel()
    api.do("cron/nightly/enabled", {"enabled": False})
    job = Job.objects.get(pk=api.do("cron/nightly/trigger"))
    assert (job.type, job.payload, job.trigger) == ("report", {"n": 1}, "manual")


@pytest.mark.parametrize("name", ["a name", "of/two parts", "Ärger?", "100%", "a/enabled"])
def test_names_are_whatever_they_are(name: str, api: Caller) -> None:
    make_schedule(name=name)
    api.do(f"cron/{quote(name)}/dedupe", {"dedupe": False})
    assert shown(api, name)["dedupe_key"] is None


@pytest.mark.parametrize("name", ["nothing", "%00", "x" * 400, "%F0%9F%98%80"])
def test_an_unknown_schedule_is_not_taken_for_one(name: str, api: Caller) -> None:
    for path, body in (
        ("enabled", {"enabled": True}),
        ("expr", {"expr": "0 * * * * *"}),
        ("dedupe", {"dedupe": True}),
        ("trigger", None),
    ):
        check_envelope(api.post(f"cron/{name}/{path}", body), 404, "not_found")
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("enabled", {}, "enabled"),
        ("enabled", {"enabled": "yes"}, "enabled"),
        ("expr", {}, "expr"),
        ("expr", {"expr": 5}, "expr"),
        ("dedupe", {"dedupe": None}, "dedupe"),
    ],
)
def test_what_a_schedule_cannot_have_is_named(
    path: str, body: Any, field: str, api: Caller
) -> None:
    make_schedule(name="nightly")
    check_envelope(api.post(f"cron/nightly/{path}", body), 400, "validation", field)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("enabled", {"enabled": True}),
        ("expr", {"expr": "0 * * * * *"}),
        ("dedupe", {"dedupe": False}),
        ("trigger", None),
    ],
)
@pytest.mark.parametrize(
    ("kind", "payload"), [("shell", {"argv": ["true"]}), ("steps", WITH_A_PROGRAM)]
)
def test_a_schedule_of_a_granted_kind_is_left_alone_without(
    kind: str, payload: Any, path: str, body: Any, api: Caller, make_key: Callable[..., str]
) -> None:
    make_schedule(name="nightly", is_enabled=False, overlap="skip")
    Schedule.objects.update(kind=kind, type=kind, payload=payload)
    before = Schedule.objects.values().get()
    check_envelope(api.post(f"cron/nightly/{path}", body), 403, "validation", "kind")
    assert Schedule.objects.values().get() == before
    assert not Job.objects.exists()
    # Nothing was done, and that he asked for it is told.
    row = AuditEntry.objects.get()
    assert (row.verb, row.surface, row.after["kind"]) == ("deeds.refuse", "forge", "shell")
    Caller(make_key("operator", grants=("shell",))).do(f"cron/nightly/{path}", body)
