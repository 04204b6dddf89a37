"""Bulk operations: asked for, carried out in batches, counted by outcome."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from clusters.policy import DEFAULTS
from jobs.engine import bulk, bulk_asking, bulk_terms
from jobs.errors import BulkOperationNotFound, Conflict, InvalidBulkOperation, InvalidTransition
from jobs.models import Attempt, BulkAction, BulkOperation, BulkStatus, Job
from jobs.models.bulk_operation import OPEN
from jobs.states import FINAL, RETRYABLE_FROM, STOPPABLE, UNSTARTED, State
from tests.factories import make_attempt, make_job, make_queue, make_step_beside_a_program

USING = "cluster-alpha"
pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(bulk, "BUSY_PAUSE", 0.0)


def ask(action: str, filter: dict[str, Any], **arguments: Any) -> BulkOperation:  # noqa: A002
    return bulk.request(action, filter, reason="a test", by="cli:test", arguments=arguments)


def carry_out(operation: BulkOperation) -> BulkOperation:
    """Advance until there is nothing more to do."""
    for _ in range(500):
        if not bulk.advance(USING, DEFAULTS):
            break
    operation.refresh_from_db()
    return operation


def done(action: str, filter: dict[str, Any], **arguments: Any) -> dict[str, int]:  # noqa: A002
    """Ask, carry out, and give the outcomes."""
    operation = carry_out(ask(action, filter, **arguments))
    assert operation.status == BulkStatus.FINISHED, operation.error
    assert sum(operation.outcomes.values()) == operation.seen
    assert operation.started_at and operation.finished_at
    return dict(operation.outcomes)


def states() -> list[str]:
    return sorted(Job.objects.values_list("state", flat=True))


# -- Outcomes --------------------------------------------------------------------------------------


def test_cancelling_stops_what_has_not_started_and_asks_what_runs():
    for state in State.values:
        make_job(state)
    make_job(State.RUNNING, cancel_requested_at=timezone.now())
    outcomes = done("cancel", {"all": True})
    assert outcomes == {
        "cancelled": len(UNSTARTED),
        "cancel_requested": len(STOPPABLE),
        # one asked before, and those that have ended
        "unchanged": 1 + len(FINAL),
    }
    assert states().count(State.CANCELLED) == len(UNSTARTED) + 1


def test_retrying_makes_ready_what_has_ended_badly():
    for state in State.values:
        make_job(state)
    before = states().count(State.READY)
    outcomes = done("retry", {"all": True})
    assert outcomes == {
        "retried": len(RETRYABLE_FROM),
        "unchanged": len(State.values) - len(RETRYABLE_FROM),
    }
    assert states().count(State.READY) == before + len(RETRYABLE_FROM)


def test_retries_spread_over_time_are_scheduled_at_moments_of_their_own():
    ids = [make_job(State.FAILED).pk for _ in range(20)]
    began = timezone.now()
    assert done("retry", {"state": ["failed"]}, spread_seconds=600) == {"retried": 20}
    jobs = Job.objects.filter(pk__in=ids)
    assert {job.state for job in jobs} == {State.SCHEDULED}
    waits = sorted((job.run_at - began).total_seconds() for job in jobs)
    assert waits[0] >= -1 and waits[-1] <= 601
    assert len({round(wait) for wait in waits}) > 10
    assert waits[-1] - waits[0] > 100


def test_jobs_that_are_held_are_retried_only_by_a_filter_that_says_so():
    job = make_job(State.FAILED, is_held=True)
    make_job(State.FAILED)
    assert done("retry", {"state": ["failed"]}) == {"held": 1, "retried": 1}
    job.refresh_from_db()
    assert (job.state, job.is_held) == (State.FAILED, True)
    assert done("retry", {"is_held": True}) == {"retried": 1}
    job.refresh_from_db()
    assert (job.state, job.is_held) == (State.READY, False)


def test_a_job_whose_unique_key_another_one_has_is_left_and_the_others_are_retried():
    ids = [make_job(State.FAILED, unique_key=f"k{n}").pk for n in range(5)]
    make_job(State.READY, unique_key="k3")
    assert done("retry", {"state": ["failed"]}) == {"retried": 4, "unique_key_taken": 1}
    assert Job.objects.get(pk=ids[3]).state == State.FAILED


def test_running_now_makes_scheduled_jobs_ready():
    for state in State.values:
        make_job(state)
    assert done("run_now", {"all": True}) == {"made_ready": 1, "unchanged": 8}
    assert not Job.objects.filter(state=State.SCHEDULED).exists()


def test_deleting_takes_what_has_ended_with_all_that_belongs_to_it():
    for state in State.values:
        make_attempt(make_job(state, tags=["x"]))
    assert done("delete", {"all": True}) == {"deleted": len(FINAL), "unchanged": 5}
    assert Job.objects.count() == Attempt.objects.count() == 5


def test_jobs_are_moved_to_another_queue():
    make_queue("b")
    for queue in ("a", "a", "b"):
        make_job(State.READY, queue=queue)
    make_job(State.SUCCEEDED, queue="a")
    assert done("move", {"all": True}, queue="b") == {"moved": 2, "unchanged": 2}
    assert Job.objects.filter(queue="b").count() == 3


def test_jobs_get_another_priority():
    for priority in (0, 0, 7):
        make_job(State.READY, priority=priority)
    make_job(State.SUCCEEDED)
    assert done("set_priority", {"all": True}, priority=7) == {"changed": 2, "unchanged": 2}
    assert Job.objects.filter(priority=7).count() == 3


# -- Which jobs ------------------------------------------------------------------------------------


FILTERS: list[dict[str, Any]] = [
    {"state": ["ready"]},
    {"state": ["running"]},
    {"state": ["succeeded"]},
    {"state": ["succeeded"], "queue": "mail"},
    {"state": ["ready", "failed"]},
    {"queue": "mail"},
    {"type": "email:new"},
    {"queue": "mail", "type": "email:new", "state": ["ready"]},
    {"kind": "http"},
    {"tag": "eu"},
    {"reason": "error"},
    {"created_before": datetime(2100, 1, 1, tzinfo=UTC), "queue": "mail"},
    {"created_after": datetime(2020, 1, 1, tzinfo=UTC), "tag": "eu"},
]


@pytest.mark.parametrize("words", FILTERS, ids=str)
def test_an_operation_is_about_the_jobs_that_a_list_with_these_words_shows(words):
    from jobs.filters import filtered

    now = timezone.now()
    for number in range(60):
        make_job(
            State.values[number % 9],
            queue="mail" if number % 2 else "other",
            type="email:new" if number % 4 < 2 else "email:old",
            kind="http" if number % 5 else "python",
            tags=["eu"] if number % 3 else [],
            # several made at the same moment
            created_at=now - timedelta(seconds=number // 7),
        )
    made = dict(Job.objects.values_list("pk", "created_at"))
    meant = {job.pk for job in filtered(Job.objects.all(), words)}
    found = bulk.dry_run("set_priority", words, {"priority": 9})
    assert (found.count, found.is_exact) == (len(meant), True)
    assert sum(found.by_state.values()) == len(meant)
    assert {job.pk for job in found.sample} <= meant
    assert len(found.sample) == min(len(meant), bulk_asking.SAMPLE)

    operation = ask("cancel", words)
    seen: set[Any] = set()
    after, asked = None, bulk_terms.conditions(operation.filter)
    while True:
        stretch = bulk.read_stretch(USING, asked, operation.covers_until, after, 7)
        assert len(stretch.jobs) <= 7
        keys = [(made[job.pk], job.pk) for job in stretch.jobs]
        assert keys == sorted(keys)
        assert not seen & {job.pk for job in stretch.jobs}
        seen |= {job.pk for job in stretch.jobs}
        if (after := stretch.after) is None:
            break
    assert seen == meant


def test_what_is_enqueued_after_the_request_is_left_alone():
    make_job(State.READY)
    operation = ask("cancel", {"state": ["ready"]})
    late = make_job(State.READY)
    assert carry_out(operation).outcomes == {"cancelled": 1}
    late.refresh_from_db()
    assert late.state == State.READY


def test_many_batches_see_each_job_once(small_batches):
    same = timezone.now()
    Job.objects.bulk_create(
        Job(
            type="t",
            state="ready",
            enqueued_by="t",
            timeout_seconds=1,
            max_attempts=1,
            created_at=same - timedelta(seconds=number % 3),
            run_at=same,
        )
        for number in range(250)
    )
    assert done("cancel", {"state": ["ready"], "queue": "default"}) == {"cancelled": 250}


def test_a_dry_run_stores_nothing_and_changes_nothing():
    make_job(State.READY, queue="a")
    make_job(State.FAILED, queue="a")
    found = bulk.dry_run("cancel", {"queue": "a"})
    assert (found.count, found.is_exact) == (2, True)
    assert found.by_state == {"ready": 1, "failed": 1}
    assert not BulkOperation.objects.exists()
    assert states() == ["failed", "ready"]


def test_a_count_that_takes_too_long_is_given_up(monkeypatch, is_postgresql):
    from jobs.engine import bulk_count
    from jobs.engine.bulk_count import Counted

    make_job(State.READY)
    monkeypatch.setattr(bulk_count, "_STEPS", 1)
    seconds = 0.001 if is_postgresql else 0.0
    slow = Job.objects.all()
    if is_postgresql:
        from django.db.models import F, Func, TextField

        pause = Func(template="pg_sleep(0.2)::text", output_field=TextField())
        slow = slow.annotate(pause=pause).exclude(pause="never", state=F("state"))
    assert bulk_count.count_by_state(slow, seconds) == Counted(None, False, {})
    # and the connection is as it was
    assert bulk_count.count_by_state(Job.objects.all(), 2) == Counted(1, True, {"ready": 1})


def test_the_search_words_are_those_of_the_list():
    from jobs.api.filters import JobFilter
    from jobs.filter_text import ORDER

    assert set(JobFilter().fields) == bulk_terms.WORDS
    assert set(ORDER) == bulk_terms.WORDS | {"all"}


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("action", "filter", "arguments", "field"),
    [
        ("explode", {"all": True}, {}, "action"),
        ("cancel", {}, {}, "filter"),
        ("cancel", {"all": False}, {}, "filter"),
        ("cancel", {"all": True, "queue": "a"}, {}, "filter.all"),
        ("cancel", {"all": False, "queue": "a"}, {}, "filter.all"),
        ("cancel", {"colour": "red"}, {}, "filter.colour"),
        ("cancel", {"state": []}, {}, "filter.state"),
        ("cancel", {"queue": "a", "metadata": []}, {}, "filter.metadata"),
        ("cancel", {"queue": None}, {}, "filter.queue"),
        ("cancel", {"all": True}, {"queue": "default"}, "arguments.queue"),
        ("move", {"all": True}, {}, "arguments.queue"),
        ("move", {"all": True}, {"queue": "nope"}, "arguments.queue"),
        ("move", {"all": True}, {"queue": 3}, "arguments.queue"),
        ("move", {"all": True}, {"queue": "default", "x": 1}, "arguments.x"),
        ("set_priority", {"all": True}, {}, "arguments.priority"),
        ("set_priority", {"all": True}, {"priority": 101}, "arguments.priority"),
        ("set_priority", {"all": True}, {"priority": True}, "arguments.priority"),
        ("set_priority", {"all": True}, {"priority": 1.0}, "arguments.priority"),
        ("retry", {"all": True}, {"spread_seconds": 0}, "arguments.spread_seconds"),
        ("retry", {"all": True}, {"spread_seconds": 1e9}, "arguments.spread_seconds"),
        ("retry", {"all": True}, {"spread_seconds": float("nan")}, "arguments.spread_seconds"),
        ("retry", {"all": True}, {"spread_seconds": None}, "arguments.spread_seconds"),
        ("retry", {"all": True}, {"spread_seconds": True}, "arguments.spread_seconds"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(action, filter, arguments, field):  # noqa: A002
    from jobs.errors import InvalidJob

    for attempt in (
        lambda: bulk.request(action, filter, reason="r", by="x", arguments=arguments),
        lambda: bulk.dry_run(action, filter, arguments),
    ):
        with pytest.raises(InvalidJob) as caught:
            attempt()
        assert caught.value.field == field
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_without_a_reason_nothing_is_stored(reason):
    with pytest.raises(InvalidBulkOperation) as caught:
        bulk.request("cancel", {"all": True}, reason=reason, by="x")
    assert caught.value.field == "reason"
    assert not BulkOperation.objects.exists()


def test_there_is_a_ceiling(monkeypatch):
    monkeypatch.setattr(bulk_asking, "MAX_OPEN", 2)
    ask("cancel", {"all": True})
    operation = ask("cancel", {"all": True})
    with pytest.raises(Conflict):
        ask("cancel", {"all": True})
    bulk.cancel(operation.pk, by="x")
    ask("cancel", {"all": True})


# -- In the middle ---------------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    for vendor in ("postgresql", "sqlite"):
        monkeypatch.setitem(bulk.FIRST_BATCH, vendor, 20)
        monkeypatch.setitem(bulk.SMALLEST_BATCH, vendor, 20)
    monkeypatch.setattr(bulk, "LARGEST_BATCH", 20)
    monkeypatch.setattr(bulk, "WORK_SECONDS", 0.0)  # one step a call


def test_progress_is_written_with_each_batch(small_batches):
    for _ in range(50):
        make_job(State.READY)
    operation = ask("cancel", {"state": ["ready"]})
    seen = []
    while bulk.advance(USING, DEFAULTS):
        operation.refresh_from_db()
        seen.append((operation.seen, operation.status))
    assert seen == [(0, "running"), (20, "running"), (40, "running"), (50, "finished")]
    assert operation.expected == 50


def test_an_operation_is_cancelled_in_the_middle_and_keeps_what_is_done(small_batches):
    for _ in range(50):
        make_job(State.READY)
    operation = ask("cancel", {"state": ["ready"]})
    bulk.advance(USING, DEFAULTS)
    bulk.advance(USING, DEFAULTS)
    stopped = bulk.cancel(operation.pk, by="key:anna")
    assert (stopped.status, stopped.cancelled_by) == (BulkStatus.CANCELLED, "key:anna")
    assert stopped.finished_at and stopped.cancel_requested_at
    assert bulk.advance(USING, DEFAULTS) == 0
    operation.refresh_from_db()
    assert (operation.seen, operation.outcomes) == (20, {"cancelled": 20})
    assert states().count(State.READY) == 30


def test_cancelling_twice_is_no_error_and_after_the_end_it_is_one():
    operation = ask("cancel", {"all": True})
    bulk.cancel(operation.pk, by="anna")
    assert bulk.cancel(operation.pk, by="otto").cancelled_by == "anna"
    finished = carry_out(ask("cancel", {"all": True}))
    with pytest.raises(InvalidTransition):
        bulk.cancel(finished.pk, by="anna")
    with pytest.raises(BulkOperationNotFound):
        bulk.cancel(uuid.uuid4(), by="anna")


def test_a_batch_that_is_cut_off_is_done_again_as_if_it_had_never_been(small_batches, monkeypatch):
    """What a killed node leaves is what a transaction leaves that never committed."""
    for _ in range(50):
        make_job(State.READY)
    operation = ask("cancel", {"state": ["ready"]})
    bulk.advance(USING, DEFAULTS)
    bulk.advance(USING, DEFAULTS)

    class Killed(BaseException):
        pass

    def kill(*args: Any, **columns: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("jobs.models.bulk_operation.BulkOperationQuerySet.go_on", kill)
        bulk.advance(USING, DEFAULTS)
    assert states().count(State.CANCELLED) == 20
    operation.refresh_from_db()
    assert (operation.seen, operation.status) == (20, BulkStatus.RUNNING)
    assert carry_out(operation).outcomes == {"cancelled": 50}
    assert operation.seen == 50


def test_a_job_that_ends_meanwhile_is_a_conflict(small_batches, monkeypatch):
    """Between the look at it and the lock on it."""
    jobs = [make_job(State.RUNNING) for _ in range(3)]
    act = bulk._act

    def end_one_first(*args: Any) -> Any:
        Job.objects.filter(pk=jobs[1].pk).update(state="succeeded", finished_at=timezone.now())
        return act(*args)

    monkeypatch.setattr(bulk, "_act", end_one_first)
    assert done("cancel", {"state": ["running"]}) == {"cancel_requested": 2, "conflict": 1}


def test_a_job_that_is_no_longer_what_was_meant_is_not_deleted(monkeypatch):
    jobs = [make_job(State.FAILED) for _ in range(3)]
    act = bulk._act

    def end_well_first(*args: Any) -> Any:
        Job.objects.filter(pk=jobs[1].pk).update(state="succeeded", reason=None)
        Job.objects.filter(pk=jobs[2].pk).delete()
        return act(*args)

    monkeypatch.setattr(bulk, "_act", end_well_first)
    assert done("delete", {"state": ["failed"]}) == {"deleted": 1, "conflict": 2}
    assert Job.objects.filter(pk=jobs[1].pk).exists()


def test_a_job_that_a_node_takes_just_then_is_asked_to_stop(monkeypatch):
    job = make_job(State.READY)
    act = bulk._act

    def take_it_first(*args: Any) -> Any:
        running = make_job(State.RUNNING)
        Job.objects.filter(pk=job.pk).update(
            state="running", node=running.node, fence=1, started_at=timezone.now()
        )
        return act(*args)

    monkeypatch.setattr(bulk, "_act", take_it_first)
    assert done("cancel", {"state": ["ready"]}) == {"cancel_requested": 1}


def test_the_oldest_operation_is_carried_out_first(small_batches):
    make_job(State.READY)
    first, second = ask("cancel", {"state": ["ready"]}), ask("retry", {"state": ["cancelled"]})
    assert carry_out(second).outcomes == {"retried": 1}
    first.refresh_from_db()
    assert first.outcomes == {"cancelled": 1}


# -- What goes wrong -------------------------------------------------------------------------------


def test_an_error_parks_the_operation_with_its_text_and_the_next_one_goes_on(monkeypatch):
    make_job(State.READY)
    broken, sound = ask("run_now", {"all": True}), ask("cancel", {"all": True})
    BulkOperation.objects.filter(pk=broken.pk).update(filter={"colour": "red"})
    assert carry_out(sound).outcomes == {"cancelled": 1}
    broken.refresh_from_db()
    assert broken.status == BulkStatus.FAILED
    assert "colour" in broken.error
    assert broken.finished_at


@pytest.mark.parametrize("stored", [{}, {"state": []}, {"all": False}])
def test_an_empty_filter_that_somehow_got_stored_is_never_every_job(stored):
    make_job(State.READY)
    operation = ask("cancel", {"all": True})
    BulkOperation.objects.filter(pk=operation.pk).update(filter=stored)
    assert carry_out(operation).status == BulkStatus.FAILED
    assert states() == [State.READY]


@pytest.mark.parametrize("actor", ["key:nobody", "user:nobody", "", "somebody"])
def test_an_operation_of_somebody_who_may_no_longer_is_stopped(actor):
    make_job(State.READY)
    operation = bulk.request("cancel", {"all": True}, reason="r", by=actor)
    carry_out(operation)
    assert operation.status == BulkStatus.FAILED
    assert "may no longer" in operation.error
    assert states() == [State.READY]


def test_rights_are_read_anew_at_each_batch(small_batches):
    from authn.keys import create_key
    from authn.models import RoleBinding

    create_key("anna", "admin", ["alpha"])
    for _ in range(30):
        make_job(State.SUCCEEDED)
    operation = bulk.request("delete", {"all": True}, reason="r", by="key:anna")
    bulk.advance(USING, DEFAULTS)
    bulk.advance(USING, DEFAULTS)
    RoleBinding.objects.update(role="operator")
    assert carry_out(operation).status == BulkStatus.FAILED
    assert operation.outcomes == {"deleted": 20}
    assert Job.objects.count() == 10


@pytest.mark.parametrize(("action", "state"), [("retry", "failed"), ("run_now", "scheduled")])
def test_programs_of_others_are_started_only_with_the_grant(action, state):
    from authn.keys import create_key

    job = make_job(state, kind="shell", type="shell", payload={"argv": ["true"]})
    make_job(state)
    create_key("plain", "operator", ["alpha"])
    create_key("granted", "operator", ["alpha"], ["shell"])
    first = bulk.request(action, {"all": True}, reason="r", by="key:plain")
    assert carry_out(first).outcomes["not_granted"] == 1
    job.refresh_from_db()
    assert job.state == state
    second = bulk.request(action, {"kind": "shell"}, reason="r", by="key:granted")
    assert set(carry_out(second).outcomes) <= {"retried", "made_ready"}
    job.refresh_from_db()
    assert job.state == State.READY


@pytest.mark.parametrize(("action", "state"), [("retry", "failed"), ("run_now", "scheduled")])
def test_steps_beside_a_program_are_started_only_with_its_grant(action, state):
    from authn.keys import create_key

    jobs = [make_step_beside_a_program(state, priority=7) for _ in range(3)]
    other = make_job(state, priority=7, has_dependants=True)
    create_key("plain", "operator", ["alpha"])
    create_key("granted", "operator", ["alpha"], ["shell"])
    asked = {"type": other.type}
    first = carry_out(bulk.request(action, asked, reason="r", by="key:plain"))
    assert first.outcomes["not_granted"] == 3
    ids = [job.pk for job in jobs]
    assert {*Job.objects.filter(pk__in=ids).values_list("state", flat=True)} == {state}
    other.refresh_from_db()
    assert other.state == State.READY
    second = carry_out(bulk.request(action, asked, reason="r", by="key:granted"))
    assert "not_granted" not in second.outcomes
    assert not Job.objects.filter(pk__in=ids, state=state).exists()


def test_a_database_that_does_not_answer_is_no_fault_of_the_operation(monkeypatch):
    from django.db import OperationalError

    operation = ask("cancel", {"all": True})

    def fail(*args: Any) -> None:
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(bulk, "_step", fail)
    with pytest.raises(OperationalError):
        bulk.advance(USING, DEFAULTS)
    operation.refresh_from_db()
    assert operation.status in OPEN


def test_every_action_has_its_place_in_every_table():
    from authn.permissions import LEAST_ROLE

    assert set(bulk.ELIGIBLE) == set(BulkAction)
    assert {f"bulk_operations.{action}" for action in BulkAction.values} <= set(LEAST_ROLE)
