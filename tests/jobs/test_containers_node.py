"""Containers on real nodes: what is seen of them while they run, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from clusters.models import Node
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.waiting import why_waiting
from jobs.models import Attempt, Job
from jobs.states import State
from tests.engines import IMAGE, NOTHING
from tests.jobs.executors.programs import living
from tests.jobs.test_worker import cluster, ends, log_of, state_of  # noqa: F401
from tests.processes import started, worker_environment

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

SECONDS = 60.0


@pytest.fixture
def marker() -> Iterator[str]:
    """A number of seconds that only the `sleep` of one test sleeps."""
    text = f"98{os.getpid()}{time.monotonic_ns() % 10**6}.25"
    yield text
    for pid in living(text):
        os.kill(pid, signal.SIGKILL)


def node(engine: str, concurrency: int = 1, **variables: str) -> Any:
    env = worker_environment(
        YARDMASTER_CONTAINER_ENGINE=engine,
        YARDMASTER_CONTAINER_IMAGES=IMAGE if engine else "",
        **variables,
    )
    arguments = ("worker", "--cluster", "alpha", "--concurrency", str(concurrency))
    return started(*arguments, env=env, grace=30)


def add(run: str, **more: Any) -> Job:
    payload = {"image": IMAGE, "run": run, **more.pop("and_", {})}
    return enqueue(NewJob(kind="container", payload=payload, **more), by="test").job


def running(marker: str, eventually: Any, **more: Any) -> Job:
    """A job whose container runs, as its process on this host tells."""
    job = add(f"echo ready; sleep {marker}", **more)
    eventually(lambda: living(marker), seconds=SECONDS)
    return job


def test_a_node_runs_containers_and_shows_them_as_they_run(engine, eventually):
    run = (
        "echo first; echo 40 > $JOB_PROGRESS;"
        "while [ $(date +%s) -lt $END ]; do sleep 0.2; done; echo -n told > $JOB_OUTPUT"
    )
    job = add(run, and_={"env": {"END": str(int(time.time()) + 20)}})
    with node(engine.address):
        eventually(lambda: ("stdout", "first") in log_of(job), seconds=SECONDS)
        assert state_of(job) == State.RUNNING
        eventually(lambda: Job.objects.get(pk=job.pk).progress_percent == 40, seconds=SECONDS)
        assert state_of(job) == State.RUNNING
        job = ends(job, eventually, seconds=SECONDS)
        assert (job.state, job.result) == (State.SUCCEEDED, {"exit_code": 0, "output": "told"})
        assert "container" in Node.objects.get(pk=job.node_id).kinds


def test_a_node_without_an_engine_takes_none(eventually):
    job = add("true")
    with node("", YARDMASTER_HANDLERS="tests.worker_handlers"):
        other = enqueue(NewJob(type="demo:echo", payload=1), by="test").job
        assert ends(other, eventually).state == State.SUCCEEDED
        assert state_of(job) == State.READY
        assert "kind_unknown" in [reason.code for reason in why_waiting(job)]


def test_a_cancelled_job_leaves_no_container(engine, marker, eventually):
    with node(engine.address):
        job = running(marker, eventually)
        Job.objects.filter(pk=job.pk).cancel()
        assert ends(job, eventually, seconds=SECONDS).state == State.CANCELLED
        assert living(marker) == []
        assert engine.made() == NOTHING


def test_a_job_out_of_time_leaves_no_container(engine, marker, eventually):
    """Its time is for all of it: here the first step takes it."""
    steps = {"pre": [{"name": "slow", "run": f"sleep {marker}"}]}
    job = add("echo main", timeout_seconds=4.0, max_attempts=1, and_=steps)
    with node(engine.address):
        job = ends(job, eventually, seconds=SECONDS)
    assert (job.state, job.reason) == (State.FAILED, "timeout")
    assert "did not end within 4 s" in job.error
    assert ("stdout", "main") not in log_of(job)
    assert living(marker) == []


def test_a_failure_is_tried_again(engine, eventually):
    run = 'echo attempt $JOB_ATTEMPT; [ "$JOB_ATTEMPT" = 2 ]'
    job = add(run)
    with node(engine.address):
        job = ends(job, eventually, seconds=SECONDS)
    assert (job.state, job.attempts) == (State.SUCCEEDED, 2)
    first = Attempt.objects.all().of_job(job.pk).order_by("number").first()
    assert first.error == "exit code 1: attempt 1"


def kill(process: Any) -> None:
    """End a node and all of its processes as if the power had gone."""
    family = [psutil.Process(process.pid)]
    # While it stands still it notices nothing and restarts nobody.
    os.kill(process.pid, signal.SIGSTOP)
    family += family[0].children(recursive=True)
    for one in family:
        one.send_signal(signal.SIGSTOP)
    for one in family:
        one.kill()
    psutil.wait_procs(family, timeout=10)


def test_what_a_killed_node_left_the_next_one_removes(engine, marker, eventually):
    sidecar = {"name": "a", "image": IMAGE, "run": f"sleep {marker}"}
    mounts = [{"type": "volume", "target": "/v"}]
    with node(engine.address) as first:
        job = running(marker, eventually, and_={"sidecars": [sidecar], "mounts": mounts})
        eventually(lambda: len(living(marker)) == 2, seconds=SECONDS)
        kill(first)
    assert len(living(marker)) == 2
    Job.objects.filter(pk=job.pk).cancel()
    with node(engine.address):
        eventually(lambda: engine.made() == NOTHING, seconds=SECONDS)
        assert living(marker) == []


def test_containers_of_a_killed_child_end_with_it(engine, marker, eventually):
    with node(engine.address, concurrency=0) as process:
        # No attempt follows whose first look would find what this one left.
        job = running(marker, eventually, on_lost="fail")
        [template] = psutil.Process(process.pid).children()
        [child] = template.children()
        child.kill()
        assert ends(job, eventually, seconds=SECONDS).state == State.FAILED
        eventually(lambda: engine.made() == NOTHING, seconds=SECONDS)
        assert living(marker) == []
