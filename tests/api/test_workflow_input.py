"""{cluster}/workflows/{id}/trigger with payloads for the nodes of one run, and the command for it"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from jobs.engine import workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import Job, Workflow, WorkflowRun
from tests.api.conftest import Api
from tests.api.test_schedules import MISSING, errors
from tests.commands.conftest import run  # noqa: F401  fixture
from tests.jobs.schedule_cases import make_schedule

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture
def workflow() -> Workflow:
    return workflows.create("flow", [NewNode(make_schedule(payload=1).pk)], by="test")


def node_of(workflow: Workflow) -> str:
    [node] = workflows.nodes_of(workflow)
    return str(node.schedule_id)


def test_nodes_are_given_other_payloads_for_a_run(workflow: Workflow, api: Api) -> None:
    path = f"/jm-api/alpha/workflows/{workflow.pk}/trigger"
    body = {"payloads": {node_of(workflow): {"day": "never"}}}
    assert api.post(path, body).status_code == 202
    assert Job.objects.get().payload == {"day": "never"}
    assert api.post(path).status_code == 202
    assert sorted(map(str, Job.objects.values_list("payload", flat=True))) == [
        "1",
        "{'day': 'never'}",
    ]


@pytest.mark.parametrize("name", ["x", MISSING])
def test_what_is_no_node_is_refused(workflow: Workflow, api: Api, name: str) -> None:
    path = f"/jm-api/alpha/workflows/{workflow.pk}/trigger"
    assert errors(api.post(path, {"payloads": {name: 1}})) == [f"payloads.{name}"]
    assert errors(api.post(path, {"payloads": [1]})) == ["payloads"]
    assert not WorkflowRun.objects.exists()


def test_the_command_takes_them_as_an_object(
    workflow: Workflow,
    run: Callable[..., Any],  # noqa: F811
) -> None:
    given = json.dumps({node_of(workflow): {"day": "never"}})
    run("workflows", "trigger", "flow", "--payloads", given)
    assert Job.objects.get().payload == {"day": "never"}
    for wrong in ("{", "[1]"):
        assert run("workflows", "trigger", "flow", "--payloads", wrong).code == 2
    assert Job.objects.count() == 1
