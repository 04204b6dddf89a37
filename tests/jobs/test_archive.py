"""What a cluster no longer keeps is moved to its archive, and lost on no way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connections

from clusters.binding import cluster_bound
from clusters.models import ClusterSetting, Node
from clusters.policy import ClusterPolicy
from jobs.engine import archive, prune
from jobs.engine.archive import Archive
from jobs.engine.prune import Pruner
from jobs.errors import ArchiveUnavailable, Conflict
from jobs.models import (
    ArchivedJob,
    Attempt,
    Job,
    JobDependency,
    JobListing,
    JobMetadata,
    JobTag,
    LogLine,
    Queue,
    Step,
    StepsListing,
    StepsRun,
    WebhookEvent,
)
from jobs.states import State
from tests.factories import make_job, make_node, make_queue
from tests.jobs.steps.cases import do
from tests.jobs.steps.cases import run as run_steps
from tests.jobs.test_prune import ago, left, old_job, run, with_everything
from tests.processes import ROOT, worker_environment

HERE, THERE = "cluster-alpha", "cluster-beta"
POLICY = ClusterPolicy(archive_to="beta")
# Everything that is a job's.
TABLES: tuple[Any, ...] = (
    *(Job, Attempt, LogLine, JobTag, JobMetadata, JobListing, JobDependency),
    *(Step, StepsRun, StepsListing, WebhookEvent),
)


@pytest.fixture(autouse=True)
def an_archive(db: None) -> None:
    with cluster_bound("beta"):
        ClusterSetting.objects.all().change({"mode": "archived"}, by="test")


def rows_of(model: Any, using: str) -> list[tuple[Any, ...]]:
    """All rows of a table in one order, without the numbers that each database gives itself."""
    numbered = model in (LogLine, StepsListing, WebhookEvent)
    columns = [
        field.attname
        for field in model._meta.concrete_fields
        if not (numbered and field.primary_key)
    ]
    return sorted(model.objects.using(using).values_list(*columns), key=repr)


def everything(using: str) -> dict[str, list[tuple[Any, ...]]]:
    return {model.__name__: rows_of(model, using) for model in TABLES}


def over_there() -> set[Any]:
    return {*Job.objects.using(THERE).values_list("pk", flat=True)}


@contextmanager
def unreachable(alias: str = THERE) -> Iterator[None]:
    def refuse(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        raise OperationalError("connection refused")

    with connections[alias].execute_wrapper(refuse):
        yield


def test_a_job_goes_with_all_that_is_its_own(alpha: object) -> None:
    with_everything(
        old_job(State.FAILED, tags=["a", "b"], metadata={"n": 1}, payload={"x": [1.5, None, "ü"]})
    )
    with_everything(
        old_job(payload_bytes=b"\0\xff", queue=make_queue("mail").name, result={"r": 1})
    )
    parent, child = old_job(has_dependants=True), old_job(State.CANCELLED)
    JobDependency.objects.create(parent=parent, child=child, satisfied_at=ago(days=40))
    before = everything(HERE)
    assert len(before["Job"]) == 4
    run(POLICY)
    assert everything(HERE) == {table: [] for table in before}
    assert everything(THERE) == before
    assert Queue.objects.using(THERE).filter(name="mail").exists()
    assert {*ArchivedJob.objects.using(THERE).values_list("source", flat=True)} == {"alpha"}


def test_a_job_made_of_steps_goes_with_its_steps(alpha: object) -> None:
    inner = {"name": "inner", "steps": [do("deep", 1)]}
    webhook = {"url": "https://hooks.example/", "if": "false"}
    job = run_steps(
        do("one", 1),
        {"name": "sub", "subjob": inner},
        name="n",
        description="d",
        webhooks=[webhook],
    )
    assert job.state == State.SUCCEEDED
    past = ago(days=40)
    Job.objects.update(created_at=past, finished_at=past)
    JobListing.objects.update(created_at=past)
    before = everything(HERE)
    assert len(before["Job"]) == 4
    run(POLICY)
    assert everything(HERE) == {table: [] for table in before}
    assert everything(THERE) == before


def test_what_says_itself_how_long_it_is_kept_is_archived_too(alpha: object) -> None:
    job = run_steps(do("one", 1))
    StepsListing.objects.filter(job=job).update(delete_after_seconds=0.0)
    run(POLICY)
    assert (left(), len(over_there())) == (set(), 2)


def test_what_is_not_due_stays_and_is_not_copied(alpha: object) -> None:
    make_job(State.SUCCEEDED)
    old_job(State.FAILED, is_held=True)
    make_job()
    run(POLICY)
    assert (len(left()), over_there()) == (3, set())


def test_log_lines_stay_as_long_as_their_job(alpha: object) -> None:
    job = old_job(State.FAILED, days=20)
    LogLine.objects.create(job=job, fence=1, stream="log", message="x", logged_at=ago(days=20))
    run(POLICY)
    assert LogLine.objects.count() == 1
    run(ClusterPolicy())
    assert not LogLine.objects.exists()


def test_without_an_archive_that_answers_nothing_is_deleted_and_all_else_goes_on(
    alpha: object,
) -> None:
    job = with_everything(old_job())
    make_node("closed", closed_at=ago(days=30))
    before = everything(HERE)
    pruner = Pruner()
    with unreachable():
        with pytest.raises(ArchiveUnavailable, match="does not take jobs"):
            run(POLICY, pruner)
        assert everything(HERE) == before
        assert not Node.objects.filter(status="closed").exists()
        with pytest.raises(ArchiveUnavailable):
            run(POLICY, pruner)
    run(POLICY)
    assert (left(), over_there()) == (set(), {job.pk})


@pytest.mark.parametrize(
    ("target", "mode"), [("beta", "active"), ("beta", "passive"), ("gamma", ""), ("alpha", "")]
)
def test_a_cluster_that_is_no_archive_takes_nothing(target: str, mode: str, alpha: object) -> None:
    job = old_job()
    if mode:
        with cluster_bound("beta"):
            ClusterSetting.objects.all().change({"mode": mode}, by="test")
    with pytest.raises(ArchiveUnavailable):
        run(ClusterPolicy(archive_to=target))
    assert (left(), over_there()) == ({job.pk}, set())


def test_an_archive_that_fails_half_way_has_nothing_of_that_portion(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {with_everything(old_job()).pk for _ in range(3)}
    insert = Archive._insert

    def broken(self: Archive, model: Any, rows: Any, **how: Any) -> None:
        if model is LogLine:
            raise OperationalError("disk full")
        insert(self, model, rows, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "_insert", broken)
        with pytest.raises(ArchiveUnavailable, match="disk full"):
            run(POLICY)
    assert (left(), over_there()) == (jobs, set())
    run(POLICY)
    assert (left(), over_there()) == (set(), jobs)


def test_what_is_not_over_there_is_not_deleted_here(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = with_everything(old_job())
    insert = Archive._insert

    def forgetful(self: Archive, model: Any, rows: Any, **how: Any) -> None:
        insert(self, model, rows[1:] if model is LogLine else rows, **how)

    monkeypatch.setattr(Archive, "_insert", forgetful)
    with pytest.raises(ArchiveUnavailable, match="does not hold"):
        run(POLICY)
    assert left() == {job.pk}


def between_copy_and_delete(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], Any]) -> None:
    delete = prune.delete_jobs

    def later(*args: Any) -> Any:
        deed()
        return delete(*args)

    monkeypatch.setattr(prune, "delete_jobs", later)


def test_a_job_that_is_taken_up_again_meanwhile_goes_on_here_and_only_here(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, other = with_everything(old_job(State.FAILED)), with_everything(old_job(State.FAILED))
    between_copy_and_delete(monkeypatch, lambda: Job.objects.filter(pk=again.pk).retry())
    run(POLICY)
    assert (left(), over_there()) == ({again.pk}, {other.pk})
    assert not LogLine.objects.using(THERE).filter(job_id=again.pk).exists()


def test_a_job_that_has_ended_anew_meanwhile_is_not_deleted_for_its_old_copy(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = with_everything(old_job(State.FAILED))
    again = Job.objects.filter(pk=job.pk, fence=1)
    between_copy_and_delete(monkeypatch, lambda: again.update(fence=2, error="the second try"))
    run(POLICY)
    assert (left(), over_there()) == ({job.pk}, set())
    monkeypatch.undo()
    run(POLICY)
    assert left() == set()
    assert Job.objects.using(THERE).get(pk=job.pk).error == "the second try"


def test_a_step_that_changes_meanwhile_keeps_all_of_its_job(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run_steps(do("one", 1))
    past = ago(days=40)
    Job.objects.update(created_at=past, finished_at=past)
    step = Step.objects.get().job_id
    between_copy_and_delete(
        monkeypatch, lambda: Job.objects.filter(pk=step).update(finished_at=ago(days=39))
    )
    run(POLICY)
    assert left() == {job.pk, step}


def test_a_copy_of_an_earlier_end_is_replaced(alpha: object) -> None:
    job = with_everything(old_job(State.FAILED))
    Archive(HERE, "alpha", THERE).copy([job.pk])
    # Somebody died here; then the job was tried again, and has another end.
    Job.objects.filter(pk=job.pk).update(fence=2, finished_at=ago(days=35), error="the second try")
    LogLine.objects.create(job=job, fence=2, stream="log", message="again")
    before = everything(HERE)
    run(POLICY)
    assert left() == set()
    assert everything(THERE) == before


def test_another_job_with_that_id_is_left_alone_and_so_is_ours(
    alpha: object, caplog: pytest.LogCaptureFixture
) -> None:
    job = old_job()
    with cluster_bound("beta"):
        other = old_job(id=job.pk, type="demo:other")
    run(POLICY)
    assert left() == {job.pk}
    assert Job.objects.using(THERE).get(pk=other.pk).type == "demo:other"
    assert "has other jobs" in caplog.text


def test_deleting_in_the_archive_leaves_no_mark(beta: object) -> None:
    with cluster_bound("alpha"):
        job = old_job()
        run(POLICY)
    assert ArchivedJob.objects.count() == 1
    Job.objects.get(pk=job.pk).delete_final()
    assert not ArchivedJob.objects.exists()


def test_an_archive_is_archived_to_another_one_in_its_turn(beta: object) -> None:
    with cluster_bound("alpha"):
        old_job()
        run(POLICY)
        ClusterSetting.objects.all().change({"mode": "archived"}, by="test")
    (job,) = Job.objects.all()
    pruner = Pruner()
    while pruner(THERE, ClusterPolicy(archive_to="alpha")):
        pass
    with cluster_bound("alpha"):
        assert ArchivedJob.objects.get().source == "beta"
        assert left() == {job.pk}
    assert not Job.objects.exists()


def test_a_sweep_by_hand_archives_too_and_says_so_where_it_cannot(alpha: object) -> None:
    old_job()
    with unreachable(), pytest.raises(Conflict):
        Pruner().sweep(HERE, POLICY, 5.0, lambda state, count: None)
    assert sum(Pruner().sweep(HERE, POLICY, 5.0, lambda state, count: None).values()) == 1
    assert len(over_there()) == 1


def test_many_jobs_take_a_bounded_number_of_statements(
    alpha: object, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    monkeypatch.setattr(archive, "PORTION", 50)
    for _ in range(100):
        old_job()
    with django_assert_max_num_queries(150, using=THERE):
        run(POLICY)
    assert len(over_there()) == 100


# -- Real processes --------------------------------------------------------------------------------

PROGRAM = """
import os, random, signal, sys
import django
django.setup()
from clusters.binding import cluster_bound
from clusters.policy import ClusterPolicy
from jobs.engine import archive, prune
archive.PORTION = 7
prune.BATCH = 20
dies_at = sys.argv[1]
if dies_at != "nowhere":
    module, name = {
        "before the copy": (archive.Archive, "_write"),
        "before the look": (archive.Archive, "_verify"),
        "between copy and delete": (prune, "delete_jobs"),
        "before the commit": (prune, "erase"),
    }[dies_at]
    real, seen = getattr(module, name), []
    def dying(*args, **more):
        seen.append(1)
        # Before or after what it does, in the middle of the work.
        if len(seen) == 3:
            if dies_at == "before the commit":
                real(*args, **more)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    setattr(module, name, dying)
with cluster_bound("alpha"):
    pruner = prune.Pruner()
    pruner._batch = 20
    print("begun", flush=True)
    while pruner("cluster-alpha", ClusterPolicy(archive_to="beta")):
        pass
"""


def pruning(dies_at: str = "nowhere") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, dies_at],
        cwd=ROOT,
        env=worker_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish() -> None:
    process = pruning()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output


def many_jobs(count: int) -> dict[str, list[tuple[Any, ...]]]:
    with cluster_bound("alpha"):
        for number in range(count):
            with_everything(old_job(tags=[f"t{number}"], metadata={"n": number}))
        return everything(HERE)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "dies_at",
    ["before the copy", "before the look", "between copy and delete", "before the commit"],
)
def test_a_kill_at_any_point_loses_and_doubles_nothing(dies_at: str) -> None:
    before = many_jobs(60)
    process = pruning(dies_at)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, output
    here, there = everything(HERE), everything(THERE)
    for table, rows in before.items():
        assert {*map(repr, here[table] + there[table])} == {*map(repr, rows)}, table
    finish()
    assert everything(HERE) == {table: [] for table in before}
    assert everything(THERE) == before


@pytest.mark.django_db(transaction=True)
def test_kills_at_random_lose_and_double_nothing() -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    before = many_jobs(120)
    for _ in range(6):
        process = pruning()
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n", f"seed {seed}"
        time.sleep(chance.uniform(0.0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        here, there = everything(HERE), everything(THERE)
        for table, rows in before.items():
            found = {*map(repr, here[table] + there[table])}
            assert found == {*map(repr, rows)}, f"{table}, seed {seed}"
    finish()
    assert everything(HERE) == {table: [] for table in before}
    assert everything(THERE) == before
