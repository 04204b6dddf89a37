"""File jobs on real nodes: who takes them, what is kept of them, and what a cancel or a kill leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clusters.models import Node
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.waiting import why_waiting
from jobs.errors import InvalidJob
from jobs.executors.file_drafts import is_temporary
from jobs.models import Attempt, Job
from jobs.states import State
from tests.jobs.test_worker import cluster, ends, log_of, state_of  # noqa: F401
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _roots(settings: Any, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    settings.FILE_ROOTS = [f"in={tmp_path}/in", f"out={tmp_path}/out"]


@pytest.fixture
def node(settings: Any) -> Iterator[Any]:
    with _node(",".join(settings.FILE_ROOTS)) as process:
        yield process


def _node(roots: str):
    env = worker_environment(
        YARDMASTER_HANDLERS="tests.worker_handlers", YARDMASTER_FILE_ROOTS=roots
    )
    return started("worker", "--cluster", "alpha", "--concurrency", "1", env=env)


def add(operation: str, path: str, to: str | None = None, **more: Any) -> Job:
    payload: dict[str, Any] = {"operation": operation, "root": "in", "path": path}
    if to is not None:
        payload["to"] = {"root": "out", "path": to}
    new = NewJob(kind="files", type="test:files", payload={**payload, **more.pop("and_", {})})
    return enqueue(new, by="test").job


def drafts(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob(".*") if is_temporary(path.name)]


def slow(tmp_path: Path, mib: int) -> None:
    """A file that takes a while to compress: random, but quickly made."""
    (tmp_path / "in/big").write_bytes(os.urandom(1 << 20) * mib)


def test_a_node_with_roots_runs_file_jobs_and_keeps_what_they_tell(node, tmp_path, eventually):
    (tmp_path / "in/a.csv").write_text("content")
    job = ends(add("copy", "*.csv", "2026"), eventually)
    assert (job.state, job.result["files"]) == (State.SUCCEEDED, 1)
    assert job.result["names"] == ["a.csv"]
    assert (tmp_path / "out/2026/a.csv").read_text() == "content"
    assert ("log", "copy: 1 files, 7 bytes") in log_of(job)
    assert set(Node.objects.get(pk=job.node_id).kinds) >= {"python", "http", "files"}


def test_a_node_without_roots_takes_none(tmp_path, eventually):
    job = add("list", "*")
    with _node(""):
        eventually(lambda: Node.objects.filter(status="live").exists())
        other = enqueue(NewJob(type="demo:echo", payload=1), by="test").job
        assert ends(other, eventually).state == State.SUCCEEDED
        assert state_of(job) == State.READY
        assert "kind_unknown" in [reason.code for reason in why_waiting(job)]


def test_what_no_node_could_do_is_refused_when_it_is_enqueued(settings):
    with pytest.raises(InvalidJob) as caught:
        add("delete", "*")
    assert caught.value.field == "payload.older_than_seconds"
    settings.FILE_ROOTS = []
    with pytest.raises(InvalidJob, match="YARDMASTER_FILE_ROOTS"):
        add("list", "*")
    assert not Job.objects.exists()


def test_a_node_whose_root_is_read_only_fails_the_job_for_good(tmp_path, eventually):
    (tmp_path / "in/a").write_text("stays")
    job = add("delete", "a", and_={"all": True})
    with _node(f"in={tmp_path}/in:ro"):
        job = ends(job, eventually)
    assert (job.state, job.attempts) == (State.FAILED, 1)
    assert "read-only" in job.error
    assert (tmp_path / "in/a").exists()


def test_a_cancelled_job_leaves_no_draft_and_the_next_one_runs(node, tmp_path, eventually):
    slow(tmp_path, 600)
    job = add("archive", "big", "x.tar.gz")
    eventually(lambda: drafts(tmp_path), seconds=60)
    eventually(lambda: Job.objects.get(pk=job.pk).progress_percent, seconds=60)
    Job.objects.filter(pk=job.pk).cancel()
    job = ends(job, eventually)
    assert job.state == State.CANCELLED
    assert drafts(tmp_path) == [] and list((tmp_path / "out").iterdir()) == []
    assert Attempt.objects.all().of_job(job.pk)[0].effect_unknown
    assert ends(add("list", "*"), eventually).state == State.SUCCEEDED


def test_a_job_whose_process_is_killed_is_done_by_the_next_attempt(node, tmp_path, eventually):
    slow(tmp_path, 120)
    job = add("archive", "big", "x.tar.gz")
    eventually(lambda: drafts(tmp_path), seconds=60)
    (first,) = drafts(tmp_path)
    for child in psutil.Process(node.pid).children(recursive=True):
        if any(str(first) == file.path for file in child.open_files()):
            os.kill(child.pid, signal.SIGKILL)
    job = ends(job, eventually, seconds=60)
    assert (job.state, job.attempts) == (State.SUCCEEDED, 2)
    assert drafts(tmp_path) == [] and (tmp_path / "out/x.tar.gz").stat().st_size > 100 << 20
    assert any("earlier attempts" in text for _, text in log_of(job))
