"""One job through several surfaces: what is done on one side is seen on the other, in the same rows."""

from __future__ import annotations

from collections.abc import Callable

from jobs.models import Job
from tests.api.conftest import Api, _forget_health, make_key  # noqa: F401  fixtures
from tests.dialects.scheduler.conftest import CRON_JOB, Caller
from tests.factories import make_node


def test_a_job_made_here_is_cancelled_there_and_retried_here(
    make_key: Callable[..., str],  # noqa: F811
    alpha: object,
) -> None:
    make_node(types=["demo:noop"])
    key = make_key("operator")
    native, scheduler = Api(key), Caller(key)
    job_id = scheduler.post("jobs", CRON_JOB).json()["id"]
    execution = scheduler.post(f"jobs/{job_id}/trigger").json()
    (listed,) = native.get("alpha/jobs").json()["items"]
    assert (listed["id"], listed["state"], listed["kind"]) == (execution, "ready", "python")
    assert native.post(f"alpha/jobs/{execution}/cancel").status_code == 200
    assert scheduler.get(f"executions/{execution}").json()["status"] == "Cancelled"
    retried = scheduler.post(f"executions/{execution}/retry").json()
    shown = native.get(f"alpha/jobs/{retried}").json()
    assert (shown["copy_of"], shown["state"]) == (execution, "ready")
    assert shown["payload"] == native.get(f"alpha/jobs/{execution}").json()["payload"]
    assert Job.objects.count() == 2
