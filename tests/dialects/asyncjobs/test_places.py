"""Where the API answers, and that two clusters never mix."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clusters.binding import bound_cluster_id, cluster_bound
from jobs.models import Job, Queue, Schedule
from tests.dialects.asyncjobs.addresses import ENDPOINTS
from tests.dialects.asyncjobs.conftest import MISSING, Caller, check_error
from tests.factories import make_job, make_queue
from tests.jobs.schedule_cases import make_schedule

# Prefixes, and the cluster that answers there.
PLACES = {
    "": "alpha",
    "/asyncjobs": "alpha",
    "/clusters/alpha/asyncjobs": "alpha",
    "/clusters/beta/asyncjobs": "beta",
}


@pytest.mark.parametrize("place", PLACES)
def test_each_place_speaks_for_its_cluster(place: str, make_key: Callable[..., str]) -> None:
    api = Caller(make_key("admin", "*"), place)
    for cluster in ("alpha", "beta"):
        with cluster_bound(cluster):
            make_job(type=f"of:{cluster}")
    assert [task["type"] for task in api.listed()] == [f"of:{PLACES[place]}"]
    response = api.post("v1/tasks/", {"type": "a"})
    assert response["Location"] == f"{place}/v1/tasks/{response.json()['id']}"
    assert api.get(response["Location"]).status_code == 200
    stream = api.get("v1/tasks?stream=ndjson&limit=2")
    assert [json.loads(line)["type"] for line in stream.getvalue().splitlines()] == [
        f"of:{PLACES[place]}",
        "a",
    ]
    with cluster_bound("beta" if PLACES[place] == "alpha" else "alpha"):
        assert Job.objects.count() == 1
    assert bound_cluster_id() is None
    servers = api.get("v1/openapi.json").json()["servers"]
    assert servers == [{"url": place or "/"}]


@pytest.mark.parametrize("place", ["/asyncjobs", "/clusters/beta/asyncjobs", "/v1"])
def test_the_place_itself_is_no_resource(place: str, make_key: Callable[..., str]) -> None:
    check_error(Caller(None).get(place), 401, "invalid_argument", "unauthenticated")
    check_error(Caller(make_key("viewer", "*")).get(place), 404, "not_found")


def without_id(response: Any) -> tuple[Any, ...]:
    headers = {n: v for n, v in response.headers.items() if n != "X-Request-ID"}
    return response.status_code, headers, response.content


@pytest.fixture
def of_beta(db: None) -> dict[str, str]:
    """Things that are there in `beta`, by what stands for them in an address."""
    with cluster_bound("beta"):
        make_queue("ofbeta")
        make_schedule(name="ofbeta")
        return {MISSING: str(make_job("failed").pk), "gone": "ofbeta"}


def there(path: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_a_cluster_that_one_may_not_see_is_as_one_that_does_not_exist(
    role: str, make_key: Callable[..., str], of_beta: dict[str, str]
) -> None:
    key = make_key(role, "alpha")
    beta, gamma = (Caller(key, f"/clusters/{c}/asyncjobs") for c in ("beta", "gamma"))
    for method, path, _, _ in ENDPOINTS:
        address = there(path, of_beta)
        foreign = beta.client.generic(method, f"{beta.base}/{address}", b"{}", headers=beta.headers)
        missing = gamma.client.generic(
            method, f"{gamma.base}/{address}", b"{}", headers=gamma.headers
        )
        assert without_id(foreign) == without_id(missing), address
        assert foreign.status_code == 404, address
    with cluster_bound("beta"):
        assert Job.objects.get().state == "failed"
        assert Queue.objects.count() == 2 and Schedule.objects.get().deleted_at is None


def test_what_is_of_another_cluster_is_as_missing_as_what_never_was(
    of_beta: dict[str, str], admin: Caller
) -> None:
    for method, path, _, _ in ENDPOINTS:
        if path == there(path, of_beta):
            continue
        foreign = without_id(admin(method, there(path, of_beta)))
        assert foreign == without_id(admin(method, path)), path
        assert foreign[0] == 404, path


def test_a_caller_of_both_reads_each_apart(of_beta: dict[str, str], make_key: Any) -> None:
    key = make_key("admin", "*")
    for place, count in (("/asyncjobs", 0), ("/clusters/beta/asyncjobs", 1)):
        api = Caller(key, place)
        assert len(api.listed()) == count
        assert len(api.get("v1/schedules").json()["schedules"]) == count
        assert api.get("v1/info").json()["task_count"] == count
