"""Why is it waiting? Every reason, alone and together."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import NodeStatus
from jobs.engine import waiting
from jobs.engine.dependencies import attach
from jobs.engine.waiting import Reason, why_waiting
from jobs.models import Job, Queue
from jobs.states import FINAL, UNSTARTED, State
from tests.factories import make_job, make_node, make_queue

pytestmark = pytest.mark.usefixtures("alpha")


def why(job: Job) -> dict[str, Reason]:
    reasons = why_waiting(Job.objects.get(pk=job.pk))
    assert all(reason.message.endswith(".") for reason in reasons)
    return {reason.code: reason for reason in reasons}


def past(seconds: float = 5):
    return timezone.now() - timedelta(seconds=seconds)


def future(seconds: float = 3600):
    return timezone.now() + timedelta(seconds=seconds)


def waiting_for(*parents: Job, needs: str = "all") -> Job:
    with transaction.atomic(using="cluster-alpha"):
        child = make_job(State.BLOCKED)
        attach("cluster-alpha", child.pk, [parent.pk for parent in parents], needs=needs)
    return child


# -- The job itself --------------------------------------------------------------------------------


def test_a_job_that_nothing_holds_up_is_next():
    make_node()
    assert set(why(make_job())) == {"next"}


@pytest.mark.parametrize("state", FINAL)
def test_a_job_that_has_ended_waits_for_nothing(state):
    reasons = why(make_job(state))
    assert set(reasons) == {"finished"}
    assert reasons["finished"].data["state"] == state
    assert state in reasons["finished"].message


def test_a_job_that_is_held_says_so_and_what_a_person_may_do():
    reason = why(make_job(State.FAILED, reason="lost", is_held=True))["finished"]
    assert reason.data["is_held"]
    assert "held for a person" in reason.message


def test_a_running_job_runs():
    job = make_job(State.RUNNING)
    reasons = why(job)
    assert set(reasons) == {"running"}
    assert reasons["running"].data["node_id"] == job.node_id


def test_a_running_job_that_was_asked_to_stop_says_so():
    job = make_job(State.RUNNING)
    job.cancel()
    assert set(why(job)) == {"running", "cancel_requested"}


def test_a_job_may_wait_for_its_steps():
    assert set(why(make_job(State.WAITING))) == {"steps"}


def test_a_scheduled_job_is_not_due():
    make_node()
    run_at = future()
    reasons = why(make_job(State.SCHEDULED, run_at=run_at))
    assert set(reasons) == {"not_due"}
    assert reasons["not_due"].data["until"] == run_at


def test_a_retry_that_is_not_due_says_which_attempt_it_is():
    make_node()
    job = make_job(State.SCHEDULED, attempts=1)
    assert "Attempt 2" in why(job)["not_due"].message


def test_a_blocked_job_names_what_it_waits_for():
    make_node()
    running, done = make_job(State.RUNNING, type="demo:slow"), make_job(State.SUCCEEDED)
    reasons = why(waiting_for(running, done))
    assert set(reasons) == {"dependency"}
    told = reasons["dependency"]
    assert told.data == {
        "job_id": running.pk,
        "state": "running",
        "type": "demo:slow",
        "needs": "all",
    }
    assert str(running.pk) in told.message
    assert "running" in told.message


def test_a_parent_that_is_gone_is_named_all_the_same():
    make_node()
    parent = make_job()
    child = waiting_for(parent)
    Job.objects.filter(pk=parent.pk).delete()
    told = why(child)["dependency"]
    assert (told.data["job_id"], told.data["state"]) == (parent.pk, None)
    assert "gone" in told.message


def test_of_many_dependencies_some_are_named_and_the_rest_counted(monkeypatch):
    make_node()
    monkeypatch.setattr(waiting, "MAX_PARENTS_NAMED", 2)
    child = waiting_for(*(make_job() for _ in range(5)))
    reasons = why_waiting(Job.objects.get(pk=child.pk))
    assert [reason.code for reason in reasons] == ["dependency", "dependency", "dependencies"]
    assert reasons[-1].data == {"count": 5}
    assert "3 more" in reasons[-1].message


def test_one_of_several_may_be_enough():
    make_node()
    child = waiting_for(make_job(), needs="any")
    assert "one is enough" in why(child)["dependency"].message


@pytest.mark.parametrize("column,code", [("expires_at", "expired"), ("deadline_at", "overdue")])
@pytest.mark.parametrize("state", UNSTARTED)
def test_a_job_that_is_too_late_will_fail(state, column, code):
    make_node()
    at = past()
    assert why(make_job(state, **{column: at}))[code].data == {"since": at}


@pytest.mark.parametrize("column", ["expires_at", "deadline_at"])
def test_a_job_that_will_be_too_late_says_when(column):
    make_node()
    at = future()
    reasons = why(make_job(**{column: at}))
    assert set(reasons) == {"expires", "next"}
    assert reasons["expires"].data == {"until": at}


# -- Its queue -------------------------------------------------------------------------------------


def test_a_paused_queue_tells_who_when_why_and_until_when():
    make_node()
    until = future()
    make_queue("mail", is_paused=True, paused_by="anna", pause_reason="upgrade", resume_at=until)
    told = why(make_job(queue="mail"))["queue_paused"]
    assert told.data["queue"] == "mail"
    assert (told.data["by"], told.data["reason"]) == ("anna", "upgrade")
    assert told.data["until"] == until
    assert told.data["since"] == Queue.objects.get(name="mail").paused_at
    for word in ("anna", "upgrade", "mail", f"{until:%H:%M:%S}"):
        assert word in told.message


def test_a_queue_that_is_gone():
    make_node()
    job = make_job(queue="gone")
    Queue.objects.filter(name="gone").delete()
    assert set(why(job)) == {"queue_missing"}


def test_a_queue_that_runs_as_many_as_it_may():
    make_node()
    make_queue("mail", max_concurrency=2)
    job = make_job(queue="mail")
    make_job(State.RUNNING, queue="mail")
    make_job(State.RUNNING, queue="other")
    assert set(why(job)) == {"next"}
    make_job(State.RUNNING, queue="mail")
    reasons = why(job)
    assert set(reasons) == {"concurrency_full"}
    assert reasons["concurrency_full"].data == {"queue": "mail", "running": 2, "limit": 2}


def test_a_queue_that_has_started_as_many_as_it_may():
    make_node()
    started = timezone.now().timestamp() - 60
    make_queue("mail", rate_limit=3, rate_period_seconds=100.0, rate_grants=[[started, 3]])
    told = why(make_job(queue="mail"))["rate_limited"]
    assert (told.data["limit"], told.data["period_seconds"]) == (3, 100.0)
    # The three of a minute ago count for forty seconds more.
    assert 35 < (told.data["until"] - timezone.now()).total_seconds() <= 40


@pytest.mark.parametrize("grants", [[], [[60, 2]], [[101, 3]]])
def test_a_queue_that_may_start_another(grants):
    make_node()
    now = timezone.now().timestamp()
    grants = [[now - ago, count] for ago, count in grants]
    make_queue("mail", rate_limit=3, rate_period_seconds=100.0, rate_grants=grants)
    assert set(why(make_job(queue="mail"))) == {"next"}


# -- The nodes -------------------------------------------------------------------------------------


def test_no_node_at_all():
    assert set(why(make_job())) == {"no_node"}


@pytest.mark.parametrize("status", [NodeStatus.CLOSED, NodeStatus.DEAD])
def test_nodes_that_have_ended_count_for_nothing(status):
    make_node(status)
    assert set(why(make_job())) == {"no_node"}


def test_a_node_whose_lease_is_over_counts_for_nothing():
    make_node(lease_until=past())
    assert set(why(make_job())) == {"no_node"}


def test_no_node_serves_the_queue():
    make_node(queues=["mail", "print"])
    reasons = why(make_job(queue="default"))
    assert set(reasons) == {"queue_not_served"}
    assert reasons["queue_not_served"].data["queue"] == "default"
    assert set(why(make_job(queue="mail"))) == {"next"}


def test_no_node_runs_the_kind():
    make_node(kinds=["python"])
    assert set(why(make_job(kind="http", type="http"))) == {"kind_unknown"}


def test_no_node_knows_the_type():
    make_node(types=["demo:other"])
    reasons = why(make_job(type="demo:noop"))
    assert set(reasons) == {"type_unknown"}
    assert "demo:noop" in reasons["type_unknown"].message


def test_only_python_jobs_need_a_type_that_a_node_knows():
    make_node(types=[])
    assert set(why(make_job(kind="http", type="a label"))) == {"next"}


def test_a_node_must_have_all_of_it():
    make_node(queues=["mail"], types=["demo:other"])
    make_node(queues=["print"], types=["demo:noop"])
    assert set(why(make_job(queue="mail", type="demo:noop"))) == {"type_unknown"}


@pytest.mark.parametrize(
    "columns", [{"status": NodeStatus.DRAINING}, {"drain_requested_at": timezone.now()}]
)
def test_a_node_that_drains_takes_nothing(columns):
    node = make_node(**columns)
    reasons = why(make_job())
    assert set(reasons) == {"nodes_draining"}
    assert reasons["nodes_draining"].data == {"nodes": [node.pk]}


def test_all_nodes_are_busy():
    make_node(concurrency=4, running_jobs=4)
    make_node(concurrency=2, running_jobs=2)
    reasons = why(make_job())
    assert set(reasons) == {"nodes_busy"}
    assert reasons["nodes_busy"].data == {"nodes": 2, "running": 6, "places": 6}
    make_node(concurrency=2, running_jobs=1)
    assert set(why(make_job())) == {"behind"}


def test_places_are_those_of_the_pool_that_its_kind_runs_in():
    node = make_node(concurrency=2, io_concurrency=20, running_jobs=20, running_io_jobs=20)
    of_io, of_processes = make_job(kind="http"), make_job()
    assert set(why(of_processes)) == {"next"}
    assert why(of_io)["nodes_busy"].data == {"nodes": 1, "running": 20, "places": 20}
    type(node).objects.update(running_jobs=3, running_io_jobs=1)
    assert set(why(of_io)) == {"next"}
    assert why(of_processes)["nodes_busy"].data == {"nodes": 1, "running": 2, "places": 2}


# -- Those ahead -----------------------------------------------------------------------------------


def test_a_job_waits_behind_those_that_come_first():
    make_node()
    run_at = past(60)
    job = make_job(priority=5, run_at=run_at)
    make_job(priority=4)
    make_job(priority=5, run_at=run_at - timedelta(seconds=1))
    for after in (
        {"priority": 6},
        {"priority": 5, "run_at": run_at + timedelta(seconds=1)},
        {"priority": 1, "queue": "other"},
        {"priority": 1, "kind": "http"},
        {"priority": 1, "state": State.SCHEDULED},
    ):
        make_job(**after)
    reasons = why(job)
    assert set(reasons) == {"behind"}
    assert reasons["behind"].data == {"count": 2, "is_exact": True}


def test_jobs_due_at_one_moment_go_by_their_ids():
    make_node()
    run_at = past()
    first, second = sorted((make_job(run_at=run_at), make_job(run_at=run_at)), key=lambda j: j.pk)
    assert set(why(first)) == {"next"}
    assert why(second)["behind"].data["count"] == 1


def test_nobody_waits_behind_what_no_node_takes():
    """A claim steps over types that its node does not know, and over what is too late."""
    make_node(types=["mail.send", "mail.sort"])
    make_node(types=["old"], drain_requested_at=past())
    make_node(types=["of another queue"], queues=["other"])
    job = make_job(type="mail.send")
    for type_ in ("nobody.knows", "old", "of another queue"):
        make_job(type=type_, priority=-1)
    make_job(type="mail.send", priority=-1, expires_at=past())
    make_job(type="mail.send", priority=-1, deadline_at=past())
    assert set(why(job)) == {"next"}
    make_job(type="mail.sort", priority=-1, expires_at=future(60))
    assert why(job)["behind"].data == {"count": 1, "is_exact": True}


def test_where_nobody_takes_such_jobs_the_first_who_does_begins_in_front():
    make_job(type="nobody.knows", priority=-1)
    assert why(make_job())["behind"].data["count"] == 1


def test_counting_those_ahead_stops_somewhere(monkeypatch):
    make_node()
    monkeypatch.setattr(waiting, "MAX_COUNTED", 3)
    for _ in range(5):
        make_job(priority=-1)
    told = why(make_job())["behind"]
    assert told.data == {"count": 3, "is_exact": False}
    assert "more than 3" in told.message


def test_those_that_nobody_takes_are_not_gone_through_without_end(monkeypatch):
    make_node()
    monkeypatch.setattr(waiting, "MAX_COUNTED", 3)
    for _ in range(5):
        make_job(priority=-2, type="demo:unknown")
    job = make_job()
    with CaptureQueriesContext(connections["cluster-alpha"]) as asked:
        assert set(why(job)) == {"next"}
    [read] = [one["sql"] for one in asked if "LIMIT 4" in one["sql"]]
    # Where all of them are tested by the statement, it goes on until so many were found.
    for condition in ("demo:noop", "IS NULL", 'expires_at" >'):
        assert condition not in read


# -- Together --------------------------------------------------------------------------------------


def test_all_that_holds_a_job_up_is_told_at_once():
    make_queue("mail", is_paused=True)
    assert set(why(make_job(State.SCHEDULED, queue="mail"))) == {
        "not_due",
        "queue_paused",
        "no_node",
    }


def test_the_answer_takes_few_queries():
    make_node()
    make_queue("mail", max_concurrency=1, rate_limit=1)
    job = Job.objects.get(pk=make_job(queue="mail").pk)
    with CaptureQueriesContext(connections["cluster-alpha"]) as queries:
        why_waiting(job)
    assert len(queries) <= 6
