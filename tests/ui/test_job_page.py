"""One job: the reason in words, its attempts, its log, and what may be done about it."""

from __future__ import annotations

import html
import re
from uuid import uuid4

import pytest
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.engine import workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import (
    Job,
    JobDependency,
    LogLine,
    Needs,
    OnParentFailure,
    Schedule,
    Step,
    Workflow,
)
from jobs.states import State
from tests.factories import (
    make_attempt,
    make_job,
    make_node,
    make_queue,
    make_step_beside_a_program,
)
from tests.jobs.schedule_cases import make_schedule


def path(job: Job, rest: str = "") -> str:
    return f"/admin/alpha/jobs/{job.pk}/{rest}"


def test_it_says_why_it_waits(viewer, alpha):
    make_queue("mail", is_paused=True, pause_reason="the server moves")
    page = viewer.get(path(make_job(queue="mail"))).content.decode()
    assert "The queue mail was paused by test" in page
    assert "the server moves" in page


def test_it_leads_to_its_schedule_and_to_its_run_of_a_workflow(viewer, alpha):
    schedule = make_schedule(name="nightly")
    workflow = workflows.create("the graph", [NewNode(schedule.pk)], by="test")
    run = workflows.start_run(workflow.pk, by="test")
    [job] = Job.objects.all()
    page = viewer.get(path(job)).content.decode()
    assert f'<a href="/admin/alpha/schedules/{schedule.pk}/">nightly</a>' in page
    assert f'<a href="/admin/alpha/workflows/{workflow.pk}/">the graph</a>' in page
    assert f'<a href="/admin/alpha/workflows/{workflow.pk}/runs/{run.pk}/">run</a>' in page
    Schedule.objects.update(deleted_at=timezone.now(), next_due_at=None, next_run_at=None)
    Workflow.objects.update(deleted_at=timezone.now())
    page = viewer.get(path(job)).content.decode()
    assert f"/admin/alpha/schedules/{schedule.pk}/" not in page
    assert f'/admin/alpha/workflows/{workflow.pk}/"' not in page
    assert page.count('<span class="ui-tag">deleted</span>') == 2
    # Retention may have been there before.
    job.schedule_id = job.workflow_run_id = uuid4()
    job.save()
    assert viewer.get(path(job)).status_code == 200


def test_secrets_of_a_payload_are_masked(viewer, alpha):
    headers = {"Authorization": "Bearer hush", "Accept": "text/plain"}
    job = make_job(kind="http", payload={"url": "https://a.example", "headers": headers})
    page = viewer.get(path(job)).content.decode()
    assert "hush" not in page
    assert "text/plain" in page


@pytest.mark.parametrize("state", State.values)
def test_every_state_has_a_page(viewer, alpha, state):
    response = viewer.get(path(make_job(state)))
    assert response.status_code == 200
    assert f"ui-state-{state}".encode() in response.content


def test_it_shows_attempts_payload_result_error_and_log(viewer, alpha):
    job = make_job(
        "failed",
        payload={"to": "anna", "deep": {"er": [1, 2]}},
        result={"sent": False},
        error="Traceback …\nSMTPError: \x1b[31mno\x1b[0m <b>route</b>",
        metadata={"customer": 7},
    )
    make_attempt(job)
    LogLine.objects.create(
        job=job, fence=1, stream="stdout", message="hello \x1b[1mbold\x1b[0m <i>"
    )
    page = viewer.get(path(job)).content.decode()
    assert "&quot;deep&quot;: {" in page
    assert "&quot;sent&quot;: false" in page
    assert "SMTPError: no &lt;b&gt;route&lt;/b&gt;" in page
    assert "hello bold &lt;i&gt;" in page
    assert "customer: 7" in page
    assert "RuntimeError: as the test wanted" in page
    assert "\x1b" not in page


def test_bytes_and_long_payloads_are_cut(viewer, alpha):
    assert b"in Base64" in viewer.get(path(make_job(payload_bytes=b"\x00" * 5000))).content
    page = viewer.get(path(make_job(payload="x" * 100_000))).content
    assert b"more characters, in the API" in page
    assert len(page) < 80_000


def test_parents_and_children_are_linked(viewer, alpha):
    parent, child = make_job(type="the:parent"), make_job("blocked", type="the:child")
    JobDependency.objects.create(
        parent_id=parent.pk,
        child_id=child.pk,
        needs=Needs.ALL,
        on_failure=OnParentFailure.FAIL,
    )
    assert str(parent.pk) in viewer.get(path(child)).content.decode()
    assert "the:child" in viewer.get(path(parent)).content.decode()


def test_many_parents_hide_no_child(viewer, alpha):
    job, child = make_job("blocked"), make_job("blocked", type="the:child")
    parents = [make_job() for _ in range(45)]
    JobDependency.objects.bulk_create(
        JobDependency(parent_id=one, child_id=other, needs=Needs.ALL, on_failure="fail")
        for one, other in [*((parent.pk, job.pk) for parent in parents), (job.pk, child.pk)]
    )
    shown = viewer.get(path(job)).content.decode()
    assert "the:child" in shown
    assert sum(f"/{parent.pk}/" in shown for parent in parents) == 20


@pytest.mark.parametrize("state", ["ready", "running", "failed", "blocked", "scheduled"])
def test_it_asks_at_most_fifteen_times(operator, alpha, queries, state):
    make_queue("mail", max_concurrency=5, rate_limit=3)
    job = make_job(state, queue="mail")
    if state == "blocked":
        parent = make_job()
        JobDependency.objects.create(
            parent_id=parent.pk, child_id=job.pk, needs=Needs.ALL, on_failure=OnParentFailure.FAIL
        )
    make_node()
    for _ in range(3):
        make_attempt(job, node_id=make_node().pk)
    with queries() as asked:
        assert operator.get(path(job)).status_code == 200
    assert len(asked) <= 15, "\n".join(asked)


def test_a_copy_that_is_made_of_steps_is_asked_for_as_seldom(operator, alpha, queries):
    step = make_step_beside_a_program()
    top = Job.objects.get(pk=Step.objects.get(job_id=step.pk).parent_id)
    Job.objects.filter(pk=top.pk).update(copy_of=make_job().pk, has_dependants=True)
    make_attempt(top)
    with queries() as asked:
        assert operator.get(path(top)).status_code == 200
    assert len(asked) <= 15, "\n".join(asked)


def test_an_unknown_job_is_missing(viewer, alpha):
    assert viewer.get("/admin/alpha/jobs/00000000-0000-7000-8000-000000000000/").status_code == 404
    assert viewer.get("/admin/alpha/jobs/nonsense/").status_code == 404


# -- The log follows -------------------------------------------------------------------------------


def test_the_log_goes_on_after_the_last_line_shown(viewer, alpha):
    job = make_job("running")
    lines = [
        LogLine.objects.create(job=job, fence=1, stream="log", message=f"line {n}")
        for n in range(250)
    ]
    page = viewer.get(path(job)).content.decode()
    assert "line 249" in page
    assert "line 49<" not in page
    assert f"log/?after={lines[-1].pk}" in page
    assert viewer.get(path(job, f"log/?after={lines[-1].pk}")).status_code == 204
    new = LogLine.objects.create(job=job, fence=1, stream="log", message="one more")
    answer = viewer.get(path(job, f"log/?after={lines[-1].pk}")).content.decode()
    assert "one more" in answer
    assert f"after={new.pk}" in answer
    assert "line 249" not in answer


def test_the_log_of_a_finished_job_is_not_asked_for_any_more(viewer, alpha):
    job = make_job("succeeded")
    LogLine.objects.create(job=job, fence=1, stream="log", message="the end")
    assert 'hx-trigger="every' not in viewer.get(path(job)).content.decode()
    answer = viewer.get(path(job, "log/?after=0")).content.decode()
    assert "the end" in answer
    assert "hx-get" not in answer


@pytest.mark.parametrize("after", ["x", "9" * 30, "1.5"])
def test_a_line_that_is_no_number_is_refused(viewer, alpha, after):
    response = viewer.get(path(make_job(), f"log/?after={after}"))
    assert response.status_code == 400
    assert b"after" in response.content


# -- Deeds -----------------------------------------------------------------------------------------


def test_retry_makes_it_ready_and_says_so(operator, alpha):
    job = make_job("failed")
    response = operator.post(path(job, "retry/"), follow=True)
    assert b"ready again" in response.content
    job.refresh_from_db()
    assert job.state == "ready"
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.before, entry.after) == (
        "jobs.retry",
        {"state": "failed"},
        {"state": "ready"},
    )
    assert b"jobs.retry" in operator.get(path(job)).content


def test_a_deed_that_the_state_does_not_allow_says_why_and_leaves_no_trace(operator, alpha):
    job = make_job("succeeded")
    response = operator.post(path(job, "retry/"), follow=True)
    page = response.content.decode()
    assert "Cannot retry a job that is succeeded" in page
    assert re.search(r"request [0-9a-f-]{36}", page)
    assert not AuditEntry.objects.exists()


def test_cancel_and_delete_want_a_reason(admin, alpha):
    ready, done = make_job(), make_job("succeeded")
    for job, deed in ((ready, "cancel/"), (done, "delete/")):
        assert admin.get(path(job, deed)).status_code == 200
        for reason in ("", "   ", "x" * 501):
            response = admin.post(path(job, deed), {"reason": reason})
            assert response.status_code == 400
            assert b"errorlist" in response.content
        assert Job.objects.filter(pk=job.pk, state=job.state).exists()
        assert admin.post(path(job, deed), {"reason": "no more"}).status_code == 302
    assert not Job.objects.filter(pk=done.pk).exists()
    assert Job.objects.get(pk=ready.pk).state == "cancelled"
    assert {entry.reason for entry in AuditEntry.objects.all()} == {"no more"}


def test_in_production_the_cluster_must_be_typed_to_delete(admin, alpha, monkeypatch):
    from dataclasses import replace

    from django.conf import settings

    clusters = {**settings.CLUSTERS, "alpha": replace(alpha, environment="production")}
    monkeypatch.setattr(settings, "CLUSTERS", clusters)
    job = make_job("succeeded")
    for typed in ("", "beta"):
        form = {"reason": "no more", "cluster": typed}
        assert admin.post(path(job, "delete/"), form).status_code == 400
    assert Job.objects.filter(pk=job.pk).exists()
    form = {"reason": "no more", "cluster": "alpha"}
    assert admin.post(path(job, "delete/"), form).status_code == 302


def test_a_running_job_is_asked_to_stop(operator, alpha):
    job = make_job("running")
    assert b"asked to stop" in operator.get(path(job, "cancel/")).content
    operator.post(path(job, "cancel/"), {"reason": "wrong data"})
    job.refresh_from_db()
    assert job.cancel_requested_at is not None
    page = operator.get(path(job)).content
    assert b"It was asked to stop" in page
    assert b"/cancel/" not in page


# -- Steps, time line, log --------------------------------------------------------------------------


def text(response) -> str:
    return html.unescape(response.content.decode())


def test_steps_are_a_graph_and_a_nested_list(viewer, alpha):
    step = make_step_beside_a_program()
    above = Step.objects.get(job_id=step.pk).parent_id
    top = Job.objects.get(pk=Step.objects.get(job_id=above).parent_id)
    page = text(viewer.get(path(top)))
    assert "<h2>Steps</h2>" in page
    assert page.count(f'href="/admin/alpha/jobs/{step.pk}/"') == 1
    assert "graph.js" in page
    assert "graph.js" not in text(viewer.get(path(make_job())))


def test_what_follows_a_group_comes_after_all_of_it(viewer, alpha):
    top = make_job("waiting", kind="steps", type="steps", has_dependants=True)
    made: dict[str, Job] = {}

    def step(name: str, parent: Job, index: int, kind: str = "python") -> Job:
        made[name] = make_job("ready", kind=kind, type=name, has_dependants=kind == "group")
        Step.objects.create(
            job=made[name],
            parent=parent,
            root=top,
            key=str(index),
            name=name,
            position=1,
            index=index,
        )
        return made[name]

    step("first", top, 0)
    group = step("fan", top, 1, "group")
    step("left", group, 0)
    step("right", group, 1)
    step("last", top, 2)
    graph = viewer.get(path(top)).context["graph"]["drawn"]
    names = {node["key"]: node["label"] for node in graph["nodes"]}
    edges = {(names[edge["from"]], names[edge["to"]]) for edge in graph["edges"]}
    assert edges == {
        ("first", "fan"),
        ("fan", "left"),
        ("fan", "right"),
        ("left", "last"),
        ("right", "last"),
    }


def test_of_steps_what_did_not_succeed_is_retried(sign_in, alpha):
    step = make_step_beside_a_program()
    parent = Job.objects.get(pk=Step.objects.get(job_id=step.pk).parent_id)
    client = sign_in("operator", "alpha", grants=("shell",))
    assert "Retry what did not succeed" in text(client.get(path(parent)))
    assert client.post(path(parent, "retry/")).status_code == 302


def test_the_time_line_goes_back_to_who_enqueued_it(operator, alpha):
    AuditEntry.objects.create(
        actor="user:anna", verb="jobs.enqueue", target_type="job", target_id="", request_id="r"
    )
    parent, job = make_job(type="the:parent"), make_job("blocked", enqueued_by="key:shop")
    JobDependency.objects.create(
        parent_id=parent.pk, child_id=job.pk, needs=Needs.ALL, on_failure=OnParentFailure.FAIL
    )
    AuditEntry.objects.create(
        actor="key:shop",
        verb="jobs.enqueue",
        target_type="job",
        target_id=str(job.pk),
        request_id="request-4711",
    )
    page = text(operator.get(path(job)))
    line = page[page.index("Time line") :]
    assert "by key:shop, request" in line
    assert "request-4711" in line
    assert f'waited for <a href="/admin/alpha/jobs/{parent.pk}/">the:parent</a>' in line


def test_an_attempt_says_where_in_ones_own_code_it_failed(viewer, alpha):
    job = make_job("failed")
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/srv/shop/reports.py", line 3, in build\n    call()\n'
        '  File "/usr/lib/python3.11/site-packages/x/y.py", line 3, in call\n    raise\n'
        "RuntimeError: no paper\n"
    )
    make_attempt(job, error=trace, effect_unknown=True)
    page = text(viewer.get(path(job)))
    assert "in shop/reports.py:build" in page
    assert "its effect is unknown" in page


def make_log(job: Job, *messages: str) -> list[LogLine]:
    return [
        LogLine.objects.create(job=job, fence=1, stream="log", message=message)
        for message in messages
    ]


def test_the_log_is_searched_from_its_end(viewer, alpha, monkeypatch):
    monkeypatch.setattr("jobs.step_logs.PAGE", 50)
    monkeypatch.setattr("jobs.step_logs.SEEK_SECONDS", 0.0)
    job = make_job("running")
    make_log(job, *(f"line {n} {'odd' if n % 50 == 3 else 'even'}" for n in range(120)))
    page = text(viewer.get(path(job, "?find=ODD")))
    assert "line 103 odd" in page
    assert "line 53 odd" not in page
    assert "even</span>" not in page
    assert 'hx-trigger="every 2s"' not in page
    page = text(viewer.get(path(job) + re.search(r'href="[^"]*(\?find=[^"#]+)', page)[1]))
    assert "line 53 odd" in page
    page = text(viewer.get(path(job) + re.search(r'href="[^"]*(\?find=[^"#]+)', page)[1]))
    assert "line 3 odd" in page
    assert "Go on with older ones" not in page
    assert "No line holds it" in text(viewer.get(path(make_job("succeeded"), "?find=x")))


@pytest.mark.parametrize("query", ["find=%00", "find=x&before=y", "find=x&before=" + "9" * 30])
def test_a_search_that_makes_no_sense_is_harmless(viewer, alpha, query):
    assert viewer.get(path(make_job(), f"?{query}")).status_code == 200


def test_the_log_is_there_as_a_file(viewer, alpha, monkeypatch):
    monkeypatch.setattr("ui.pages.job_log._PAGE", 3)
    job = make_job("succeeded")
    lines = make_log(job, *(f"line {n}\x1b[31m" for n in range(8)))
    make_log(make_job(), "of another")
    response = viewer.get(path(job, "log.txt"))
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["Content-Disposition"] == f'attachment; filename="alpha-{job.pk}.log"'
    assert response.of_a_caller == 20
    whole = b"".join(response.streaming_content).decode()
    assert [line.split(" ", 2)[2] for line in whole.splitlines()] == [f"line {n}" for n in range(8)]
    assert whole.startswith(f"{lines[0].logged_at:%Y-%m-%dT%H:%M:%S}")
    from ui.pages.job_log import text_pieces

    cut = b"".join(text_pieces("cluster-alpha", job.pk, False, limit=4)).decode()
    assert cut.count("line ") == 4
    assert "more than 4 lines" in cut


def test_the_log_of_steps_is_that_of_all_of_them(viewer, alpha):
    step = make_step_beside_a_program()
    parent = Job.objects.get(pk=Step.objects.get(job_id=step.pk).parent_id)
    make_log(step, "said by the step")
    assert "said by the step" in text(viewer.get(path(parent)))
    assert b"[a] said by the step" in b"".join(
        viewer.get(path(parent, "log.txt")).streaming_content
    )
