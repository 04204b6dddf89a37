"""The conductor: takes jobs made of steps from one step to the next.

Such a job is claimed like any other. Then it is `waiting`: no node holds it, its steps are jobs of their
own, and the transaction that ends a step wakes it where that is due. Any node's conductor takes woken
jobs on, many in one transaction and each under its row's lock: the steps that come next are made, or the
job ends, or nothing happens at all. A node that dies leaves it woken, for another.

It evaluates what people wrote, in bounds that ``jobs.expressions`` keeps.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, transaction

from clusters.binding import cluster_bound
from clusters.models import current_policy
from clusters.policy import ClusterPolicy
from clusters.registry import id_of
from jobs import expressions
from jobs.engine import step_rows, webhooks
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown, database_now
from jobs.engine.complete import Completion, Report, Success, decide
from jobs.engine.enqueue import enqueue_many
from jobs.engine.new_job import NewJob
from jobs.engine.rescue import as_claimed
from jobs.engine.step_parent import Ending, Made, Parent
from jobs.engine.step_plan import advance
from jobs.engine.steps_restart import restart
from jobs.engine.trouble import Trouble, is_outage
from jobs.engine.turn import end_waiting, take_turn
from jobs.engine.watchdog import Watchdog
from jobs.errors import JobError, QueueFull
from jobs.executors import KINDS
from jobs.models import Job, Queue, Schedule, StepsRun
from jobs.models.job_queryset import JobQuerySet
from jobs.models.queue import QUEUE_NAME
from jobs.nul import holds_nul
from jobs.rights import rights_of
from jobs.states import Outcome, State

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# Jobs in hand that have not been started; a claim takes no more than fit.
IN_HAND = 200
# Before a job that could not be taken on is tried again.
REST_SECONDS = 30.0
# How long one look goes on making steps, in one transaction.
LOOK_SECONDS = 0.3
# After so many failures to take a job on it ends.
PATIENCE = 5
# Who asked for what schedules start; their steps are of whoever wrote the schedule.
SCHEDULES = "schedules"


def start(using: str, node: str, claimed: Sequence[Claimed]) -> None:
    """Jobs that this node has claimed begin to wait for steps, which are yet to be made."""
    held = {UUID(job.id): job.fence for job in claimed}
    seconds = {UUID(job.id): job.timeout_seconds for job in claimed}
    with transaction.atomic(using=using):
        mine = step_rows.let_wait(using, node, held)
        runs = restart(using, list(mine))
        for run in runs.values():
            run.is_watched = None if run.is_watched is None else True
        step_rows.write_starts(using, [(run, seconds[run.pk]) for run in runs.values()])
        if watched := [run.pk for run in runs.values() if run.is_watched]:
            webhooks.tell(using, watched)


def conduct(using: str) -> int:
    """Take some woken jobs on; returns how many. One that cannot be taken on keeps back no other."""
    woken = step_rows.woken(using)
    if not woken:
        return 0
    try:
        return _conduct(using, woken)
    except Exception as error:
        if is_outage(error):
            raise
        logger.warning("%d jobs cannot be taken on together", len(woken), exc_info=True)
    return sum(_conduct_alone(using, job_id) for job_id in woken)


# How often a job could not be taken on, as far as this node knows.
_failures: Counter[UUID] = Counter()


def _conduct_alone(using: str, job_id: UUID) -> int:
    try:
        return _conduct(using, [job_id])
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("job %s cannot be taken on", job_id)
        _failures[job_id] += 1
        if _failures[job_id] < PATIENCE:
            step_rows.postpone(using, job_id, REST_SECONDS)
            return 0
        del _failures[job_id]
        return _give_up(using, job_id, error)


def _give_up(using: str, job_id: UUID, error: Exception) -> int:
    """End a job that nobody can take on, and ask its steps to stop."""
    jobs: JobQuerySet = Job.objects.using(using)
    jobs.filter(pk__in=step_rows.open_steps_of(using, job_id)).cancel()
    with transaction.atomic(using=using):
        row = jobs.filter(pk=job_id, state=State.WAITING).select_for_update(no_key=True).first()
        if row is None:
            return 0
        report = _unfit("its steps cannot be taken on", error)
        last_word = decide(as_claimed(row), str(row.node_id), report, current_policy())
        end_waiting(connections[using], [last_word])
        StepsRun.objects.using(using).filter(pk=job_id).update(woken_at=None)
    return 1


def _unfit(why: str, error: Exception) -> Report:
    now, name = countdown(), type(error).__name__
    told = {"error": f"{why}: {name}", "error_type": name, "is_permanent": True}
    return Report(Outcome.FAILED, now, now, **told)  # type: ignore[arg-type]


def _conduct(using: str, woken: Sequence[UUID]) -> int:
    try:
        return _look(using, woken, _make_all)
    except JobError:
        # Some step is refused, which is rare: once more, with a savepoint for each parent's.
        return _look(using, woken, _make_each)


def _look(using: str, woken: Sequence[UUID], make: Callable[[str, Sequence[Parent]], None]) -> int:
    with transaction.atomic(using=using):
        policy = current_policy()
        parents = _advance_some(step_rows.lock_woken(using, woken))
        _refuse_what_is_not_granted(using, parents)
        makers = [parent for parent in parents if parent.made or parent.detached]
        _make_queues(using, makers)
        make(using, makers)
        step_rows.write_runs(using, parents)
        _skip_all(using, parents)
        _end_all(using, [parent for parent in parents if parent.ending is not None], policy)
        watched = {p.root.pk for p in parents if p.root_definition.get("webhooks")}
        if watched:
            webhooks.tell(using, watched)
    for parent in parents:
        if parent.must_stop:
            jobs: JobQuerySet = Job.objects.using(using)
            jobs.filter(pk__in=step_rows.open_steps_of(using, parent.job.pk)).cancel()
    return len(parents)


def _advance_some(parents: Sequence[Parent]) -> list[Parent]:
    """Decide about as many as one look has time for, and one at least; the others stay woken."""
    until = countdown() + LOOK_SECONDS
    seen: list[Parent] = []
    for parent in parents:
        if seen and countdown() > until:
            break
        parent.until = until
        advance(parent)
        seen.append(parent)
    return seen


def _make_all(using: str, makers: Sequence[Parent]) -> None:
    """Enqueue the steps of all; where one is refused the look is given up."""
    _enqueue(using, makers, has_savepoint=False)


def _make_each(using: str, makers: Sequence[Parent]) -> None:
    """Each parent is on its own: it fails where a step is refused, or waits for room, and the others
    do not."""
    for parent in makers:
        try:
            with transaction.atomic(using=using):
                _enqueue(using, [parent])
        except QueueFull as error:
            _fill_up(using, parent, str(error))
        except JobError as error:
            name, key = _refused_step(parent, error.index)
            parent.undo()
            parent.refuse([key])
            field = f"{error.field}: " if error.field else ""
            parent.fail(f"step {name!r}: {field}{error}", type(error).__name__)
            parent.look_again()


def _fill_up(using: str, parent: Parent, why: str) -> None:
    """Some queue has no room for all steps: those that fit are made, and the rest is offered again."""
    # A sub-job that nobody waits for comes with its step, or not at all.
    wanted = [] if parent.detached else parent.made
    keys, made_before = parent.keys_made, parent.before.get("next") or 0
    parent.undo()
    for one in wanted:
        parent.made = [one]
        try:
            with transaction.atomic(using=using):
                _enqueue(using, [parent])
        except JobError:
            break
    kept = [one for one in wanted if one.job_id is not None]
    parent.made = kept
    if "size" in parent.state:
        parent.state["next"] = made_before + len(kept)
    if parent.must_end and not kept:
        parent.refuse(keys)
    parent.waits_for_room(why)


def _refuse_what_is_not_granted(using: str, parents: Sequence[Parent]) -> None:
    """Kinds that need a grant need it when their steps are made, of whoever asked for the job."""
    for parent in parents:
        wanted = {made.job.kind for made in parent.made if KINDS[made.job.kind].needs_grant}
        actor = _author(using, parent.root) if wanted else ""
        # Code of this installation asks under names without an origin.
        if not wanted or (":" not in actor and actor != SCHEDULES):
            continue
        try:
            granted = rights_of(actor, "jobs.enqueue", id_of(using)).kinds
        except (OperationalError, InterfaceError):
            # Rights are in another database; those that need none do not wait for it.
            logger.warning("rights of job %s unknown; it waits", parent.root.pk, exc_info=True)
            parent.undo()
            parent.again_seconds = REST_SECONDS
            continue
        if lacking := sorted(wanted - granted):
            steps = [made.job.step for made in parent.made if made.job.kind in lacking]
            parent.undo()
            parent.refuse(step.key for step in steps if step is not None)
            parent.fail(f"{actor} may not start jobs of kind {lacking[0]}", "KindNotGranted")
            parent.look_again()


def _author(using: str, root: Job) -> str:
    """Whoever answers for what a job does: who asked for it, or wrote the schedule that did."""
    if root.schedule_id is None or root.enqueued_by != SCHEDULES:
        return root.enqueued_by
    rows = Schedule.objects.using(using).filter(pk=root.schedule_id)
    return rows.values_list("updated_by", flat=True).first() or root.enqueued_by


def _enqueue(using: str, parents: Sequence[Parent], *, has_savepoint: bool = True) -> None:
    by_whom: dict[str, list[tuple[NewJob, Made | None]]] = {}
    for parent in parents:
        jobs = by_whom.setdefault(_author(using, parent.root), [])
        jobs += [(made.job, made) for made in parent.made]
        jobs += [(job, None) for job in parent.detached]
    for by, pairs in by_whom.items():
        answers = enqueue_many(
            [job for job, _ in pairs],
            by=by,
            now=parents[0].seen_at,
            has_savepoint=has_savepoint,
        )
        for (_, made), answer in zip(pairs, answers, strict=True):
            if made is not None:
                made.job_id = UUID(answer.job_id)


def _refused_step(parent: Parent, index: int | None) -> tuple[str, str]:
    """The name and the key of the step that an error is of."""
    steps = [made.job.step for made in parent.made]
    step = steps[index] if index is not None and index < len(steps) else None
    return (step.name, step.key) if step is not None else ("", "")


def _make_queues(using: str, parents: Sequence[Parent]) -> None:
    """Some dialects know no queue that is not there."""
    wanted = {
        made.job.queue
        for parent in parents
        if parent.root_definition.get("create_queues")
        for made in parent.made
    }
    if not wanted:
        return
    there = Queue.objects.using(using).filter(name__in=wanted).values_list("name", flat=True)
    for name in sorted(wanted - {*there}):
        if re.match(QUEUE_NAME.regex, name):
            Queue.objects.using(using).get_or_create(name=name)


def _skip_all(using: str, parents: Sequence[Parent]) -> None:
    skipped = [made.job_id for p in parents for made in p.made if made.is_skipped and made.job_id]
    if skipped:
        jobs: JobQuerySet = Job.objects.using(using)
        jobs.filter(pk__in=skipped).skip()


def _end_all(using: str, parents: Sequence[Parent], policy: ClusterPolicy) -> None:
    """End jobs as their holder would: with an attempt, a tally, and word to those who wait for them."""
    if not parents:
        return
    now = database_now(connections[using])
    batch: list[Success | Completion] = []
    for parent in parents:
        job = parent.job
        assert parent.ending is not None
        took = max((now - (job.started_at or now)).total_seconds(), 0.0)
        report = _report(parent.ending, took, policy)
        # Of the node that claimed it, whichever takes it on now.
        batch.append(decide(as_claimed(job), str(job.node_id), report, policy))
    end_waiting(connections[using], batch)


def _report(ending: Ending, took: float, policy: ClusterPolicy) -> Report:
    report = Report(
        ending.outcome,
        started_at=countdown() - took,
        finished_at=countdown(),
        error=ending.error,
        error_type=ending.error_type,
    )
    if ending.result is not None:
        text = json.dumps(ending.result, ensure_ascii=False, allow_nan=False)
        if holds_nul(text) or len(text.encode()) > policy.max_result_bytes:
            report.outcome, report.error_type = Outcome.FAILED, "InvalidResult"
            report.error = (
                f"the output is larger than {policy.max_result_bytes} bytes or holds a NUL"
            )
            report.is_permanent = True
        else:
            report.result = text
    return report


class Conductor(threading.Thread):
    """Conducts the bound cluster's jobs for one node until ``stop``."""

    def __init__(self, cluster_id: str, node_id: str, watchdog: Watchdog) -> None:
        super().__init__(name="conductor", daemon=True)
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._watchdog = watchdog
        self._pulse = watchdog.watch("conductor")
        self._lock = threading.Lock()
        # Claimed by the node and not started.
        self._in_hand: dict[tuple[str, int], Claimed] = {}
        self._event = threading.Event()
        self._stopping = threading.Event()
        self._trouble = Trouble(f"conducting steps of {cluster_id}")

    @property
    def room(self) -> int:
        """How many more jobs it takes."""
        return 0 if self._trouble.is_on else max(IN_HAND - len(self._in_hand), 0)

    def give(self, claimed: Sequence[Claimed]) -> None:
        """Start these jobs, which the node has just claimed."""
        with self._lock:
            self._in_hand.update({(job.id, job.fence): job for job in claimed})
        self._event.set()

    def held(self) -> set[tuple[str, int]]:
        """Id and fence of what has been given and not started."""
        return {*self._in_hand}

    def look(self) -> None:
        """Steps may have ended."""
        self._event.set()

    def stop(self, wait_seconds: float = 5.0) -> None:
        """End the thread; what it has not started is handed back by whoever rescues the node's jobs."""
        self._stopping.set()
        self._event.set()
        if self.is_alive():
            self.join(wait_seconds)

    def run(self) -> None:
        # The first expression takes a while to be read; nobody should wait for that.
        expressions.compile("true")
        with cluster_bound(self._cluster_id) as cluster:
            self._alias = cluster.alias
            while not self._stopping.is_set():
                self._pulse.beat()
                try:
                    did = self._do()
                    self._trouble.end()
                except Exception as error:
                    # Whatever it is, jobs of others go on: nothing was written.
                    did = 0
                    self._trouble.note(error)
                    with contextlib.suppress(Exception):
                        connections[self._alias].close()
                if not did:
                    self._event.wait(self._pause())
                    self._event.clear()
            connections[self._alias].close()
        self._watchdog.forget(self._pulse)

    def _pause(self) -> float:
        if self._trouble.is_on:
            return max(self._trouble.retry_at - countdown(), 0.01)
        return POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311

    def _start(self, given: Sequence[Claimed]) -> None:
        """Start them all; where that fails each alone, and one that cannot be started ends."""
        try:
            start(self._alias, self._node_id, given)
            return
        except Exception as error:
            if is_outage(error):
                raise
            logger.warning("%d jobs cannot be started together", len(given), exc_info=True)
        for job in given:
            try:
                start(self._alias, self._node_id, [job])
            except Exception as error:
                if is_outage(error):
                    raise
                logger.exception("job %s cannot be started", job.id)
                report = _unfit("it cannot be started", error)
                row = decide(job, self._node_id, report, current_policy())
                take_turn(connections[self._alias], [row], None)

    def _do(self) -> int:
        with self._lock:
            given = dict(self._in_hand)
        if given:
            self._start(list(given.values()))
            with self._lock:
                for key in given:
                    self._in_hand.pop(key, None)
        return conduct(self._alias) + len(given)
