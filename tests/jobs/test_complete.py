from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import dependencies
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import MAX_THROTTLES, Completion, Report, Success, decide, hand_back
from jobs.engine.journal import Line, write_lines, write_progress
from jobs.engine.turn import disown, take_turn
from jobs.histogram import bucket_of
from jobs.models import Attempt, FailureSighting, Job, LogLine, Tally
from jobs.states import OnLost, Outcome, Reason, State
from tests.factories import make_job, make_node

POLICY = ClusterPolicy()


@pytest.fixture
def node(alpha) -> str:
    return str(make_node().pk)


def claim_one(node: str, **columns: object) -> Claimed:
    job = make_job(**columns)
    appetite = Appetite(node, {"process": 500}, {"python": "process"}, ("demo:noop",), None)
    claimed = take_turn(connections["cluster-alpha"], [], appetite).claimed
    return next(one for one in claimed if one.id == str(job.pk))


def report(outcome: Outcome = Outcome.SUCCEEDED, **more: object) -> Report:
    now = countdown()
    return Report(outcome, now - 0.5, now, **more)  # type: ignore[arg-type]


def write(*batch: Success | Completion) -> list[Success | Completion]:
    return take_turn(connections["cluster-alpha"], list(batch), None).superseded


def ended(claimed: Claimed, node: str, how: Report) -> Job:
    assert write(decide(claimed, node, how, POLICY)) == []
    return Job.objects.get(pk=claimed.id)


def test_a_success_keeps_its_result_and_its_attempt(node):
    claimed = claim_one(node)
    job = ended(claimed, node, report(result='{"pages": 12}'))
    assert (job.state, job.result, job.reason) == (State.SUCCEEDED, {"pages": 12}, None)
    attempt = Attempt.objects.get(job_id=job.pk)
    assert (attempt.number, attempt.outcome, str(attempt.node_id)) == (1, "succeeded", node)
    assert 0.4 < (attempt.finished_at - attempt.started_at).total_seconds() < 0.6
    assert job.finished_at >= job.started_at


def test_a_failure_with_attempts_left_is_scheduled_again(node):
    job = ended(claim_one(node), node, report(Outcome.FAILED, error="boom", error_type="E"))
    assert (job.state, job.attempts, job.finished_at) == (State.SCHEDULED, 1, None)
    assert job.error == "boom"


def test_the_last_attempt_fails_for_good(node):
    job = ended(claim_one(node, max_attempts=1), node, report(Outcome.FAILED, error="boom"))
    assert (job.state, job.reason) == (State.FAILED, Reason.ERROR)


def test_a_permanent_error_spends_no_more_attempts(node):
    job = ended(claim_one(node), node, report(Outcome.FAILED, error="no", is_permanent=True))
    assert (job.state, job.reason, job.attempts) == (State.FAILED, Reason.ERROR, 1)


def test_what_was_asked_to_come_back_later_spends_no_attempt(node):
    how = report(Outcome.FAILED, error="slow down", is_throttled=True, retry_after_seconds=60.0)
    job = ended(claim_one(node, max_attempts=1), node, how)
    assert (job.state, job.attempts, job.throttles) == (State.SCHEDULED, 0, 1)
    assert 50 < (job.run_at - timezone.now()).total_seconds() <= 66
    assert job.error == "slow down"
    assert Attempt.objects.get(job_id=job.pk).outcome == "failed"


def test_coming_back_later_has_an_end(node):
    throttled = report(Outcome.FAILED, is_throttled=True)
    last = claim_one(node, max_attempts=1, throttles=MAX_THROTTLES - 1)
    assert ended(last, node, throttled).throttles == MAX_THROTTLES
    over = claim_one(node, max_attempts=1, throttles=MAX_THROTTLES)
    job = ended(over, node, throttled)
    assert (job.state, job.reason, job.attempts) == (State.FAILED, Reason.ERROR, 1)
    job.retry()
    assert job.throttles is None


def test_no_wait_that_is_asked_for_is_longer_than_the_cap(node):
    how = report(Outcome.FAILED, is_throttled=True, retry_after_seconds=1e9)
    move = decide(claim_one(node), node, how, POLICY)
    assert move.delay_seconds == POLICY.retry_cap_seconds


def test_what_was_never_begun_is_not_counted_as_asked_to_come_back(node):
    claimed = claim_one(node)
    write(hand_back(claimed, node))
    assert Job.objects.get(pk=claimed.id).throttles is None


def test_running_out_of_time_on_the_last_attempt_says_so(node):
    job = ended(claim_one(node, max_attempts=1), node, report(Outcome.TIMEOUT, error="late"))
    assert (job.state, job.reason) == (State.FAILED, Reason.TIMEOUT)


@pytest.mark.parametrize(
    ("on_lost", "state", "reason", "is_held"),
    [
        (OnLost.RETRY, State.SCHEDULED, None, False),
        (OnLost.FAIL, State.FAILED, Reason.LOST, False),
        (OnLost.HOLD, State.FAILED, Reason.LOST, True),
    ],
)
def test_what_follows_a_loss_is_the_authors_choice(node, on_lost, state, reason, is_held):
    lost = report(Outcome.LOST, error="gone", crashed=True)
    job = ended(claim_one(node, on_lost=on_lost), node, lost)
    assert (job.state, job.reason, job.is_held, job.crashes) == (state, reason, is_held, 1)


def test_the_third_crash_poisons_a_job(node):
    lost = report(Outcome.LOST, error="gone", crashed=True)
    job = ended(claim_one(node, crashes=2, max_attempts=50), node, lost)
    assert (job.state, job.reason, job.crashes) == (State.FAILED, Reason.POISONED, 3)


def test_a_loss_on_the_last_attempt_is_final_in_the_same_statement(node):
    lost = report(Outcome.LOST, error="gone", crashed=True)
    job = ended(claim_one(node, max_attempts=1), node, lost)
    assert (job.state, job.reason) == (State.FAILED, Reason.LOST)


def test_what_was_never_begun_comes_back_with_nothing_spent(node):
    claimed = claim_one(node)
    assert write(hand_back(claimed, node)) == []
    job = Job.objects.get(pk=claimed.id)
    assert (job.state, job.attempts, job.fence) == (State.READY, 0, 1)
    assert not Attempt.objects.filter(job_id=job.pk).exists()


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.RELEASED, Outcome.LOST])
def test_a_cancel_request_beats_every_ending_but_success(node, outcome):
    claimed = claim_one(node)
    Job.objects.get(pk=claimed.id).cancel()
    assert ended(claimed, node, report(outcome, error="x")).state == State.CANCELLED


def test_a_cancel_request_beats_the_last_failure_too(node):
    claimed = claim_one(node, max_attempts=1)
    Job.objects.get(pk=claimed.id).cancel()
    job = ended(claimed, node, report(Outcome.FAILED, error="x"))
    assert (job.state, job.reason) == (State.CANCELLED, None)


def test_work_that_really_finished_has_succeeded_whoever_wanted_to_stop_it(node):
    claimed = claim_one(node)
    Job.objects.get(pk=claimed.id).cancel()
    assert ended(claimed, node, report()).state == State.SUCCEEDED


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_old_holder_changes_nothing(node, outcome):
    """The job was taken away and claimed again: neither the old fence nor the old node count."""
    old = claim_one(node)
    write(hand_back(old, node))
    other = str(make_node().pk)
    appetite = Appetite(other, {"process": 5}, {"python": "process"}, ("demo:noop",), None)
    (new,) = take_turn(connections["cluster-alpha"], [], appetite).claimed
    assert new.id == old.id
    before = Job.objects.filter(pk=old.id).values().get()
    for stale in (
        decide(old, node, report(outcome), POLICY),
        decide(old, other, report(outcome), POLICY),
        decide(old._replace(fence=new.fence), node, report(outcome), POLICY),
        hand_back(old, node),
        hand_back(old._replace(fence=new.fence), node),
    ):
        assert write(stale) == [stale]
    connection = connections["cluster-alpha"]
    for holder, fence in ((node, old.fence), (node, new.fence), (other, old.fence)):
        write_lines(connection, holder, [Line(old.id, fence, countdown(), "log", None, "late")])
        write_progress(connection, holder, {(old.id, fence): (50.0, "late")})
    assert Job.objects.filter(pk=old.id).values().get() == before
    assert not Attempt.objects.exists()
    assert not LogLine.objects.exists()


def test_a_report_that_had_arrived_may_be_offered_again(node):
    """The answer to a commit can be lost; the second offer finds it done and is no late report."""
    claimed = claim_one(node)
    move = decide(claimed, node, report(), POLICY)
    assert write(move) == []
    assert write(move) == []
    assert Attempt.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_ending_that_cannot_be_stored_does_not_hold_up_the_rest(node):
    bad, good = claim_one(node), claim_one(node)
    write(
        decide(bad, node, report(result='{"broken'), POLICY),
        decide(good, node, report(result="1"), POLICY),
    )
    good_job, bad_job = Job.objects.get(pk=good.id), Job.objects.get(pk=bad.id)
    assert (good_job.state, good_job.result) == (State.SUCCEEDED, 1)
    assert (bad_job.state, bad_job.reason) == (State.FAILED, Reason.BAD_DEFINITION)


def test_completing_and_claiming_are_one_turn(node):
    first = claim_one(node)
    second = make_job()
    appetite = Appetite(node, {"process": 5}, {"python": "process"}, ("demo:noop",), None)
    turn = take_turn(
        connections["cluster-alpha"], [decide(first, node, report(), POLICY)], appetite
    )
    assert [job.id for job in turn.claimed] == [str(second.pk)]
    assert Job.objects.get(pk=first.id).state == State.SUCCEEDED


def test_a_claim_whose_answer_was_lost_is_handed_back(node):
    known, unknown = claim_one(node), claim_one(node)
    assert disown(connections["cluster-alpha"], node, {(known.id, known.fence)}) == 1
    assert Job.objects.get(pk=unknown.id).state == State.READY
    assert Job.objects.get(pk=known.id).state == State.RUNNING


def test_log_lines_and_progress_of_the_holder_are_kept_in_order(node):
    claimed = claim_one(node)
    connection = connections["cluster-alpha"]
    lines = [
        Line(claimed.id, claimed.fence, countdown(), "stdout", None, f"line {i}") for i in range(5)
    ]
    write_lines(connection, node, lines)
    write_progress(connection, node, {(claimed.id, claimed.fence): (40.0, "two of five")})
    job = Job.objects.get(pk=claimed.id)
    messages = LogLine.objects.all().of_job(job.pk).values_list("message", flat=True)
    assert list(messages) == [f"line {i}" for i in range(5)]
    assert (job.progress_percent, job.progress_note) == (40.0, "two of five")


def test_the_end_of_a_job_that_others_wait_for_frees_them_in_the_same_transaction(node):
    plain, awaited = claim_one(node), claim_one(node)
    child = make_job(State.BLOCKED)
    dependencies.attach("cluster-alpha", child.pk, [UUID(awaited.id)])
    moves = [decide(job, node, report(result="1"), POLICY) for job in (plain, awaited)]
    assert write(*moves) == []
    child.refresh_from_db()
    assert child.state == State.READY
    assert Attempt.objects.filter(outcome="succeeded").count() == 2
    # The same report again, as after a lost answer, frees nobody twice.
    assert write(*moves) == []
    child.refresh_from_db()
    assert child.pending_dependencies == 0


def test_the_last_failure_of_a_job_tells_those_that_wait_for_it(node):
    awaited = claim_one(node, max_attempts=1)
    child = make_job(State.BLOCKED)
    dependencies.attach("cluster-alpha", child.pk, [UUID(awaited.id)])
    assert ended(awaited, node, report(Outcome.FAILED, error="no")).state == State.FAILED
    child.refresh_from_db()
    assert (child.state, child.reason) == (State.FAILED, Reason.DEPENDENCY)


def test_a_retry_of_a_job_that_others_wait_for_tells_them_nothing(node):
    awaited = claim_one(node)
    child = make_job(State.BLOCKED)
    dependencies.attach("cluster-alpha", child.pk, [UUID(awaited.id)])
    assert ended(awaited, node, report(Outcome.FAILED, error="no")).state == State.SCHEDULED
    child.refresh_from_db()
    assert child.state == State.BLOCKED


def test_an_old_holder_of_a_job_that_others_wait_for_changes_nothing(node):
    awaited = claim_one(node)
    child = make_job(State.BLOCKED)
    dependencies.attach("cluster-alpha", child.pk, [UUID(awaited.id)])
    Job.objects.update(fence=F("fence") + 1)
    late = decide(awaited, node, report(), POLICY)
    assert write(late) == [late]
    child.refresh_from_db()
    assert child.state == State.BLOCKED


def test_what_an_earlier_life_of_a_node_has_to_say_is_taken_beside_what_this_one_says(node):
    earlier = str(make_node().pk)
    old, new = claim_one(earlier), claim_one(node)
    assert write(decide(old, earlier, report(), POLICY), decide(new, node, report(), POLICY)) == []
    assert set(Job.objects.values_list("state", flat=True)) == {State.SUCCEEDED}


def test_an_earlier_life_of_a_node_is_heard_while_the_present_one_claims(node):
    earlier = str(make_node().pk)
    old = claim_one(earlier)
    fresh = make_job()
    appetite = Appetite(node, {"process": 5}, {"python": "process"}, ("demo:noop",), None)
    alias = "cluster-alpha"
    with CaptureQueriesContext(connections[alias]) as queries:
        turn = take_turn(connections[alias], [decide(old, earlier, report(), POLICY)], appetite)
    assert [job.id for job in turn.claimed] == [str(fresh.pk)] and turn.superseded == []
    assert Job.objects.get(pk=old.id).state == State.SUCCEEDED
    # No second look was needed to find out whose it was.
    assert not [query for query in queries if 'FROM "attempt"' in query["sql"]]


def test_starts_and_ends_are_tallied_with_their_durations(node):
    claim_one(node, run_at=timezone.now() - timedelta(seconds=10), queue="mail")
    claimed = claim_one(node, queue="mail")
    now = countdown()
    write(decide(claimed, node, Report(Outcome.SUCCEEDED, now - 0.5, now), POLICY))
    failing = claim_one(node, queue="mail")
    write(decide(failing, node, Report(Outcome.FAILED, now - 2, now, error="no"), POLICY))
    rows = Counter[tuple[str, int]]()
    for tally in Tally.objects.filter(queue="mail", type="demo:noop"):
        rows[tally.event, tally.bucket] += tally.count
    waits = sorted(bucket for event, bucket in rows.elements() if event == "started")
    assert len(waits) == 3 and bucket_of(9.5) <= waits[-1] <= bucket_of(11)
    assert rows["succeeded", bucket_of(0.5)] == 1
    assert rows["retried", bucket_of(2)] == 1
    assert abs(Tally.objects.latest("minute").minute - timezone.now()) < timedelta(minutes=2)


def test_what_comes_back_unbegun_is_no_end(node):
    claimed = claim_one(node)
    write(hand_back(claimed, node))
    assert set(Tally.objects.values_list("event", flat=True)) == {"started"}


def test_a_failure_is_sighted_and_marks_its_job_until_it_succeeds(node):
    job_id = None
    for _ in range(2):
        claimed = claim_one(node) if job_id is None else claim_again(node, job_id)
        job_id = claimed.id
        job = ended(claimed, node, report(Outcome.FAILED, error="order 17 is odd"))
    assert job.fingerprint
    assert (
        list(FailureSighting.objects.values_list("fingerprint", flat=True)) == [job.fingerprint] * 2
    )
    assert ended(claim_again(node, job_id), node, report()).fingerprint is None


def claim_again(node: str, job_id: str) -> Claimed:
    Job.objects.filter(pk=job_id).run_now()
    appetite = Appetite(node, {"process": 1}, {"python": "process"}, ("demo:noop",), None)
    (claimed,) = take_turn(connections["cluster-alpha"], [], appetite).claimed
    return claimed


@pytest.mark.parametrize(
    "result", ['"a\\\\b"', '{"q":"\\"x\\""}', '"{,}"', '"NULL"', '"ü 漢"', "null"]
)
def test_a_result_is_stored_as_it_is(node, result):
    job = ended(claim_one(node), node, report(result=result))
    assert job.result == json.loads(result)
