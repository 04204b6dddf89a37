"""A cluster is active, passive or archived: what it accepts, and what it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from authn.keys import create_key
from clusters.binding import cluster_bound
from clusters.models import ClusterSetting, current_policy, forget_policies
from jobs.doctor.work import check_mode
from jobs.engine.claim import Appetite
from jobs.engine.complete import Success
from jobs.engine.enqueue import NewJob, enqueue, enqueue_many
from jobs.engine.prune import Pruner
from jobs.engine.turn import Turn, take_turn
from jobs.engine.waiting import why_waiting
from jobs.errors import ClusterArchived
from jobs.models import Job
from jobs.states import State
from tests.api.conftest import Api, check_problem
from tests.factories import make_job, make_node, make_queue
from tests.jobs.schedule_cases import hours_ago, make_schedule, put_back
from tests.jobs.test_restored import upkeep as upkeep
from tests.processes import manage, started, worker_environment

USING = "cluster-alpha"
NEW = NewJob(type="demo:noop")


def become(mode: str | None) -> None:
    ClusterSetting.objects.all().change({"mode": mode}, by="test")
    forget_policies()


def claim(node: Any, batch: list[Any] | None = None, *, with_limits: bool = False) -> Turn:
    appetite = Appetite(str(node.pk), {"process": 5}, {"python": "process"}, ["demo:noop"], None)
    return take_turn(connections[USING], batch or [], appetite, with_limits=with_limits)


@pytest.mark.parametrize("mode", ["passive", "archived"])
def test_a_cluster_that_is_not_active_starts_nothing(mode: str, alpha: object) -> None:
    node = make_node()
    make_job()
    make_job(queue=make_queue("limited", max_concurrency=5).name)
    become(mode)
    assert claim(node).claimed == []
    assert claim(node, with_limits=True).claimed == []
    become("active")
    assert len(claim(node).claimed + claim(node, with_limits=True).claimed) == 2


def test_a_node_that_has_not_heard_of_the_change_starts_nothing_either(alpha: object) -> None:
    node = make_node()
    make_job()
    assert current_policy().mode == "active"
    ClusterSetting.objects.all().change({"mode": "passive"}, by="test")
    assert current_policy().mode == "active"
    assert claim(node).claimed == []


def test_what_runs_may_end_when_the_cluster_becomes_passive(alpha: object) -> None:
    node = make_node()
    make_job()
    (job,) = claim(node).claimed
    make_job()
    become("passive")
    now = time.monotonic()
    turn = claim(node, [Success(job.id, job.fence, str(node.pk), now - 1, now, None)])
    assert (turn.claimed, turn.superseded) == ([], [])
    assert Job.objects.get(pk=job.id).state == State.SUCCEEDED


def test_a_passive_cluster_accepts_jobs_and_an_archived_one_does_not(alpha: object) -> None:
    become("passive")
    assert enqueue(NEW, by="test").created
    become("archived")
    with pytest.raises(ClusterArchived):
        enqueue(NEW, by="test")
    with pytest.raises(ClusterArchived):
        enqueue_many([NEW] * 30, by="test")
    assert Job.objects.count() == 1
    become(None)
    assert enqueue(NEW, by="test").created


def test_the_api_says_that_a_cluster_is_archived(alpha: object) -> None:
    become("archived")
    api = Api(create_key("an operator", "operator", ("alpha",))[1])
    problem = check_problem(api.post("alpha/jobs", {"type": "demo:noop"}), 409, "conflict")
    assert "archived" in problem["detail"]
    assert not Job.objects.exists()


@pytest.mark.parametrize("mode", ["passive", "archived"])
def test_schedules_do_not_fire_and_make_up_for_it_as_they_say(
    mode: str, alpha: object, upkeep: Any
) -> None:
    schedule = make_schedule()
    put_back(schedule, hours_ago(1))
    become(mode)
    assert upkeep("fire_due") == 0
    assert not Job.objects.exists()
    become("active")
    assert upkeep("fire_due") == 1
    assert Job.objects.count() == 1


def test_a_job_tells_that_its_cluster_is_passive(alpha: object) -> None:
    job = make_job()
    become("passive")
    (reason, *_) = why_waiting(job)
    assert (reason.code, reason.data["by"]) == ("cluster_not_active", "test")
    become("active")
    assert "cluster_not_active" not in {reason.code for reason in why_waiting(job)}


def test_the_doctor_tells_that_a_cluster_is_passive(alpha: object) -> None:
    assert [finding.status for finding in check_mode(USING)] == ["ok"]
    become("passive")
    (finding,) = check_mode(USING)
    assert (finding.status, finding.details["mode"]) == ("warn", "passive")


def prune() -> None:
    forget_policies()
    pruner = Pruner()
    while pruner(USING, current_policy()):
        pass


def test_an_archive_keeps_what_it_has_unless_told_otherwise(alpha: object) -> None:
    past = timezone.now() - timedelta(days=3650)
    old = make_job(State.SUCCEEDED, created_at=past, finished_at=past)
    become("archived")
    prune()
    assert Job.objects.filter(pk=old.pk).exists()
    ClusterSetting.objects.all().change({"retain_succeeded_seconds": 86400}, by="test")
    prune()
    assert not Job.objects.filter(pk=old.pk).exists()


def test_steps_of_what_was_accepted_may_still_be_made_in_an_archive(alpha: object) -> None:
    become("archived")
    assert enqueue(NewJob(type="demo:noop", is_of_engine=True), by="engine").created


@pytest.mark.django_db(transaction=True)
def test_a_node_stops_starting_jobs_and_goes_on_when_it_may(
    eventually: Callable[..., None],
) -> None:
    with cluster_bound("alpha"):
        first = enqueue(NEW, by="test").job
        with started("worker", "--cluster", "alpha", env=worker_environment()):
            eventually(lambda: Job.objects.get(pk=first.pk).state == State.SUCCEEDED, seconds=60)
            done = manage("clusters", "set", "alpha", "mode=passive", "--reason", "moving house")
            assert done.returncode == 0, done.stderr
            held = enqueue(NEW, by="test").job
            # Longer than a node waits between two looks.
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                assert Job.objects.get(pk=held.pk).state == State.READY
                time.sleep(0.1)
            assert manage("clusters", "set", "alpha", "mode=").returncode == 0
            eventually(lambda: Job.objects.get(pk=held.pk).state == State.SUCCEEDED, seconds=60)
    changes = manage("clusters", "changes", "alpha")
    assert "moving house" in changes.stdout
