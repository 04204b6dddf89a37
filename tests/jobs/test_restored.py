"""A cluster that came back from a backup: nothing starts until a person says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.models import ClusterSetting, Node, NodeStatus, awaits_confirmation, forget_policies
from clusters.policy import ClusterPolicy
from jobs.engine import restored
from jobs.engine.claim import Appetite
from jobs.engine.complete import Success
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.turn import Turn, take_turn
from jobs.engine.upkeep import duties
from jobs.engine.waiting import why_waiting
from jobs.errors import Conflict
from jobs.models import Attempt, Job
from jobs.states import OnLost, State
from tests.factories import make_job, make_node, make_queue
from tests.jobs.test_watchdog import ask
from tests.processes import free_port, started, worker_environment

USING = "cluster-alpha"
POLICY = ClusterPolicy()


def mark() -> bool:
    is_new: bool = ClusterSetting.objects.all().mark_restored(by="test")
    forget_policies()
    return is_new


def confirm(decision: OnLost | None = None) -> int:
    return restored.confirm(USING, POLICY, decision, by="test")


def claim(node: Node, batch: list[Any] | None = None, *, with_limits: bool = False) -> Turn:
    appetite = Appetite(str(node.pk), {"process": 5}, {"python": "process"}, ["demo:noop"], None)
    return take_turn(connections[USING], batch or [], appetite, with_limits=with_limits)


def of_the_backup(**columns: Any) -> Job:
    """A job that was running when the backup was taken, on a node that is long gone."""
    then = timezone.now() - timedelta(hours=1)
    node = make_node(heartbeat_at=then, lease_until=then + timedelta(seconds=30))
    return make_job(State.RUNNING, node=node, **columns)


def reread(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


@pytest.fixture
def upkeep() -> Any:
    """One round of a duty, as a node's upkeep decides about it."""
    from jobs.engine.trouble import Trouble
    from jobs.engine.upkeep import Task, Upkeep
    from jobs.engine.watchdog import Watchdog

    def round_of(name: str) -> int:
        duty = next(duty for duty in duties() if duty.name == name)
        thread = Upkeep("alpha", str(make_node().pk), Watchdog("test"), lambda: None, [duty])
        thread._alias = USING
        task = Task(duty, Trouble("test"), 0.0)
        thread._do(task)
        return task.count

    return round_of


def test_nothing_is_claimed_while_a_restored_cluster_waits(alpha):
    node = make_node()
    make_job()
    limited = make_job(queue=make_queue("limited", max_concurrency=5).name)
    assert (mark(), mark()) == (True, False)
    assert claim(node).claimed == []
    assert claim(node, with_limits=True).claimed == []
    confirm()
    claimed = claim(node).claimed + claim(node, with_limits=True).claimed
    assert len(claimed) == 2
    assert str(limited.pk) in {job.id for job in claimed}


def test_a_node_may_still_complete_what_it_runs(alpha):
    node = make_node()
    make_job()
    (job,) = claim(node).claimed
    make_job()
    mark()
    now = time.monotonic()
    turn = claim(node, [Success(job.id, job.fence, str(node.pk), now - 1, now, None)])
    assert (turn.claimed, turn.superseded) == ([], [])
    assert Job.objects.get(pk=job.id).state == State.SUCCEEDED


def test_rescue_and_pruning_wait_for_the_person_and_go_on_afterwards(alpha, upkeep):
    job = of_the_backup()
    past = timezone.now() - timedelta(days=365)
    old = make_job(State.SUCCEEDED, finished_at=past, created_at=past, node=None)
    mark()
    assert (upkeep("rescue_lost"), upkeep("prune")) == (0, 0)
    assert reread(job).state == State.RUNNING
    assert Job.objects.filter(pk=old.pk).exists()
    ClusterSetting.objects.all().restored().delete()
    forget_policies()
    assert upkeep("rescue_lost") == 1
    assert upkeep("prune") >= 1
    assert not Job.objects.filter(pk=old.pk).exists()


def test_what_was_running_is_uncertain_but_for_nodes_heard_of_since(alpha):
    lost, orphan = of_the_backup(), of_the_backup()
    Node.objects.filter(pk=orphan.node_id).delete()
    make_job()
    going_on = of_the_backup()
    mark()
    assert set(restored.uncertain(USING)) == {lost, orphan, going_on}
    now = timezone.now() + timedelta(seconds=1)
    Node.objects.filter(pk=going_on.node_id).update(
        heartbeat_at=now, lease_until=now + timedelta(seconds=30)
    )
    assert set(restored.uncertain(USING)) == {lost, orphan}
    assert confirm(OnLost.FAIL) == 2
    assert reread(going_on).state == State.RUNNING


def test_what_is_known_of_the_backup_is_told(alpha):
    assert restored.waiting(USING) is None
    job = of_the_backup()
    for state in (State.READY, State.SCHEDULED, State.BLOCKED, State.SUCCEEDED):
        make_job(state, node=None)
    mark()
    waits = restored.waiting(USING)
    assert waits is not None
    assert (waits.by, waits.unstarted) == ("test", 3)
    assert waits.last_heartbeat_at == Node.objects.get(pk=job.node_id).heartbeat_at
    assert abs((waits.since - timezone.now()).total_seconds()) < 60


@pytest.mark.parametrize(
    ("decision", "state", "is_held"),
    [
        (OnLost.RETRY, State.SCHEDULED, False),
        (OnLost.FAIL, State.FAILED, False),
        (OnLost.HOLD, State.FAILED, True),
        (None, State.FAILED, True),
    ],
)
def test_the_person_decides_what_becomes_of_uncertain_jobs(alpha, decision, state, is_held):
    # Of its last attempt, and near to be poisoned: what a person says counts all the same.
    job = of_the_backup(on_lost=OnLost.HOLD, max_attempts=1, crashes=POLICY.max_crashes - 1)
    mark()
    assert confirm(decision) == 1
    job = reread(job)
    assert (job.state, job.is_held, job.crashes) == (state, is_held, POLICY.max_crashes - 1)
    assert job.reason == (None if state == State.SCHEDULED else "lost")
    attempt = Attempt.objects.get(job_id=job.pk)
    assert (attempt.outcome, attempt.error_type) == ("lost", "Restored")
    assert Node.objects.get(pk=job.node_id).status == NodeStatus.DEAD
    assert restored.waiting(USING) is None
    assert not awaits_confirmation()


def test_a_node_that_may_live_is_waited_for(alpha):
    job = make_job(State.RUNNING)
    gone = of_the_backup()
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=1))
    mark()
    with pytest.raises(Conflict, match="may live"):
        confirm(OnLost.RETRY)
    assert (reread(job).state, reread(gone).state) == (State.RUNNING, State.RUNNING)
    assert claim(make_node()).claimed == []
    Node.objects.filter(pk=job.node_id).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert confirm(OnLost.RETRY) == 2


def test_only_a_cluster_that_waits_is_confirmed(alpha):
    with pytest.raises(Conflict, match="does not wait"):
        confirm()
    mark()
    confirm()
    with pytest.raises(Conflict, match="does not wait"):
        confirm()


def test_the_mark_is_no_setting_and_survives_none_of_them(alpha):
    mark()
    ClusterSetting.objects.all().persist({"max_crashes": 5}, by="test")
    forget_policies()
    assert awaits_confirmation()
    with cluster_bound("beta"):
        assert not awaits_confirmation()


def test_a_job_says_that_it_waits_for_the_person(alpha):
    job = make_job()
    assert "cluster_restored" not in {reason.code for reason in why_waiting(job)}
    mark()
    (reason,) = [r for r in why_waiting(job) if r.code == "cluster_restored"]
    assert reason.data["by"] == "test"


# -- With real nodes -------------------------------------------------------------------------------


@pytest.fixture
def real(transactional_db: None) -> Iterator[None]:
    with cluster_bound("alpha"):
        yield


def test_no_node_starts_a_job_until_a_person_confirms(real, eventually):
    """Neither the node that was told so, nor another one that was not."""
    backup = of_the_backup()
    enqueued = enqueue(NewJob(type="demo:echo", payload=1), by="test").job
    port = free_port()
    arguments = ("worker", "--cluster", "alpha", "--concurrency", "1")
    env = worker_environment()
    with started(*arguments, "--restored", env=env) as first:
        eventually(lambda: Node.objects.filter(pid=first.pid).exists(), seconds=60)
        with started(*arguments, f"--health=127.0.0.1:{port}", env=env) as second:
            eventually(lambda: Node.objects.filter(pid=second.pid).exists(), seconds=60)
            beat = Node.objects.get(pid=first.pid).heartbeat_at
            eventually(lambda: Node.objects.get(pid=first.pid).heartbeat_at > beat, seconds=10)
            assert reread(enqueued).state == State.READY
            assert reread(backup).state == State.RUNNING
            status, ready = ask(port, "/readyz")
            assert (status, ready["awaits_confirmation"]) == (503, True)
            assert ask(port, "/livez")[0] == 200
            assert confirm(OnLost.HOLD) == 1
            eventually(lambda: reread(enqueued).state == State.SUCCEEDED)
            assert reread(backup).is_held
            eventually(lambda: ask(port, "/readyz")[0] == 200)


def test_a_node_marks_the_cluster_once_in_all_its_lives(real, eventually):
    ClusterSetting.objects.all().persist({"lease_seconds": 10, "heartbeat_seconds": 0.3}, by="test")
    with started("worker", "--cluster", "alpha", "--restored", env=worker_environment()):
        eventually(lambda: Node.objects.exists(), seconds=60)
        confirm()
        Node.objects.update(status=NodeStatus.DEAD, closed_at=timezone.now())
        eventually(lambda: Node.objects.alive().exists(), seconds=60)
        assert restored.waiting(USING) is None
