"""A cluster in which a caller has no role does not exist for him, nor does anything in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from clusters.binding import cluster_bound
from jobs.engine import workflows
from jobs.engine.workflows import NewNode
from jobs.models import Job, Schedule
from tests.api.conftest import Api, check_problem
from tests.api.routes import METHODS, MISSING_ID, filled, native_routes
from tests.factories import make_job, make_node
from tests.jobs.schedule_cases import make_schedule


def without_request_id(response: Any) -> tuple[Any, ...]:
    headers = {name: value for name, value in response.headers.items() if name != "X-Request-ID"}
    body = json.loads(response.content) if response.content else {}
    body.pop("request_id", None)
    return response.status_code, headers, json.dumps(body)


@pytest.fixture
def of_beta(db: None) -> dict[str, str]:
    """Things that exist in `beta`, by the part of the address that names them."""
    with cluster_bound("beta"):
        job = make_job("failed", queue="no-such-queue")
        schedule = make_schedule()
        workflow = workflows.create("of beta", [NewNode(schedule.pk)], by="test")
        return {
            "job": str(job.pk),
            "node": str(make_node().pk),
            "schedule": str(schedule.pk),
            "workflow": str(workflow.pk),
        }


def named_by(route: str) -> str:
    """What the first id of an address names."""
    found = re.search("<str:(node|schedule|workflow)_id>", route)
    return found[1] if found else "job"


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_another_cluster_looks_like_one_that_does_not_exist(
    role: str, make_key: Callable[..., str], of_beta: dict[str, str]
) -> None:
    api = Api(make_key(role, "alpha"))
    for route in native_routes():
        if "<str:cluster_id>" not in route:
            continue
        there = of_beta[named_by(route)]
        for method in METHODS:
            asked = filled(route, "beta", there)
            foreign = without_request_id(api(method, asked))
            unknown = without_request_id(api(method, filled(route, "gamma", there)))
            assert foreign == unknown, asked
            assert foreign[0] == 404, asked
    with cluster_bound("beta"):
        assert Job.objects.get().state == "failed"
        assert Schedule.objects.get().version == 1


def test_a_job_of_another_cluster_looks_like_one_that_does_not_exist(
    of_beta: dict[str, str], admin: Api
) -> None:
    for route in native_routes():
        if not re.search("(job|node|schedule|workflow)_id", route):
            continue
        there = of_beta[named_by(route)]
        for method in METHODS:
            foreign = without_request_id(admin(method, filled(route, "alpha", there)))
            missing = without_request_id(admin(method, filled(route, "alpha", MISSING_ID)))
            no_uuid = without_request_id(admin(method, filled(route, "alpha", "x")))
            assert foreign == missing == no_uuid
            assert foreign[0] in (404, 405)


def test_a_missing_job_and_a_missing_cluster_get_the_same_answer(viewer: Api) -> None:
    missing = without_request_id(viewer.get(f"alpha/jobs/{MISSING_ID}"))
    assert missing == without_request_id(viewer.get(f"beta/jobs/{MISSING_ID}"))
    assert missing == without_request_id(viewer.get("nowhere"))


def test_lists_and_counts_hold_the_rows_of_their_cluster_only(
    make_key: Callable[..., str], of_beta: dict[str, str], alpha: object
) -> None:
    make_job(type="of:alpha")
    api = Api(make_key("viewer", "*"))
    assert [job["type"] for job in api.get("alpha/jobs").json()["items"]] == ["of:alpha"]
    assert [job["id"] for job in api.get("beta/jobs").json()["items"]] == [of_beta["job"]]
    assert api.get("alpha/jobs/count").json()["count"] == 1
    assert api.get("alpha/nodes/count").json()["count"] == 0
    assert api.get("beta/nodes/count").json()["count"] == 2


def test_the_binding_is_gone_after_a_request_also_after_a_bad_one(viewer: Api) -> None:
    from clusters.binding import bound_cluster_id

    viewer.get("alpha/jobs")
    viewer.get("alpha/jobs?nonsense=1")
    viewer.get(f"alpha/jobs/{MISSING_ID}")
    assert bound_cluster_id() is None


def test_a_cursor_of_another_cluster_is_refused(
    make_key: Callable[..., str], alpha: object
) -> None:
    api = Api(make_key("viewer", "*"))
    for _ in range(2):
        make_job()
    with cluster_bound("beta"):
        make_job()
    following = api.get("alpha/jobs?limit=1").json()["next"]
    problem = check_problem(api.get(following.replace("alpha", "beta")), 400, "invalid")
    assert problem["errors"][0]["field"] == "cursor"
