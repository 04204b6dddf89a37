"""The verbs of schedules: what they change, and what they leave alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.engine import calendars, run_upkeep, schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.errors import (
    CalendarInUse,
    DependencyCycle,
    InvalidSchedule,
    OutdatedSchedule,
    ScheduleInUse,
    ScheduleNotFound,
    ScheduleState,
    UnknownHandler,
)
from jobs.models import Calendar, Fire, Job, Schedule, ScheduleDependency, Source, Status
from jobs.states import State
from tests.factories import make_node
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

HOUR = timedelta(hours=1)


def fresh(schedule: Schedule) -> Schedule:
    return Schedule.objects.get(pk=schedule.pk)


def interval(**values: Any) -> Schedule:
    return make_schedule(timing="interval", interval_seconds=3600, **values)


# -- Handlers --------------------------------------------------------------------------------------


def refuses_handler(verb: Callable[[], Any]) -> None:
    with pytest.raises(UnknownHandler) as caught:
        verb()
    assert (caught.value.field, caught.value.code) == ("type", "unknown_handler")


def test_a_handler_that_no_live_node_has_is_refused(alpha: object) -> None:
    make_node(types=["demo:noop"])
    schedule = make_schedule()
    refuses_handler(lambda: make_schedule(type="demo:typo"))
    refuses_handler(lambda: schedules.change(schedule.pk, {"type": "demo:typo"}, by="anna"))
    assert [one.type for one in Schedule.objects.all()] == ["demo:noop"]
    # Other kinds have no handlers, and what stays as it is is not asked about.
    make_schedule(kind="http", type="ping", payload={"method": "GET", "url": "https://a.example"})
    Schedule.objects.filter(pk=schedule.pk).update(type="demo:gone")
    schedules.change(schedule.pk, {"description": "still there"}, by="anna")
    schedules.change(schedule.pk, {"type": "demo:noop"}, by="anna")


def test_where_no_node_could_tell_any_handler_is_taken(alpha: object) -> None:
    make_schedule(type="demo:soon")
    make_node("dead", types=["demo:noop"])
    make_node(lease_until=timezone.now() - timedelta(seconds=1))
    make_node(kinds=["http"], types=[])
    make_schedule(type="demo:later")


def test_what_stands_in_code_brings_its_handler_along(alpha: object) -> None:
    make_node(types=["demo:other"])
    values = {"name": "declared", "type": "demo:new", "timing": "cron", "expression": "0 * * * *"}
    made = schedules.create(values, by="code", source=Source.CODE)
    schedules.change(made.pk, {"type": "demo:newer"}, by="code", source=Source.CODE)
    refuses_handler(lambda: schedules.change(made.pk, {"type": "demo:typo"}, by="anna"))


# -- Change ----------------------------------------------------------------------------------------


def test_what_is_no_part_of_a_definition_is_refused(alpha: object) -> None:
    for name in ("version", "is_paused", "next_run_at", "created_by", "id"):
        with pytest.raises(InvalidSchedule) as caught:
            make_schedule(**{name: 1})
        assert caught.value.field == name
    assert not Schedule.objects.exists()


def test_an_interval_that_is_said_again_is_not_counted_anew(alpha: object) -> None:
    schedule = interval()
    moved = timezone.now() - HOUR / 2
    Schedule.objects.update(anchor_at=moved, next_due_at=moved + HOUR, next_run_at=moved + HOUR)
    said = {"timing": "interval", "interval_seconds": 3600.0, "timezone": "UTC", "name": "new"}
    changed = schedules.change(schedule.pk, said, by="test")
    assert (changed.anchor_at, changed.next_run_at) == (moved, moved + HOUR)
    changed = schedules.change(schedule.pk, {"interval_seconds": 60}, by="test")
    assert changed.anchor_at is not None and changed.anchor_at > moved
    assert changed.next_run_at == changed.anchor_at + timedelta(seconds=60)


def test_a_change_beside_the_timing_leaves_alone_what_is_due(alpha: object) -> None:
    schedule = make_schedule()
    put_back(schedule, hours_ago(1))
    changed = schedules.change(schedule.pk, {"priority": 3}, by="test")
    assert changed.next_due_at == hours_ago(1)
    fire()
    assert [job.priority for job in runs_of(schedule)] == [3]


@pytest.mark.parametrize(
    "said",
    [
        {"expression": "30 4 1 1 *"},
        {"timezone": "Asia/Kathmandu"},  # a quarter of an hour off
        {"exclusions": {"dates": ["2031-01-01"]}},
        {"spread_seconds": 60},
        {"starts_at": timezone.now() - 9 * HOUR},
        {"timing": "interval", "interval_seconds": 500},
    ],
)
def test_a_change_of_the_timing_never_fires_the_past(said: Any, alpha: object) -> None:
    schedule = make_schedule()
    put_back(schedule, hours_ago(9))
    changed = schedules.change(schedule.pk, said, by="test")
    assert changed.next_due_at is not None and changed.next_due_at > timezone.now()
    assert fire() == 0
    assert not Job.objects.exists()


def test_who_read_an_older_version_changes_nothing(alpha: object) -> None:
    schedule = make_schedule()
    schedules.change(schedule.pk, {"priority": 1}, by="test", versions=[1])
    for verb in (
        lambda: schedules.change(schedule.pk, {"priority": 2}, by="test", versions=[1]),
        lambda: schedules.reschedule(
            schedule.pk, {"timing": "interval", "interval_seconds": 9}, by="test", versions=[1]
        ),
        lambda: schedules.set_exclusions(schedule.pk, {}, by="test", versions=[1]),
        lambda: schedules.add_exclusions(schedule.pk, {}, by="test", versions=[1]),
        lambda: schedules.set_dependencies(schedule.pk, [], needs="all", by="test", versions=[1]),
        lambda: schedules.delete(schedule.pk, by="test", versions=[1]),
        lambda: schedules.delete_for_good(schedule.pk, by="test", versions=[1]),
    ):
        with pytest.raises(OutdatedSchedule):
            verb()
    assert (fresh(schedule).version, fresh(schedule).priority) == (2, 1)


def test_one_that_has_ended_can_still_be_disabled_and_described(alpha: object) -> None:
    schedule = make_schedule()
    Schedule.objects.update(ends_at=hours_ago(2), next_due_at=None, next_run_at=None)
    assert fresh(schedule).status == Status.COMPLETED
    changed = schedules.change(schedule.pk, {"is_enabled": False, "tags": ["old"]}, by="test")
    assert changed.status == Status.DISABLED
    with pytest.raises(InvalidSchedule) as caught:
        schedules.change(schedule.pk, {"expression": "*/10 * * * *"}, by="test")
    assert caught.value.field == "ends_at"


def test_a_parked_schedule_goes_on_when_it_is_enabled_again(alpha: object) -> None:
    schedule = make_schedule()
    Schedule.objects.all().park("no zone")  # type: ignore[attr-defined]
    assert schedules.change(schedule.pk, {"priority": 1}, by="test").status == Status.BROKEN
    changed = schedules.change(schedule.pk, {"is_enabled": True}, by="test")
    assert changed.status == Status.ENABLED


# -- Reschedule ------------------------------------------------------------------------------------


def test_a_timing_that_waits_takes_over_at_its_moment(alpha: object) -> None:
    schedule = make_schedule()
    since = hours_ago(-3)
    said = {"timing": "interval", "interval_seconds": 1800}
    changed = schedules.reschedule(schedule.pk, said, by="test", effective_from=since)
    assert changed.next_due_at == hours_ago(-1)
    assert [one.instant for one in schedules.next_runs(changed, 5)] == [
        hours_ago(-1),
        hours_ago(-2),
        since,
        since + HOUR / 2,
        since + HOUR,
    ]
    # The moment has come.
    past = hours_ago(1)
    Schedule.objects.update(effective_from=past, next_due_at=past, next_run_at=past)
    fire()
    done = fresh(schedule)
    assert (done.timing, done.interval_seconds, done.expression) == ("interval", 1800.0, None)
    assert (done.pending, done.effective_from) == (None, None)
    assert done.next_due_at is not None and done.next_due_at > timezone.now()


def test_what_is_due_already_still_runs_when_another_timing_waits(alpha: object) -> None:
    schedule = make_schedule()
    put_back(schedule, hours_ago(0))
    said = {"timing": "cron", "expression": "@daily"}
    schedules.reschedule(schedule.pk, said, by="test", effective_from=hours_ago(-9))
    fire()
    assert [job.due_at for job in runs_of(schedule)] == [hours_ago(0)]
    assert fresh(schedule).next_due_at == hours_ago(-1)


def test_a_new_timing_replaces_the_one_that_waits(alpha: object) -> None:
    schedule = make_schedule()
    said = {"timing": "cron", "expression": "@daily"}
    schedules.reschedule(schedule.pk, said, by="test", effective_from=hours_ago(-9))
    assert schedules.change(schedule.pk, {"priority": 1}, by="test").pending is not None
    changed = schedules.change(schedule.pk, {"expression": "7 * * * *"}, by="test")
    assert (changed.pending, changed.effective_from) == (None, None)


# -- Pause, resume ---------------------------------------------------------------------------------


def test_time_paused_is_not_missed_and_an_interval_begins_anew(alpha: object) -> None:
    schedule = interval()
    schedules.pause(schedule.pk, by="test", reason="x")
    Schedule.objects.update(anchor_at=hours_ago(50), accounted_until=hours_ago(50))
    assert fire() == 0
    resumed = schedules.resume(schedule.pk, by="other")
    left = resumed.next_due_at - timezone.now()
    assert HOUR - timedelta(seconds=30) < left <= HOUR
    assert fires_of(schedule) == []
    # Not an edit of the definition: its rights are those of who wrote it.
    assert resumed.updated_by == "test"


def test_pausing_twice_and_resuming_what_runs_is_refused(alpha: object) -> None:
    schedule = make_schedule()
    with pytest.raises(ScheduleState) as caught:
        schedules.resume(schedule.pk, by="test")
    assert caught.value.code == "not_paused"
    schedules.pause(schedule.pk, by="test")
    with pytest.raises(ScheduleState) as caught:
        schedules.pause(schedule.pk, by="test")
    assert caught.value.code == "already_paused"


def test_a_pause_ends_by_itself_and_one_that_is_broken_holds_up_nobody(alpha: object) -> None:
    until = timezone.now() + HOUR
    broken, sound = make_schedule(), make_schedule()
    for one in (broken, sound):
        schedules.pause(one.pk, by="test", until=until)
    Schedule.objects.filter(pk=broken.pk).update(timezone="Gone/Zone")
    assert schedules.resume_due(USING, POLICY) == 0
    Schedule.objects.update(resume_at=hours_ago(1))
    assert schedules.resume_due(USING, POLICY) == 2
    assert (fresh(broken).status, fresh(sound).status) == (Status.BROKEN, Status.ENABLED)


def test_a_one_time_run_whose_moment_came_while_paused_still_happens(alpha: object) -> None:
    schedule = make_schedule(timing="once", expression=None, run_at=timezone.now() + HOUR)
    schedules.pause(schedule.pk, by="test")
    Schedule.objects.update(run_at=hours_ago(2))
    schedules.resume(schedule.pk, by="test")
    fire()
    assert [job.due_at for job in runs_of(schedule)] == [hours_ago(2)]
    assert fresh(schedule).status == Status.COMPLETED


def test_pausing_all_leaves_those_alone_that_were_stopped_before(alpha: object) -> None:
    running, paused = make_schedule(), make_schedule()
    disabled = make_schedule(is_enabled=False)
    schedules.pause(paused.pk, by="somebody")
    assert schedules.pause_all(by="all", reason="x") == 1
    assert schedules.pause_all(by="all") == 0
    assert fresh(running).is_paused_by_all
    assert fresh(paused).paused_by == "somebody"
    assert not fresh(disabled).is_paused
    assert schedules.resume_all(by="all") == 1
    assert fresh(running).next_due_at == hours_ago(-1)
    assert (fresh(paused).status, fresh(disabled).status) == (Status.PAUSED, Status.DISABLED)
    assert schedules.resume_all(by="all") == 0


def test_pausing_all_goes_on_from_portion_to_portion(
    monkeypatch: pytest.MonkeyPatch, alpha: object
) -> None:
    monkeypatch.setattr(schedules, "PORTION", 2)
    for _ in range(5):
        make_schedule()
    assert schedules.pause_all(by="all") == 5
    assert not Schedule.objects.filter(is_paused_by_all=False).exists()


def test_new_rules_of_zones_park_only_what_cannot_be_worked_out(alpha: object) -> None:
    broken, sound = make_schedule(), make_schedule()
    later = timezone.now() + 9 * HOUR
    newer = make_schedule()
    Schedule.objects.update(tzdata="2020a", next_due_at=later, next_run_at=later)
    Schedule.objects.filter(pk=newer.pk).update(tzdata="9999z")
    Schedule.objects.filter(pk=broken.pk).update(timezone="Gone/Zone")
    assert schedules.renew_zones(USING, POLICY) == 2
    assert (fresh(broken).status, fresh(sound).next_due_at) == (Status.BROKEN, hours_ago(-1))
    assert schedules.renew_zones(USING, POLICY) == 0
    assert fresh(newer).next_due_at == later


# -- Dependencies ----------------------------------------------------------------------------------


def test_a_circle_is_refused_however_long(alpha: object) -> None:
    chain = [make_schedule()]
    for _ in range(5):
        chain.append(make_schedule(depends_on=[chain[-1].pk]))
    with pytest.raises(DependencyCycle) as caught:
        schedules.change(chain[0].pk, {}, by="test", depends_on=[chain[-1].pk])
    assert (caught.value.code, caught.value.field) == ("dependency_cycle", "depends_on")
    assert ScheduleDependency.objects.count() == 5
    assert fresh(chain[0]).version == 1


@pytest.mark.django_db(transaction=True)
def test_two_halves_of_a_circle_at_the_same_time_do_not_both_come_in() -> None:
    with cluster_bound("alpha"):
        first, second = make_schedule(), make_schedule()
    start = threading.Barrier(2)

    def depend(child: Schedule, parent: Schedule) -> str:
        try:
            with cluster_bound("alpha"):
                start.wait(60)
                schedules.set_dependencies(child.pk, [parent.pk], needs="all", by="test")
            return "done"
        except DependencyCycle:
            return "cycle"
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            done = threads.map(depend, (first, second), (second, first))
            assert sorted(done) == ["cycle", "done"]
            with cluster_bound("alpha"):
                assert ScheduleDependency.objects.count() == 1
                ScheduleDependency.objects.all().delete()


def test_only_what_succeeds_after_the_dependencies_were_set_counts(alpha: object) -> None:
    before = make_schedule()
    Schedule.objects.filter(pk=before.pk).update(last_succeeded_at=hours_ago(5))
    after = make_schedule(depends_on=[before.pk])
    put_back(after, hours_ago(0))
    fire()
    [job] = runs_of(after)
    assert (job.state, job.waits_for) == (State.BLOCKED, "schedules")


def test_nobody_waits_for_the_schedule_of_a_workflow(alpha: object) -> None:
    workflow = workflows.create("w", [NewNode(make_schedule().pk)], by="test")
    starts = make_schedule(workflow_id=workflow.pk)
    with pytest.raises(InvalidSchedule, match="that of a workflow") as refused:
        make_schedule(depends_on=[starts.pk])
    assert refused.value.field == "depends_on"
    needed = make_schedule()
    make_schedule(depends_on=[needed.pk])
    with pytest.raises(InvalidSchedule, match="that of a workflow") as refused:
        schedules.change(needed.pk, {"workflow_id": workflow.pk}, by="test")
    assert refused.value.field == "workflow_id"


@pytest.mark.parametrize("needs", ["all", "any"])
def test_a_run_goes_when_nothing_is_left_to_wait_for(needs: str, alpha: object) -> None:
    schedule = make_schedule(depends_on=[make_schedule().pk], needs=needs)
    put_back(schedule, hours_ago(0))
    fire()
    schedules.set_dependencies(schedule.pk, [], needs=needs, by="test")
    run_upkeep.mend_runs(USING, POLICY)
    [job] = runs_of(schedule)
    assert (job.state, job.waits_for) == (State.READY, None)


# -- Delete ----------------------------------------------------------------------------------------


def test_deleting_leaves_runs_and_fires_and_restoring_goes_on_from_now(alpha: object) -> None:
    schedule = make_schedule()
    put_back(schedule, hours_ago(0))
    fire()
    schedules.delete(schedule.pk, by="test")
    assert (Job.objects.count(), Fire.objects.count()) == (1, 1)
    with pytest.raises(ScheduleNotFound):
        schedules.get(schedule.pk)
    assert schedules.get(schedule.pk, with_deleted=True).status == Status.DELETED
    Schedule.objects.update(accounted_until=hours_ago(50))
    restored = schedules.restore(schedule.pk, by="test")
    assert restored.next_due_at == hours_ago(-1)
    assert fire() == 0


def test_deleting_for_good_asks_what_runs_to_stop_and_takes_the_rest(alpha: object) -> None:
    schedule = make_schedule(overlap="allow")
    for ago in (3, 2, 1):
        put_back(schedule, hours_ago(ago))
        Fire.objects.all().delete()
        fire()
    ended, running, _ = runs_of(schedule)
    end_run(ended)
    begin_run(running)
    schedules.delete_for_good(schedule.pk, by="test")
    assert not Schedule.objects.exists()
    assert not Fire.objects.exists()
    [left] = Job.objects.all()
    assert (left.pk, left.schedule_id, left.state) == (running.pk, None, State.RUNNING)
    assert left.cancel_requested_at is not None


def test_fires_are_deleted_for_good_in_batches(
    monkeypatch: pytest.MonkeyPatch, alpha: object
) -> None:
    monkeypatch.setattr(schedules, "FIRES_AT_ONCE", 2)
    schedule, other = make_schedule(), make_schedule()
    for one in (schedule, other):
        rows = [
            Fire(schedule=one, due_at=hours_ago(ago), state="skipped", reason="overlap")
            for ago in range(5)
        ]
        Fire.objects.bulk_create(rows)
    counts: list[int] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        done = execute(sql, params, many, context)
        if sql.startswith('DELETE FROM "fire"'):
            counts.append(context["cursor"].rowcount)
        return done

    with connections[USING].execute_wrapper(note):
        schedules.delete_for_good(schedule.pk, by="test")
    assert sum(counts) == 5
    assert max(counts) == 2
    assert Fire.objects.filter(schedule=other).count() == 5


def test_what_a_deleted_schedule_needed_can_go_for_good(alpha: object) -> None:
    needed = make_schedule()
    other = make_schedule(name="the other", depends_on=[needed.pk])
    with pytest.raises(ScheduleInUse, match="the other"):
        schedules.delete_for_good(needed.pk, by="test")
    assert fresh(needed).deleted_at is None
    schedules.delete(other.pk, by="test")
    schedules.delete_for_good(needed.pk, by="test")
    assert not Schedule.objects.filter(pk=needed.pk).exists()


# -- Calendars -------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_calendar_is_not_deleted_while_a_schedule_comes_to_name_it() -> None:
    start = threading.Barrier(2)

    def name_it(number: int) -> str:
        try:
            with cluster_bound("alpha"):
                start.wait(60)
                make_schedule(name=f"s{number}", exclusions={"calendars": ["works"]})
            return "named"
        except InvalidSchedule:
            return "refused"
        finally:
            connections.close_all()

    def delete() -> str:
        try:
            with cluster_bound("alpha"):
                start.wait(60)
                calendars.delete("works")
            return "deleted"
        except CalendarInUse:
            return "in use"
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        for number in range(8):
            with cluster_bound("alpha"):
                Schedule.objects.all().delete()
                Calendar.objects.all().delete()
                calendars.create("works", ["2030-05-01"], by="test")
            named, deleted = threads.submit(name_it, number), threads.submit(delete)
            assert (named.result(), deleted.result()) in (
                ("named", "in use"),
                ("refused", "deleted"),
            )
