"""Fires beside each other and beside runs that end: real connections, both databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.engine import schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import Fire, Job, RunState, Schedule
from jobs.models.release import release
from jobs.states import State, WaitsFor
from tests.jobs.schedule_cases import USING, end_run, fire, hours_ago, make_schedule, put_back

pytestmark = pytest.mark.django_db(transaction=True)
ROUNDS = 15


@pytest.fixture(autouse=True)
def _alpha(transactional_db: None) -> Iterator[None]:
    with cluster_bound("alpha"):
        yield


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run these in threads with connections of their own, let go together; what each returned."""
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(number: int) -> None:
        try:
            with cluster_bound("alpha"):
                connections[USING].ensure_connection()
                gate.wait(60)
                results[number] = works[number]()
        except BaseException as error:
            errors.append(error)
        finally:
            connections[USING].close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]
    return results


def fire_all() -> int:
    done = 0
    while fired := fire():
        done += fired
    return done


def make_due(schedule: Schedule) -> None:
    put_back(schedule, timezone.now() - timedelta(seconds=1))


def begin(*schedules: Schedule) -> list[Job]:
    """A run of each, at work."""
    for schedule in schedules:
        make_due(schedule)
    fire_all()
    jobs = Job.objects.filter(schedule_id__in=[one.pk for one in schedules], state=State.READY)
    ids = list(jobs.values_list("pk", flat=True))
    jobs.update(
        state=State.RUNNING,
        fence=1,
        attempts=1,
        node_id=schedules[0].pk,
        started_at=timezone.now(),
    )
    by_schedule = {job.schedule_id: job for job in Job.objects.filter(pk__in=ids)}
    return [by_schedule[one.pk] for one in schedules]


def test_nodes_that_fire_the_same_schedules_make_one_job_of_each():
    schedules = [make_schedule() for _ in range(60)]
    Schedule.objects.update(misfire_grace_seconds=7200)
    for round_ in range(3):
        for schedule in schedules:
            put_back(schedule, hours_ago(0.0 + 2 - round_))
        Job.objects.filter(finished_at=None).update(
            state=State.SUCCEEDED, finished_at=timezone.now()
        )
        turns = at_once(*[fire] * 4)
        # Late ones go on to the newest instant at the same turn: none is dealt with twice.
        assert sum(turns) <= 60 * (3 - round_)
        fire_all()
    for schedule in schedules:
        found = Fire.objects.filter(schedule=schedule, state="fired")
        made = Job.objects.filter(schedule_id=schedule.pk)
        assert sorted(found.values_list("job_id", flat=True)) == sorted(
            made.values_list("pk", flat=True)
        )
        dues = list(made.values_list("due_at", flat=True))
        assert len(dues) == len(set(dues))


def test_a_run_that_ends_as_the_next_is_due_neither_loses_nor_doubles_it():
    """Under each rule the instant has one row, and its job, if it gets one, is free to start."""
    for round_ in range(ROUNDS):
        schedules = [make_schedule(overlap=how) for how in ("skip", "queue_one", "replace")]
        running = begin(*schedules)
        for schedule in schedules:
            make_due(schedule)
        at_once(fire_all, *(lambda job=job: end_run(job) for job in running), fire_all)
        fire_all()
        for schedule in schedules:
            rows = Fire.objects.filter(schedule=schedule).order_by("due_at")
            assert rows.count() == 2
            open_runs = Job.objects.filter(schedule_id=schedule.pk, finished_at=None)
            states = list(open_runs.values_list("state", "waits_for"))
            if rows[1].state == "skipped":
                assert (schedule.overlap, states) == ("skip", []), round_
            else:
                assert states == [(State.READY, None)], (round_, schedule.overlap)


def test_prerequisites_that_end_together_let_one_run_go():
    for round_ in range(ROUNDS):
        first, second = make_schedule(), make_schedule()
        schedule = make_schedule(depends_on=[first.pk, second.pk])
        make_due(schedule)
        fire_all()
        (held,) = Job.objects.filter(schedule_id=schedule.pk)
        assert (held.state, held.waits_for) == (State.BLOCKED, WaitsFor.SCHEDULES)
        one, other = begin(first, second)
        at_once(lambda: end_run(one), lambda: end_run(other))  # noqa: B023
        held.refresh_from_db()
        assert (held.state, held.waits_for) == (State.READY, None), round_
        schedule.refresh_from_db()
        first.refresh_from_db()
        second.refresh_from_db()
        # Both successes are spent: the next run waits for new ones.
        assert schedule.dependencies_since >= max(first.last_succeeded_at, second.last_succeeded_at)
        end_run(held)
        make_due(schedule)
        fire_all()
        newest = Job.objects.filter(schedule_id=schedule.pk).order_by("created_at").last()
        assert newest.state == State.BLOCKED


def test_a_run_that_is_due_as_its_prerequisites_end_is_not_forgotten():
    for round_ in range(ROUNDS):
        first, second = make_schedule(), make_schedule()
        schedule = make_schedule(depends_on=[first.pk, second.pk])
        one, other = begin(first, second)
        make_due(schedule)
        at_once(fire_all, lambda: end_run(one), lambda: end_run(other))  # noqa: B023
        # Where the schedule was held by who ended a run, the next tick fires it.
        fire_all()
        runs = Job.objects.filter(schedule_id=schedule.pk)
        assert list(runs.values_list("state", "waits_for")) == [(State.READY, None)], round_


def test_branches_of_a_workflow_that_fail_together_end_its_run():
    """Each skips what it has not locked itself, and waits for the other with nothing."""
    for round_ in range(ROUNDS):
        named = {name: make_schedule(is_enabled=False) for name in ("a", "after a", "b", "after b")}
        before = {"after a": "a", "after b": "b"}
        nodes = [
            NewNode(one.pk, [named[before[name]].pk] if name in before else ())
            for name, one in named.items()
        ]
        workflow = workflows.create(f"workflow {round_}", nodes, by="test")
        run = workflows.start_run(workflow.pk, by="test")
        first, second = (Job.objects.get(schedule_id=named[name].pk) for name in "ab")
        at_once(
            lambda: end_run(first, State.FAILED),  # noqa: B023
            lambda: end_run(second, State.FAILED),  # noqa: B023
        )
        run.refresh_from_db()
        states = list(Job.objects.filter(workflow_run_id=run.pk).values_list("state", flat=True))
        assert (run.state, sorted(states)) == (
            RunState.FAILED,
            [State.FAILED, State.FAILED, State.SKIPPED, State.SKIPPED],
        )


def test_a_run_that_ends_while_its_schedule_goes_for_good_does_not_wait_for_it():
    schedule = make_schedule()
    (job,) = begin(schedule)
    Job.objects.filter(pk=job.pk).update(cancel_requested_at=timezone.now())
    has_ended = threading.Event()

    def end() -> None:
        with transaction.atomic(using=USING):
            Job.objects.filter(pk=job.pk).update(
                state=State.SUCCEEDED, finished_at=timezone.now(), waits_for=None
            )
            has_ended.set()
            # Time for the other to come to the run.
            time.sleep(0.5)
            release(USING, [job.pk])

    def delete() -> None:
        has_ended.wait(60)
        schedules.delete_for_good(schedule.pk, by="test")

    at_once(end, delete)
    assert not Schedule.objects.exists()
    assert not Job.objects.filter(schedule_id=schedule.pk).exists()
