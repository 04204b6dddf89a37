"""A copy of a job, and a job that is changed before it starts: what is different, and what stays."""

from __future__ import annotations

import html
import json
import re

import pytest

from clusters.models import AuditEntry
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.models import Job
from jobs.sealing import opened
from jobs.secrets import shown_payload
from tests.factories import make_job, make_queue, make_step_beside_a_program

SECRET = {"url": "https://a.example", "headers": {"Authorization": "Bearer hush", "X": "1"}}


def path(job: Job, rest: str = "") -> str:
    return f"/admin/alpha/jobs/{job.pk}/{rest}"


def text(response) -> str:
    return html.unescape(response.content.decode())


def form_of(response, **fields: str) -> dict[str, str]:
    """What the page's form sends, with the fields filled in."""
    page = response.content.decode()
    found = dict(re.findall(r'<input type="hidden" name="(version)" value="([^"]*)"', page))
    for name in ("queue", "priority"):
        found[name] = re.search(rf'<input[^>]*name="{name}"[^>]*value="([^"]*)"', page)[1]
    if area := re.search(r'<textarea name="payload"[^>]*>\s?(.*?)</textarea>', page, re.DOTALL):
        found["payload"] = html.unescape(area[1])
    return {**found, **fields}


def copy_of(job: Job) -> Job:
    return Job.objects.get(copy_of=job.pk)


# -- A copy ----------------------------------------------------------------------------------------


def test_a_copy_is_one_click(operator, viewer, alpha):
    job = make_job("failed", payload={"n": 1}, tags=["eu"])
    assert "/copy/" in text(operator.get(path(job)))
    assert "/copy" not in text(viewer.get(path(job)))
    response = operator.post(path(job, "copy/"))
    made = copy_of(job)
    assert response["Location"] == path(made)
    assert (made.payload, made.tags, made.enqueued_by) == ({"n": 1}, ["eu"], "user:operator-1")
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.target_id) == ("jobs.requeue", str(job.pk))


def test_the_form_shows_the_payload_without_its_secrets(operator, alpha):
    job = make_job("failed", kind="http", payload=SECRET)
    page = operator.get(path(job, "copy-changed/"))
    assert "hush" not in text(page)
    assert json.loads(form_of(page)["payload"])["headers"] == {"Authorization": "***", "X": "1"}


def test_a_changed_copy_keeps_the_secrets_that_were_left_alone(operator, alpha):
    make_queue("slow")
    job = make_job("failed", kind="http", payload=SECRET)
    page = operator.get(path(job, "copy-changed/"))
    changed = form_of(page)["payload"].replace("https://a", "https://b")
    form = form_of(page, payload=changed, queue="slow", priority="7")
    response = operator.post(path(job, "copy-changed/"), form)
    assert response.status_code == 302, text(response)
    made = copy_of(job)
    assert made.payload == {**SECRET, "url": "https://b.example"}
    assert (made.queue, made.priority) == ("slow", 7)
    job.refresh_from_db()
    assert job.payload == SECRET
    [entry] = AuditEntry.objects.all()
    assert entry.verb == "jobs.requeue"
    assert (entry.after["queue"], entry.after["payload"]["url"]) == ("slow", "https://b.example")
    assert "hush" not in json.dumps([entry.before, entry.after])


def test_a_copy_of_a_sealed_payload_is_sealed_and_keeps_what_was_masked(operator, alpha):
    step = {"name": "a", "kind": "python", "type": "demo:echo"}
    said = {**step, "payload": {"t": "{{ secrets.word }}"}}
    payload = {"steps": [said], "secrets": {"word": "correct horse battery"}}
    job = enqueue(NewJob(kind="steps", type="steps", payload=payload), by="test").job
    page = operator.get(path(job, "copy-changed/"))
    assert "horse" not in text(page)
    changed = form_of(page)["payload"].replace("demo:echo", "demo:noop")
    response = operator.post(path(job, "copy-changed/"), form_of(page, payload=changed))
    assert response.status_code == 302, text(response)
    made = copy_of(job)
    assert "horse" not in json.dumps(made.payload)
    stored = opened(made.payload).payload
    assert stored["secrets"] == payload["secrets"]
    assert stored["steps"][0]["type"] == "demo:noop"
    assert "horse" not in json.dumps(shown_payload(made.kind, made.payload))


def test_what_is_different_is_shown_before_and_afterwards(operator, alpha):
    job = make_job("failed", payload={"to": "anna"})
    page = operator.get(path(job, "copy-changed/"))
    changed = form_of(page)["payload"].replace("anna", "bert")
    form = form_of(page, payload=changed)
    looked = text(operator.post(path(job, "copy-changed/"), {**form, "look": "1"}))
    minus = '<span class="ui-gone">-   "to": "anna"<'
    plus = '<span class="ui-added">+   "to": "bert"<'
    assert minus in looked
    assert plus in looked
    assert Job.objects.count() == 1
    operator.post(path(job, "copy-changed/"), form)
    shown = text(operator.get(path(copy_of(job))))
    assert minus in shown
    assert plus in shown
    assert "Otherwise than its original" not in text(operator.get(path(job)))


@pytest.mark.once
@pytest.mark.parametrize("deed", ["copy-changed/", "change/"])
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"payload": "{"}, "payload"),
        ({"payload": '{"a": 1, "a": 2}'}, "payload"),
        ({"payload": '{"url": "ftp://a"}'}, "payload"),
        ({"payload": ""}, "payload"),
        ({"queue": "nowhere"}, "queue"),
        ({"queue": ""}, "queue"),
        ({"queue": "a\0b"}, "queue"),
        ({"priority": "101"}, "priority"),
    ],
)
def test_what_no_job_may_have_is_said_beside_its_field(operator, alpha, deed, fields, name):
    job = make_job(kind="http", payload=SECRET)
    form = form_of(operator.get(path(job, deed)), **fields)
    response = operator.post(path(job, deed), form)
    assert response.status_code == 400
    assert [*response.context["form"].errors] == [name]
    assert Job.objects.count() == 1
    job.refresh_from_db()
    assert (job.payload, job.queue) == (SECRET, "default")
    assert not AuditEntry.objects.exists()


def test_a_copy_of_what_holds_its_unique_key_is_refused(operator, alpha):
    job = make_job(unique_key="once")
    response = operator.post(path(job, "copy/"), follow=True)
    assert "Nothing was changed" in text(response)
    form = form_of(operator.get(path(job, "copy-changed/")))
    assert operator.post(path(job, "copy-changed/"), form).status_code == 400
    assert Job.objects.count() == 1


def test_somebody_elses_program_is_copied_with_the_grant_only(sign_in, alpha):
    for job in (
        make_job("failed", kind="shell", type="shell", payload={"script": "true"}),
        make_step_beside_a_program(),
    ):
        without, granted = sign_in("admin"), sign_in("operator", "alpha", grants=("shell",))
        assert "/copy" not in text(without.get(path(job)))
        for deed in ("copy/", "copy-changed/"):
            assert without.post(path(job, deed)).status_code == 403
        assert not Job.objects.filter(copy_of=job.pk).exists()
        assert granted.post(path(job, "copy/")).status_code == 302


def test_another_payload_is_another_program(operator, alpha):
    steps = {"steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]}
    program = json.dumps({"steps": [{"name": "a", "kind": "shell", "payload": {"script": "true"}}]})
    job = make_job("scheduled", kind="steps", type="steps", payload=steps)
    for deed in ("copy-changed/", "change/"):
        form = form_of(operator.get(path(job, deed)), payload=program)
        assert operator.post(path(job, deed), form).status_code == 403
    assert Job.objects.count() == 1
    job.refresh_from_db()
    assert job.payload == steps


def test_bytes_are_copied_as_they_are(operator, alpha):
    job = make_job("failed", payload=None, payload_bytes=b"\x00\x01")
    page = operator.get(path(job, "copy-changed/"))
    assert "<textarea" not in text(page)
    assert operator.post(path(job, "copy-changed/"), form_of(page, priority="3")).status_code == 302
    assert (bytes(copy_of(job).payload_bytes), copy_of(job).priority) == (b"\x00\x01", 3)


# -- Before it starts ------------------------------------------------------------------------------


def test_a_job_that_has_not_started_is_moved_and_changed(operator, viewer, alpha):
    make_queue("slow")
    job = make_job("scheduled", kind="http", payload=SECRET)
    assert "/change/" in text(operator.get(path(job)))
    assert "/change/" not in text(viewer.get(path(job)))
    page = operator.get(path(job, "change/"))
    changed = form_of(page)["payload"].replace('"1"', '"2"')
    form = form_of(page, queue="slow", priority="-7", payload=changed)
    assert operator.post(path(job, "change/"), form).status_code == 302
    job.refresh_from_db()
    assert (job.queue, job.priority) == ("slow", -7)
    assert job.payload["headers"] == {"Authorization": "Bearer hush", "X": "2"}
    [entry] = AuditEntry.objects.all()
    assert entry.verb == "jobs.change"
    assert entry.before["queue"] == "default"


def test_what_is_left_as_it_is_is_no_change(operator, alpha):
    job = make_job(payload={"a": 1})
    form = form_of(operator.get(path(job, "change/")))
    response = operator.post(path(job, "change/"), form, follow=True)
    assert "Nothing was different." in text(response)
    assert not AuditEntry.objects.exists()
    # The number one is not `true`.
    form["payload"] = '{"a": true}'
    operator.post(path(job, "change/"), form)
    job.refresh_from_db()
    assert job.payload["a"] is True


def test_who_was_slower_sees_that_it_is_another_job_now(operator, alpha):
    job = make_job(payload={"a": 1})
    form = form_of(operator.get(path(job, "change/")), priority="5")
    Job.objects.filter(pk=job.pk).update(payload={"a": 2})
    response = operator.post(path(job, "change/"), form)
    assert response.status_code == 400
    job.refresh_from_db()
    assert (job.payload, job.priority) == ({"a": 2}, 0)


def test_what_has_started_is_changed_no_more(operator, alpha):
    job = make_job("running")
    assert "/change/" not in text(operator.get(path(job)))
    form = form_of(operator.get(path(job, "change/")), priority="5")
    response = operator.post(path(job, "change/"), form)
    assert response.status_code == 400
    assert "cannot change a job that is running" in text(response).lower()


def test_what_was_written_is_text(operator, alpha):
    nasty = '"<script>alert(1)</script>"'
    job = make_job(payload=nasty)
    form = form_of(operator.get(path(job, "change/")), payload=nasty * 2)
    for response in (
        operator.get(path(job, "change/")),
        operator.post(path(job, "change/"), form),
        operator.post(path(job, "change/"), {**form, "payload": nasty, "look": "1"}),
    ):
        assert "<script>alert" not in response.content.decode()
