"""Fires: each due instant of each schedule makes one job, or says why it makes none."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.utils import timezone

from jobs.engine import fire_plan, fires, run_upkeep, schedule_runs, schedules
from jobs.errors import ScheduleState
from jobs.models import Fire, Job, Queue, Schedule
from jobs.states import State, Trigger, WaitsFor
from tests.jobs.schedule_cases import (
    POLICY,
    USING,
    begin_run,
    end_run,
    fire,
    fires_of,
    hours_ago,
    make_schedule,
    put_back,
    runs_of,
)

pytestmark = pytest.mark.usefixtures("alpha")


def just_due(schedule: Schedule) -> None:
    put_back(schedule, timezone.now() - timedelta(seconds=1))


def test_a_due_schedule_makes_one_job_for_its_instant_and_goes_on_to_the_next():
    schedule = make_schedule(payload={"a": 1}, tags=["eu"], priority=-5, timeout_seconds=7)
    put_back(schedule, due := hours_ago(0))
    Schedule.objects.filter(pk=schedule.pk).update(misfire_grace_seconds=7200)
    assert fire() == 1
    assert fire() == 0
    (job,) = runs_of(schedule)
    assert (job.due_at, job.trigger, job.state) == (due, Trigger.SCHEDULE, State.READY)
    assert (job.payload, job.tags, job.priority, job.timeout_seconds) == ({"a": 1}, ["eu"], -5, 7)
    schedule.refresh_from_db()
    assert schedule.next_due_at == due + timedelta(hours=1)
    assert schedule.last_job_id == job.pk
    (row,) = Fire.objects.all()
    assert (row.due_at, row.job_id, row.state) == (due, job.pk, "fired")


def test_an_instant_that_has_a_row_makes_no_second_job():
    schedule = make_schedule()
    Schedule.objects.filter(pk=schedule.pk).update(misfire_grace_seconds=7200)
    for _ in range(3):
        put_back(schedule, hours_ago(0))
        assert fire() == 1
    assert len(runs_of(schedule)) == 1


def test_what_is_not_due_is_left_alone():
    schedule = make_schedule()
    assert fire() == 0
    assert runs_of(schedule) == []


@pytest.mark.parametrize("stop", ["pause", "disable", "delete"])
def test_a_stopped_schedule_is_not_due(stop):
    schedule = make_schedule()
    if stop == "pause":
        schedules.pause(schedule.pk, by="test")
    elif stop == "disable":
        schedules.change(schedule.pk, {"is_enabled": False}, by="test")
    else:
        schedules.delete(schedule.pk, by="test")
    schedule.refresh_from_db()
    assert (schedule.next_due_at, schedule.next_run_at) == (None, None)


def test_a_trigger_runs_at_once_and_leaves_the_timing_alone():
    schedule = make_schedule()
    before = schedule.next_due_at
    made = fires.trigger(schedule.pk, by="anna", payload={"now": True})
    job = Job.objects.get(pk=made.job_id)
    assert (job.trigger, job.payload, job.enqueued_by) == (Trigger.MANUAL, {"now": True}, "anna")
    schedule.refresh_from_db()
    assert schedule.next_due_at == before
    schedules.change(schedule.pk, {"is_enabled": False}, by="test")
    with pytest.raises(ScheduleState):
        fires.trigger(schedule.pk, by="anna")


def test_a_triggered_run_waits_for_the_one_before():
    schedule = make_schedule()
    first, second, third = (
        Job.objects.get(pk=fires.trigger(schedule.pk, by="anna").job_id) for _ in range(3)
    )
    assert (second.state, second.waits_for) == (State.BLOCKED, WaitsFor.RUN)
    end_run(first)
    second.refresh_from_db()
    third.refresh_from_db()
    assert (second.state, second.waits_for, third.state) == (State.READY, None, State.BLOCKED)


def test_overlap_skip_leaves_out_what_is_due_while_a_run_goes_on():
    schedule = make_schedule()
    just_due(schedule)
    fire()
    just_due(schedule)
    fire()
    assert len(runs_of(schedule)) == 1
    assert [state for state, *_ in fires_of(schedule)] == ["fired", "skipped"]
    schedule.refresh_from_db()
    assert schedule.left_out == 1


def test_overlap_queue_one_lets_one_wait():
    schedule = make_schedule(overlap="queue_one")
    for _ in range(3):
        just_due(schedule)
        fire()
        Job.objects.filter(schedule_id=schedule.pk, state=State.READY).update(
            state=State.RUNNING, fence=1, node_id=schedule.pk, started_at=timezone.now()
        )
    first, second = runs_of(schedule)
    assert (second.state, second.waits_for) == (State.BLOCKED, WaitsFor.RUN)
    end_run(first)
    second.refresh_from_db()
    assert second.state == State.READY


def test_overlap_replace_cancels_the_old_run_and_starts_when_it_is_dead():
    schedule = make_schedule(overlap="replace")
    just_due(schedule)
    fire()
    Job.objects.filter(schedule_id=schedule.pk).update(
        state=State.RUNNING, fence=1, node_id=schedule.pk, started_at=timezone.now()
    )
    just_due(schedule)
    fire()
    old, new = runs_of(schedule)
    assert old.cancel_requested_at is not None
    assert (new.state, new.waits_for) == (State.BLOCKED, WaitsFor.RUN)
    end_run(old, State.CANCELLED)
    new.refresh_from_db()
    assert new.state == State.READY


def test_overlap_replace_of_a_run_that_has_not_started_is_done_at_once():
    schedule = make_schedule(overlap="replace")
    for _ in range(2):
        just_due(schedule)
        fire()
    old, new = runs_of(schedule)
    assert (old.state, new.state) == (State.CANCELLED, State.READY)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("retried", [False, True])
def test_a_run_that_people_start_replaces_the_old_one_at_once(retried: bool):
    schedule = make_schedule(overlap="replace")
    ended = fires.trigger(schedule.pk, by="anna").job_id
    end_run(Job.objects.get(pk=ended), State.FAILED)
    old = Job.objects.get(pk=fires.trigger(schedule.pk, by="anna").job_id)
    begin_run(old)
    with transaction.atomic(using=USING):
        if retried:
            new_id = schedule_runs.retry(Job.objects.get(pk=ended), by="anna").pk
        else:
            new_id = fires.trigger(schedule.pk, by="anna").job_id
        # Whoever ends the old run waits for the schedule, which is held up to here.
        assert not Job.objects.filter(pk=old.pk, cancel_requested_at__isnull=False).exists()
    old.refresh_from_db()
    assert (old.state, old.cancel_requested_at is not None) == (State.RUNNING, True)
    assert Job.objects.get(pk=new_id).state == State.BLOCKED
    end_run(old, State.CANCELLED)
    assert Job.objects.get(pk=new_id).state == State.READY


@pytest.mark.django_db(transaction=True)
def test_a_run_that_people_start_leaves_the_old_one_alone_unless_it_replaces():
    for overlap in ("skip", "queue_one", "allow"):
        schedule = make_schedule(overlap=overlap)
        old = Job.objects.get(pk=fires.trigger(schedule.pk, by="anna").job_id)
        begin_run(old)
        fires.trigger(schedule.pk, by="anna")
        run_upkeep.mend_runs(USING, POLICY)
        old.refresh_from_db()
        assert old.cancel_requested_at is None


@pytest.mark.django_db(transaction=True)
def test_a_run_that_waits_for_other_schedules_is_not_replaced_by_one_that_people_start():
    upstream = make_schedule()
    schedule = make_schedule(overlap="replace", depends_on=[upstream.pk])
    just_due(schedule)
    fire()
    (held,) = runs_of(schedule)
    begin_run(Job.objects.get(pk=fires.trigger(schedule.pk, by="anna").job_id))
    fires.trigger(schedule.pk, by="anna")
    run_upkeep.mend_runs(USING, POLICY)
    held.refresh_from_db()
    assert (held.state, held.waits_for) == (State.BLOCKED, WaitsFor.SCHEDULES)


def test_a_queue_that_is_gone_is_told_of_and_keeps_nobody_from_his_turn():
    Queue.objects.create(name="mail")
    bad, good = make_schedule(queue="mail"), make_schedule()
    Queue.objects.filter(name="mail").delete()
    just_due(bad)
    just_due(good)
    assert fire() == 2
    assert runs_of(bad) == []
    assert len(runs_of(good)) == 1
    (row,) = Fire.objects.filter(schedule=bad)
    assert (row.state, row.reason) == ("skipped", "refused")
    assert "mail" in row.detail


def test_a_run_waits_for_the_schedules_it_depends_on_and_one_success_lets_one_go():
    upstream = make_schedule()
    schedule = make_schedule(depends_on=[upstream.pk])
    just_due(schedule)
    fire()
    (waiting,) = runs_of(schedule)
    assert (waiting.state, waiting.waits_for) == (State.BLOCKED, WaitsFor.SCHEDULES)
    just_due(upstream)
    fire()
    end_run(runs_of(upstream)[0], State.FAILED)
    waiting.refresh_from_db()
    assert waiting.state == State.BLOCKED
    just_due(upstream)
    fire()
    end_run(runs_of(upstream)[1])
    waiting.refresh_from_db()
    assert waiting.state == State.READY
    end_run(waiting)
    just_due(schedule)
    fire()
    assert runs_of(schedule)[-1].state == State.BLOCKED


def test_a_run_that_waits_for_schedules_is_superseded_by_the_next():
    upstream = make_schedule()
    schedule = make_schedule(depends_on=[upstream.pk])
    for _ in range(2):
        just_due(schedule)
        fire()
    old, new = runs_of(schedule)
    assert (old.state, new.state) == (State.CANCELLED, State.BLOCKED)
    assert "superseded" in old.error


@pytest.mark.parametrize("has_succeeded", [False, True])
def test_of_many_instants_that_are_caught_up_only_the_newest_waits_for_schedules(has_succeeded):
    upstream = make_schedule()
    schedule = make_schedule(depends_on=[upstream.pk], misfire="all", overlap="allow")
    if has_succeeded:
        just_due(upstream)
        fire()
        end_run(runs_of(upstream)[0])
    put_back(schedule, hours_ago(24))
    while fire():
        pass
    *runs, newest = runs_of(schedule)
    assert len(runs) >= 24
    assert (newest.state, newest.waits_for) == (State.BLOCKED, WaitsFor.SCHEDULES)
    # The success that was there let the first one go.
    states = [State.READY] * has_succeeded + [State.CANCELLED] * (len(runs) - has_succeeded)
    assert [run.state for run in runs] == states
    just_due(upstream)
    fire()
    end_run(runs_of(upstream)[-1])
    assert [run.state for run in runs_of(schedule)] == [*states, State.READY]


def test_one_success_lets_one_run_go_however_many_wait():
    upstream = make_schedule()
    schedule = make_schedule(depends_on=[upstream.pk], overlap="allow")
    just_due(schedule)
    fire()
    (old,) = runs_of(schedule)
    just_due(schedule)
    fire()
    # As if it had been locked when the newer one came.
    Job.objects.filter(pk=old.pk).update(
        state=State.BLOCKED, finished_at=None, waits_for="schedules"
    )
    just_due(upstream)
    fire()
    end_run(runs_of(upstream)[0])
    assert [run.state for run in runs_of(schedule)] == [State.BLOCKED, State.READY]


def test_variables_are_filled_in_when_a_run_is_made():
    schedule = make_schedule(
        payload={"day": "{{Today}}", "who": ["{{ Job.Name }}", "{{No.Such}}"]}, has_variables=True
    )
    just_due(schedule)
    before = timezone.now()
    fire()
    (job,) = runs_of(schedule)
    # Midnight may have been in between.
    assert job.payload["day"] in {f"{day:%Y-%m-%d}" for day in (before, timezone.now())}
    assert job.payload["who"] == [schedule.name, "{{No.Such}}"]


def test_failures_in_a_row_are_counted():
    schedule = make_schedule()
    for state in (State.FAILED, State.FAILED):
        just_due(schedule)
        fire()
        end_run(runs_of(schedule)[-1], state)
    schedule.refresh_from_db()
    assert (schedule.consecutive_failures, schedule.last_state) == (2, State.FAILED)
    just_due(schedule)
    fire()
    end_run(runs_of(schedule)[-1])
    schedule.refresh_from_db()
    assert (schedule.consecutive_failures, schedule.last_state) == (0, State.SUCCEEDED)


def test_a_schedule_that_cannot_be_worked_out_is_parked_and_keeps_nobody_from_his_turn():
    bad, good = make_schedule(), make_schedule()
    just_due(bad)
    just_due(good)
    Schedule.objects.filter(pk=bad.pk).update(timezone="Mars/Olympus")
    assert fire() == 2
    bad.refresh_from_db()
    assert bad.next_run_at is None
    assert "Mars" in bad.error
    assert len(runs_of(good)) == 1


def test_upkeep_lets_go_what_was_forgotten():
    schedule = make_schedule()
    fires.trigger(schedule.pk, by="anna")
    made = fires.trigger(schedule.pk, by="anna")
    Job.objects.filter(schedule_id=schedule.pk, state=State.READY).update(
        state=State.SUCCEEDED, finished_at=timezone.now()
    )
    assert run_upkeep.mend_runs(USING, POLICY) == 1
    assert Job.objects.get(pk=made.job_id).state == State.READY


def test_a_batch_that_fails_is_done_one_by_one_and_only_the_bad_one_is_parked(monkeypatch):
    bad, good = make_schedule(name="bad"), make_schedule()
    just_due(bad)
    just_due(good)
    enqueue_many = fires.enqueue_many

    def fails(news, *, by):
        if any(new.origin.schedule_id == bad.pk for new in news):
            raise ValueError("no job can be made of this")
        return enqueue_many(news, by=by)

    monkeypatch.setattr(fires, "enqueue_many", fails)
    assert fire() == 2
    bad.refresh_from_db()
    assert (bad.next_run_at, bad.error) == (None, "ValueError: no job can be made of this")
    assert (len(runs_of(bad)), len(runs_of(good)), len(fires_of(bad))) == (0, 1, 0)


def test_a_database_that_is_busy_parks_nobody(monkeypatch):
    schedule = make_schedule()
    just_due(schedule)

    def fails(news, *, by):
        raise OperationalError("database is locked")

    monkeypatch.setattr(fires, "enqueue_many", fails)
    with pytest.raises(OperationalError):
        fire()
    monkeypatch.undo()
    assert fire() == 1
    assert len(runs_of(schedule)) == 1


def test_a_run_between_two_attempts_is_not_the_one_that_may_wait():
    schedule = make_schedule(overlap="queue_one")
    just_due(schedule)
    fire()
    Job.objects.update(state=State.SCHEDULED, attempts=1)
    just_due(schedule)
    fire()
    assert runs_of(schedule)[1].waits_for == WaitsFor.RUN
    just_due(schedule)
    fire()
    assert len(runs_of(schedule)) == 2


def test_who_needs_no_grant_does_not_wait_for_the_database_of_rights(
    monkeypatch: pytest.MonkeyPatch, alpha: object
) -> None:
    def no_answer(*asked: str) -> None:
        raise OperationalError("no connection")

    payload = {"argv": ["true"]}
    shell = make_schedule(kind="shell", payload=payload, misfire_grace_seconds=7200)
    plain = make_schedule()
    for schedule in (shell, plain):
        put_back(schedule, hours_ago(0))
    monkeypatch.setattr(fire_plan, "rights_of", no_answer)
    fire()
    assert (len(runs_of(plain)), fires_of(shell)) == (1, [])
    shell.refresh_from_db()
    assert shell.next_due_at == hours_ago(0)
    assert shell.next_run_at > timezone.now()
