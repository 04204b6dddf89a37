"""{cluster}/workflows, and their runs"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.api.workflow_wire import RunDetail, RunItem, WorkflowDetail, WorkflowItem
from jobs.models import Job, Schedule, Workflow, WorkflowRun
from jobs.states import State
from tests.api.conftest import Api, check_problem
from tests.api.test_schedules import HOURLY, MISSING, errors
from tests.factories import WITH_A_PROGRAM
from tests.jobs.schedule_cases import end_run, fire, hourly, hours_ago, make_schedule, put_back

PATH = "alpha/workflows"


@pytest.fixture
def nodes(alpha: object) -> list[str]:
    """Four schedules that do nothing by themselves."""
    return [str(make_schedule(name=name, is_enabled=False).pk) for name in "abcd"]


def chain(*ids: str) -> list[dict[str, Any]]:
    return [
        {"schedule_id": pk, "depends_on": [ids[index - 1]] if index else []}
        for index, pk in enumerate(ids)
    ]


@pytest.fixture
def path(nodes: list[str], api: Api) -> str:
    body = {"name": "chain", "nodes": chain(*nodes[:3])}
    return str(api.post(PATH, body)["Location"])


def states_of(run: dict[str, Any]) -> dict[str, str | None]:
    return {node["name"]: node["state"] for node in run["nodes"]}


def end(run: dict[str, Any], name: str, state: str = State.SUCCEEDED) -> None:
    [job] = [node["job_id"] for node in run["nodes"] if node["name"] == name]
    end_run(Job.objects.get(pk=job), state)


# -- Definitions -----------------------------------------------------------------------------------


def test_a_workflow_is_created_shown_changed_and_deleted(nodes: list[str], api: Api) -> None:
    response = api.post(PATH, {"name": "chain", "description": "x", "nodes": chain(*nodes[:2])})
    assert (response.status_code, response["ETag"]) == (201, '"1"')
    body = response.json()
    assert list(body) == list(WorkflowDetail().fields)
    assert response["Location"] == f"/jm-api/{PATH}/{body['id']}"
    assert body["nodes"] == [
        {"schedule_id": nodes[0], "name": "a", "depends_on": [], "on_failure": "stop"},
        {"schedule_id": nodes[1], "name": "b", "depends_on": [nodes[0]], "on_failure": "stop"},
    ]
    path = response["Location"]
    assert api.get(path).json() == body
    [item] = api.get(PATH).json()["items"]
    assert list(item) == list(WorkflowItem().fields)
    assert api.get(f"{PATH}/count").json() == {"count": 1, "is_exact": True}
    assert api.get(f"{PATH}?search=CHA").json()["items"] == [item]
    assert api.get(f"{PATH}/count?search=none").json()["count"] == 0
    changed = api.patch(path, {"nodes": chain(nodes[3])}, if_match='"1"')
    assert ([n["name"] for n in changed.json()["nodes"]], changed["ETag"]) == (["d"], '"2"')
    check_problem(api.patch(path, {"name": "y"}, if_match='"1"'), 412, "precondition_failed")
    check_problem(api.delete(path, if_match='"1"'), 412, "precondition_failed")
    assert errors(api.patch(path, {})) == ["body"]
    assert api.delete(path).status_code == 204
    check_problem(api.get(path), 404, "not_found")
    check_problem(api.post(f"{path}/trigger"), 404, "not_found")


def test_a_graph_that_cannot_be_is_refused_and_nothing_is_stored(
    nodes: list[str], api: Api
) -> None:
    a, b, *_ = nodes
    circle = [{"schedule_id": a, "depends_on": [b]}, {"schedule_id": b, "depends_on": [a]}]
    cases: list[tuple[Any, str, str]] = [
        ([], "nodes", "invalid"),
        ("a", "nodes", "invalid"),
        ([a], "nodes[0]", "invalid"),
        ([{}], "nodes[0].schedule_id", "invalid"),
        ([{"schedule_id": "a"}], "nodes[0].schedule_id", "invalid"),
        ([{"schedule_id": MISSING}], "nodes[0].schedule_id", "invalid"),
        ([{"schedule_id": a, "after": []}], "nodes[0].after", "invalid"),
        ([{"schedule_id": a, "on_failure": "retry"}], "nodes[0].on_failure", "invalid"),
        ([{"schedule_id": a}, {"schedule_id": a}], "nodes[1].schedule_id", "invalid"),
        ([{"schedule_id": a, "depends_on": [b]}], "nodes[0].depends_on", "invalid"),
        ([{"schedule_id": a, "depends_on": [a]}], "nodes", "dependency_cycle"),
        (circle, "nodes", "dependency_cycle"),
    ]
    for given, field, code in cases:
        assert errors(api.post(PATH, {"name": "w", "nodes": given}), code=code) == [field]
    assert errors(api.post(PATH, {"nodes": chain(a)})) == ["name"]
    assert errors(api.post(PATH, {"name": " ", "nodes": chain(a)})) == ["name"]
    assert not Workflow.objects.exists()
    path = api.post(PATH, {"name": "w", "nodes": chain(a, b)})["Location"]
    assert errors(api.patch(path, {"nodes": circle}), code="dependency_cycle") == ["nodes"]
    assert [node["name"] for node in api.get(path).json()["nodes"]] == ["a", "b"]
    twice = api.post(PATH, {"name": "W", "nodes": chain(a)})
    assert errors(twice, 409, "duplicate_name") == ["name"]


def test_what_a_workflow_needs_is_not_deleted_for_good(
    path: str, nodes: list[str], admin: Api
) -> None:
    refused = admin.delete(f"alpha/schedules/{nodes[0]}?hard=true")
    assert "chain" in check_problem(refused, 409, "schedule_in_use")["detail"]
    admin.delete(path)
    assert admin.delete(f"alpha/schedules/{nodes[0]}?hard=true").status_code == 204


# -- Runs ------------------------------------------------------------------------------------------


def test_a_run_goes_from_node_to_node(path: str, api: Api) -> None:
    response = api.post(f"{path}/trigger", idempotency_key="k")
    assert response.status_code == 202
    run = response.json()
    assert list(run) == list(RunDetail().fields)
    assert response["Location"] == f"{path}/runs/{run['id']}"
    assert states_of(run) == {"a": "ready", "b": "blocked", "c": "blocked"}
    assert api.post(f"{path}/trigger", idempotency_key="k").json() == run
    assert WorkflowRun.objects.count() == 1
    for name in "abc":
        end(run, name)
    ended = api.get(response["Location"]).json()
    assert (ended["state"], set(states_of(ended).values())) == ("succeeded", {"succeeded"})
    [item] = api.get(f"{path}/runs").json()["items"]
    assert list(item) == list(RunItem().fields)
    assert api.get(f"{path}/runs/count?state=running").json()["count"] == 0
    assert api.get(f"{path}/runs/count").json() == {"count": 1, "is_exact": True}
    jobs = api.get(f"alpha/jobs?workflow_run={run['id']}").json()["items"]
    assert {job["trigger"] for job in jobs} == {"workflow"}
    assert len(jobs) == 3


def test_a_run_is_cancelled_and_taken_up_again(path: str, api: Api) -> None:
    run = api.post(f"{path}/trigger").json()
    address = f"{path}/runs/{run['id']}"
    check_problem(api.post(f"{address}/rerun"), 409, "invalid_transition")
    end(run, "a")
    body = api.post(f"{address}/cancel").json()
    assert (body["state"], body["cancelled_by"]) == ("cancelled", "key:operator-1")
    check_problem(api.post(f"{address}/cancel"), 409, "invalid_transition")
    again = api.post(f"{address}/rerun", idempotency_key="k")
    fresh = again.json()
    assert (again.status_code, fresh["rerun_of"]) == (202, run["id"])
    assert again["Location"] == f"{path}/runs/{fresh['id']}"
    assert [node["is_carried_over"] for node in fresh["nodes"]] == [True, False, False]
    assert states_of(fresh) == {"a": "succeeded", "b": "ready", "c": "blocked"}
    assert api.post(f"{address}/rerun", idempotency_key="k").json()["id"] == fresh["id"]
    assert len(api.get(f"{path}/runs").json()["items"]) == 2


def test_a_node_that_has_not_started_is_skipped(path: str, nodes: list[str], api: Api) -> None:
    run = api.post(f"{path}/trigger").json()
    address = f"{path}/runs/{run['id']}"
    body = api.post(f"{address}/nodes/{nodes[0]}/skip").json()
    assert states_of(body) == {"a": "skipped", "b": "ready", "c": "blocked"}
    refused = api.post(f"{address}/nodes/{nodes[0]}/skip")
    check_problem(refused, 409, "invalid_transition")
    check_problem(api.post(f"{address}/nodes/{nodes[3]}/skip"), 404, "not_found")
    check_problem(api.post(f"{address}/nodes/x/skip"), 404, "not_found")


def test_a_run_is_found_below_its_own_workflow_only(path: str, nodes: list[str], api: Api) -> None:
    run = api.post(f"{path}/trigger").json()
    other = api.post(PATH, {"name": "other", "nodes": chain(nodes[3])})["Location"]
    check_problem(api.get(f"{other}/runs/{run['id']}"), 404, "not_found")
    check_problem(api.post(f"{other}/runs/{run['id']}/cancel"), 404, "not_found")
    assert WorkflowRun.objects.get().cancel_requested_at is None
    api.delete(path)
    assert api.get(f"{path}/runs/{run['id']}").status_code == 200
    assert len(api.get(f"{path}/runs").json()["items"]) == 1


def test_a_schedule_starts_a_workflow(path: str, api: Api) -> None:
    pk = path.rpartition("/")[2]
    body = {**HOURLY, "name": "starts it", "workflow_id": pk}
    del body["type"]
    made = api.post("alpha/schedules", body)
    assert (made.status_code, made.json()["kind"]) == (201, "workflow"), made.content
    assert api.get(path).json()["started_by"] == [made.json()["id"]]
    check_problem(api.delete(path), 409, "workflow_in_use")
    refused = api.post(f"{made['Location']}/trigger", {"payload": 1})
    assert errors(refused) == ["payload"]
    triggered = api.post(f"{made['Location']}/trigger")
    run = api.get(triggered["Location"]).json()
    assert (run["schedule_id"], run["trigger"]) == (made.json()["id"], "manual")
    assert triggered.json() == {"job_id": None, "workflow_run_id": run["id"]}
    waits = api.put(
        f"{made['Location']}/dependencies", {"depends_on": [run["nodes"][0]["schedule_id"]]}
    )
    assert errors(waits) == ["depends_on"]
    assert errors(api.patch(made["Location"], {"overlap": "replace"})) == ["overlap"]


def test_several_schedules_of_one_workflow_each_mind_the_runs_of_it(path: str, api: Api) -> None:
    pk = path.rpartition("/")[2]
    for name in ("one", "two"):
        put_back(make_schedule(name=name, workflow_id=pk), hours_ago(0))
    api.post(f"{path}/trigger")
    fire()
    assert WorkflowRun.objects.count() == 1


# -- Grants ----------------------------------------------------------------------------------------


def test_nodes_of_kinds_that_need_a_grant_need_it(
    alpha: object, make_key: Callable[..., str]
) -> None:
    granted = Api(make_key("operator", grants=("shell",)))
    other = Api(make_key("admin"))
    shell = {**HOURLY, "name": "s", "kind": "shell", "type": "s", "payload": {"argv": ["true"]}}
    pk = granted.post("alpha/schedules", shell).json()["id"]
    body = {"name": "w", "nodes": chain(pk)}
    assert errors(other.post(PATH, body), 403, "kind_not_granted") == ["kind"]
    assert not Workflow.objects.exists()
    path = granted.post(PATH, body)["Location"]
    check_problem(other.post(f"{path}/trigger"), 403, "kind_not_granted")
    starts = {**HOURLY, "name": "starts", "workflow_id": path.rpartition("/")[2]}
    check_problem(other.post("alpha/schedules", starts), 403, "kind_not_granted")
    schedule = granted.post("alpha/schedules", starts)["Location"]
    check_problem(other.post(f"{schedule}/trigger"), 403, "kind_not_granted")
    run = granted.post(f"{path}/trigger").json()
    granted.post(f"{path}/runs/{run['id']}/cancel")
    check_problem(other.post(f"{path}/runs/{run['id']}/rerun"), 403, "kind_not_granted")
    assert Job.objects.count() == 1


def test_a_run_that_is_due_needs_the_rights_of_who_wrote_its_schedules(
    alpha: object, make_key: Callable[..., str]
) -> None:
    from authn.models import RoleBinding

    granted = Api(make_key("operator", grants=("shell",)))
    shell = {**HOURLY, "name": "s", "kind": "shell", "type": "s", "payload": {"argv": ["true"]}}
    pk = granted.post("alpha/schedules", shell).json()["id"]
    workflow = granted.post(PATH, {"name": "w", "nodes": chain(pk)}).json()["id"]
    Schedule.objects.update(is_enabled=False, next_due_at=None, next_run_at=None)
    starting = make_schedule(name="starts", workflow_id=workflow)
    RoleBinding.objects.update(granted_kinds=[])
    put_back(starting, hours_ago(0))
    fire()
    assert not Job.objects.exists()
    [item] = granted.get(f"alpha/schedules/{starting.pk}/fires").json()["items"]
    assert (item["state"], item["reason"]) == ("skipped", "refused")
    assert "shell" in item["detail"]


def test_nodes_of_steps_need_the_grants_of_the_steps(
    alpha: object, make_key: Callable[..., str]
) -> None:
    from authn.models import RoleBinding

    granted, other = Api(make_key("operator", grants=("shell",))), Api(make_key("admin"))
    steps = {**HOURLY, "expression": hourly(), "name": "s", "kind": "steps", "type": "s"}
    steps["payload"] = WITH_A_PROGRAM
    pk = granted.post("alpha/schedules", steps).json()["id"]
    body = {"name": "w", "nodes": chain(pk)}
    check_problem(other.post(PATH, body), 403, "kind_not_granted")
    path = granted.post(PATH, body)["Location"]
    check_problem(other.post(f"{path}/trigger"), 403, "kind_not_granted")
    # What is due runs with the rights of who wrote it.
    workflow = path.rstrip("/").rsplit("/", 1)[-1]
    starting = make_schedule(name="starts", workflow_id=workflow)
    RoleBinding.objects.update(granted_kinds=[])
    for due in (starting, Schedule.objects.get(pk=pk)):
        put_back(due, hours_ago(0))
    fire()
    assert not Job.objects.exists()
    reasons = {"starts": "refused", "s": "no_rights"}
    for name, reason in reasons.items():
        schedule = Schedule.objects.get(name=name)
        [item] = granted.get(f"alpha/schedules/{schedule.pk}/fires").json()["items"]
        assert (item["state"], item["reason"]) == ("skipped", reason)
