"""Schedules: the list, one of them, its buttons, and its form in the admin."""

from __future__ import annotations

import json
from datetime import timedelta
from html import unescape

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import Job, Schedule, Source
from tests.factories import WITH_A_PROGRAM

PATH = "/admin/alpha/schedules/"
ADD = f"{PATH}new/"
FORM = {
    "name": "nightly",
    "is_enabled": "on",
    "kind": "python",
    "type": "demo:noop",
    "queue": "default",
    "timing": "cron",
    "expression": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "misfire": "latest",
    "overlap": "skip",
}


def make(name: str = "nightly", **values) -> Schedule:
    timing = {"timing": "cron", "expression": "0 3 * * *", "timezone": "Europe/Berlin"}
    return schedules.create({"name": name, "type": "demo:noop", **timing, **values}, by="test")


def change(schedule: Schedule) -> str:
    return f"{PATH}{schedule.pk}/edit/"


def test_the_list_and_one_of_them(viewer, alpha, queries):
    assert b"No schedule yet" in viewer.get(PATH).content
    schedule = make()
    with queries() as asked:
        page = viewer.get(PATH).content.decode()
    assert len(asked) <= 15
    assert "nightly" in page
    assert "0 3 * * *" in page
    with queries() as asked:
        page = viewer.get(f"{PATH}{schedule.pk}/").content.decode()
    assert len(asked) <= 15
    assert "03:00 in Europe/Berlin" in page
    assert "/trigger/" not in page
    assert f"{PATH}{schedule.pk}/" in viewer.get("/admin/alpha/search/?s=night").content.decode()


def test_pages_and_filter(viewer, alpha):
    for n in range(3):
        make(f"job-{n}")
    make("other")
    assert b'rel="next"' in viewer.get(f"{PATH}?limit=2").content
    page = viewer.get(f"{PATH}?name=job-").content
    assert b"job-2" in page
    assert b">other</a>" not in page
    assert viewer.get(f"{PATH}?colour=red").status_code == 400


def test_one_of_another_cluster_is_missing(operator):
    with cluster_bound("beta"):
        schedule = make()
    for rest in ("", "pause/"):
        assert operator.get(f"{PATH}{schedule.pk}/{rest}").status_code == 404
    for rest in ("resume/", "trigger/"):
        assert operator.post(f"{PATH}{schedule.pk}/{rest}").status_code == 404
    assert operator.get(change(schedule)).status_code == 404
    assert operator.post(f"{PATH}{schedule.pk}/preview/").status_code == 404


def test_pause_resume_and_trigger(operator, alpha):
    schedule = make()
    path = f"{PATH}{schedule.pk}/"
    assert operator.post(f"{path}pause/", {}).status_code == 400
    form = {"reason": "holidays", "lasts": "3600"}
    assert b"is paused" in operator.post(f"{path}pause/", form, follow=True).content
    schedule.refresh_from_db()
    assert (schedule.is_paused, schedule.next_run_at) == (True, None)
    assert abs(schedule.resume_at - timezone.now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert b"paused already" in operator.post(f"{path}pause/", form, follow=True).content
    assert b"goes on" in operator.post(f"{path}resume/", follow=True).content
    schedule.refresh_from_db()
    assert schedule.next_run_at is not None
    response = operator.post(f"{path}trigger/", follow=True)
    assert b"runs now" in response.content
    job = Job.objects.get()
    assert response.request["PATH_INFO"] == f"/admin/alpha/jobs/{job.pk}/"
    rows = AuditEntry.objects.order_by("at", "id").values_list("verb", "reason")
    assert [*rows] == [
        ("schedules.pause", "holidays"),
        ("schedules.resume", ""),
        ("schedules.trigger", ""),
    ]


def test_a_viewers_forged_forms_are_refused(viewer, alpha):
    schedule = make()
    for rest in ("pause/", "resume/", "trigger/"):
        assert viewer.post(f"{PATH}{schedule.pk}/{rest}", {"reason": "x"}).status_code == 403
    assert viewer.post(ADD, FORM).status_code == 403
    assert viewer.post(change(schedule), {**FORM, "name": "mine"}).status_code == 403
    schedule.refresh_from_db()
    assert (schedule.version, schedule.name) == (1, "nightly")
    assert not Job.objects.exists()
    rows = AuditEntry.objects.order_by("at", "id").values_list("verb", "after__verb")
    assert [*rows] == [
        ("deeds.refuse", f"schedules.{verb}")
        for verb in ("pause", "resume", "trigger", "create", "change")
    ]


def test_work_that_needs_a_grant_is_neither_triggered_nor_written_without_it(operator, alpha):
    schedule = make(kind="shell", type="shell", payload={"argv": ["true"]})
    assert operator.post(f"{PATH}{schedule.pk}/trigger/").status_code == 403
    assert operator.post(change(schedule), FORM).status_code == 403
    steps = make("steps", kind="steps", type="steps", payload=WITH_A_PROGRAM)
    assert operator.post(f"{PATH}{steps.pk}/trigger/").status_code == 403
    assert operator.post(change(steps), FORM).status_code == 403
    response = operator.post(ADD, {**FORM, "name": "mine", "kind": "shell"})
    assert response.status_code == 400
    assert "kind" in response.context["form"].errors
    form = {**FORM, "name": "mine", "kind": "steps", "payload": json.dumps(WITH_A_PROGRAM)}
    response = operator.post(ADD, form)
    assert response.status_code == 400
    assert "payload" in response.context["form"].errors
    assert Schedule.objects.count() == 2


def test_one_is_made_changed_and_deleted(operator, alpha):
    response = operator.post(ADD, {**FORM, "payload": '{"a": 1}', "tags": "eu"})
    assert response.status_code == 302, response.context["form"].errors
    schedule = Schedule.objects.get()
    assert (schedule.payload, schedule.tags) == ({"a": 1}, ["eu"])
    assert schedule.created_by == "user:operator-1"
    due = schedule.next_run_at
    assert due is not None
    form = {**FORM, "payload": '{"a": 1}', "tags": "eu", "description": "for the night"}
    assert operator.post(change(schedule), form).status_code == 302
    schedule.refresh_from_db()
    # What leaves the timing alone does not move the next run.
    assert (schedule.description, schedule.next_run_at) == ("for the night", due)
    form["expression"] = "30 4 * * *"
    assert operator.post(change(schedule), form).status_code == 302
    schedule.refresh_from_db()
    assert schedule.next_run_at != due
    delete = f"/admin/alpha/jobs/schedule/{schedule.pk}/delete/"
    assert operator.post(delete, {"reason": "done with"}).status_code == 302
    schedule.refresh_from_db()
    assert schedule.deleted_at is not None
    rows = AuditEntry.objects.order_by("at", "id")
    assert [row.verb for row in rows] == [
        "schedules.create",
        "schedules.change",
        "schedules.change",
        "schedules.delete",
    ]
    assert rows[2].after == {"expression": "30 4 * * *"}
    assert not Job.objects.exists()


def test_who_deletes_one_is_told_who_needs_it(operator, alpha):
    needed = make("needed")
    delete = f"/admin/alpha/jobs/schedule/{needed.pk}/delete/"
    assert "Needed by" not in operator.get(delete).content.decode()
    make_waiting = {
        "timing": "cron",
        "expression": "0 4 * * *",
        "name": "waits",
        "type": "demo:noop",
    }
    schedules.create(make_waiting, by="test", depends_on=[needed.pk])
    workflows.create("graph", [NewNode(needed.pk)], by="test")
    page = unescape(operator.get(delete).content.decode())
    assert "Needed by schedule 'waits', workflow 'graph'" in page


@pytest.mark.once
@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": ""}, "name"),
        ({"expression": "61 * * * *"}, "expression"),
        ({"expression": ""}, "expression"),
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"timing": "interval"}, "interval_seconds"),
        ({"timing": "interval", "interval_seconds": "nan"}, "interval_seconds"),
        ({"timing": "once", "run_at": "2001-01-01T00:00"}, "run_at"),
        ({"timing": "once", "run_at": "soon"}, "run_at"),
        ({"timing": "interval", "interval_seconds": "often"}, "interval_seconds"),
        ({"starts_at": "soon"}, "starts_at"),
        ({"exclusions.dates": "2030-12-25, never"}, "exclusions.dates"),
        ({"exclusions.time_ranges": "22:00"}, "exclusions.time_ranges"),
        ({"exclusions.calendars": "nobody's"}, "exclusions.calendars"),
        ({"priority": "1.5"}, "priority"),
        ({"workflow_id": "x"}, "workflow_id"),
        ({"queue": "nowhere"}, "queue"),
        ({"payload": "{"}, "payload"),
        ({"tags": "x" * 300}, "tags"),
        ({"overlap": "explode"}, "overlap"),
    ],
)
def test_what_no_schedule_may_say_is_refused_at_its_field(operator, alpha, form, field):
    response = operator.post(ADD, {**FORM, **form})
    assert response.status_code == 400
    assert field in response.context["form"].errors
    assert not Schedule.objects.exists()
    assert not AuditEntry.objects.exists()


def test_the_form_of_one_that_starts_a_workflow_says_which_and_no_kind(operator, alpha):
    workflow = workflows.create("the graph", [NewNode(make("node").pk)], by="test")
    starts = make("starts", workflow_id=workflow.pk)
    page = operator.get(change(starts))
    assert "the graph" in page.content.decode()
    said = {**FORM, "name": "starts", "description": "the night", "workflow_id": str(workflow.pk)}
    assert operator.post(change(starts), said).status_code == 302
    starts.refresh_from_db()
    assert (starts.description, starts.kind, starts.workflow_id) == (
        "the night",
        "workflow",
        workflow.pk,
    )
    shown = operator.get(f"{PATH}{starts.pk}/").content.decode()
    assert f'<a href="/admin/alpha/workflows/{workflow.pk}/">the graph</a>' in shown
    assert "a workflow</span>" in operator.get(PATH).content.decode()


def test_what_stands_in_code_is_enabled_and_disabled_and_no_more(operator, alpha):
    timing = {"timing": "cron", "expression": "0 3 * * *", "timezone": "Europe/Berlin"}
    values = {"name": "nightly", "type": "demo:noop", "payload": {"a": 1}, **timing}
    coded = schedules.create(values, by="code", source=Source.CODE)
    page = operator.get(f"{PATH}{coded.pk}/").content.decode()
    assert "Declared in code" in page
    assert "Enable or disable" in page
    page = operator.get(change(coded))
    assert page.context["form"].names == ["is_enabled"]
    assert "Declared in code, beside its handler." in page.content.decode()
    forged = {**FORM, "name": "mine", "expression": "1 1 * * *", "is_enabled": ""}
    assert operator.post(change(coded), forged).status_code == 302
    coded.refresh_from_db()
    assert (coded.name, coded.expression, coded.is_enabled) == ("nightly", "0 3 * * *", False)
    assert coded.source == Source.CODE
    delete = operator.get(f"/admin/alpha/jobs/schedule/{coded.pk}/delete/").content.decode()
    assert "a node that declares it brings it back" in delete


def test_what_comes_from_a_file_says_so(operator, alpha):
    values = {"name": "filed", "type": "demo:noop", "timing": "interval", "interval_seconds": 60}
    filed = schedules.create(values, by="cli:x", source=Source.FILE)
    for path in (f"{PATH}{filed.pk}/", change(filed)):
        assert "From a file of definitions." in operator.get(path).content.decode()
    assert "expression" in operator.get(change(filed)).context["form"].names


def test_secrets_of_a_payload_are_masked_and_stay_as_they_are(operator, viewer, alpha):
    payload = {"method": "GET", "url": "https://a.example", "headers": {"X-Api-Key": "hush"}}
    schedule = make(kind="http", type="ping", payload=payload)
    assert viewer.get(change(schedule)).status_code == 403
    page = operator.get(change(schedule))
    assert "https://a.example" in page.content.decode()
    assert "hush" not in page.content.decode()
    shown = page.context["form"].shown["payload"]
    form = {**FORM, "kind": "http", "type": "ping", "description": "x"}
    assert operator.post(change(schedule), {**form, "payload": shown}).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.payload, schedule.description) == (payload, "x")
    operator.post(f"/admin/alpha/jobs/schedule/{schedule.pk}/delete/", {"reason": "done with"})
    entries = [*AuditEntry.objects.order_by("at", "id")]
    assert [entry.verb for entry in entries] == ["schedules.change", "schedules.delete"]
    assert entries[1].before["payload"]["url"] == "https://a.example"
    assert "hush" not in str([(entry.before, entry.after) for entry in entries])


def test_what_it_waits_for_and_who_needs_it_are_shown(viewer, alpha):
    first, gone = make("first"), make("gone")
    timing = {"timing": "cron", "expression": "0 4 * * *"}
    values = {"name": "second", "type": "demo:noop", **timing}
    second = schedules.create(values, by="test", depends_on=[first.pk, gone.pk])
    schedules.delete(gone.pk, by="test")
    page = viewer.get(f"{PATH}{second.pk}/").content.decode()
    assert f'<a href="{PATH}{first.pk}/">first</a>' in page
    assert 'gone <span class="ui-warn">deleted</span>' in page
    assert "<dt>Needed by</dt><dd>second" in viewer.get(f"{PATH}{first.pk}/").content.decode()


def test_starting_a_workflow_needs_the_grants_of_its_nodes(operator, sign_in, alpha):
    node = make("node", kind="shell", type="s", payload={"argv": ["true"]})
    workflow = workflows.create("w", [NewNode(node.pk)], by="test")
    starts = make("starts", workflow_id=workflow.pk)
    assert "/trigger/" not in operator.get(f"{PATH}{starts.pk}/").content.decode()
    assert operator.post(f"{PATH}{starts.pk}/trigger/").status_code == 403
    assert operator.post(change(starts), FORM).status_code == 403
    assert not Job.objects.exists()
    granted = sign_in("operator", grants=("shell",))
    assert granted.post(f"{PATH}{starts.pk}/trigger/").status_code == 302
    assert Job.objects.count() == 1
