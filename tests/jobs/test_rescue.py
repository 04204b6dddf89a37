from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from clusters.models import Node, NodeStatus
from clusters.policy import ClusterPolicy
from clusters.registry import Cluster
from jobs.engine.rescue import PAGE, rescue_lost
from jobs.models import Attempt, Job
from jobs.states import OnLost, State
from tests.factories import make_job, make_node

POLICY = ClusterPolicy()


def overdue_node() -> Node:
    return make_node(lease_until=timezone.now() - timedelta(seconds=1))


def rescue() -> int:
    return rescue_lost("cluster-alpha", POLICY)


def test_a_node_whose_lease_is_over_is_dead_and_its_jobs_run_again(alpha):
    node = overdue_node()
    job = make_job(State.RUNNING, node=node)
    assert rescue() == 1
    job.refresh_from_db()
    assert (job.state, job.crashes, job.attempts) == (State.SCHEDULED, 1, 1)
    assert Node.objects.get(pk=node.pk).status == NodeStatus.DEAD
    attempt = Attempt.objects.get(job_id=job.pk)
    assert (attempt.outcome, attempt.fence, attempt.node_id) == ("lost", 1, node.pk)


def test_a_node_with_a_lease_is_left_alone_however_long_its_job_runs(alpha):
    job = make_job(State.RUNNING, node=make_node(), started_at=timezone.now() - timedelta(days=30))
    assert rescue() == 0
    assert Job.objects.get(pk=job.pk).state == State.RUNNING


@pytest.mark.parametrize(("on_lost", "is_held"), [(OnLost.FAIL, False), (OnLost.HOLD, True)])
def test_the_author_may_want_a_lost_job_to_fail(alpha, on_lost, is_held):
    job = make_job(State.RUNNING, node=overdue_node(), on_lost=on_lost)
    rescue()
    job.refresh_from_db()
    assert (job.state, job.reason, job.is_held) == (State.FAILED, "lost", is_held)


def test_a_job_lost_again_waits_by_its_own_curve(alpha):
    job = make_job(State.RUNNING, node=overdue_node(), crashes=1, retry_base_seconds=0.0)
    rescue()
    job.refresh_from_db()
    assert job.state == State.SCHEDULED
    assert job.run_at <= timezone.now()


def test_a_cancelled_job_of_a_dead_node_is_cancelled(alpha):
    job = make_job(State.RUNNING, node=overdue_node(), cancel_requested_at=timezone.now())
    rescue()
    assert Job.objects.get(pk=job.pk).state == State.CANCELLED


def test_more_jobs_than_one_page_are_all_rescued(alpha):
    node = overdue_node()
    for _ in range(PAGE + 5):
        make_job(State.RUNNING, node=node)
    assert rescue() == PAGE + 5


def test_rescuing_twice_changes_nothing_more(alpha):
    make_job(State.RUNNING, node=overdue_node())
    assert (rescue(), rescue()) == (1, 0)
    assert Attempt.objects.count() == 1


def test_jobs_of_other_nodes_are_not_touched(alpha):
    other = make_job(State.RUNNING, node=make_node())
    make_job(State.RUNNING, node=overdue_node())
    assert rescue() == 1
    assert Job.objects.get(pk=other.pk).state == State.RUNNING


# -- What cannot be rescued now --------------------------------------------------------------------

REFUSE_POSTGRES = """
CREATE FUNCTION refuse_poor_job() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'this row cannot be changed'; END $$;
CREATE TRIGGER refuse_poor_job BEFORE UPDATE ON job
  FOR EACH ROW WHEN (OLD.type = 'test:poor') EXECUTE FUNCTION refuse_poor_job()
"""
REFUSE_SQLITE = """
CREATE TRIGGER refuse_poor_job BEFORE UPDATE ON job WHEN OLD.type = 'test:poor'
BEGIN SELECT RAISE(ABORT, 'this row cannot be changed'); END
"""


@pytest.fixture
def a_row_that_refuses(alpha: Cluster, is_postgresql: bool) -> Iterator[None]:
    with connections["cluster-alpha"].cursor() as cursor:
        cursor.execute(REFUSE_POSTGRES if is_postgresql else REFUSE_SQLITE)
        yield
        if is_postgresql:
            cursor.execute("DROP FUNCTION refuse_poor_job CASCADE")
        else:
            cursor.execute("DROP TRIGGER refuse_poor_job")


@pytest.mark.django_db(transaction=True)
def test_a_job_that_cannot_be_rescued_keeps_back_no_other(a_row_that_refuses):
    node = overdue_node()
    poor = make_job(State.RUNNING, node=node, type="test:poor")
    for _ in range(PAGE + 2):
        make_job(State.RUNNING, node=node)
    other = make_job(State.RUNNING, node=overdue_node())
    assert rescue() == PAGE + 3
    assert [*Job.objects.filter(state=State.RUNNING)] == [poor]
    assert Job.objects.get(pk=other.pk).state == State.SCHEDULED


@pytest.mark.django_db(transaction=True)
def test_a_job_that_another_node_is_rescuing_is_left_to_it(patience, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has one lock, and whoever has it is alone")
    node = overdue_node()
    job = make_job(State.RUNNING, node=node)
    make_job(State.RUNNING, node=node)
    other = connections["cluster-alpha"].copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM job WHERE id = %s FOR UPDATE", [job.pk])
            begun = time.monotonic()
            assert rescue() == 1
            assert time.monotonic() - begun < patience  # it has not waited for a lock
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    assert rescue() == 1
