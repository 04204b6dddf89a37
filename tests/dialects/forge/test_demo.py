"""The demo through a real node: what is enqueued here runs, fails, waits and is retried."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from clusters.binding import cluster_bound
from clusters.models import ClusterSetting
from jobs.models import HostSample
from tests.dialects.forge.conftest import Caller
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def node() -> Iterator[None]:
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist(
            {"lease_seconds": 10.0, "heartbeat_seconds": 0.5}, by="test"
        )
        with started("worker", "--cluster", "alpha", env=worker_environment()) as process:
            yield
            process.terminate()
            output, _ = process.communicate(timeout=60)
            print(output)  # shown by pytest when the test fails


def test_a_demo_job_runs_fails_and_is_retried(
    make_key: Callable[..., str], eventually: Callable[..., None]
) -> None:
    api = Caller(make_key("admin"))
    api.do("queue/default/backoff", {"enabled": True, "base_seconds": 3600, "max_seconds": 86_400})

    def becomes(job_id: str, status: str) -> None:
        eventually(lambda: api.row(job_id)["status"] == status, seconds=20)

    done = api.do("jobs/enqueue-demo", {"payload": {"sleep_ms": 1}})
    failing = api.do("jobs/enqueue-demo", {"payload": {"sleep_ms": 1, "fail": True}})
    throttled = api.do("jobs/enqueue-demo", {"payload": {"sleep_ms": 1, "throttle_ms": 3_600_000}})
    becomes(done, "done")
    becomes(failing, "failed")
    row = api.row(failing)
    assert row["attempts"] == 1
    assert "as asked" in row["last_error"]
    history = api.read(f"jobs/inspect/{failing}")["error_history"]
    assert [one["attempt"] for one in history] == [1]
    assert api.read("jobs/failed?limit=5")[0]["id"] == failing
    # What is throttled has spent no attempt, and is deferred.
    eventually(lambda: api.read("jobs/scheduled"), seconds=20)
    assert [one["id"] for one in api.read("jobs/scheduled")] == [throttled]
    assert api.row(throttled)["attempts"] == 0
    assert api.queue()["counts"]["failed"] == 1
    for attempt, status in ((2, "failed"), (3, "failed"), (4, "failed"), (5, "dead")):
        assert api.do("jobs/retry", {"ids": [failing]}) == 1
        eventually(lambda attempt=attempt: api.row(failing)["attempts"] == attempt, seconds=20)
        becomes(failing, status)
    assert api.do("jobs/retry-all-by-status", {"status": "dead"}) == 1
    becomes(failing, "dead")
    assert api.row(failing)["attempts"] == 6
    assert api.read("queue/workers")["unassigned_queues"] == []
    (process,) = api.queue()["processes"]
    assert process["current_job_id"] is None
    # The node has noted how its host is doing.
    eventually(lambda: HostSample.objects.exists(), seconds=60)
