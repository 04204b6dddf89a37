"""Workflows: graphs of schedules' work, and how their runs go on and end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from jobs.engine import schedules, workflows
from jobs.engine.workflow_rows import MAX_NODES, NewNode
from jobs.errors import (
    DependencyCycle,
    InvalidTransition,
    InvalidWorkflow,
    OutdatedSchedule,
    WorkflowInUse,
    WorkflowRunNotFound,
)
from jobs.models import Job, RunState, Schedule, Workflow, WorkflowNode, WorkflowRun
from jobs.models.runs import node_states
from jobs.states import State
from tests.jobs.schedule_cases import POLICY, USING, begin_run, end_run, make_schedule

Names = dict[str, Schedule]
DIAMOND = {"a": "", "b": "a", "c": "a", "d": "bc"}


def make(graph: dict[str, str], **on_failure: str) -> tuple[Workflow, Names]:
    """A workflow of schedules with these names, each after those of the letters."""
    named = {name: make_schedule(name=name, is_enabled=False) for name in graph}
    nodes = [
        NewNode(
            named[name].pk,
            [named[before].pk for before in after],
            on_failure.get(name, "stop"),
        )
        for name, after in graph.items()
    ]
    return workflows.create("the workflow", nodes, by="test"), named


def start(workflow: Workflow) -> WorkflowRun:
    return workflows.start_run(workflow.pk, by="test")


def states(run: WorkflowRun) -> dict[str, str]:
    found = node_states("cluster-alpha", [run])
    return {node["name"]: str(found[UUID(node["job_id"])]) for node in run.nodes}


def job_of(run: WorkflowRun, name: str) -> Job:
    [pk] = [node["job_id"] for node in run.nodes if node["name"] == name]
    return Job.objects.get(pk=pk)


def end(run: WorkflowRun, name: str, state: str = State.SUCCEEDED) -> None:
    end_run(job_of(run, name), state)


def fresh(run: WorkflowRun) -> WorkflowRun:
    return WorkflowRun.objects.get(pk=run.pk)


def test_a_diamond_runs_each_node_once_after_all_before_it(alpha: object) -> None:
    workflow, named = make(DIAMOND)
    run = start(workflow)
    assert states(run) == {"a": "ready", "b": "blocked", "c": "blocked", "d": "blocked"}
    end(run, "a")
    assert states(run) == {"a": "succeeded", "b": "ready", "c": "ready", "d": "blocked"}
    end(run, "b")
    assert states(run)["d"] == "blocked"
    end(run, "c")
    assert states(run)["d"] == "ready"
    assert fresh(run).state == RunState.RUNNING
    end(run, "d")
    done = fresh(run)
    assert (done.state, done.has_failures) == (RunState.SUCCEEDED, False)
    assert done.finished_at is not None
    assert Job.objects.count() == 4
    job = job_of(run, "d")
    assert (job.workflow_run_id, job.schedule_id) == (run.pk, named["d"].pk)


def test_a_node_that_says_stop_ends_the_run_and_what_runs_goes_on_to_its_end(
    alpha: object,
) -> None:
    workflow, _ = make(DIAMOND)
    run = start(workflow)
    end(run, "a")
    begin_run(job_of(run, "c"))
    end(run, "b", State.FAILED)
    assert states(run) == {"a": "succeeded", "b": "failed", "c": "running", "d": "skipped"}
    assert fresh(run).state == RunState.RUNNING
    end(run, "c")
    done = fresh(run)
    assert (done.state, done.has_failures) == (RunState.FAILED, True)
    assert states(run)["d"] == "skipped"


def test_a_node_that_says_stop_stops_branches_that_do_not_wait_for_it(alpha: object) -> None:
    workflow, _ = make({"a": "", "b": "", "c": "b"})
    run = start(workflow)
    end(run, "a", State.FAILED)
    assert states(run) == {"a": "failed", "b": "skipped", "c": "skipped"}
    assert fresh(run).state == RunState.FAILED


@pytest.mark.parametrize("how", [State.FAILED, State.CANCELLED])
def test_a_node_that_says_continue_lets_those_after_it_go_on(how: str, alpha: object) -> None:
    workflow, _ = make(DIAMOND, b="continue")
    run = start(workflow)
    end(run, "a")
    end(run, "b", how)
    assert states(run) == {"a": "succeeded", "b": how, "c": "ready", "d": "blocked"}
    end(run, "c")
    assert states(run)["d"] == "ready"
    end(run, "d")
    done = fresh(run)
    assert (done.state, done.has_failures) == (RunState.SUCCEEDED, True)


def test_a_skipped_node_counts_as_done(alpha: object) -> None:
    workflow, named = make(DIAMOND)
    run = start(workflow)
    workflows.skip_node(run.pk, named["b"].pk)
    assert states(run)["b"] == "skipped"
    end(run, "a")
    assert states(run) == {"a": "succeeded", "b": "skipped", "c": "ready", "d": "blocked"}
    end(run, "c")
    assert states(run)["d"] == "ready"
    with pytest.raises(InvalidTransition):
        workflows.skip_node(run.pk, named["a"].pk)
    workflows.skip_node(run.pk, named["d"].pk)
    done = fresh(run)
    assert (done.state, done.has_failures) == (RunState.SUCCEEDED, False)
    with pytest.raises(WorkflowRunNotFound):
        workflows.skip_node(run.pk, make_schedule().pk)


def test_a_run_whose_nodes_are_all_skipped_ends(alpha: object) -> None:
    workflow, named = make({"a": "", "b": "a"})
    run = start(workflow)
    for name in "ba":
        workflows.skip_node(run.pk, named[name].pk)
    assert fresh(run).state == RunState.SUCCEEDED


def test_a_cancelled_run_starts_nothing_more_and_ends_with_what_runs(alpha: object) -> None:
    workflow, _ = make({"a": "", "b": "a", "c": ""})
    run = start(workflow)
    begin_run(job_of(run, "a"))
    asked = workflows.cancel_run(run.pk, by="somebody")
    assert (asked.state, asked.cancelled_by) == (RunState.RUNNING, "somebody")
    assert (states(run)["a"], states(run)["c"]) == ("running", "cancelled")
    assert job_of(run, "a").cancel_requested_at is not None
    workflows.cancel_run(run.pk, by="again")
    end(run, "a", State.CANCELLED)
    assert fresh(run).state == RunState.CANCELLED
    assert states(run)["b"] in ("cancelled", "skipped")
    with pytest.raises(InvalidTransition):
        workflows.cancel_run(run.pk, by="late")


def test_a_run_that_is_taken_up_again_carries_over_what_succeeded(alpha: object) -> None:
    workflow, _ = make(DIAMOND)
    first = start(workflow)
    with pytest.raises(InvalidTransition):
        workflows.rerun(first.pk, by="test")
    end(first, "a")
    end(first, "b")
    end(first, "c", State.FAILED)
    assert fresh(first).state == RunState.FAILED
    second = workflows.rerun(first.pk, by="test")
    assert states(second) == {"a": "succeeded", "b": "succeeded", "c": "ready", "d": "blocked"}
    assert (second.rerun_of, second.trigger) == (first.pk, "retry")
    end(second, "c", State.FAILED)
    # What was carried over was done, whatever has become of its job since.
    Job.objects.filter(pk=job_of(first, "a").pk).update(state=State.FAILED, reason="error")
    third = workflows.rerun(second.pk, by="test")
    assert [node["is_carried_over"] for node in third.nodes] == [True, True, False, False]
    end(third, "c")
    end(third, "d")
    done = fresh(third)
    assert (done.state, done.has_failures) == (RunState.SUCCEEDED, False)
    with pytest.raises(InvalidTransition):
        workflows.rerun(third.pk, by="test")
    assert fresh(first).state == RunState.FAILED


def test_a_deleted_schedule_keeps_a_run_from_starting(alpha: object) -> None:
    workflow, named = make({"a": "", "b": "a"})
    schedules.delete(named["b"].pk, by="test")
    with pytest.raises(InvalidTransition, match="'b'"):
        start(workflow)
    assert not WorkflowRun.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("graph", "field"),
    [
        ({}, "nodes"),
        ({"a": "a"}, "nodes"),
        ({"a": "c", "b": "a", "c": "b"}, "nodes"),
    ],
)
def test_what_is_no_graph_is_refused(graph: dict[str, str], field: str, alpha: object) -> None:
    with pytest.raises((InvalidWorkflow, DependencyCycle)) as caught:
        make(graph)
    assert caught.value.field == field
    assert not Workflow.objects.exists()
    assert not WorkflowNode.objects.exists()


def test_what_nodes_may_not_be(alpha: object) -> None:
    a, b = make_schedule(), make_schedule()
    workflow = workflows.create("w", [NewNode(a.pk)], by="test")
    starting = make_schedule(workflow_id=workflow.pk)
    cases: list[tuple[list[Any], str]] = [
        ([NewNode(a.pk), NewNode(a.pk)], "nodes[1].schedule_id"),
        ([NewNode(a.pk, [b.pk])], "nodes[0].depends_on"),
        ([NewNode(a.pk), NewNode(b.pk, [a.pk, a.pk])], "nodes[1].depends_on"),
        ([NewNode(a.pk, on_failure="x")], "nodes[0].on_failure"),
        ([NewNode(starting.pk)], "nodes[0].schedule_id"),
        ([NewNode(a.pk)] * (MAX_NODES + 1), "nodes"),
    ]
    for nodes, field in cases:
        with pytest.raises(InvalidWorkflow) as caught:
            workflows.change(workflow.pk, by="test", nodes=nodes)
        assert caught.value.field == field
    assert [node.schedule_id for node in workflows.nodes_of(workflow)] == [a.pk]
    with pytest.raises(WorkflowInUse):
        workflows.delete(workflow.pk, by="test")
    with pytest.raises(OutdatedSchedule):
        workflows.change(workflow.pk, by="test", name="x", versions=[7])


def test_a_change_leaves_runs_that_go_on_alone(alpha: object) -> None:
    workflow, named = make({"a": "", "b": "a"})
    run = start(workflow)
    workflows.change(workflow.pk, by="test", nodes=[NewNode(named["a"].pk)])
    end(run, "a")
    end(run, "b")
    assert fresh(run).state == RunState.SUCCEEDED
    assert len(start(workflow).nodes) == 1


def test_runs_that_ended_long_ago_are_forgotten(alpha: object) -> None:
    workflow, _ = make({"a": ""})
    old, recent, going = (start(workflow) for _ in range(3))
    for run in (old, recent):
        end(run, "a")
    long_ago = timezone.now() - timedelta(seconds=POLICY.retain_rollup_seconds + 60)
    WorkflowRun.objects.filter(pk=old.pk).update(finished_at=long_ago)
    assert workflows.forget_runs(USING, POLICY) == 1
    assert workflows.forget_runs(USING, POLICY) == 0
    assert set(WorkflowRun.objects.values_list("pk", flat=True)) == {recent.pk, going.pk}
