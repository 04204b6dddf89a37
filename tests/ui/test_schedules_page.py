"""Schedules: the list, one of them, its buttons, and its form in the admin."""

from __future__ import annotations

from datetime import timedelta
from html import unescape

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import schedules, workflows
from jobs.engine.workflows import NewNode
from jobs.models import Job, Schedule

PATH = "/admin/alpha/schedules/"
ADD = "/admin/alpha/jobs/schedule/add/"
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
    return f"/admin/alpha/jobs/schedule/{schedule.pk}/change/"


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
    assert b"other" not in page
    assert viewer.get(f"{PATH}?colour=red").status_code == 400


def test_one_of_another_cluster_is_missing(operator):
    with cluster_bound("beta"):
        schedule = make()
    for rest in ("", "pause/"):
        assert operator.get(f"{PATH}{schedule.pk}/{rest}").status_code == 404
    for rest in ("resume/", "trigger/"):
        assert operator.post(f"{PATH}{schedule.pk}/{rest}").status_code == 404
    assert operator.get(change(schedule)).status_code == 302


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
    assert not AuditEntry.objects.exists()


def test_work_that_needs_a_grant_is_neither_triggered_nor_written_without_it(operator, alpha):
    schedule = make(kind="shell", type="shell", payload={"argv": ["true"]})
    assert operator.post(f"{PATH}{schedule.pk}/trigger/").status_code == 403
    assert operator.post(change(schedule), FORM).status_code == 403
    response = operator.post(ADD, {**FORM, "name": "mine", "kind": "shell"})
    assert response.status_code == 200
    assert "kind" in response.context["adminform"].form.errors
    assert Schedule.objects.count() == 1


def test_one_is_made_changed_and_deleted(operator, alpha):
    response = operator.post(ADD, {**FORM, "payload": '{"a": 1}', "tags": '["eu"]'})
    assert response.status_code == 302, response.context["adminform"].form.errors
    schedule = Schedule.objects.get()
    assert (schedule.payload, schedule.tags) == ({"a": 1}, ["eu"])
    assert schedule.created_by == "user:operator-1"
    due = schedule.next_run_at
    assert due is not None
    form = {**FORM, "payload": '{"a": 1}', "tags": '["eu"]', "description": "for the night"}
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


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": ""}, "name"),
        ({"expression": "61 * * * *"}, "expression"),
        ({"expression": ""}, "expression"),
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"timing": "interval"}, "interval_seconds"),
        ({"timing": "interval", "interval_seconds": "nan"}, "interval_seconds"),
        ({"timing": "once", "run_at_0": "2001-01-01", "run_at_1": "00:00"}, "run_at"),
        ({"queue": "nowhere"}, "queue"),
        ({"payload": "{"}, "payload"),
        ({"tags": '{"a": 1}'}, "tags"),
        ({"overlap": "explode"}, "overlap"),
    ],
)
def test_what_no_schedule_may_say_is_refused_at_its_field(operator, alpha, form, field):
    response = operator.post(ADD, {**FORM, **form})
    assert response.status_code == 200
    assert field in response.context["adminform"].form.errors
    assert not Schedule.objects.exists()
    assert not AuditEntry.objects.exists()


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
