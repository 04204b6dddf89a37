"""Where the API answers, and that two clusters never mix."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clusters.binding import bound_cluster_id, cluster_bound
from jobs.models import Schedule
from tests.dialects.scheduler.addresses import ENDPOINTS
from tests.dialects.scheduler.conftest import CRON_JOB, MISSING, Caller, check_problem
from tests.factories import make_job, make_node
from tests.jobs.schedule_cases import make_schedule

# Prefixes, and the cluster that answers there.
PLACES = {
    "/api/v1/scheduler": "alpha",
    "/scheduler/api/v1/scheduler": "alpha",
    "/scheduler": "alpha",
    "/clusters/alpha/scheduler/api/v1/scheduler": "alpha",
    "/clusters/alpha/scheduler": "alpha",
    "/clusters/beta/scheduler/api/v1/scheduler": "beta",
    "/clusters/beta/scheduler": "beta",
}


@pytest.mark.parametrize("place", PLACES)
def test_each_place_speaks_for_its_cluster(place: str, make_key: Callable[..., str]) -> None:
    api = Caller(make_key("operator", "*"), place)
    for cluster in ("alpha", "beta"):
        with cluster_bound(cluster):
            make_schedule(name=f"of {cluster}")
            make_node(types=["demo:noop"])
    assert [job["name"] for job in api.get("jobs").json()["items"]] == [f"of {PLACES[place]}"]
    response = api.post("jobs/", CRON_JOB)
    assert response.status_code == 201
    assert response["Location"] == f"{place}/jobs/{response.json()['id']}"
    assert api.get(response["Location"]).status_code == 200
    trigger = api.post(f"jobs/{response.json()['id']}/trigger/")
    assert trigger["Location"] == f"{place}/executions/{trigger.json()}"
    with cluster_bound("beta" if PLACES[place] == "alpha" else "alpha"):
        assert Schedule.objects.count() == 1
    assert bound_cluster_id() is None


@pytest.mark.parametrize("place", ["/api/v1/scheduler", "/scheduler", "/clusters/beta/scheduler"])
def test_the_place_itself_is_no_resource(place: str, make_key: Callable[..., str]) -> None:
    check_problem(Caller(None).get(place), 401, "not_authenticated")
    check_problem(Caller(make_key("viewer", "*")).get(place), 404, "not_found")


def without_trace(response: Any) -> tuple[Any, ...]:
    body = json.loads(response.content) if response.content else {}
    for name in ("traceId", "instance"):
        body.pop(name, None)
    headers = {n: v for n, v in response.headers.items() if n != "X-Request-ID"}
    headers.pop("Content-Length", None)
    return response.status_code, headers, json.dumps(body)


@pytest.fixture
def of_beta(db: None) -> dict[str, str]:
    """Things that are there in `beta`, by what an address begins with."""
    with cluster_bound("beta"):
        schedule = make_schedule(name="of beta")
        job = make_job("failed", schedule_id=schedule.pk, trigger="schedule")
        return {"jobs": str(schedule.pk), "executions": str(job.pk), "workflows": MISSING}


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_a_cluster_that_one_may_not_see_is_as_one_that_does_not_exist(
    role: str, make_key: Callable[..., str], of_beta: dict[str, str]
) -> None:
    key = make_key(role, "alpha")
    beta, gamma = (Caller(key, f"/clusters/{c}/scheduler") for c in ("beta", "gamma"))
    for method, path, _ in ENDPOINTS:
        there = path.replace(MISSING, of_beta.get(path.split("/", maxsplit=1)[0], MISSING))
        foreign = without_trace(beta(method, there, {}))
        assert foreign == without_trace(gamma(method, there, {})), there
        assert foreign[0] == expected_status(method, path), there
    with cluster_bound("beta"):
        assert Schedule.objects.get().is_paused is False


def expected_status(method: str, path: str) -> int:
    """404 for readers, 400 for what changes something that the address names; a cancel knows 404."""
    is_read = method == "GET" or MISSING not in path or path.endswith("/cancel")
    return 404 if is_read else 400


def test_what_is_of_another_cluster_is_as_missing_as_what_never_was(
    of_beta: dict[str, str], admin: Caller
) -> None:
    for method, path, _ in ENDPOINTS:
        if MISSING not in path:
            continue
        body = {
            "dependsOnJobIds": [MISSING], "condition": "AllSucceeded",
            "excludedDates": ["2034-01-01"], "scheduleType": "Interval", "intervalSeconds": 60,
        }  # fmt: skip
        there = path.replace(MISSING, of_beta[path.split("/", maxsplit=1)[0]])
        foreign = without_trace(admin(method, there, body))
        assert foreign == without_trace(admin(method, path, body)), path
        assert foreign[0] == expected_status(method, path), path


def test_a_caller_of_both_reads_each_apart(of_beta: dict[str, str], make_key: Any) -> None:
    key = make_key("admin", "*")
    for place, count in (("/scheduler", 0), ("/clusters/beta/scheduler", 1)):
        api = Caller(key, place)
        assert api.get("jobs").json()["totalCount"] == count
        assert api.get("executions").json()["totalCount"] == count
        assert len(api.get("admin/export").json()) == count
        assert api.get("dashboard/stats").json()["totalJobs"] == count
        assert len(api.get("executions/upcoming").json()) == count
    assert Caller(key, "/scheduler").post("admin/pause-all").status_code == 200
    with cluster_bound("beta"):
        assert not Schedule.objects.get().is_paused
    response = Caller(key, "/scheduler").delete("admin/clear-logs?olderThanDays=1")
    assert response.json() == 0
