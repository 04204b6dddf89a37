"""Workflows and their runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.models import Job, Schedule, Workflow, WorkflowRun
from tests.dialects.scheduler.conftest import GUID, MISSING, Caller, check_problem
from tests.jobs.schedule_cases import end_run

BAD = "validation_failed"


@pytest.fixture
def jobs(api: Caller) -> list[str]:
    return [api.make(name=name)["id"] for name in ("one", "two", "three")]


def graph(jobs: list[str], **members: Any) -> dict[str, Any]:
    one, two, three = jobs
    nodes = [
        {"jobId": one, "dependsOn": [], "onFailure": "Stop"},
        {"jobId": two, "dependsOn": [one], "onFailure": "continue"},
        {"jobId": three, "dependsOn": [two]},
    ]
    return {"name": "chain", "jobs": nodes, **members}


def make(api: Caller, jobs: list[str], **members: Any) -> str:
    response = api.post("workflows", graph(jobs, **members))
    assert response.status_code == 200, response.content
    guid: str = response.json()
    return guid


def test_a_workflow_is_made_and_answers_with_its_bare_id(api: Caller, jobs: list[str]) -> None:
    guid = make(api, jobs, description="d")
    assert GUID.match(guid)
    shown = api.get(f"workflows/{guid}")
    assert shown["ETag"] == '"1"'
    body = shown.json()
    assert [(n["jobName"], n["dependsOn"], n["onFailure"]) for n in body["jobs"]] == [
        ("one", [], "Stop"),
        ("two", [jobs[0]], "Continue"),
        ("three", [jobs[1]], "Stop"),
    ]
    assert (body["description"], body["schedule"]) == ("d", None)
    assert api.get("workflows").json()["items"] == [body]


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": None}, BAD, "name"),
        ({"name": " "}, BAD, "name"),
        ({"name": 7}, BAD, "name"),
        ({"jobs": None}, BAD, "jobs"),
        ({"jobs": []}, BAD, "jobs"),
        ({"jobs": {}}, BAD, "jobs"),
        ({"jobs": ["x"]}, BAD, "jobs[0]"),
        ({"jobs": [{}]}, BAD, "jobs[0].jobId"),
        ({"jobs": [{"jobId": "x"}]}, BAD, "jobs[0].jobId"),
        ({"jobs": [{"jobId": MISSING}]}, BAD, "jobs[0].jobId"),
        ({"jobs": [{"jobId": "{0}"}, {"jobId": "{0}"}]}, BAD, "jobs[1].jobId"),
        ({"jobs": [{"jobId": "{0}", "dependsOn": ["{1}"]}]}, BAD, "jobs[0].dependsOn"),
        ({"jobs": [{"jobId": "{0}", "dependsOn": "{1}"}]}, BAD, "jobs[0].dependsOn"),
        ({"jobs": [{"jobId": "{0}", "onFailure": "Retry"}]}, BAD, "jobs[0].onFailure"),
        (
            {"jobs": [{"jobId": "{0}", "dependsOn": ["{1}"]}, {"jobId": "{1}", "dependsOn": ["{0}"]}]},
            "dependency_cycle",
            "jobs",
        ),
        ({"schedule": 7}, BAD, "schedule"),
        ({"schedule": {"scheduleType": "Cron"}}, BAD, "schedule.scheduleExpression"),
        (
            {"schedule": {"scheduleType": "Cron", "scheduleExpression": "nonsense"}},
            "invalid_cron",
            "scheduleExpression",
        ),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused(
    change: Any, code: str, field: str, api: Caller, jobs: list[str]
) -> None:
    import json

    text = json.dumps(change)
    for index, guid in enumerate(jobs):
        text = text.replace(f"{{{index}}}", guid)
    response = api.post("workflows", {**graph(jobs), **json.loads(text)})
    check_problem(response, 400, code, field)
    assert not Workflow.objects.exists()
    assert Schedule.objects.count() == 3


def test_two_workflows_have_different_names(api: Caller, jobs: list[str]) -> None:
    make(api, jobs)
    response = api.post("workflows", graph(jobs, name="CHAIN"))
    check_problem(response, 400, "duplicate_name", "name", title="Create workflow failed")


def test_changing_and_deleting(api: Caller, jobs: list[str]) -> None:
    guid = make(api, jobs)
    response = api.put(f"workflows/{guid}", {"name": "renamed"}, if_match='"1"')
    assert (response.json()["name"], response["ETag"]) == ("renamed", '"2"')
    assert len(response.json()["jobs"]) == 3
    stale = api.put(f"workflows/{guid}", {"name": "again"}, if_match='"1"')
    check_problem(stale, 412, "precondition_failed")
    check_problem(api.delete(f"workflows/{guid}", if_match='"1"'), 412, "precondition_failed")
    smaller = api.put(f"workflows/{guid}", {"jobs": [{"jobId": jobs[0]}]}).json()
    assert [node["jobId"] for node in smaller["jobs"]] == [jobs[0]]
    assert api.delete(f"workflows/{guid}").status_code == 204
    check_problem(api.get(f"workflows/{guid}"), 404, "workflow_not_found")
    check_problem(api.get(f"workflows/{guid}/runs"), 404, "workflow_not_found")
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/trigger")):
        check_problem(api(method, f"workflows/{guid}{path}", {}), 400, "workflow_not_found")


def test_a_run_goes_from_node_to_node(api: Caller, jobs: list[str]) -> None:
    guid = make(api, jobs)
    response = api.post(f"workflows/{guid}/trigger")
    assert response.status_code == 202
    assert response["Location"] == f"/api/v1/scheduler/workflows/{guid}/runs"
    (run,) = api.get(response["Location"]).json()["items"]
    assert run["id"] == response.json()
    assert (run["status"], run["triggerType"]) == ("Running", "Manual")
    assert [node["status"] for node in run["jobs"]] == ["Pending"] * 3
    second = api.get(f"executions/{run['jobs'][1]['executionId']}").json()
    assert (second["triggerType"], second["waitingOn"]) == ("Workflow", [jobs[0]])
    assert second["workflowRunId"] == run["id"]
    end_run(Job.objects.get(pk=run["jobs"][0]["executionId"]), "failed")
    (run,) = api.get(f"workflows/{guid}/runs").json()["items"]
    assert (run["status"], run["hasFailures"]) == ("Failed", True)
    assert [node["status"] for node in run["jobs"]] == ["Failed", "Skipped", "Skipped"]


def test_a_run_is_begun_once_under_one_key(api: Caller, jobs: list[str]) -> None:
    guid = make(api, jobs)
    first = api.post(f"workflows/{guid}/trigger", Idempotency_Key="k").json()
    assert api.post(f"workflows/{guid}/trigger", Idempotency_Key="k").json() == first
    assert WorkflowRun.objects.count() == 1


def test_nodes_of_kinds_that_need_a_grant_need_it(
    api: Caller, jobs: list[str], make_key: Callable[..., str]
) -> None:
    granted = Caller(make_key("operator", grants=("shell",)))
    guid = make(api, jobs)
    Schedule.objects.filter(pk=jobs[2]).update(kind="shell")
    body = {**graph(jobs), "name": "other"}
    check_problem(api.post("workflows", body), 403, "permission_denied")
    check_problem(api.put(f"workflows/{guid}", graph(jobs)), 403, "permission_denied")
    check_problem(api.post(f"workflows/{guid}/trigger"), 403, "permission_denied")
    assert (Workflow.objects.count(), WorkflowRun.objects.count()) == (1, 0)
    assert granted.post("workflows", body).status_code == 200


def test_a_workflow_may_run_by_itself(api: Caller, jobs: list[str]) -> None:
    own = {"scheduleType": "Cron", "scheduleExpression": "0 5 * * *", "timezone": "Asia/Tokyo"}
    guid = make(api, jobs, schedule=own)
    shown = api.get(f"workflows/{guid}").json()["schedule"]
    assert shown["nextRunAt"].endswith("T20:00:00Z")
    assert {name: shown[name] for name in own} == own
    # It is no job of its own here.
    assert api.get("jobs").json()["totalCount"] == 3
    change = {"schedule": {"isEnabled": False}}
    assert api.put(f"workflows/{guid}", change).json()["schedule"]["nextRunAt"] is None
    bad = {"name": "other", "schedule": {"scheduleType": "OneTime", "runAt": "2001-01-01"}}
    check_problem(api.put(f"workflows/{guid}", bad), 400, "validation_failed", "runAt")
    assert api.get(f"workflows/{guid}").json()["name"] == "chain"
    assert api.delete(f"workflows/{guid}").status_code == 204
    assert not Schedule.objects.filter(deleted_at=None, workflow__isnull=False).exists()
