"""Kind `procedure` on real nodes: what becomes of the job when its node stops, dies or is not set up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from clusters.binding import cluster_bound
from clusters.models import ClusterSetting, Node
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.waiting import why_waiting
from jobs.errors import InvalidJob
from jobs.models import Attempt, Failure, Job, LogLine, Secret
from jobs.redaction import REDACTED
from jobs.states import FINAL, OnLost
from tests.jobs.executors.procedures import CANARY, ProcedureDatabase, payload
from tests.jobs.steps.test_secrets import CANARIES, everything_stored, leaked
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

FAST = {
    "lease_seconds": 10.0,
    "heartbeat_seconds": 0.5,
    "retry_base_seconds": 0.05,
    "cancel_grace_seconds": 2.0,
    "drain_grace_seconds": 0.2,
}
Eventually = Callable[..., None]


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist(FAST, by="test")
        yield


@pytest.fixture
def config(procedures: ProcedureDatabase, tmp_path: Path) -> Path:
    return procedures.write_config(tmp_path / "node.toml")


@contextmanager
def worker(config: Path | None, **variables: str) -> Iterator[subprocess.Popen[str]]:
    if config is not None:
        variables["YARDMASTER_PROCEDURES_CONFIG"] = str(config)
    env = worker_environment(YARDMASTER_LOG_LEVEL="DEBUG", **variables)
    with started("worker", "--cluster", "alpha", env=env) as process:
        yield process


def add(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> Job:
    given = payload(name, parameters=parameters or {})
    return enqueue(NewJob(kind="procedure", payload=given, **more), by="test").job


def ends(job: Job, eventually: Eventually, seconds: float = 20) -> Job:
    eventually(lambda: Job.objects.get(pk=job.pk).state in FINAL, seconds=seconds)
    return Job.objects.get(pk=job.pk)


def last_attempt(job: Job) -> Attempt:
    return list(Attempt.objects.all().of_job(job.pk))[-1]


def is_running(procedures: ProcedureDatabase, words: str) -> bool:
    return any(s.startswith("active") and words in s for s in procedures.sessions())


def test_a_job_calls_a_procedure_and_no_secret_is_anywhere(procedures, config, eventually):
    good = add("work.add", {"a": 2, "b": 3})
    talks = add("work.talk")
    bad = add("work.fail", {"code": "22000", "words": "no"})
    with worker(config) as process:
        node = psutil.Process(process.pid)
        assert ends(good, eventually).result["output"]["total"] == 5
        ends(talks, eventually)
        assert ends(bad, eventually).state == "failed"
        listed = [
            Path(f"/proc/{one.pid}/{what}").read_bytes()
            for one in [node, *node.children(recursive=True)]
            for what in ("cmdline", "environ")
        ]
        process.terminate()
        printed, _ = process.communicate(timeout=60)
    assert len(listed) >= 6
    assert "procedure" in Node.objects.get().kinds
    lines = list(LogLine.objects.all().of_job(talks.pk).values_list("message", flat=True))
    assert lines[:2] == ["it is said", "and warned"]
    stored = [
        *Job.objects.values_list("payload", "result", "error"),
        *Attempt.objects.values(),
        *Failure.objects.values(),
        *LogLine.objects.values_list("message"),
    ]
    assert CANARY not in f"{printed}{stored}"
    assert not any(CANARY.encode() in part for part in listed)


def test_named_secrets_are_told_to_the_database_and_to_nobody_else(
    procedures, config, is_postgresql, eventually
):
    for name in ("c1", "c2"):
        Secret.objects.all().create_secret(name, CANARIES[name], by="test")
    noted = add("work.note", {"what": "it is {{Secret.c1}}"})
    echoed = add("work.echo", {"t": "secret:c1"})
    failing = add("work.fail", {"code": "22000", "words": "no {{Secret.c2}}"}, max_attempts=1)
    with worker(config) as process:
        jobs = [ends(job, eventually) for job in (noted, echoed, failing)]
        process.terminate()
        printed, _ = process.communicate(timeout=60)
    assert procedures.done() == [f"it is {CANARIES['c1']}"]
    assert jobs[1].result["rows"] == [{"echo": REDACTED}]
    assert f"no {REDACTED}" in jobs[2].error
    assert leaked(printed.encode()) == []
    assert leaked(everything_stored(is_postgresql)) == []


@pytest.mark.once
def test_a_node_that_cannot_connect_keeps_the_address_to_itself(procedures, tmp_path, eventually):
    config = procedures.write_config(
        tmp_path / "node.toml", procedures.url(database=f"{CANARY}-missing")
    )
    job = add("twice", {"number": 1}, max_attempts=2)
    with worker(config) as process:
        job = ends(job, eventually)
        process.terminate()
        printed, _ = process.communicate(timeout=60)
    assert job.error == "no connection to main: there is no such role or database"
    attempts = list(Attempt.objects.values())
    assert [attempt["error_type"] for attempt in attempts] == ["ConnectionError"] * 2
    assert CANARY not in f"{printed}{attempts}{list(Failure.objects.values())}{job.error}"


@pytest.mark.once
def test_a_node_without_a_connection_takes_no_such_job(procedures, eventually):
    job = add("twice", {"number": 1})
    with worker(None):
        eventually(lambda: Node.objects.alive().exists(), seconds=60)
        assert Node.objects.get().kinds.count("procedure") == 0
        time.sleep(1)
        job.refresh_from_db()
        assert job.state == "ready"
        assert "kind_unknown" in [reason.code for reason in why_waiting(job)]


@pytest.mark.once
def test_where_nothing_is_configured_nothing_is_enqueued(settings):
    with pytest.raises(InvalidJob) as refused:
        add("twice", {"number": 1})
    assert refused.value.field == "payload.connection"
    assert not Job.objects.exists()


@pytest.mark.parametrize(("name", "in_doubt"), [("work.slow", False), ("work.in_steps", True)])
@pytest.mark.once
def test_a_cancelled_job_says_whether_it_may_have_worked(
    procedures, config, eventually, name, in_doubt
):
    job = add(name, {"what": "x", "seconds": 60})
    with worker(config):
        eventually(lambda: is_running(procedures, name.partition(".")[2]), seconds=60)
        job.refresh_from_db()
        job.cancel()
        job = ends(job, eventually)
        assert procedures.sessions() == []
    assert job.state == "cancelled"
    assert last_attempt(job).effect_unknown is in_doubt
    assert procedures.done() == (["x 1"] if in_doubt else [])


@pytest.mark.parametrize(("name", "in_doubt"), [("work.slow", False), ("work.in_steps", True)])
@pytest.mark.once
def test_a_job_out_of_time_ends_as_timeout(procedures, config, eventually, name, in_doubt):
    job = add(name, {"what": "x", "seconds": 60}, timeout_seconds=4.0, max_attempts=1)
    with worker(config):
        job = ends(job, eventually)
        assert procedures.sessions() == []
    assert (job.state, job.reason) == ("failed", "timeout")
    attempt = last_attempt(job)
    assert (attempt.outcome, attempt.effect_unknown) == ("timeout", in_doubt)


@pytest.mark.once
def test_a_drained_node_hands_back_what_was_undone_and_not_what_is_in_doubt(
    procedures, config, eventually
):
    undone = add("work.slow", {"what": "x", "seconds": 60})
    doubtful = add("work.in_steps", {"what": "y", "seconds": 60}, on_lost=OnLost.HOLD)
    with worker(config) as process:
        eventually(
            lambda: is_running(procedures, "slow") and procedures.done() == ["y 1"], seconds=20
        )
        process.terminate()
        process.communicate(timeout=60)
    undone.refresh_from_db()
    doubtful.refresh_from_db()
    assert undone.state == "ready"
    assert (doubtful.state, doubtful.is_held) == ("failed", True)
    assert last_attempt(doubtful).effect_unknown is True
    assert procedures.sessions() == []


@pytest.mark.once
def test_the_server_ends_the_call_of_a_node_that_was_killed(procedures, config, eventually):
    """All of its processes at once, so that nobody is left to say a word to the server."""
    job = add("work.slow", {"what": "x", "seconds": 60}, on_lost=OnLost.FAIL)
    with worker(config) as process:
        eventually(lambda: is_running(procedures, "slow"), seconds=60)
        node = psutil.Process(process.pid)
        family = [*node.children(recursive=True), node]
        for one in family:
            one.suspend()
        for one in family:
            os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: procedures.sessions() == [])
    assert procedures.done() == []
    assert Job.objects.get(pk=job.pk).state == "running"


@pytest.mark.once
def test_the_server_ends_the_call_of_a_node_that_stands_still(procedures, config, eventually):
    """Its sockets stay open; the limit that was set for the call is what ends it."""
    add("work.slow", {"what": "x", "seconds": 60}, timeout_seconds=6.0)
    with worker(config) as process:
        eventually(lambda: is_running(procedures, "slow"), seconds=60)
        node = psutil.Process(process.pid)
        family = [node, *node.children(recursive=True)]
        for one in family:
            one.suspend()
        try:
            assert is_running(procedures, "slow")
            eventually(lambda: not is_running(procedures, "slow"), seconds=40)
        finally:
            for one in reversed(family):
                one.kill()
    eventually(lambda: procedures.sessions() == [])
    assert procedures.done() == []
