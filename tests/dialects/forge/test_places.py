"""Where the API answers, and that two clusters never mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clusters.binding import bound_cluster_id, cluster_bound
from jobs.models import Job, Queue
from tests.api.routes import MISSING_ID
from tests.dialects.forge.addresses import ENDPOINTS
from tests.dialects.forge.conftest import Caller
from tests.factories import make_job, make_queue
from tests.jobs.schedule_cases import make_schedule

# Prefixes, and the cluster that answers there.
PLACES = {
    "": "alpha",
    "/forge": "alpha",
    "/clusters/alpha/forge": "alpha",
    "/clusters/beta/forge": "beta",
}


@pytest.mark.parametrize("place", PLACES)
def test_each_place_speaks_for_its_cluster(place: str, make_key: Callable[..., str]) -> None:
    api = Caller(make_key("admin", "*"), place)
    ours, other = PLACES[place], "beta" if PLACES[place] == "alpha" else "alpha"
    for cluster in (ours, other):
        with cluster_bound(cluster):
            make_queue(f"of-{cluster}")
            make_schedule(name=f"of {cluster}")
            make_job("ready", type=f"of:{cluster}")
    assert [one["name"] for one in api.read("queue/overview/")] == ["default", f"of-{ours}"]
    assert [one["name"] for one in api.read("cron")] == [f"of {ours}"]
    assert api.read("jobs/kinds/") == [f"of:{ours}"]
    job_id = api.do("jobs/enqueue-demo", {})
    with cluster_bound(ours):
        assert Job.objects.filter(pk=job_id).exists()
    with cluster_bound(other):
        assert Job.objects.count() == 1
    assert bound_cluster_id() is None


def test_nothing_of_a_cluster_one_may_not_see(make_key: Callable[..., str]) -> None:
    with cluster_bound("beta"):
        make_schedule(name="nightly")
        job = make_job("failed")
        before = list(Queue.objects.values())
    key = make_key("admin", "alpha")
    beta, gamma = (Caller(key, f"/clusters/{name}/forge") for name in ("beta", "gamma"))
    for method, path, _, body in ENDPOINTS:
        there = path.replace(MISSING_ID, str(job.pk))
        answers = [caller(method, there, body) for caller in (beta, gamma)]
        shown = [
            (r.status_code, r.content, {k: v for k, v in r.headers.items() if k != "X-Request-ID"})
            for r in answers
        ]
        assert shown[0] == shown[1], path
        assert shown[0][0] == 404, path
    with cluster_bound("beta"):
        assert Job.objects.get().state == "failed"
        assert list(Queue.objects.values()) == before


def test_what_is_of_another_cluster_is_as_missing_as_what_never_was(admin: Caller) -> None:
    with cluster_bound("beta"):
        job = make_job("failed")
    for path in ("jobs/inspect/{}", "jobs/run-now/{}"):
        method = "GET" if "inspect" in path else "POST"
        foreign, missing = (admin(method, path.format(pk)) for pk in (job.pk, MISSING_ID))
        assert foreign.status_code == missing.status_code == 404
        assert foreign.content == missing.content
    assert admin.do("jobs/retry", {"ids": [str(job.pk)]}) == 0
    assert admin.do("jobs/delete", {"ids": [str(job.pk)]}) == 0
    with cluster_bound("beta"):
        assert Job.objects.get().state == "failed"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("jobs", {"items": [], "number": 1, "size": 0, "totalPages": 0, "totalItems": 0}),
        (f"jobs/{MISSING_ID}", {"message": "job not found"}),
        ("health", {"status": "UP"}),
    ],
)
def test_bare_words_of_others_are_left_to_them(path: str, told: Any, admin: Caller) -> None:
    assert admin.get(path).json() == told
