"""Runs of workflows with other payloads than those of their schedules: made, taken up again, refused."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from clusters.acting import acting_as
from jobs.engine import schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.errors import InvalidTransition, InvalidWorkflow, KindNotGranted
from jobs.models import Job, Workflow, WorkflowRun
from jobs.states import State
from tests.deeds.test_domain import as_a
from tests.factories import WITH_A_PROGRAM
from tests.jobs.schedule_cases import begin_run, end_run, make_schedule

HARMLESS = {"steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]}
pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture
def two() -> Workflow:
    first = make_schedule(payload={"day": "today"})
    second = make_schedule(payload={"day": "tomorrow"})
    return workflows.create("two", [NewNode(first.pk), NewNode(second.pk, [first.pk])], by="test")


def ids(workflow: Workflow) -> list[UUID]:
    return [node.schedule_id for node in workflows.nodes_of(workflow)]


def jobs_of(run: WorkflowRun) -> list[Job]:
    return [Job.objects.get(pk=UUID(node["job_id"])) for node in run.nodes]


def test_a_payload_is_for_this_run_and_the_others_have_their_own(two):
    first, second = ids(two)
    run = workflows.start_run(two.pk, by="anna", payloads={second: {"day": "never"}})
    assert [job.payload for job in jobs_of(run)] == [{"day": "today"}, {"day": "never"}]
    assert schedules.get(second).payload == {"day": "tomorrow"}
    again = workflows.start_run(two.pk, by="anna")
    assert [job.payload for job in jobs_of(again)] == [{"day": "today"}, {"day": "tomorrow"}]
    assert first


def test_a_run_that_is_taken_up_again_has_the_same_input(two):
    _, second = ids(two)
    run = workflows.start_run(two.pk, by="anna", payloads={second: {"day": "never"}})
    for job, state in zip(jobs_of(run), (State.SUCCEEDED, State.FAILED), strict=True):
        begin_run(job)
        end_run(job, state)
    schedules.change(second, {"payload": {"day": "another"}}, by="anna")
    again = workflows.rerun(run.pk, by="anna")
    assert jobs_of(again)[1].payload == {"day": "never"}
    once_more = jobs_of(again)[1]
    begin_run(once_more)
    end_run(once_more, State.FAILED)
    assert jobs_of(workflows.rerun(again.pk, by="anna"))[1].payload == {"day": "never"}
    Job.objects.filter(pk=once_more.pk).delete()
    with pytest.raises(InvalidTransition, match="is not kept any more"):
        workflows.rerun(again.pk, by="anna")


def test_what_is_no_node_or_was_sealed_by_somebody_else_is_refused(two):
    stranger = uuid4()
    with pytest.raises(InvalidWorkflow) as error:
        workflows.start_run(two.pk, by="anna", payloads={stranger: 1})
    assert error.value.field == f"payloads.{stranger}"
    first, _ = ids(two)
    with pytest.raises(InvalidWorkflow) as error:
        workflows.start_run(two.pk, by="anna", payloads={first: {"$sealed": "x"}})
    assert error.value.field == f"payloads.{first}.$sealed"
    assert not WorkflowRun.objects.exists()


def test_what_the_input_starts_counts_for_whoever_starts_it_or_takes_it_up():
    node = make_schedule(kind="steps", type="s", payload=HARMLESS)
    workflow = workflows.create("steps", [NewNode(node.pk)], by="test")
    given = {node.pk: WITH_A_PROGRAM}
    assert "shell" not in workflows.kinds_of(workflow.pk)
    assert "shell" in workflows.kinds_started_with(workflow.pk, given)
    run = workflows.start_run(workflow.pk, by="anna", payloads=given)
    assert "shell" in workflows.kinds_of_run(run)
    workflows.cancel_run(run.pk, by="anna")
    with acting_as(as_a("admin")):
        with pytest.raises(KindNotGranted):
            workflows.start_run(workflow.pk, by="x", payloads=given)
        with pytest.raises(KindNotGranted):
            workflows.rerun(run.pk, by="x")
    assert WorkflowRun.objects.count() == 1
