"""Real nodes: processes, signals and both databases."""

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
from clusters.models import ClusterSetting, Node, NodeStatus
from jobs.engine.enqueue import NewJob, enqueue, enqueue_many
from jobs.models import Attempt, Job, LogLine
from jobs.states import FINAL, OnLost, State
from tests.factories import make_queue
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

FAST = {
    # Longer than a busy machine may stop a process for; tests of what is lost say their own.
    "lease_seconds": 10.0,
    "heartbeat_seconds": 0.5,
    "retry_base_seconds": 0.05,
    "cancel_grace_seconds": 2.0,
    "drain_grace_seconds": 2.0,
}
Eventually = Callable[..., None]


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist(FAST, by="test")
        yield


@contextmanager
def worker(*flags: str, concurrency: int = 2) -> Iterator[subprocess.Popen[str]]:
    env = worker_environment(YARDMASTER_HANDLERS="tests.worker_handlers")
    arguments = ("worker", "--cluster", "alpha", "--concurrency", str(concurrency), *flags)
    with started(*arguments, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
            print(output)  # shown by pytest when the test fails


def add(type_name: str, payload: Any = None, **more: Any) -> Job:
    return enqueue(NewJob(type=type_name, payload=payload, **more), by="test").job


def state_of(job: Job) -> str:
    return Job.objects.get(pk=job.pk).state


def ends(job: Job, eventually: Eventually, seconds: float = 20) -> Job:
    eventually(lambda: state_of(job) in FINAL, seconds=seconds)
    return Job.objects.get(pk=job.pk)


def outcomes(job: Job) -> list[str]:
    return list(Attempt.objects.all().of_job(job.pk).values_list("outcome", flat=True))


def log_of(job: Job) -> list[tuple[str, str]]:
    return list(LogLine.objects.all().of_job(job.pk).values_list("stream", "message"))


def test_a_job_runs_and_leaves_its_result_its_log_and_the_node_that_ran_it(eventually):
    job = add("demo:echo", {"hello": "world"})
    with worker():
        job = ends(job, eventually)
        assert (job.state, job.result) == (State.SUCCEEDED, {"hello": "world"})
        assert log_of(job) == [("log", "echo, attempt 1")]
        node = Node.objects.get(pk=job.node_id)
        assert node.status == NodeStatus.LIVE
        assert "demo:echo" in node.types


def test_coroutines_and_printed_lines_work_like_plain_functions(eventually):
    one, two = add("test:async"), add("test:print")
    with worker():
        assert ends(one, eventually).result == "done"
        ends(two, eventually)
    assert log_of(one) == [("stdout", "from a coroutine")]
    assert log_of(two) == [
        ("stdout", "to stdout \\x00 with a NUL"),
        ("stderr", "to stderr"),
        ("log", "to the log"),
    ]


def test_a_failing_job_is_tried_again_and_keeps_every_attempt(eventually):
    job = add("demo:fail", {"times": 2})
    with worker():
        job = ends(job, eventually)
    assert (job.state, job.attempts) == (State.SUCCEEDED, 3)
    assert outcomes(job) == ["failed", "failed", "succeeded"]
    assert "attempt 1 fails, as asked" in Attempt.objects.all().of_job(job.pk)[0].error


def test_a_permanent_error_ends_at_once(eventually):
    job = add("test:permanent")
    with worker():
        job = ends(job, eventually)
    assert (job.state, job.reason, job.attempts) == ("failed", "error", 1)
    assert job.error == "no attempt can help"


@pytest.mark.parametrize("which", ["nan", "object", "nul", "surrogate", "large"])
def test_a_result_that_cannot_be_kept_fails_the_job_and_says_why(which, eventually):
    job, fine = add("test:result", {"which": which}), add("test:result", {"which": "fine"})
    with worker(concurrency=1):
        job = ends(job, eventually)
        assert ends(fine, eventually).result == {"a": [1, None, "ü"]}
        about = add("test:result", {"which": "text-about-nul"})
        assert ends(about, eventually).result == "\\u0000"
    assert (job.state, job.reason) == ("failed", "error")
    assert "result" in job.error


def test_odd_words_neither_stop_a_node_nor_are_stored_as_they_are(eventually):
    odd, wrong = add("test:odd-words"), add("test:odd-words", "nan", max_attempts=1)
    with worker(concurrency=1):
        job = ends(odd, eventually)
        assert (job.state, job.progress_percent) == (State.SUCCEEDED, 12)
        assert log_of(odd) == [("log", "fine")]
        assert "progress is a number" in ends(wrong, eventually).error
        assert ends(add("demo:echo", 1), eventually).state == State.SUCCEEDED


def test_a_node_that_loses_its_lease_ends_the_programs_of_its_shell_jobs(tmp_path, eventually):
    """Before the job can run again: both copies at once is what a lease is there to prevent."""
    marker = f"4711.{os.getpid()}"
    shell = {"script": f"sleep {marker}\ntrue"}
    job = enqueue(NewJob(kind="shell", payload=shell, on_lost=OnLost.FAIL), by="test").job
    with worker("--enable-shell"):
        eventually(lambda: _living(marker), seconds=60)
        old = Node.objects.get()
        Node.objects.filter(pk=old.pk).update(status=NodeStatus.DEAD, closed_at=old.started_at)
        assert ends(job, eventually).reason == "lost"
        eventually(lambda: not _living(marker))


def _living(marker: str) -> list[int]:
    return [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if one.info["cmdline"] and marker in one.info["cmdline"]
    ]


def test_a_suspended_child_gives_its_job_to_another(eventually):
    with worker(concurrency=1) as process:
        ends(add("demo:noop"), eventually)
        node = psutil.Process(process.pid)
        template = node.children()[0]
        for child in template.children():
            child.suspend()
        job = add("demo:echo", 1)
        assert ends(job, eventually, 20).attempts == 1


def test_output_is_bounded_with_a_line_that_counts_what_is_missing(eventually):
    job = add("test:print", {"lines": 6000})
    with worker():
        ends(job, eventually)
    lines = log_of(job)
    size = sum(len(text) + 1 for _, text in lines)
    assert size <= (64 + 192 + 1) * 1024
    (marker,) = [text for _, text in lines if "left out here" in text]
    missing = int(marker.removeprefix("[").split()[0])
    assert missing == 6000 + 3 - (len(lines) - 1)


@pytest.mark.parametrize("type_name", ["test:spin", "test:stubborn", "test:sleep"])
def test_a_job_past_its_timeout_is_stopped_and_its_neighbours_are_not(type_name, eventually):
    job = add(type_name, {"seconds": 60}, timeout_seconds=0.5, max_attempts=1)
    neighbours = [add("demo:echo", n) for n in range(5)]
    with worker(concurrency=2):
        begun = time.monotonic()
        job = ends(job, eventually)
        assert time.monotonic() - begun < 40
        assert (job.state, job.reason) == ("failed", "timeout")
        for neighbour in neighbours:
            assert ends(neighbour, eventually).attempts == 1
        assert ends(add("demo:echo", "after"), eventually).state == State.SUCCEEDED


@pytest.mark.parametrize("type_name", ["test:spin", "test:stubborn", "test:cooperative"])
def test_cancelling_running_work_stops_it_within_the_grace(type_name, eventually):
    job = add(type_name, {"seconds": 60})
    with worker():
        eventually(lambda: log_of(job) == [("log", "begun")])
        asked = time.monotonic()
        job.cancel()
        assert state_of(job) == State.RUNNING  # until the code is dead
        job = ends(job, eventually)
        assert time.monotonic() - asked < 40
    assert job.state == State.CANCELLED
    assert outcomes(job) == ["cancelled"]


def test_a_killed_handler_takes_the_programs_it_started_along(tmp_path, eventually):
    path = tmp_path / "pid"
    job = add("test:with-child", {"path": str(path)}, timeout_seconds=4, max_attempts=1)
    with worker():
        ends(job, eventually)
        eventually(path.exists)
        pid = int(path.read_text())
        eventually(lambda: not psutil.pid_exists(pid) or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_crash_is_charged_to_the_job_that_caused_it_and_to_no_other(eventually):
    crash = add("test:crash-once")
    others = [add("demo:noop") for _ in range(200)]
    with worker(concurrency=1):
        crash = ends(crash, eventually)
        assert crash.result == "survived"
        for other in others:
            ends(other, eventually)
    assert outcomes(crash) == ["lost", "succeeded"]
    assert crash.crashes == 1
    assert not Job.objects.filter(type="demo:noop").exclude(crashes=0, attempts=1).exists()
    assert Attempt.objects.filter(job__type="demo:noop").count() == 200


def test_a_job_that_always_kills_its_process_is_poisoned_after_three_times(eventually):
    job = add("test:exit", max_attempts=20)
    with worker():
        job = ends(job, eventually)
        assert ends(add("demo:echo", 1), eventually).state == State.SUCCEEDED
    assert (job.state, job.reason, job.crashes) == ("failed", "poisoned", 3)
    assert outcomes(job) == ["lost"] * 3


def test_a_killed_node_loses_nothing_and_its_jobs_run_again_elsewhere(tmp_path, eventually):
    ClusterSetting.objects.all().persist({"lease_seconds": 3.0}, by="test")
    path = tmp_path / "ledger"
    jobs = [
        add("test:ledger", {"path": str(path), "seconds": 1.0 if n < 2 else 0.01})
        for n in range(40)
    ]
    once = add("test:ledger", {"path": str(path), "seconds": 60}, on_lost=OnLost.FAIL, priority=-1)
    with worker(concurrency=3) as first:
        eventually(lambda: Job.objects.filter(state=State.RUNNING).count() >= 3)
        victims = set(Job.objects.filter(state=State.RUNNING).values_list("pk", flat=True))
        children = psutil.Process(first.pid).children(recursive=True)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        killed = time.monotonic()
        psutil.wait_procs(children, timeout=30)
        assert not [c for c in children if c.is_running() and c.status() != "zombie"]
        with worker(concurrency=3):
            for job in jobs:
                assert ends(job, eventually, 30).state == State.SUCCEEDED
            once = ends(once, eventually)
            assert time.monotonic() - killed < 50
    assert (once.state, once.reason) == ("failed", "lost")
    lost = set(Attempt.objects.filter(outcome="lost").values_list("job_id", flat=True))
    assert lost == victims
    assert Node.objects.get(pid=first.pid).status == NodeStatus.DEAD
    _every_second_start_has_a_lost_attempt(path)


def _every_second_start_has_a_lost_attempt(path: Path) -> None:
    starts: dict[str, set[int]] = {}
    for line in path.read_text().splitlines():
        kind, job_id, fence, _ = line.split()
        if kind == "S":
            fences = starts.setdefault(job_id, set())
            assert int(fence) not in fences, f"job {job_id} began twice under fence {fence}"
            fences.add(int(fence))
    for job_id, fences in starts.items():
        for fence in sorted(fences)[:-1]:
            ended = Attempt.objects.get(job_id=job_id, fence=fence)
            assert ended.outcome in ("lost", "failed", "released")


def test_a_node_that_drains_finishes_its_work_and_takes_no_more(tmp_path, eventually):
    ClusterSetting.objects.all().persist({"drain_grace_seconds": 60.0}, by="test")
    path = tmp_path / "ledger"
    running = add("test:ledger", {"path": str(path), "seconds": 1.2})
    with worker(concurrency=1) as process:
        eventually(path.exists)
        waiting = add("test:ledger", {"path": str(path)})
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0
        assert time.monotonic() - begun < 40
    assert state_of(running) == State.SUCCEEDED
    assert state_of(waiting) == State.READY
    assert Job.objects.get(pk=waiting.pk).attempts == 0
    assert Node.objects.get(pid=process.pid).status == NodeStatus.CLOSED


@pytest.mark.parametrize("type_name", ["test:sleep", "test:stubborn"])
def test_work_that_outlasts_the_drain_is_released_for_others(type_name, eventually):
    job = add(type_name, {"seconds": 60})
    with worker(concurrency=1) as process:
        eventually(lambda: state_of(job) == State.RUNNING)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0
        assert time.monotonic() - begun < 40
    assert state_of(job) == State.READY
    assert outcomes(job) == ["released"]


def test_a_second_signal_cuts_the_drain_short(eventually):
    job = add("test:sleep", {"seconds": 60})
    ClusterSetting.objects.all().persist({"drain_grace_seconds": 60.0}, by="test")
    with worker(concurrency=1) as process:
        eventually(lambda: state_of(job) == State.RUNNING)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    assert state_of(job) == State.READY


def test_signals_that_keep_coming_do_not_change_how_a_node_ends(eventually):
    """Also in the last moments of the interpreter, which forgets whose signals are handled."""
    with worker() as process:
        eventually(lambda: Node.objects.filter(status=NodeStatus.LIVE).exists(), seconds=60)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert process.returncode == 0


def test_a_node_ordered_to_drain_says_so_and_takes_nothing_new(eventually):
    with worker():
        eventually(lambda: Node.objects.filter(status=NodeStatus.LIVE).exists(), seconds=60)
        assert Node.objects.all().order_drain() == 1
        eventually(lambda: Node.objects.get().status == NodeStatus.DRAINING)
        job = add("demo:echo", 1)
        time.sleep(1)
        assert state_of(job) == State.READY
        node = Node.objects.get()
        assert (node.running_jobs, node.running_io_jobs, node.places) == (
            0,
            0,
            node.concurrency + 20,
        )
        # And when nobody wants it any more it works on.
        assert Node.objects.all().end_drain() == 1
        ends(job, eventually)
        eventually(lambda: Node.objects.get().status == NodeStatus.LIVE)


def test_long_jobs_are_not_hoarded_by_the_first_node(eventually):
    """A node takes one job for each free child until it knows that they are short."""
    jobs = [add("test:sleep", {"seconds": 1.0}) for _ in range(8)]
    with worker(concurrency=2) as first, worker(concurrency=2) as second:
        for job in jobs:
            ends(job, eventually)
        shares = {
            process.pid: Job.objects.filter(node__pid=process.pid).count()
            for process in (first, second)
        }
    assert sum(shares.values()) == 8
    assert min(shares.values()) >= 2
    assert not Job.objects.exclude(attempts=1).exists()


def test_short_jobs_behind_a_long_one_are_handed_back(eventually):
    """The estimate was wrong: what waits in a child's hands goes to the others, nothing spent."""
    many = [NewJob(type="demo:sleep", payload={"seconds": 0.001}) for _ in range(300)]
    with worker(concurrency=2):
        for new in enqueue_many(many, by="test"):
            ends(new.job, eventually)
        long = add("demo:sleep", {"seconds": 60}, priority=-1)
        rest = [new.job for new in enqueue_many(many, by="test")]
        begun = time.monotonic()
        for job in rest:
            ends(job, eventually)
        assert time.monotonic() - begun < 40
        assert state_of(long) == State.RUNNING
    assert not Job.objects.filter(pk__in=[job.pk for job in rest]).exclude(attempts=1).exists()


def test_jobs_wait_for_their_time_and_for_their_queue(eventually):
    make_queue("closed", is_paused=True)
    with worker():
        eventually(lambda: Node.objects.alive().exists(), seconds=60)
        parked = add("demo:echo", 1, queue="closed")
        later = add("demo:echo", 2, delay_seconds=3.0)
        assert state_of(later) == State.SCHEDULED
        job = ends(later, eventually)
        assert (job.started_at - job.run_at).total_seconds() < 20
        assert job.started_at >= job.run_at
        assert state_of(parked) == State.READY


def test_a_node_whose_row_is_dead_stops_its_work_and_starts_anew(eventually):
    job = add("demo:sleep", {"seconds": 60})
    with worker(concurrency=1):
        eventually(lambda: state_of(job) == State.RUNNING)
        old = Node.objects.get()
        Node.objects.filter(pk=old.pk).update(status=NodeStatus.DEAD, closed_at=old.started_at)
        eventually(lambda: Attempt.objects.filter(job_id=job.pk, outcome="lost").exists())
        eventually(lambda: Node.objects.alive().count() == 1)
        eventually(lambda: Job.objects.get(pk=job.pk).fence == 2)
        assert Job.objects.get(pk=job.pk).node_id != old.pk


def test_handlers_that_cannot_be_imported_stop_the_start_and_say_why():
    env = worker_environment(YARDMASTER_HANDLERS="tests.no_such_module")
    with started("worker", "--cluster", "alpha", env=env) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "YARDMASTER_HANDLERS: cannot import tests.no_such_module" in output
    assert "Traceback" not in output


def test_an_idle_node_is_small(eventually):
    with worker(concurrency=2) as process:
        eventually(lambda: Node.objects.exists(), seconds=60)
        time.sleep(1)
        node = psutil.Process(process.pid)
        total = sum(p.memory_full_info().pss for p in [node, *node.children(recursive=True)])
    assert total <= 150 * 2**20, f"{total / 2**20:.0f} MiB"


def test_the_secrets_of_a_node_are_not_in_its_process_list():
    with worker() as process:
        time.sleep(1)
        line = " ".join(psutil.Process(process.pid).cmdline())
    assert "postgres" not in line and "sqlite" not in line
