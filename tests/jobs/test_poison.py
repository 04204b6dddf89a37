"""Jobs that harm whatever runs them: a real node, real processes, both databases."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from clusters.binding import cluster_bound
from clusters.models import ClusterSetting, Node
from jobs.engine.enqueue import NewJob, enqueue
from jobs.models import Attempt, Job, LogLine
from jobs.states import FINAL, State
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

SETTINGS = {
    "retry_base_seconds": 0.05,
    "cancel_grace_seconds": 1.0,
    "drain_grace_seconds": 1.0,
    "child_memory_bytes": 64 << 20,
}


# Few lines, some that are all collected, and more than are kept of the end of an output.
TALKS = (1, 40, 200, 5000)


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist(SETTINGS, by="test")
        yield


@pytest.fixture
def marker() -> Iterator[str]:
    """How long the programs sleep; nobody else sleeps for just so long."""
    text = f"{random.randint(10**6, 10**7)}.25"
    yield text
    for pid in living(text):
        os.kill(pid, signal.SIGKILL)


def living(marker: str) -> list[int]:
    return [
        one.pid
        for one in psutil.process_iter(["cmdline", "status"])
        if one.info["status"] != psutil.STATUS_ZOMBIE
        and marker in " ".join(one.info["cmdline"] or ())
    ]


@contextmanager
def worker(*flags: str, concurrency: int = 2) -> Iterator[subprocess.Popen[str]]:
    env = worker_environment(YARDMASTER_HANDLERS="tests.poison_handlers")
    arguments = ("worker", "--cluster", "alpha", "--concurrency", str(concurrency), *flags)
    with started(*arguments, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
            print(output[-20_000:])  # shown by pytest when the test fails


def add(type_name: str, payload: Any = None, **more: Any) -> Job:
    return enqueue(NewJob(type=type_name, payload=payload, **more), by="test").job


def now(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def ends(job: Job, eventually: Any, seconds: float = 30) -> Job:
    eventually(lambda: now(job).state in FINAL, seconds=seconds)
    return now(job)


def log_of(job: Job) -> list[tuple[str, str]]:
    return list(LogLine.objects.all().of_job(job.pk).values_list("stream", "message"))


def texts_of(job: Job) -> str:
    return "\n".join(message for _, message in log_of(job))


def errors_of(job: Job) -> str:
    return "\n".join(Attempt.objects.all().of_job(job.pk).values_list("error", flat=True))


def test_poison_harms_neither_the_node_nor_its_neighbours(marker, tmp_path, eventually):
    crashing = {
        name: add(f"poison:{name}", max_attempts=20)
        for name in ("exit", "segfault", "hog", "hog-at-once", "forks")
    }
    crashing["daemon"] = add("poison:daemon", {"marker": marker, "exits": True}, max_attempts=20)
    storm = add("poison:fork-storm-of-programs", {"marker": marker}, max_attempts=20)
    crashing["storm"] = storm
    failing = {
        "disk": add("poison:disk", {"path": str(tmp_path / "large")}, max_attempts=1),
        "leak": add("poison:descriptors", {"count": 2000}, max_attempts=1),
        "gil": add("poison:gil", timeout_seconds=1.0, max_attempts=1),
    }
    fine = [add("poison:line"), add("poison:daemon", {"marker": marker})]
    good = [add("demo:echo", number) for number in range(200)]
    with worker(concurrency=3) as process:
        for job in good:
            assert ends(job, eventually, 60).state == State.SUCCEEDED
        for name, job in crashing.items():
            job = ends(job, eventually, 60)
            assert (job.state, job.reason, job.crashes) == ("failed", "poisoned", 3), name
        reasons = {name: ends(job, eventually).reason for name, job in failing.items()}
        for job in fine:
            assert ends(job, eventually).state == State.SUCCEEDED
        assert reasons == {"disk": "error", "leak": "error", "gil": "timeout"}
        assert living(marker) == []
        assert Node.objects.get().pid == process.pid
        assert Node.objects.alive().count() == 1
    assert not Attempt.objects.filter(job__type="demo:echo").exclude(outcome="succeeded").exists()
    assert (tmp_path / "large").stat().st_size == 0
    assert "File too large" in errors_of(failing["disk"])
    assert "Too many open files" in errors_of(failing["leak"])
    assert "MiB of memory, 128 are allowed" in errors_of(crashing["hog"])
    assert "MemoryError" in errors_of(crashing["hog-at-once"])
    assert "processes, 256 are allowed" in errors_of(storm)
    assert "killed: more than 8 generations of processes" in texts_of(crashing["forks"])
    assert "died of SIGSEGV" in errors_of(crashing["segfault"])
    assert "ended with exit code 3" in errors_of(crashing["exit"])
    assert "last words" in texts_of(crashing["exit"])
    for job in fine:
        # Once by the child, and once by the node where that had to read in its place.
        size = sum(len(message) for _, message in log_of(job))
        assert size < 2 * (300 << 10)


def test_what_a_job_said_last_before_it_took_its_process_down_is_in_its_log(eventually):
    jobs = {lines: add("poison:talk-and-die", {"lines": lines}, max_attempts=1) for lines in TALKS}
    with worker():
        eventually(lambda: all(now(job).state == State.FAILED for job in jobs.values()), seconds=60)
        for lines, job in jobs.items():
            eventually(lambda job=job: "that was all" in texts_of(job), seconds=10)
            said = [message for _, message in log_of(job)]
            numbers = [int(text.split()[1]) for text in said if text.startswith("line ")]
            assert numbers == sorted({*numbers})
            assert numbers[-1] == lines - 1
            assert said[-1] == "that was all"
            if lines < 500:
                assert len(numbers) == lines
            else:
                left_out = [text for text in said if text.endswith("left out here]")]
                assert left_out == [f"[{lines - len(numbers)} lines left out here]"]


def test_a_program_that_takes_too_much_memory_is_charged_to_its_job(eventually):
    job = add("poison:hog-by-proxy", max_attempts=20)
    with worker():
        job = ends(job, eventually, 40)
    assert (job.reason, job.crashes) == ("poisoned", 3)


def test_a_child_that_has_grown_is_replaced_between_jobs(eventually):
    with worker(concurrency=1):
        small = ends(add("poison:grow", {"bytes": 1000}), eventually).result
        # The next one is not run where so much is left.
        large = ends(add("poison:grow", {"bytes": 80 << 20, "seconds": 1.5}), eventually)
        assert (large.state, large.attempts, large.result) == (State.SUCCEEDED, 1, small)
        eventually(lambda: not psutil.pid_exists(small))
        after = ends(add("poison:grow", {"bytes": 1000}), eventually)
        assert (after.attempts, after.result != small) == (1, True)


def test_a_child_whose_files_were_left_open_is_replaced(eventually):
    with worker(concurrency=1):
        first = ends(add("poison:descriptors", {"count": 700}), eventually)
        second = ends(add("poison:descriptors", {"count": 700}), eventually)
    assert (first.state, second.state) == (State.SUCCEEDED, State.SUCCEEDED)
    assert first.result != second.result
    assert "too many files open" in texts_of(first)


def test_what_a_handler_leaves_running_ends_with_its_job(marker, eventually):
    job = add("poison:daemon", {"marker": marker, "seconds": 0.2})
    with worker(concurrency=1):
        job = ends(job, eventually)
        assert living(marker) == []
        assert job.state == State.SUCCEEDED
    assert "2 processes that the handler left running" in texts_of(job)


def test_a_daemon_of_a_cancelled_handler_is_dead_when_its_job_is_cancelled(marker, eventually):
    job = add("poison:daemon", {"marker": marker, "seconds": 60})
    with worker(concurrency=1):
        eventually(lambda: len(living(marker)) == 2, seconds=60)
        job.cancel()
        assert ends(job, eventually).state == State.CANCELLED
        assert living(marker) == []


def test_only_the_process_that_was_given_a_job_speaks_for_it(eventually):
    with worker(concurrency=1):
        job = ends(add("poison:fork-and-return"), eventually)
        late = add("poison:fork-and-return", {"seconds": 60}, timeout_seconds=1.0, max_attempts=1)
        assert ends(late, eventually).reason == "timeout"
    assert (job.state, job.result, job.attempts) == (State.SUCCEEDED, "original", 1)


def test_all_that_a_handler_says_is_in_the_log_of_its_job_and_of_no_other(eventually):
    with worker(concurrency=1) as process:
        jobs = [(add("poison:words"), add("poison:silent")) for _ in range(20)]
        for loud, silent in jobs:
            ends(loud, eventually)
            ends(silent, eventually)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    for loud, silent in jobs:
        assert log_of(silent) == []
        lines = log_of(loud)
        assert sorted(lines) == [
            ("log", "shop: sold out: tea"),
            ("stderr", "complaint"),
            ("stdout", "printed"),
            ("stdout", "program"),
            ("stdout", "raw"),
        ]
        assert lines.index(("stdout", "raw")) < lines.index(("stdout", "program"))
    assert LogLine.objects.filter(message__contains="sold out", level="warning").count() == 20
    assert "sold out" not in output and "complaint" not in output


def test_a_call_in_c_that_the_node_cut_short_is_no_success(eventually):
    """The request to stop lies unread while the call lets no other thread run; the signal comes first."""
    jobs = [add("poison:gil-at-once", timeout_seconds=0.3, max_attempts=1) for _ in range(5)]
    with worker(concurrency=2):
        assert [ends(job, eventually).reason for job in jobs] == ["timeout"] * 5


def test_a_flood_from_c_does_not_block_the_job(eventually):
    job = add("poison:flood-with-gil", timeout_seconds=20, max_attempts=1)
    with worker(concurrency=1):
        assert ends(job, eventually).state == State.SUCCEEDED
    lines = [message for stream, message in log_of(job) if stream == "stdout"]
    assert {line[0] for line in lines} == {"0", "1", "2"}


def test_a_handler_that_is_throttled_comes_back_and_spends_no_attempt(eventually):
    job = add("poison:throttled", {"times": 3, "seconds": 0.1}, max_attempts=1)
    with worker(concurrency=1):
        job = ends(job, eventually)
    assert (job.result, job.attempts, job.throttles) == ("at last", 1, 3)
    outcomes = Attempt.objects.all().of_job(job.pk).values_list("outcome", "error_type")
    assert list(outcomes) == [("failed", "Throttled")] * 3 + [("succeeded", None)]


# -- What a node that is gone has left -------------------------------------------------------------


def test_a_node_ends_what_one_that_was_killed_has_left_on_the_host(marker, tmp_path, eventually):
    """Node, template and io child at one stroke: nobody is left to clean up."""
    short = {"lease_seconds": 4.0, "heartbeat_seconds": 0.5}
    ClusterSetting.objects.all().persist(short, by="test")
    script = {"script": f"setsid sleep {marker} & mkdir -p a/b; sleep {marker}; true"}
    shell = enqueue(NewJob(kind="shell", payload=script, on_lost="fail"), by="test").job
    daemon = add("poison:daemon", {"marker": marker, "seconds": 60}, on_lost="fail")
    folders = lambda: list(Path(tempfile.gettempdir()).glob(f"yardmaster-shell-*{shell.pk}*"))  # noqa: E731
    bystander = subprocess.Popen(
        ["sleep", marker], env={**os.environ, "YARDMASTER_NODE": "ymaaaaaaaaaaaaa"}
    )
    try:
        with worker("--enable-shell") as first:
            eventually(lambda: len(living(marker)) >= 5, seconds=60)
            node = psutil.Process(first.pid)
            family = [node, *node.children()]
            family += [one for one in family[1].children() if len(one.children()) > 0]
            for one in family:
                one.suspend()
            for one in family:
                one.kill()
            first.wait()
            time.sleep(0.3)
            left = set(living(marker)) - {bystander.pid}
            assert left and folders()
            with worker("--enable-shell") as second:
                eventually(lambda: set(living(marker)) == {bystander.pid}, seconds=60)
                eventually(lambda: not folders())
                assert ends(daemon, eventually).reason == "lost"
                # Another node of the same installation starts, and leaves this one's programs alone.
                kept = enqueue(NewJob(kind="shell", payload=script), by="test").job
                eventually(lambda: len(living(marker)) >= 3, seconds=60)
                before = set(living(marker))
                with worker():
                    eventually(lambda: Node.objects.alive().count() == 2, seconds=60)
                    assert set(living(marker)) == before
                assert now(kept).state == State.RUNNING
                assert second.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
