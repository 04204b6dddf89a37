"""Dependencies: who waits for whom, and what the end of a job means for those who wait."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.policy import ClusterPolicy
from jobs.engine import dependencies
from jobs.engine.dependencies import Waits, attach, attach_many, release, sweep
from jobs.errors import InvalidJob, InvalidTransition
from jobs.models import Job, JobDependency, Tally
from jobs.models import release as releasing
from jobs.states import Reason, State
from tests.factories import make_job

USING = "cluster-alpha"
POLICY = ClusterPolicy()


def waiting_for(*parents: Job, needs: str = "all", on_failure: str = "fail", **columns) -> Job:
    """A job that waits for these, as an enqueue makes it."""
    with transaction.atomic(using=USING):
        child = make_job(State.BLOCKED, **columns)
        ids = [parent.pk for parent in parents]
        attach(USING, child.pk, ids, needs=needs, on_failure=on_failure)
    child.refresh_from_db()
    return child


def end(*jobs: Job | UUID, state: str = State.SUCCEEDED) -> int:
    """End jobs the way every verb does it: the move and the release are one transaction."""
    ids = sorted(job.pk if isinstance(job, Job) else job for job in jobs)
    with transaction.atomic(using=USING):
        reason = Reason.ERROR if state == State.FAILED else None
        Job.objects.using(USING).filter(pk__in=ids).update(
            state=state, reason=reason, finished_at=timezone.now()
        )
        return release(USING, ids)


def state_of(job: Job) -> str:
    return Job.objects.get(pk=job.pk).state


def make_jobs(count: int, state: str = State.READY, **columns) -> list[Job]:
    """Many bare rows, quickly."""
    now = timezone.now()
    defaults = {"type": "demo:noop", "enqueued_by": "test", "timeout_seconds": 30.0}
    defaults |= {"max_attempts": 3, "created_at": now, "run_at": now}
    if state == State.BLOCKED:
        defaults["pending_dependencies"] = 1
    return Job.objects.bulk_create(Job(state=state, **(defaults | columns)) for _ in range(count))


# -- One child -------------------------------------------------------------------------------------


def test_a_job_waits_until_all_that_it_needs_have_succeeded(alpha):
    first, second = make_job(), make_job()
    child = waiting_for(first, second)
    assert (child.state, child.pending_dependencies) == (State.BLOCKED, 2)
    assert end(first) == 0
    assert (state_of(child), Job.objects.get(pk=child.pk).pending_dependencies) == ("blocked", 1)
    assert end(second) == 1
    assert (state_of(child), Job.objects.get(pk=child.pk).pending_dependencies) == ("ready", 0)


def test_a_freed_job_that_is_not_due_yet_is_scheduled(alpha):
    parent = make_job()
    child = waiting_for(parent, run_at=timezone.now() + timedelta(hours=1))
    end(parent)
    assert state_of(child) == State.SCHEDULED


def test_the_parents_know_that_somebody_waits(alpha):
    parent, other = make_job(), make_job()
    waiting_for(parent)
    assert Job.objects.get(pk=parent.pk).has_dependants
    assert not Job.objects.get(pk=other.pk).has_dependants


@pytest.mark.parametrize("ended_as", [State.FAILED, State.CANCELLED, State.SKIPPED])
def test_by_the_rule_fail_a_child_fails_and_names_the_parent(alpha, ended_as):
    parent, other = make_job(), make_job()
    child = waiting_for(parent, other)
    assert end(parent, state=ended_as) == 1
    child.refresh_from_db()
    assert (child.state, child.reason) == (State.FAILED, Reason.DEPENDENCY)
    assert child.finished_at is not None
    assert str(parent.pk) in child.error
    assert ended_as in child.error


def test_by_the_rule_skip_a_child_is_skipped(alpha):
    parent = make_job()
    child = waiting_for(parent, on_failure="skip")
    end(parent, state=State.FAILED)
    child.refresh_from_db()
    assert (child.state, child.reason) == (State.SKIPPED, None)
    assert child.finished_at is not None


def test_by_the_rule_run_a_failed_parent_counts_as_satisfied(alpha):
    bad, good = make_job(), make_job()
    child = waiting_for(bad, good, on_failure="run")
    assert end(bad, state=State.FAILED) == 0
    assert state_of(child) == State.BLOCKED
    assert end(good) == 1
    assert state_of(child) == State.READY


def test_when_any_is_enough_the_first_success_frees_the_child(alpha):
    bad, good, late = make_job(), make_job(), make_job()
    child = waiting_for(bad, good, late, needs="any")
    assert end(bad, state=State.FAILED) == 0
    assert end(good) == 1
    assert (state_of(child), Job.objects.get(pk=child.pk).pending_dependencies) == ("ready", 0)
    assert end(late, state=State.FAILED) == 0
    assert state_of(child) == State.READY


@pytest.mark.parametrize(
    "rule,expected",
    [("fail", State.FAILED), ("skip", State.SKIPPED), ("run", State.READY)],
)
def test_when_any_is_enough_the_rule_holds_once_none_is_left(alpha, rule, expected):
    first, second = make_job(), make_job()
    child = waiting_for(first, second, needs="any", on_failure=rule)
    assert end(first, state=State.FAILED) == 0
    assert state_of(child) == State.BLOCKED
    assert end(second, state=State.CANCELLED) == 1
    assert state_of(child) == expected


def test_a_success_and_a_failure_in_one_batch_free_a_child_that_needs_any(alpha):
    good, bad = make_job(), make_job()
    child = waiting_for(good, bad, needs="any")
    with transaction.atomic(using=USING):
        now = timezone.now()
        Job.objects.filter(pk=good.pk).update(state=State.SUCCEEDED, finished_at=now)
        Job.objects.filter(pk=bad.pk).update(state=State.CANCELLED, finished_at=now)
        release(USING, [good.pk, bad.pk])
    assert state_of(child) == State.READY


def test_retrying_a_failed_parent_does_not_pull_children_back(alpha):
    parent = make_job()
    child = waiting_for(parent, on_failure="run")
    end(parent, state=State.FAILED)
    Job.objects.get(pk=parent.pk).retry()
    assert state_of(child) == State.READY
    assert end(parent, state=State.FAILED) == 0
    assert state_of(child) == State.READY


def test_a_child_that_was_cancelled_meanwhile_stays_so(alpha):
    parent = make_job()
    child = waiting_for(parent)
    child.cancel()
    assert end(parent) == 0
    assert state_of(child) == State.CANCELLED


def test_releasing_twice_moves_nobody_twice(alpha):
    one, two = make_job(), make_job()
    child = waiting_for(one, two)
    end(one)
    assert release(USING, [one.pk]) == 0
    assert Job.objects.get(pk=child.pk).pending_dependencies == 1


def test_a_job_that_has_not_ended_releases_nobody(alpha):
    parent = make_job()
    child = waiting_for(parent)
    assert release(USING, [parent.pk, uuid4()]) == 0
    assert state_of(child) == State.BLOCKED


# -- Attaching -------------------------------------------------------------------------------------


def test_parents_that_have_succeeded_hold_nobody_up(alpha):
    assert waiting_for(make_job(State.SUCCEEDED), make_job(State.SUCCEEDED)).state == State.READY


@pytest.mark.parametrize(
    "rule,expected",
    [("fail", State.FAILED), ("skip", State.SKIPPED), ("run", State.READY)],
)
def test_the_rule_applies_at_once_to_a_parent_that_has_failed(alpha, rule, expected):
    child = waiting_for(make_job(State.FAILED), on_failure=rule)
    assert child.state == expected


def test_attaching_to_an_ended_parent_touches_none_of_its_other_children(alpha):
    parent = make_job()
    before = waiting_for(parent)
    Job.objects.filter(pk=parent.pk).update(state=State.SUCCEEDED, finished_at=timezone.now())
    assert waiting_for(parent).state == State.READY
    assert state_of(before) == State.BLOCKED


def test_one_parent_named_twice_is_one_edge(alpha):
    parent = make_job()
    child = waiting_for(parent, parent)
    assert child.pending_dependencies == 1
    assert end(parent) == 1


def test_a_parent_that_does_not_exist_is_refused(alpha):
    missing = uuid4()
    with pytest.raises(InvalidJob, match=str(missing)) as caught, transaction.atomic(using=USING):
        attach(USING, make_job(State.BLOCKED).pk, [missing])
    assert caught.value.field == "depends_on"


@pytest.mark.parametrize("word", ["needs", "on_failure"])
def test_unknown_words_are_refused(alpha, word):
    with pytest.raises(InvalidJob) as caught:
        attach(USING, uuid4(), [uuid4()], **{word: "sometimes"})
    assert caught.value.field == word


def test_too_many_parents_are_refused(alpha):
    with pytest.raises(InvalidJob, match="at most"):
        attach(USING, uuid4(), [uuid4()] * (dependencies.MAX_PARENTS + 1))


def test_a_job_cannot_wait_for_itself(alpha):
    job = make_job(State.BLOCKED)
    with pytest.raises(InvalidJob, match="circle"):
        attach(USING, job.pk, [job.pk])


def test_a_circle_within_one_call_is_refused_and_the_job_is_named(alpha):
    lone, a, b = make_job(), make_job(State.BLOCKED), make_job(State.BLOCKED)
    c = make_job(State.BLOCKED)
    waits = [Waits(c.pk, [lone.pk]), Waits(a.pk, [b.pk]), Waits(b.pk, [a.pk])]
    with pytest.raises(InvalidJob, match="circle") as caught:
        attach_many(USING, waits)
    assert caught.value.index == 1


def test_a_circle_over_several_calls_is_refused(alpha):
    a, b, c = (make_job(State.BLOCKED) for _ in range(3))
    attach(USING, a.pk, [b.pk])
    attach(USING, b.pk, [c.pk])
    with pytest.raises(InvalidJob, match="circle"), transaction.atomic(using=USING):
        attach(USING, c.pk, [a.pk])


def test_a_job_that_has_begun_cannot_be_made_to_wait(alpha):
    with pytest.raises(InvalidTransition), transaction.atomic(using=USING):
        attach(USING, make_job(State.RUNNING).pk, [make_job().pk])


def test_jobs_of_one_call_may_wait_for_each_other_and_fall_together(alpha):
    dead = make_job(State.FAILED)
    chain = [make_job(State.BLOCKED) for _ in range(4)]
    parents = [dead, *chain]
    waits = [Waits(job.pk, [parents[i].pk]) for i, job in enumerate(chain)]
    with transaction.atomic(using=USING):
        states = attach_many(USING, list(reversed(waits)))
    assert set(states.values()) == {State.FAILED}
    assert len(states) == 4


# -- Cascades --------------------------------------------------------------------------------------


def test_a_failure_runs_down_a_chain_that_is_deeper_than_any_recursion(alpha):
    chain = make_jobs(2500, State.BLOCKED)
    root = make_job()
    parents = [root, *chain]
    with transaction.atomic(using=USING):
        attach_many(USING, [Waits(job.pk, [parents[i].pk]) for i, job in enumerate(chain)])
    assert end(root, state=State.FAILED) == 2500
    assert Job.objects.filter(state=State.FAILED, reason=Reason.DEPENDENCY).count() == 2500


def test_a_diamond_is_freed_once(alpha):
    top = make_job()
    left, right = waiting_for(top), waiting_for(top)
    bottom = waiting_for(left, right)
    assert end(top) == 2
    assert state_of(bottom) == State.BLOCKED
    assert end(left, right) == 1
    assert state_of(bottom) == State.READY


def test_a_diamond_that_fails_ends_its_foot_once(alpha):
    top = make_job()
    bottom = waiting_for(waiting_for(top), waiting_for(top))
    foot = waiting_for(bottom, on_failure="run")
    assert end(top, state=State.FAILED) == 4
    assert state_of(bottom) == State.FAILED
    assert state_of(foot) == State.READY


def test_more_edges_than_one_statement_closes_are_closed_page_by_page(alpha, monkeypatch):
    monkeypatch.setattr(releasing, "PAGE", 7)
    parents = make_jobs(3)
    children = make_jobs(40, State.BLOCKED)
    leaves = make_jobs(40, State.BLOCKED)
    ids = [parent.pk for parent in parents]
    with transaction.atomic(using=USING):
        attach_many(USING, [Waits(child.pk, ids) for child in children])
        pairs = zip(leaves, children, strict=True)
        attach_many(USING, [Waits(leaf.pk, [child.pk]) for leaf, child in pairs])
    assert end(*parents[:2]) == 0
    assert end(parents[2], state=State.FAILED) == 80
    assert not JobDependency.objects.filter(satisfied_at=None).exists()


def test_ends_by_a_rule_are_tallied(alpha):
    parent = make_job()
    waiting_for(parent, queue="mail", type="send")
    waiting_for(parent, queue="mail", type="send")
    waiting_for(parent, queue="mail", type="send", on_failure="skip")
    waiting_for(parent, queue="mail", type="send", on_failure="run")
    end(parent, state=State.FAILED)
    rows = Tally.objects.filter(queue="mail").values_list("event", "count")
    assert sorted(rows) == [("failed", 2), ("skipped", 1)]


def test_nodes_are_told_of_the_queues_that_got_ready_jobs(alpha, monkeypatch):
    hints: list[set[str]] = []
    monkeypatch.setattr(releasing, "hint_ready", lambda using, queues: hints.append(queues))
    parent = make_job()
    waiting_for(parent, queue="one")
    waiting_for(parent, queue="two", run_at=timezone.now() + timedelta(hours=1))
    end(parent)
    assert hints == [{"one"}]


@pytest.mark.parametrize("children", [1, 1000])
def test_the_end_of_a_thousand_parents_is_a_handful_of_statements(alpha, children):
    parents = make_jobs(1000)
    waiting = make_jobs(children, State.BLOCKED)
    per_child = 1000 // children
    waits = [
        Waits(child.pk, [p.pk for p in parents[i * per_child : (i + 1) * per_child]])
        for i, child in enumerate(waiting)
    ]
    with transaction.atomic(using=USING):
        attach_many(USING, waits)
    ids = [parent.pk for parent in parents]
    Job.objects.filter(pk__in=ids).update(state=State.SUCCEEDED, finished_at=timezone.now())
    with transaction.atomic(using=USING), CaptureQueriesContext(connections[USING]) as queries:
        assert release(USING, ids) == children
    # Among them one that asks whether any of them is a step.
    assert len(queries) <= 5


# -- The sweeper -----------------------------------------------------------------------------------


def test_the_sweeper_finds_nothing_where_all_is_well(alpha):
    parent = make_job()
    waiting_for(parent, make_job())
    end(parent)
    assert sweep(USING, POLICY) == 0


def test_the_sweeper_mends_a_wrong_counter_and_says_so(alpha, caplog):
    child = waiting_for(make_job(), make_job())
    Job.objects.filter(pk=child.pk).update(pending_dependencies=5)
    with caplog.at_level(logging.ERROR):
        assert sweep(USING, POLICY) == 1
    assert Job.objects.get(pk=child.pk).pending_dependencies == 2
    assert str(child.pk) in caplog.text
    assert sweep(USING, POLICY) == 0


def test_the_sweeper_frees_a_job_that_waits_for_nothing(alpha):
    stuck = make_job(State.BLOCKED)
    assert sweep(USING, POLICY) == 1
    assert state_of(stuck) == State.READY


def test_the_sweeper_tells_of_parents_that_ended_unheard(alpha, caplog):
    good, bad = make_job(), make_job()
    freed, failed = waiting_for(good), waiting_for(bad)
    now = timezone.now()
    Job.objects.filter(pk=good.pk).update(state=State.SUCCEEDED, finished_at=now)
    Job.objects.filter(pk=bad.pk).delete()
    with caplog.at_level(logging.ERROR):
        assert sweep(USING, POLICY) == 2
    assert state_of(freed) == State.READY
    assert state_of(failed) == State.FAILED
    assert "without a word" in caplog.text


def test_the_sweeper_gets_round_to_all_of_many_blocked_jobs(alpha, monkeypatch):
    monkeypatch.setattr(dependencies, "SWEEP", 3)
    children = [waiting_for(make_job()) for _ in range(8)]
    Job.objects.filter(pk=children[0].pk).update(pending_dependencies=2)
    assert sum(sweep(USING, POLICY) for _ in range(3)) == 1
    Job.objects.filter(pk=children[7].pk).update(pending_dependencies=2)
    assert sum(sweep(USING, POLICY) for _ in range(3)) == 1


# -- Real connections ------------------------------------------------------------------------------


def in_threads(targets: Iterable) -> None:
    """Run these at the same time, each over a connection of its own."""
    errors: list[BaseException] = []

    def run(target) -> None:
        try:
            with cluster_bound("alpha"):
                target()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors


def batches(ids: Sequence[UUID], seed: int, sizes: tuple[int, int]) -> list[list[UUID]]:
    chance = random.Random(seed)
    ids, cut = list(ids), []
    chance.shuffle(ids)
    while ids:
        size = chance.randint(*sizes)
        cut.append(ids[:size])
        ids = ids[size:]
    return cut


@pytest.mark.django_db(transaction=True)
def test_parents_that_end_together_free_each_child_exactly_once():
    """60 graphs of width 20, and over each pair of them a diamond's foot."""
    graphs, width, threads = 60, 20, 6
    moved: list[int] = []
    with cluster_bound("alpha"):
        parents = make_jobs(graphs * width)
        children = make_jobs(graphs, State.BLOCKED)
        with transaction.atomic(using=USING):
            attach_many(
                USING,
                [
                    Waits(child.pk, [p.pk for p in parents[i * width : (i + 1) * width]])
                    for i, child in enumerate(children)
                ],
            )
        work = batches([parent.pk for parent in parents], seed=20, sizes=(1, 30))

        def ender(mine: list[list[UUID]]):
            return lambda: moved.append(sum(end(*batch) for batch in mine))

        in_threads(ender(work[i::threads]) for i in range(threads))
        assert sum(moved) == graphs
        rows = Job.objects.filter(pk__in=[child.pk for child in children])
        assert set(rows.values_list("state", "pending_dependencies")) == {("ready", 0)}
        assert sweep(USING, POLICY) == 0


@pytest.mark.django_db(transaction=True)
def test_an_edge_that_is_added_while_the_parent_ends_is_not_lost():
    with cluster_bound("alpha"):
        parent = make_job()
        children: list[Job] = []
        has_ended = threading.Event()

        def ending() -> None:
            with transaction.atomic(using=USING):
                end(parent)
                has_ended.set()
                # Long enough for the other to come to the parent's row before this commits.
                time.sleep(0.4)

        def attaching() -> None:
            assert has_ended.wait(60)
            children.append(waiting_for(parent))

        in_threads([ending, attaching])
        assert [state_of(child) for child in children] == [State.READY]


@pytest.mark.django_db(transaction=True)
def test_edges_and_ends_in_any_order_leave_nobody_behind():
    with cluster_bound("alpha"):
        parents = make_jobs(40)
        start = threading.Barrier(2)
        children: list[Job] = []

        def ending() -> None:
            for parent in parents:
                start.wait(30)
                end(parent)

        def attaching() -> None:
            for parent in parents:
                start.wait(30)
                children.append(waiting_for(parent))

        in_threads([ending, attaching])
        assert {state_of(child) for child in children} == {State.READY}
        assert len(children) == 40
