"""What people do with runs of schedules, and what is checked of a schedule's work."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.engine import fires, schedule_runs, schedules
from jobs.errors import InvalidTransition, ScheduleNotFound
from jobs.models import Job, Schedule
from jobs.states import State, Trigger, WaitsFor
from tests.factories import make_job, make_node
from tests.jobs.schedule_cases import end_run, make_schedule

pytestmark = pytest.mark.usefixtures("alpha")


def run_of(schedule: Schedule, state: str = State.FAILED, **columns: object) -> Job:
    return make_job(state, schedule_id=schedule.pk, trigger="schedule", **columns)


def test_a_retry_copies_the_run_and_tells_the_schedule():
    schedule = make_schedule()
    old = run_of(schedule, payload={"a": 1}, tags=["t"], priority=-3, due_at=timezone.now())
    new = schedule_runs.retry(old, by="someone")
    assert (new.copy_of, new.schedule_id, new.trigger) == (old.pk, schedule.pk, Trigger.RETRY)
    assert (new.payload, new.tags, new.priority) == (old.payload, old.tags, old.priority)
    assert (new.due_at, new.enqueued_by, new.state) == (old.due_at, "someone", State.READY)
    schedule.refresh_from_db()
    assert schedule.last_job_id == new.pk
    end_run(new)
    schedule.refresh_from_db()
    assert (schedule.last_state, schedule.consecutive_failures) == (State.SUCCEEDED, 0)


@pytest.mark.parametrize(
    ("overlap", "waits_for"), [("skip", WaitsFor.RUN), ("queue_one", WaitsFor.RUN), ("allow", None)]
)
def test_a_retry_does_not_run_beside_another_run(overlap, waits_for):
    schedule = make_schedule(overlap=overlap)
    old, live = run_of(schedule), run_of(schedule, State.RUNNING)
    new = schedule_runs.retry(old, by="someone")
    assert new.waits_for == waits_for
    end_run(live)
    new.refresh_from_db()
    assert (new.state, new.waits_for) == (State.READY, None)


def test_a_run_that_waits_for_other_schedules_is_in_nobodys_way():
    first = make_schedule()
    schedule = make_schedule(depends_on=[first.pk])
    run_of(schedule, State.BLOCKED, waits_for=WaitsFor.SCHEDULES)
    assert schedule_runs.retry(run_of(schedule), by="someone").state == State.READY


def test_neither_a_success_nor_a_job_of_no_schedule_is_retried():
    schedule = make_schedule()
    for state in (State.SUCCEEDED, State.RUNNING, State.READY):
        with pytest.raises(InvalidTransition):
            schedule_runs.retry(run_of(schedule, state), by="someone")
    with pytest.raises(ScheduleNotFound):
        schedule_runs.retry(make_job("failed"), by="someone")
    old = run_of(schedule)
    schedules.delete(schedule.pk, by="someone")
    with pytest.raises(ScheduleNotFound):
        schedule_runs.retry(old, by="someone")
    assert not Job.objects.filter(trigger=Trigger.RETRY).exists()


def test_clearing_leaves_what_is_young_open_or_of_no_schedule():
    schedule = make_schedule()
    old = timezone.now() - timedelta(days=3)
    gone = [run_of(schedule, state, created_at=old).pk for state in ("failed", "succeeded")]
    kept = [
        run_of(schedule, created_at=timezone.now()).pk,
        run_of(schedule, State.RUNNING, created_at=old).pk,
        make_job("failed", created_at=old).pk,
    ]
    assert schedule_runs.clear(timedelta(days=2)) == len(gone)
    assert set(Job.objects.values_list("pk", flat=True)) == set(kept)


def test_a_payload_given_to_a_trigger_has_its_variables_filled_in():
    schedule = make_schedule(name="n", has_variables=True, payload={"a": "stored"})
    made = fires.trigger(schedule.pk, by="someone", payload={"a": "{{Job.Name}}"})
    assert Job.objects.get(pk=made.job_id).payload == {"a": "n"}
    schedule.refresh_from_db()
    assert schedule.payload == {"a": "stored"}


def test_a_creator_may_be_named_beside_who_asked():
    given = {"name": "x", "type": "demo:noop", "timing": "interval", "interval_seconds": 60}
    schedule = schedules.create(given, by="key:a", created_by="ops")
    assert (schedule.created_by, schedule.updated_by) == ("ops", "key:a")


def test_schedules_are_found_by_one_of_their_tags():
    one, two = make_schedule(tags=["red", "a b"]), make_schedule(tags=["reddish", "re"])
    rows = Schedule.objects.all()
    assert list(rows.tagged("red")) == [one]
    assert list(rows.tagged("a b")) == [one]
    assert list(rows.tagged("re")) == [two]
    assert list(rows.exclude(pk=one.pk).tagged("red")) == []


def test_a_type_is_known_while_a_node_lives_that_has_it():
    from clusters.models import Node

    nodes = Node.objects.all()
    make_node("dead", types=["gone"])
    make_node(kinds=["http"], types=[])
    assert nodes.knows_type("gone") is None
    make_node(types=["here"])
    assert nodes.knows_type("here") is True
    assert nodes.knows_type("gone") is False and nodes.knows_type("her") is False
