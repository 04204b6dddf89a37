"""The form for a new job: checked as the API checks it, looked at first, enqueued."""

from __future__ import annotations

import html
import re

import pytest

from clusters.models import AuditEntry
from jobs.models import Job
from tests.factories import make_job, make_node, make_queue
from tests.refusals import the_refusal

PATH = "/admin/alpha/jobs/new/"
FORM = {"kind": "python", "type": "demo:echo", "queue": "default"}


def text(response) -> str:
    return html.unescape(response.content.decode())


def errors_of(response) -> dict[str, list[str]]:
    assert response.status_code == 400, text(response)
    return response.context["form"].errors


def test_the_form_is_there_for_whoever_may_enqueue(operator, viewer, alpha):
    make_queue("mail")
    page = text(operator.get(PATH))
    assert '<option value="mail">' in page
    assert viewer.get(PATH).status_code == 403
    assert viewer.post(PATH, FORM).status_code == 403
    assert 'href="/admin/alpha/jobs/new/"' in text(operator.get("/admin/alpha/jobs/?q="))
    assert 'href="/admin/alpha/jobs/new/"' not in text(viewer.get("/admin/alpha/jobs/?q="))


def test_a_job_is_enqueued_as_it_was_written(operator, alpha):
    make_queue("mail")
    response = operator.post(
        PATH,
        {
            **FORM,
            "queue": "mail",
            "payload": '{"to": "anna", "n": [1, 2.5, null]}',
            "priority": "-5",
            "run_at": "2034-01-31T12:00",
            "unique_key": "once",
            "tags": " eu, night ,",
        },
    )
    assert response.status_code == 302, text(response)
    job = Job.objects.get()
    assert response["Location"] == f"/admin/alpha/jobs/{job.pk}/"
    assert (job.type, job.queue, job.priority, job.unique_key) == ("demo:echo", "mail", -5, "once")
    assert job.payload == {"to": "anna", "n": [1, 2.5, None]}
    assert job.tags == ["eu", "night"]
    assert f"{job.run_at:%Y-%m-%dT%H:%M%z}" == "2034-01-31T12:00+0000"
    assert (job.state, job.enqueued_by) == ("scheduled", "user:operator-1")


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": ""}, "type"),
        ({"type": "no such name!"}, "type"),
        ({"queue": "nowhere"}, "queue"),
        ({"queue": "a\0b"}, "queue"),
        ({"payload": "{"}, "payload"),
        ({"payload": '{"a": 1, "a": 2}'}, "payload"),
        ({"payload": "NaN"}, "payload"),
        ({"payload": "[" * 5000}, "payload"),
        ({"payload": '"' + "x" * 500_001 + '"'}, "payload"),
        ({"priority": "101"}, "priority"),
        ({"priority": "x"}, "priority"),
        ({"run_at": "soon"}, "run_at"),
        ({"run_at": "2134-01-31T12:00"}, "run_at"),
        ({"tags": "x" * 61}, "tags"),
        ({"tags": ",".join("abcdefghijklmnopqrstu")}, "tags"),
        ({"unique_key": "x" * 201}, "unique_key"),
        ({"kind": "magic"}, "kind"),
        ({"kind": "http", "payload": '{"url": "ftp://a"}'}, "payload"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(operator, alpha, change, field):
    for look in ({}, {"look": "1"}):
        response = operator.post(PATH, {**FORM, **change, **look})
        assert [*errors_of(response)] == [field]
    assert not Job.objects.exists()


def test_a_look_stores_nothing_and_says_what_would_be(operator, alpha):
    make_queue("mail", is_paused=True)
    before = AuditEntry.objects.count()
    page = text(operator.post(PATH, {**FORM, "queue": "mail", "look": "1"}))
    assert "Nothing is enqueued yet." in page
    assert re.search(r'be <span class="ui-strong">ready</span> in queue <span[^>]*>mail<', page)
    assert "to run at once" in page
    assert "The queue is paused." in page
    assert "No live node takes from this queue." in page
    make_node()
    page = text(operator.post(PATH, {**FORM, "run_at": "2034-01-31T12:00", "look": "1"}))
    assert 'to run at <time datetime="2034-01-31T12:00:00.000Z"' in page
    assert "No live node" not in page
    assert not Job.objects.exists()
    assert AuditEntry.objects.count() == before
    # What was written is still there.
    assert 'value="2034-01-31T12:00"' in page


def test_a_look_finds_the_job_that_has_the_unique_key(operator, alpha):
    job = make_job(unique_key="once")
    form = {**FORM, "unique_key": "once"}
    assert f"/admin/alpha/jobs/{job.pk}/" in text(operator.post(PATH, {**form, "look": "1"}))
    response = operator.post(PATH, form, follow=True)
    assert "This job is there already." in text(response)
    assert Job.objects.count() == 1


def test_only_kinds_that_one_may_start_are_offered(operator, sign_in, alpha):
    assert 'value="shell"' not in text(operator.get(PATH))
    form = {"kind": "shell", "type": "", "queue": "default", "payload": '{"script": "true"}'}
    answer = operator.post(PATH, form)
    assert "kind" in errors_of(answer)
    the_refusal(answer, "jobs.enqueue", "user:operator-1", kind="shell")
    granted = sign_in("operator", "alpha", grants=("shell",))
    assert 'value="shell"' in text(granted.get(PATH))
    assert granted.post(PATH, form).status_code == 302
    assert Job.objects.get().kind == "shell"


def test_steps_need_the_grants_of_what_they_start(operator, alpha):
    steps = '{"steps": [{"name": "a", "kind": "shell", "payload": {"script": "true"}}]}'
    form = {"kind": "steps", "queue": "default", "payload": steps}
    assert operator.post(PATH, form).status_code == 403
    words = (
        '{"create_queues": true, "steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]}'
    )
    assert "payload" in errors_of(operator.post(PATH, {**form, "payload": words}))
    assert not Job.objects.exists()


def test_it_asks_at_most_fifteen_times(operator, alpha, queries):
    for _ in range(3):
        make_queue()
        make_job()
    with queries() as asked:
        assert operator.get(PATH).status_code == 200
    assert len(asked) <= 15, "\n".join(asked)


def test_what_was_written_is_text(operator, alpha):
    nasty = "<script>alert(1)</script>"
    page = operator.post(PATH, {**FORM, "type": nasty, "payload": nasty}).content.decode()
    assert nasty not in page
    assert "&lt;script&gt;alert(1)" in page
