"""Runs that were missed, run or left out afterwards; the next run, skipped; the last fires of many."""

from __future__ import annotations

from datetime import timedelta

import pytest

from clusters.acting import acting_as
from clusters.models import AuditEntry
from jobs.engine import arm, fires, schedules, workflows
from jobs.engine.missed import run_missed, skip_next
from jobs.engine.workflow_rows import NewNode
from jobs.errors import (
    FireNotFound,
    InvalidSchedule,
    JobError,
    KindNotGranted,
    ScheduleNotFound,
    ScheduleState,
)
from jobs.models import Fire, FireReason, FireState, Job, Schedule, Total, WorkflowRun
from jobs.states import State
from tests.deeds.test_domain import as_a
from tests.factories import make_job
from tests.jobs.schedule_cases import (
    USING,
    end_run,
    fire,
    fires_of,
    hours_ago,
    keep_away_from_the_turn,
    make_schedule,
    put_back,
    runs_of,
)

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture(autouse=True)
def _away() -> None:
    keep_away_from_the_turn()


def gap_of(hours: int = 5, **values) -> tuple[Schedule, Fire]:
    """A schedule that nobody was there for, for so many of its instants."""
    schedule = make_schedule(misfire="skip", **values)
    put_back(schedule, hours_ago(hours))
    fire()
    [gap] = Fire.objects.filter(schedule=schedule)
    assert (gap.state, gap.count) == (FireState.MISSED, hours + 1)
    schedule.refresh_from_db()
    return schedule, gap


def test_all_of_a_gap_runs_each_instant_once_oldest_first():
    schedule, gap = gap_of(overlap="allow")
    dealt = run_missed(schedule.pk, gap.pk, "all", by="anna", reason="the nodes were down")
    runs = runs_of(schedule)
    assert [run.due_at for run in runs] == [hours_ago(n) for n in range(5, -1, -1)]
    assert {run.state for run in runs} == {State.READY}
    assert (dealt.job_ids, dealt.left) == ([run.pk for run in runs], 0)
    assert fires_of(schedule) == [("fired", None, 1)] * 6
    assert [one.job_id for one in Fire.objects.order_by("due_at")] == dealt.job_ids
    schedule.refresh_from_db()
    assert (schedule.left_out, schedule.last_job_id) == (0, runs[-1].pk)
    with pytest.raises(FireNotFound):
        run_missed(schedule.pk, gap.pk, "all", by="anna")
    assert Job.objects.count() == 6


def test_the_latest_of_a_gap_runs_and_the_rest_stays_one():
    schedule, gap = gap_of()
    assert run_missed(schedule.pk, gap.pk, "latest", by="anna").left == 5
    [run] = runs_of(schedule)
    assert run.due_at == hours_ago(0)
    assert fires_of(schedule) == [("missed", "misfire", 5), ("fired", None, 1)]
    end_run(run)
    # The rest is what it was, and can be run afterwards.
    run_missed(schedule.pk, gap.pk, "latest", by="anna")
    assert [one.due_at for one in runs_of(schedule)] == [hours_ago(1), hours_ago(0)]
    assert fires_of(schedule)[0] == ("missed", "misfire", 4)


def test_a_gap_that_the_word_latest_has_left_can_be_run():
    schedule = make_schedule(misfire="latest", overlap="allow")
    put_back(schedule, hours_ago(3))
    fire()
    gap = Fire.objects.get(state=FireState.MISSED)
    run_missed(schedule.pk, gap.pk, "all", by="anna")
    assert [run.due_at for run in runs_of(schedule)] == [hours_ago(n) for n in range(3, -1, -1)]


def test_no_more_than_a_hundred_run_at_once(monkeypatch):
    monkeypatch.setattr("jobs.engine.missed.MAX_MISFIRES", 4)
    schedule, gap = gap_of(overlap="allow")
    dealt = run_missed(schedule.pk, gap.pk, "all", by="anna")
    assert (dealt.runs, dealt.left) == (4, 2)
    assert fires_of(schedule)[0] == ("missed", "misfire", 2)
    assert run_missed(schedule.pk, gap.pk, "all", by="anna").left == 0
    assert [run.due_at for run in runs_of(schedule)] == [hours_ago(n) for n in range(5, -1, -1)]


@pytest.mark.parametrize("overlap", ["skip", "queue_one"])
def test_where_no_two_may_go_on_each_waits_for_the_one_before(overlap):
    schedule, gap = gap_of(2, overlap=overlap)
    run_missed(schedule.pk, gap.pk, "all", by="anna")
    for n in range(3):
        states = [run.state for run in runs_of(schedule)]
        assert states[n:] == [State.READY, *[State.BLOCKED] * (2 - n)]
        end_run(runs_of(schedule)[n])


def test_where_only_one_would_come_to_its_end_many_are_refused():
    schedule, gap = gap_of(overlap="replace")
    with pytest.raises(ScheduleState, match="run the latest"):
        run_missed(schedule.pk, gap.pk, "all", by="anna")
    assert run_missed(schedule.pk, gap.pk, "latest", by="anna").left == 5


def test_runs_of_a_workflow_are_made_for_their_instants():
    workflow = workflows.create("w", [NewNode(make_schedule().pk)], by="test")
    schedule, gap = gap_of(1, workflow_id=workflow.pk, overlap="allow")
    dealt = run_missed(schedule.pk, gap.pk, "all", by="anna")
    runs = WorkflowRun.objects.order_by("due_at")
    assert [run.due_at for run in runs] == [hours_ago(1), hours_ago(0)]
    assert dealt.workflow_run_ids == [run.pk for run in runs]
    other, gap = gap_of(1, workflow_id=workflow.pk)
    with pytest.raises(ScheduleState, match="run the latest"):
        run_missed(other.pk, gap.pk, "all", by="anna")


def test_a_gap_that_is_skipped_stays_left_out():
    schedule, gap = gap_of()
    run_missed(schedule.pk, gap.pk, "skip", by="anna", reason="too late")
    assert fires_of(schedule) == [("skipped", "misfire", 6)]
    assert Fire.objects.get().detail == "left out by anna"
    assert not Job.objects.exists()
    with pytest.raises(ScheduleState, match="dealt with"):
        run_missed(schedule.pk, gap.pk, "latest", by="anna")
    assert not Schedule.objects.all().with_gaps().exists()


def test_what_cannot_be_run_is_refused_and_changes_nothing():
    schedule, gap = gap_of()
    assert Schedule.objects.all().with_gaps().get() == schedule
    with pytest.raises(InvalidSchedule) as error:
        run_missed(schedule.pk, gap.pk, "some", by="anna")
    assert error.value.field == "which"
    with pytest.raises(InvalidSchedule) as error:
        run_missed(schedule.pk, gap.pk, "skip", by="anna", reason="x" * 501)
    assert error.value.field == "reason"
    with pytest.raises(FireNotFound):
        run_missed(make_schedule().pk, gap.pk, "skip", by="anna")
    # By now it would have been due at other moments.
    schedules.change(schedule.pk, {"expression": "1 1 * * *"}, by="anna")
    with pytest.raises(ScheduleState, match="definition"):
        run_missed(schedule.pk, gap.pk, "latest", by="anna")
    schedules.change(schedule.pk, {"is_enabled": False}, by="anna")
    with pytest.raises(ScheduleState, match="disabled"):
        run_missed(schedule.pk, gap.pk, "latest", by="anna")
    schedules.delete(schedule.pk, by="anna")
    with pytest.raises(ScheduleNotFound):
        run_missed(schedule.pk, gap.pk, "skip", by="anna")
    assert fires_of(schedule) == [("missed", "misfire", 6)]
    assert not Job.objects.exists()


def test_work_that_needs_a_grant_is_run_with_one_only():
    schedule, gap = gap_of(kind="shell", type="s", payload={"argv": ["true"]})
    with acting_as(as_a("admin")):
        with pytest.raises(KindNotGranted):
            run_missed(schedule.pk, gap.pk, "latest", by="anna")
        run_missed(schedule.pk, gap.pk, "skip", by="anna")
    assert not Job.objects.exists()


def test_a_queue_that_is_full_refuses_all_of_them_and_the_gap_stays():
    from jobs.models import Queue

    schedule, gap = gap_of(overlap="allow")
    Queue.objects.all().named("default").change(max_entries=2, overflow="refuse")
    with pytest.raises(JobError):
        run_missed(schedule.pk, gap.pk, "all", by="anna")
    assert fires_of(schedule) == [("missed", "misfire", 6)]
    assert not Job.objects.exists()


# -- The next one ----------------------------------------------------------------------------------


def test_the_next_run_is_skipped_and_the_one_after_it_is_the_next():
    schedule = make_schedule()
    due = schedule.next_due_at
    skipped = skip_next(schedule.pk, by="anna", reason="stock-taking")
    assert skipped.next_due_at == due + timedelta(hours=1)
    assert fires_of(schedule) == [("skipped", "exclusion", 1)]
    ahead = schedules.next_runs(schedule, 2)
    assert [(one.instant, one.excluded) for one in ahead] == [
        (due, "left out by anna: stock-taking"),
        (due + timedelta(hours=1), None),
    ]
    [one] = schedules.next_runs(schedule, 1, include_excluded=False)
    assert one.instant == due + timedelta(hours=1)
    # Once more: the one after that.
    assert skip_next(schedule.pk, by="anna").next_due_at == due + timedelta(hours=2)
    assert Total.objects.get(name="fires", word=FireReason.EXCLUSION).count == 2


def test_a_skipped_instant_makes_no_job_whatever_arms_the_schedule_anew():
    schedule = make_schedule()
    skip_next(schedule.pk, by="anna")
    due = Fire.objects.get().due_at
    schedules.pause(schedule.pk, by="anna")
    schedules.resume(schedule.pk, by="anna")
    schedule.refresh_from_db()
    assert schedule.next_due_at == due
    # And after another skip it is not counted twice.
    assert skip_next(schedule.pk, by="anna").next_due_at == due + timedelta(hours=2)
    Fire.objects.filter(due_at=due).update(due_at=hours_ago(0))
    Schedule.objects.update(misfire_grace_seconds=7200)
    put_back(schedule, hours_ago(0))
    assert fire() == 1
    assert not Job.objects.exists()
    schedule.refresh_from_db()
    assert schedule.next_due_at > due - timedelta(hours=1)


@pytest.mark.parametrize("why", ["once", "paused", "due"])
def test_what_has_no_next_run_to_skip_is_refused(why):
    schedule = make_schedule()
    if why == "once":
        at = schedule.next_due_at
        schedule = make_schedule(timing="once", run_at=at)
    elif why == "paused":
        schedules.pause(schedule.pk, by="anna")
    else:
        put_back(schedule, hours_ago(0))
    with pytest.raises(ScheduleState):
        skip_next(schedule.pk, by="anna")
    assert not Fire.objects.exists()


def test_a_timing_that_waits_takes_over_where_the_last_run_before_it_is_skipped():
    schedule = make_schedule()
    since = schedule.next_due_at + timedelta(minutes=10)
    values = {"timing": "interval", "interval_seconds": 600}
    schedules.reschedule(schedule.pk, values, by="anna", effective_from=since)
    assert skip_next(schedule.pk, by="anna").next_due_at == since


def test_both_are_told_of_with_the_reason():
    schedule, gap = gap_of()
    with acting_as(as_a("operator")):
        skip_next(schedule.pk, by="x", reason="stock-taking")
        run_missed(schedule.pk, gap.pk, "latest", by="x", reason="wanted")
    rows = AuditEntry.objects.order_by("at", "id")
    assert [(row.verb, row.reason, row.count) for row in rows] == [
        ("schedules.skip_next", "stock-taking", None),
        ("schedules.run_missed", "wanted", 1),
    ]
    assert rows[1].after == {"which": "latest", "left": 5}


# -- The last fires of many ------------------------------------------------------------------------


def test_the_last_fires_of_many_schedules_are_one_question(django_assert_num_queries):
    first, second, never = make_schedule(), make_schedule(), make_schedule()
    job = make_job("failed", schedule_id=first.pk)
    for n in range(5):
        fired = {"state": FireState.FIRED, "job_id": None if n else job.pk}
        Fire.objects.create(schedule=first, due_at=hours_ago(n), **fired)
    put_back(second, hours_ago(0))
    fire()
    with django_assert_num_queries(1, using=USING):
        found = Fire.objects.all().latest_of([first.pk, second.pk, never.pk], 3)
    assert [one.due_at for one in found[first.pk]] == [hours_ago(n) for n in (2, 1, 0)]
    assert [one.outcome for one in found[first.pk]] == [None, None, State.FAILED]
    assert [one.outcome for one in found[second.pk]] == [State.READY]
    assert found[never.pk] == []
    assert Fire.objects.all().latest_of([], 3) == {}


def test_a_late_schedule_is_found():
    schedule = make_schedule()
    assert not Schedule.objects.all().late().exists()
    put_back(schedule, hours_ago(0))
    assert Schedule.objects.all().late().get() == schedule
    paused = make_schedule()
    schedules.pause(paused.pk, by="anna")
    assert {*Schedule.objects.all().late(False)} == {paused}


def test_a_manual_run_closes_no_gap():
    schedule, _ = gap_of()
    fires.trigger(schedule.pk, by="anna")
    assert Schedule.objects.all().with_gaps().get() == schedule
    assert arm.is_running(schedule)
