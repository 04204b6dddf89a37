"""`manage.py jobs enqueue --wait` and `jobs logs --follow`, with a real node."""

from __future__ import annotations

import json

import pytest

from tests.processes import manage, started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


def test_waiting_ends_with_the_job_and_says_how(transactional_db):
    env = worker_environment(YARDMASTER_CLUSTER="alpha")
    with started("worker", "--concurrency", "1", env=env):
        enqueue = ("jobs", "enqueue", "--wait", "-o", "json")
        done = manage(*enqueue, "demo:echo", "--payload", '{"a": 1}', env=env)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert (document["state"], document["result"]) == ("succeeded", {"a": 1})
        done = manage(*enqueue, "demo:fail", "--max-attempts", "1", env=env)
        assert done.returncode == 1
        assert json.loads(done.stdout)["reason"] == "error"
        done = manage("jobs", "logs", document["id"], "--follow", env=env)
        assert "echo, attempt 1" in done.stdout
