"""Workflows: the list, one with its runs, one run node by node, and their buttons."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import Job, RunState, Workflow, WorkflowRun
from jobs.states import State
from tests.factories import WITH_A_PROGRAM
from tests.jobs.schedule_cases import begin_run, end_run, make_schedule

PATH = "/admin/alpha/workflows/"
HARMLESS = {"steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]}


def make(name: str = "the graph", **first) -> Workflow:
    """Two nodes, one after the other."""
    one, two = make_schedule(name=f"{name}: one", **first), make_schedule(name=f"{name}: two")
    nodes = [NewNode(one.pk), NewNode(two.pk, [one.pk])]
    return workflows.create(name, nodes, by="test", description="of the night")


def run_path(run: WorkflowRun, rest: str = "") -> str:
    return f"{PATH}{run.workflow_id}/runs/{run.pk}/{rest}"


def jobs_of(run: WorkflowRun) -> list[Job]:
    return [Job.objects.get(pk=UUID(node["job_id"])) for node in run.nodes]


def test_the_list_and_one_of_them(viewer, alpha, queries):
    assert b"No workflow yet" in viewer.get(PATH).content
    workflow = make()
    for n in range(3):
        make(f"other {n}")
        workflows.start_run(workflow.pk, by="anna")
    with queries() as asked:
        page = viewer.get(PATH).content.decode()
    assert len(asked) <= 15
    assert f'href="{PATH}{workflow.pk}/">the graph</a>' in page
    assert "ui-state-running" in page
    with queries() as asked:
        page = viewer.get(f"{PATH}{workflow.pk}/").content.decode()
    assert len(asked) <= 15
    assert "<ul><li>" in page
    assert 'data-graph="graph-workflow"' in page
    assert page.count("/runs/") == 3
    assert "/trigger/" not in page
    assert b"other 1" not in viewer.get(f"{PATH}?name=the").content
    assert viewer.get(f"{PATH}?colour=red").status_code == 400
    assert viewer.get(f"{PATH}{workflow.pk}/?limit=0").status_code == 400
    assert b'rel="next"' in viewer.get(f"{PATH}{workflow.pk}/?limit=2").content
    found = viewer.get("/admin/alpha/search/?s=the gra").content.decode()
    assert f"{PATH}{workflow.pk}/" in found


def test_a_run_is_shown_node_by_node(viewer, alpha, queries):
    run = workflows.start_run(make().pk, by="anna")
    first, _ = jobs_of(run)
    page = viewer.get(run_path(run)).content.decode()
    assert "0 of 2 nodes have succeeded" in page
    assert "ui-state-ready" in page
    assert "ui-state-blocked" in page
    begin_run(first)
    end_run(first, State.FAILED)
    Job.objects.filter(pk=first.pk).update(error="ValueError: no <b>ink</b>")
    with queries() as asked:
        page = viewer.get(run_path(run)).content.decode()
    assert len(asked) <= 15
    assert "ui-state-failed" in page
    assert "ui-state-skipped" in page
    assert "ValueError: no &lt;b&gt;ink&lt;/b&gt;" in page
    assert f"/admin/alpha/jobs/{first.pk}/" in page
    # No button for who only looks.
    assert "/rerun/" not in page
    Job.objects.all().delete()
    assert "gone" in viewer.get(run_path(run)).content.decode()


def test_trigger_cancel_and_run_again(operator, alpha):
    workflow = make()
    response = operator.post(f"{PATH}{workflow.pk}/trigger/", follow=True)
    assert b"the graph runs." in response.content
    run = WorkflowRun.objects.get()
    assert response.request["PATH_INFO"] == run_path(run)
    assert b"/rerun/" not in response.content
    first, _ = jobs_of(run)
    begin_run(first)
    end_run(first)
    assert operator.post(run_path(run, "cancel/"), {}).status_code == 400
    response = operator.post(run_path(run, "cancel/"), {"reason": "no ink"}, follow=True)
    assert b"No other node starts." in response.content
    run.refresh_from_db()
    assert (run.state, run.cancelled_by) == (RunState.CANCELLED, "user:operator-1")
    assert b"/cancel/" not in response.content
    response = operator.post(run_path(run, "cancel/"), {"reason": "again"}, follow=True)
    assert b"Cannot cancel a run" in response.content
    response = operator.post(run_path(run, "rerun/"), follow=True)
    again = WorkflowRun.objects.exclude(pk=run.pk).get()
    assert response.request["PATH_INFO"] == run_path(again)
    assert "1 of 2 nodes have succeeded" in response.content.decode()
    assert b"carried over" in response.content
    rows = AuditEntry.objects.order_by("at", "id").values_list("verb", "target_type", "reason")
    assert [*rows] == [
        ("workflows.trigger", "workflow", ""),
        ("workflows.cancel", "workflow", "no ink"),
        ("workflows.trigger", "workflow", ""),
    ]


def test_what_cannot_be_done_is_refused_with_the_reason(operator, alpha):
    workflow = make()
    run = workflows.start_run(workflow.pk, by="anna")
    response = operator.post(run_path(run, "rerun/"), follow=True)
    assert b"Cannot re-run what has not ended" in response.content
    [node, _] = workflows.nodes_of(workflow)
    schedules.delete(node.schedule_id, by="anna")
    response = operator.post(f"{PATH}{workflow.pk}/trigger/", follow=True)
    assert b"has been deleted" in response.content
    assert b"no run can start" in response.content
    assert WorkflowRun.objects.count() == 1
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("deed", ["trigger", "cancel", "rerun"])
def test_forged_forms_are_refused(viewer, operator, alpha, deed):
    workflow = make(kind="shell", type="s", payload={"argv": ["true"]})
    run = workflows.start_run(workflow.pk, by="anna")
    path = f"{PATH}{workflow.pk}/trigger/" if deed == "trigger" else run_path(run, f"{deed}/")
    assert viewer.post(path, {"reason": "x"}).status_code == 403
    if deed != "cancel":
        # Work that needs a grant is not started without it, and a look starts nothing.
        assert operator.post(path).status_code == 403
        assert operator.get(path).status_code == 405
    assert (Job.objects.count(), WorkflowRun.objects.count()) == (2, 1)


def test_those_of_another_cluster_are_missing(operator, alpha):
    with cluster_bound("beta"):
        run = workflows.start_run(make().pk, by="anna")
    mine = workflows.start_run(make().pk, by="anna")
    for path in (f"{PATH}{run.workflow_id}/", run_path(run), run_path(run, "cancel/")):
        assert operator.get(path).status_code == 404
    crossed = f"{PATH}{run.workflow_id}/runs/{mine.pk}/"
    assert operator.get(crossed).status_code == 404
    assert operator.post(f"{crossed}rerun/").status_code == 404
    assert operator.post(f"{PATH}{run.workflow_id}/trigger/").status_code == 404


def test_the_runs_of_a_deleted_workflow_stay(viewer, alpha):
    workflow = make()
    run = workflows.start_run(workflow.pk, by="anna")
    workflows.delete(workflow.pk, by="anna")
    assert viewer.get(f"{PATH}{workflow.pk}/").status_code == 404
    page = viewer.get(run_path(run))
    assert page.status_code == 200
    assert b"all runs" not in page.content


def test_a_run_with_other_input(operator, viewer, alpha):
    workflow = make(payload={"day": "today"})
    [first, second] = workflows.nodes_of(workflow)
    path = f"{PATH}{workflow.pk}/start/"
    page = operator.get(path).content.decode()
    assert "&quot;day&quot;: &quot;today&quot;" in page
    name = f"payload-{first.schedule_id}"
    for text in ("{", "[" * 600 + "]" * 600, '"\\u0000"', "[" * 100_000):
        response = operator.post(path, {name: text, f"payload-{second.schedule_id}": ""})
        assert response.status_code == 400, text[:20]
        assert b"ui-error" in response.content
        assert not WorkflowRun.objects.exists()
    response = operator.post(path, {name: '{"day": "never"}'}, follow=True)
    assert b"the graph runs." in response.content
    [run] = WorkflowRun.objects.all()
    assert [job.payload for job in jobs_of(run)] == [{"day": "never"}, None]
    entry = AuditEntry.objects.get()
    assert entry.after == {"run_id": str(run.pk), "other_payloads": [str(first.schedule_id)]}
    assert viewer.get(path).status_code == 403
    assert viewer.post(path, {}).status_code == 403
    assert b"/start/" not in viewer.get(f"{PATH}{workflow.pk}/").content


def test_input_that_starts_what_needs_a_grant_is_refused_without_it(operator, alpha):
    workflow = make(kind="steps", type="s", payload=HARMLESS)
    [first, _] = workflows.nodes_of(workflow)
    form = {f"payload-{first.schedule_id}": json.dumps(WITH_A_PROGRAM)}
    assert operator.post(f"{PATH}{workflow.pk}/start/", form).status_code == 403
    assert not WorkflowRun.objects.exists()
