"""Why a job waits, and for whom."""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from jobs.engine.dependencies import attach
from jobs.models import Job
from jobs.states import State
from tests.api.conftest import Api, check_problem, fields
from tests.factories import make_job, make_node, make_queue


def waiting_for(*parents: Job, **columns: object) -> Job:
    with transaction.atomic(using="cluster-alpha"):
        child = make_job(State.BLOCKED, **columns)
        attach("cluster-alpha", child.pk, [parent.pk for parent in parents], on_failure="skip")
    return child


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_reason(state: State, alpha: object, viewer: Api) -> None:
    body = viewer.get(f"alpha/jobs/{make_job(state).pk}/why").json()
    assert body["state"] == state
    assert body["reasons"]
    for reason in body["reasons"]:
        assert set(reason) == {"code", "message", "data"}


def test_reasons_are_told_in_words_and_figures(alpha: object, viewer: Api) -> None:
    make_node()
    make_queue("mail", is_paused=True, paused_by="anna", pause_reason="upgrade")
    parent = make_job(State.RUNNING)
    child = waiting_for(parent, queue="mail")
    dependency, paused = viewer.get(f"alpha/jobs/{child.pk}/why").json()["reasons"]
    assert dependency["code"] == "dependency"
    assert dependency["data"]["job_id"] == str(parent.pk)
    assert paused["code"] == "queue_paused"
    assert paused["data"]["by"] == "anna"
    assert paused["data"]["since"].endswith("Z")
    assert paused["data"]["until"] is None


def test_parents_and_children_are_listed_with_their_states(alpha: object, viewer: Api) -> None:
    parent, done = make_job(State.RUNNING, type="demo:slow"), make_job(State.SUCCEEDED)
    middle = waiting_for(parent, done)
    child = waiting_for(middle, queue="mail")
    body = viewer.get(f"alpha/jobs/{middle.pk}/dependencies").json()
    parents = {item["job_id"]: item for item in body["parents"]}
    assert parents[str(parent.pk)] == {
        "job_id": str(parent.pk),
        "type": "demo:slow",
        "queue": "default",
        "state": "running",
        "needs": "all",
        "on_dependency_failure": "skip",
        "satisfied_at": None,
    }
    assert parents[str(done.pk)]["satisfied_at"].endswith("Z")
    (below,) = body["children"]
    assert (below["job_id"], below["state"], below["queue"]) == (str(child.pk), "blocked", "mail")
    assert body["next"] is None


def test_a_parent_that_was_deleted_is_still_listed(alpha: object, viewer: Api) -> None:
    parent = make_job(State.SUCCEEDED)
    child = waiting_for(parent)
    child.cancel() if child.state in ("ready", "blocked") else None
    Job.objects.get(pk=parent.pk).delete_final()
    (item,) = viewer.get(f"alpha/jobs/{child.pk}/dependencies").json()["parents"]
    assert (item["job_id"], item["state"], item["type"]) == (str(parent.pk), None, None)


def test_children_are_listed_page_by_page(alpha: object, viewer: Api) -> None:
    parent = make_job()
    children = sorted(str(waiting_for(parent).pk) for _ in range(5))
    address, seen = f"alpha/jobs/{parent.pk}/dependencies?limit=2", []
    while address:
        body = viewer.get(address).json()
        assert len(body["children"]) <= 2
        seen += [item["job_id"] for item in body["children"]]
        address = body["next"]
    assert seen == children


def test_a_page_takes_as_many_queries_however_much_is_on_it(alpha: object, viewer: Api) -> None:
    def queries(count: int) -> int:
        parent = make_job()
        for _ in range(count):
            waiting_for(parent)
        with CaptureQueriesContext(connections["cluster-alpha"]) as captured:
            viewer.get(f"alpha/jobs/{parent.pk}/dependencies")
        return len(captured)

    assert queries(1) == queries(6)


@pytest.mark.parametrize(
    "query,field",
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=", "after"),
        ("state=ready", "state"),
    ],
)
def test_a_bad_question_names_the_parameter(
    query: str, field: str, alpha: object, viewer: Api
) -> None:
    assert fields(viewer.get(f"alpha/jobs/{make_job().pk}/dependencies?{query}")) == [field]


@pytest.mark.parametrize("identifier", ["x", "0190a1b2-0000-7000-8000-000000000000", "%00"])
def test_what_names_no_job_is_404(identifier: str, alpha: object, viewer: Api) -> None:
    check_problem(viewer.get(f"alpha/jobs/{identifier}/why"), 404, "not_found")
    check_problem(viewer.get(f"alpha/jobs/{identifier}/dependencies"), 404, "not_found")


def test_why_takes_no_parameters(alpha: object, viewer: Api) -> None:
    assert fields(viewer.get(f"alpha/jobs/{make_job().pk}/why?x=1")) == ["x"]
