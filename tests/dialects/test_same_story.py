"""One job through several surfaces: what is done on one side is seen on the other, in the same rows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from clusters.policy import DEFAULTS
from jobs.engine import bulk
from jobs.models import Job
from jobs.states import State
from tests.api.conftest import Api
from tests.dialects.asyncjobs.conftest import Caller as AsyncjobsCaller
from tests.dialects.forge.conftest import Caller as ForgeCaller
from tests.dialects.scheduler.conftest import CRON_JOB, Caller
from tests.factories import make_node
from tests.processes import started
from tests.ui.conftest import sign_in  # noqa: F401  fixture


class Everywhere:
    """One caller of every surface, and what each of them calls the state of a job."""

    def __init__(self, key: str, screen: Any) -> None:
        self.native, self.asyncjobs, self.forge = Api(key), AsyncjobsCaller(key), ForgeCaller(key)
        self.screen = screen

    def words(self, job_id: str) -> tuple[str, str, str]:
        """What the native API, asyncjobs and forge say; all lists and the screen must say the same."""
        native = self.native.get(f"alpha/jobs/{job_id}").json()
        task, row = self.asyncjobs.task(job_id), self.forge.row(job_id)
        words = (native["state"], task["state"], row["status"])
        assert native["type"] == task["type"] == row["kind"]
        assert native["queue"] == task["queue"] == row["queue_name"]
        assert native["attempts"] == task.get("tries", 0) == row["attempts"]
        items = self.native.get(f"alpha/jobs?state={words[0]}").json()["items"]
        assert job_id in {item["id"] for item in items}
        assert job_id in {task["id"] for task in self.asyncjobs.listed(f"?state={words[1]}")}
        assert job_id in self.forge.listed(statuses=[words[2]])
        page = self.screen.get(f"/admin/alpha/jobs/{job_id}/").content.decode()
        assert f"ui-state-{words[0]}" in page
        return words


@pytest.fixture
def everywhere(
    make_key: Callable[..., str],
    sign_in: Callable[..., Any],  # noqa: F811
) -> Everywhere:
    return Everywhere(make_key("admin"), sign_in("admin"))


def test_a_task_is_one_job_on_every_surface(everywhere: Everywhere, alpha: object) -> None:
    here = everywhere
    task = here.asyncjobs.make(type="demo:noop", queue="default", payload={"to": ["x@y", 7]})
    job_id = task["id"]
    assert here.words(job_id) == ("ready", "new", "pending")
    assert here.native.get(f"alpha/jobs/{job_id}").json()["payload"] == {"to": ["x@y", 7]}
    assert here.forge.read(f"jobs/inspect/{job_id}")["payload"] == {"to": ["x@y", 7]}

    waits = here.asyncjobs.make(type="demo:noop", dependencies=[job_id])["id"]
    assert here.words(waits) == ("blocked", "blocked", "pending")

    # A delete in forge is a cancel of what has not ended, and who waits for it never runs.
    assert here.forge.do("jobs/delete", {"ids": [job_id]}) == 1
    assert here.words(job_id) == ("cancelled", "terminated", "dead")
    assert here.words(waits) == ("failed", "unreachable", "dead")

    assert here.asyncjobs.post(f"v1/tasks/{job_id}/retry").json()["id"] == job_id
    assert here.words(job_id) == ("ready", "new", "pending")
    assert here.native.post(f"alpha/jobs/{job_id}/cancel").status_code == 200
    assert here.forge.do("jobs/retry", {"ids": [job_id]}) == 1
    assert here.words(job_id) == ("ready", "new", "pending")
    assert Job.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_what_a_worker_does_is_told_in_the_words_of_each(
    transactional_db: None,
    everywhere: Everywhere,
    alpha: object,
    eventually: Callable[..., None],
) -> None:
    here = everywhere
    done = here.forge.do(
        "jobs/enqueue", {"kind": "demo:echo", "payload": {"n": 1}, "queue_name": "default"}
    )
    worn = here.native.post("alpha/jobs", {"type": "demo:fail", "max_attempts": 1}).json()["id"]
    again = here.asyncjobs.make(type="demo:fail", queue="default", max_tries=5)["id"]
    late = here.asyncjobs.make(type="demo:echo", deadline="2020-01-01T00:00:00Z")["id"]
    busy = here.native.post("alpha/jobs", {"type": "demo:sleep", "payload": {"seconds": 30}}).json()
    with started("worker", "--cluster", "alpha", "--concurrency", "2"):
        wanted = {
            done: ("succeeded", "complete", "done"),
            worn: ("failed", "expired", "dead"),
            again: ("scheduled", "retry", "failed"),
            late: ("failed", "expired", "dead"),
            busy["id"]: ("running", "active", "in_progress"),
        }
        states = {job_id: words[0] for job_id, words in wanted.items()}
        eventually(
            lambda: {str(job.pk): job.state for job in Job.objects.all()} == states, seconds=30
        )
        assert {job_id: here.words(job_id) for job_id in wanted} == wanted
        result = here.asyncjobs.task(done)
        assert result["result"]["payload"] == {"n": 1}
        assert json.loads(base64.b64decode(result["payload"])) == {"n": 1}
        assert "attempt 1 fails" in here.asyncjobs.task(again)["last_err"]
        assert "attempt 1 fails" in here.forge.row(again)["last_error"]
        # A running one is asked to stop from forge, and native and asyncjobs see how it ended.
        assert here.forge.do("jobs/delete", {"ids": [busy["id"]]}) == 1
        eventually(lambda: Job.objects.get(pk=busy["id"]).state == State.CANCELLED, seconds=30)
        assert here.words(busy["id"]) == ("cancelled", "terminated", "dead")
    queue = here.forge.queue()
    assert queue["counts"] == {
        "pending": 0, "scheduled": 0, "in_progress": 0, "done": 1, "failed": 1, "dead": 3,
    }  # fmt: skip


def test_queues_and_schedules_are_the_same_ones(everywhere: Everywhere, alpha: object) -> None:
    here = everywhere
    made = here.asyncjobs.post("v1/queues", {"name": "mail", "max_concurrent": 7})
    assert made.status_code == 201
    assert here.native.get("alpha/queues/mail").json()["max_concurrency"] == 7
    assert here.forge.queue("mail")["max_workers"] == 7
    here.forge.do("queue/mail/paused", {"paused": True})
    assert here.native.get("alpha/queues/mail").json()["is_paused"]
    schedule = {
        "name": "nightly",
        "schedule": "0 3 * * *",
        "queue": "mail",
        "task_type": "demo:noop",
        "payload": {"a": 1},
    }
    assert here.asyncjobs.post("v1/schedules", schedule).status_code == 201
    (cron,) = here.forge.read("cron")
    assert (cron["name"], cron["kind"], cron["queue_name"]) == ("nightly", "demo:noop", "mail")
    (stored,) = here.native.get("alpha/schedules").json()["items"]
    assert stored["name"] == "nightly"
    job_id = here.forge.do("cron/nightly/trigger")
    assert here.words(job_id) == ("ready", "new", "pending")
    assert here.asyncjobs.post("v1/queues/mail/purge").status_code == 202
    while bulk.advance("cluster-alpha", DEFAULTS):
        continue  # as the upkeep of a node does
    assert here.words(job_id) == ("cancelled", "terminated", "dead")
    assert here.asyncjobs.delete("v1/schedules/nightly").status_code == 204
    assert here.forge.read("cron") == []


def test_a_job_made_here_is_cancelled_there_and_retried_here(
    make_key: Callable[..., str],
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
