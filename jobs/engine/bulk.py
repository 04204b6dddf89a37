"""Bulk: one verb over all jobs that match a filter, carried out by the nodes in the background.

``request`` (``bulk_asking.py``) stores what is wanted, ``advance`` is the duty of upkeep that does it. It
reads the jobs in the order in which they were made and without locks, up to a thousand at a time; then,
in one short transaction, it locks those that it can have at once, applies the verb and writes down how
far it has got. A node that is killed in between has done and noted a batch, or neither. The row of the
operation is locked in that transaction too and has to be as it was read, so two nodes never do the same
batch.

Whether a job is meant is decided when its row is locked; whether the verb may touch it, by the verb's own
guard.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from django.db import (
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)

from clusters.policy import ClusterPolicy
from clusters.registry import id_of
from jobs.engine.bulk_asking import MAX_OPEN, DryRun, cancel, dry_run, glance, inverse, request
from jobs.engine.bulk_count import about
from jobs.engine.bulk_terms import ELIGIBLE, conditions, narrowed
from jobs.engine.bulk_walk import Key, Seen, count_walking, matching, meant, read_stretch
from jobs.engine.clock import countdown
from jobs.engine.started_kinds import jobs_that_start
from jobs.errors import (
    InvalidBulkOperation,
    JobError,
    RightsLost,
)
from jobs.executors import GRANTED_KINDS
from jobs.filters import SEARCHED
from jobs.models import BulkAction, BulkOperation, BulkStatus, Job
from jobs.models.bulk_operation import BulkOperationQuerySet
from jobs.models.job_queryset import JobQuerySet, Touched
from jobs.rights import rights_of

# The front door: what there is to ask for stands in ``bulk_asking.py``.
__all__ = [
    "DONE",
    "ELIGIBLE",
    "OUTCOMES",
    "DryRun",
    "advance",
    "cancel",
    "dry_run",
    "glance",
    "inverse",
    "request",
]

logger = logging.getLogger(__name__)

EXPECT_SECONDS = 0.4

# One call of the duty works for about so long.
WORK_SECONDS = 0.3
LARGEST_BATCH = 1_000
# A batch grows and shrinks so that its transaction takes about so long. SQLite's keeps all writers out;
# PostgreSQL's nobody, and small ones would be slow on a busy host and no shorter.
BATCH_SECONDS = {"postgresql": 0.15, "sqlite": 0.01}
FIRST_BATCH = {"postgresql": 500, "sqlite": 50}
SMALLEST_BATCH = {"postgresql": 250, "sqlite": 10}
# Between two batches others have the database for as long as the batch had it, and no less than this.
SHORTEST_PAUSE = 0.01
# Jobs that somebody else had locked are looked at again so often, at the end.
BUSY_ROUNDS, BUSY_PAUSE, MAX_BUSY = 20, 0.05, 1_000

STARTING = (BulkAction.RETRY, BulkAction.RUN_NOW)
OUTCOMES: Mapping[str, str] = {
    "cancelled": "It had not started and never will.",
    "cancel_requested": "It runs and has been asked to stop.",
    "retried": "It is to run again.",
    "made_ready": "It runs as soon as there is room.",
    "moved": "It is in the other queue.",
    "changed": "It has the other priority.",
    "deleted": "It is gone.",
    "unchanged": "There was nothing to do: it was so already, or its state does not allow it.",
    "conflict": "Somebody else was faster: it was gone, or no longer what was meant.",
    "unique_key_taken": "Another job has its unique key now.",
    "has_dependants": "Jobs that have not ended depend on it.",
    "held": "It waits for a person's decision; only a filter that says `is_held` retries it.",
    "not_granted": "It starts work of a kind that needs a grant, which whoever asked does not have.",
    "busy": "Somebody else had it locked all the time.",
}
# Those that count against a limit.
DONE = (
    "cancelled", "cancel_requested", "retried", "made_ready", "moved", "changed", "deleted",
)  # fmt: skip


def advance(using: str, policy: ClusterPolicy) -> int:
    """Work for a moment on the oldest operation that no other node works on.

    Returns how much was done: 0 when there is nothing to do, more where there may be more.
    """
    work_until = countdown() + WORK_SECONDS
    done = 0
    waiting = _operations(using).open().order_by("created_at", "pk")
    for pk in list(waiting.values_list("pk", flat=True)[:MAX_OPEN]):
        while (step := _step_or_park(using, pk)) is not None:
            done += 1 + step.seen
            # Nothing is held now: who waited for a row, or on SQLite for the file, goes first.
            time.sleep(step.pause)
            if countdown() > work_until:
                return done
    return done


@dataclass(frozen=True, slots=True)
class _Cursor:
    """How far an operation has got."""

    after: Key | None = None
    # All jobs have been seen; what is left are those that were busy.
    is_over: bool = False
    busy: list[uuid.UUID] = field(default_factory=list)
    rounds: int = 0
    size: int = LARGEST_BATCH

    def to_json(self) -> dict[str, Any]:
        after = None if self.after is None else [self.after[0].isoformat(), str(self.after[1])]
        return {
            "after": after,
            "is_over": self.is_over,
            "busy": [str(pk) for pk in self.busy],
            "rounds": self.rounds,
            "size": self.size,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> _Cursor:
        after = data["after"]
        return cls(
            after=after and (datetime.fromisoformat(after[0]), uuid.UUID(after[1])),
            is_over=data["is_over"],
            busy=[uuid.UUID(pk) for pk in data["busy"]],
            rounds=data["rounds"],
            size=data["size"],
        )


class _Step(NamedTuple):
    seen: int
    pause: float


class _Batch(NamedTuple):
    """What was read for one batch, before anything is locked."""

    seen: int
    # Already decided, without a lock.
    outcomes: Counter[str]
    jobs: list[Seen]
    cursor: _Cursor


def _step_or_park(using: str, pk: uuid.UUID) -> _Step | None:
    try:
        return _step(using, pk)
    except (OperationalError, InterfaceError) as error:
        # The database's condition, not the operation's fault; but a batch that is too slow for the
        # statement limit will be so for ever.
        if getattr(error.__cause__, "sqlstate", None) != "57014" or not _is_smallest(using, pk):
            raise
        parked: Exception = error
    except Exception as error:  # one operation that cannot go on must not keep up the next ones
        parked = error
    logger.error("bulk operation %s cannot go on", pk, exc_info=parked)
    # Of what is not in our words, no more than the first line: the rest may quote rows.
    text = str(parked) if isinstance(parked, JobError) else _first_line(parked)
    _operations(using).filter(pk=pk).park(text)
    return _Step(0, 0.0)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _is_smallest(using: str, pk: uuid.UUID) -> bool:
    """Whether the operation's batches cannot be made smaller; if they can, that is done."""
    operation = _operations(using).open().filter(pk=pk).first()
    if operation is None or operation.cursor is None:
        return False
    cursor = _Cursor.from_json(operation.cursor)
    smaller = replace(cursor, size=max(SMALLEST_BATCH[connections[using].vendor], cursor.size // 4))
    _operations(using).open().filter(pk=pk, seen=operation.seen).update(cursor=smaller.to_json())
    return smaller == cursor


def _step(using: str, pk: uuid.UUID) -> _Step | None:
    """Begin an operation, or do one batch of it; None where it is over or another node's."""
    operation = _operations(using).open().filter(pk=pk).first()
    if operation is None:
        return None
    asked = narrowed(operation.action, conditions(operation.filter), operation.arguments)
    if operation.status == BulkStatus.PENDING or operation.cursor is None:
        expected = _expected(using, asked, operation)
        first = _Cursor(size=FIRST_BATCH[connections[using].vendor]).to_json()
        with transaction.atomic(using=using):
            if _operations(using).filter(pk=pk).begin(expected=expected):
                _operations(using).filter(pk=pk).update(cursor=first)
        return _Step(0, 0.0)
    rights = rights_of(operation.requested_by, f"bulk_operations.{operation.action}", id_of(using))
    if not rights.is_allowed:
        raise RightsLost(f"{operation.requested_by} may no longer do this")
    began = countdown()
    batch = _read(using, operation, asked, rights.kinds)
    cursor = _write(using, operation, asked, batch)
    took = countdown() - began
    if cursor is None:
        return None
    waits = cursor.busy and (cursor.is_over or cursor.rounds)
    pause = max(took, BUSY_PAUSE if waits else SHORTEST_PAUSE)
    return _Step(batch.seen, pause)


def _expected(using: str, asked: Mapping[str, Any], operation: BulkOperation) -> int | None:
    """About how many jobs it will look at."""
    if SEARCHED & asked.keys():
        counted = count_walking(using, asked, operation.covers_until, EXPECT_SECONDS)
        expected = counted.count if counted.is_exact else None
    else:
        expected = about(meant(using, asked, operation.covers_until), EXPECT_SECONDS)
    limit = operation.arguments.get("limit")
    return expected if expected is None or limit is None else min(expected, limit)


def _read(
    using: str, operation: BulkOperation, asked: Mapping[str, Any], kinds: frozenset[str]
) -> _Batch:
    cursor = _Cursor.from_json(operation.cursor or {})
    room = _room(operation, operation.outcomes, cursor.busy)
    if cursor.is_over or not room:
        left = _jobs(using).filter(pk__any_of=cursor.busy)
        jobs = [Seen(*row) for row in matching(left, _under_lock(operation, asked))]
        gone = len(cursor.busy) - len(jobs)
        outcomes: Counter[str] = Counter({"conflict": gone} if gone else {})
        onward = replace(cursor, busy=[], rounds=cursor.rounds + 1)
        return _chosen(using, operation, jobs, kinds, _Batch(0, outcomes, [], onward), len(jobs))
    stretch = read_stretch(using, asked, operation.covers_until, cursor.after, cursor.size)
    is_over = stretch.after is None
    onward = replace(cursor, after=stretch.after, is_over=is_over, rounds=0)
    return _chosen(using, operation, stretch.jobs, kinds, _Batch(0, Counter(), [], onward), room)


def _room(
    operation: BulkOperation, outcomes: Mapping[str, int], busy: Collection[uuid.UUID]
) -> int:
    """How many more jobs may be tried before the limit; those that are busy may still be done."""
    if "limit" not in operation.arguments:
        return sys.maxsize
    done = sum(outcomes.get(outcome, 0) for outcome in DONE)
    return max(0, int(operation.arguments["limit"]) - done - len(busy))


def _chosen(
    using: str,
    operation: BulkOperation,
    jobs: Sequence[Seen],
    kinds: frozenset[str],
    batch: _Batch,
    room: int,
) -> _Batch:
    """The batch with those jobs that must be locked, up to ``room``; it ends where that is full."""
    barred = _barred(using, operation, jobs, kinds)
    is_walk = not batch.cursor.rounds
    seen, cursor = 0, batch.cursor
    for job in jobs:
        if len(batch.jobs) == room:
            last = jobs[seen - 1]
            cursor = replace(cursor, after=(last.created_at, last.pk), is_over=False)
            break
        seen += 1
        if decided := _decided(operation, job, barred):
            batch.outcomes[decided] += 1
        else:
            batch.jobs.append(job)
    return batch._replace(seen=seen if is_walk else 0, cursor=cursor)


def _barred(
    using: str, operation: BulkOperation, jobs: Sequence[Seen], kinds: frozenset[str]
) -> Collection[uuid.UUID]:
    """Those that whoever asked may not start: somebody else's program again is no less than one."""
    action = operation.action
    if action not in STARTING:
        return set()
    lacking = frozenset(GRANTED_KINDS) - kinds
    eligible = {job.pk: job.kind for job in jobs if job.state in ELIGIBLE[action]}
    return jobs_that_start(using, eligible, lacking)


def _decided(operation: BulkOperation, job: Seen, barred: Collection[uuid.UUID]) -> str | None:
    """The outcome for a job that need not be locked; None where it must be."""
    action, arguments = operation.action, operation.arguments
    if job.state not in ELIGIBLE[action]:
        return "unchanged"
    if job.pk in barred:
        return "not_granted"
    if action == BulkAction.RETRY and job.is_held and not operation.filter.get("is_held"):
        return "held"
    is_so = (
        (action == BulkAction.MOVE and job.queue == arguments["queue"])
        or (action == BulkAction.SET_PRIORITY and job.priority == arguments["priority"])
        or (action == BulkAction.CANCEL and job.cancel_requested_at is not None)
    )
    return "unchanged" if is_so else None


def _write(
    using: str, operation: BulkOperation, asked: Mapping[str, Any], batch: _Batch
) -> _Cursor | None:
    """Do a batch and note it, in one transaction; None where another node was here meanwhile."""
    began = countdown()
    vendor = connections[using].vendor
    with transaction.atomic(using=using):
        row = _locked(_operations(using).open().filter(pk=operation.pk)).first()
        if row is None or row.cursor != operation.cursor:
            return None
        outcomes, busy = _act(using, operation, asked, batch.jobs)
        outcomes.update(batch.outcomes)
        cursor = batch.cursor
        is_last = cursor.rounds >= BUSY_ROUNDS
        room = 0 if is_last else MAX_BUSY - len(cursor.busy)
        if len(busy) > room:
            outcomes["busy"] += len(busy) - room
        kept = [*cursor.busy, *busy[:room]]
        fits = BATCH_SECONDS[vendor] / max(countdown() - began, 0.001)
        size = min(cursor.size * min(fits, 2.0), LARGEST_BATCH)
        cursor = replace(cursor, busy=kept, size=max(SMALLEST_BATCH[vendor], int(size)))
        outcomes += Counter(row.outcomes)
        is_full = not _room(operation, outcomes, cursor.busy)
        is_finished = (cursor.is_over or is_full) and not cursor.busy
        _operations(using).filter(pk=operation.pk).go_on(
            seen=batch.seen,
            outcomes=dict(outcomes),
            cursor=cursor.to_json(),
            is_finished=is_finished,
        )
    return cursor


def _act(
    using: str, operation: BulkOperation, asked: Mapping[str, Any], jobs: Sequence[Seen]
) -> tuple[Counter[str], list[uuid.UUID]]:
    """Apply the verb to those of these jobs that can be locked at once; the others are returned."""
    outcomes: Counter[str] = Counter()
    if not jobs:
        return outcomes, []
    asked = _under_lock(operation, asked)
    rows = _jobs(using).filter(pk__any_of=[job.pk for job in jobs])
    # In the order of their ids, as everybody locks many jobs; what a claim holds is left out.
    locked = matching(_locked(rows).order_by("pk"), asked, ("pk", "state"))
    busy = []
    if len(locked) < len(jobs):
        ours = {pk for pk, _ in locked}
        busy = [pk for pk, _ in matching(rows, asked, ("pk", "state")) if pk not in ours]
    ids = [pk for pk, state in locked if state in ELIGIBLE[operation.action]]
    if ids:
        outcomes.update(_verb(_jobs(using).filter(pk__any_of=ids), operation).outcomes)
        # What the verb itself leaves alone.
        outcomes["unchanged"] += len(ids) - outcomes.total()
    # Deleted, ended, or no longer what was meant.
    outcomes["conflict"] += len(jobs) - len(busy) - len(ids)
    return +outcomes, busy


def _under_lock(operation: BulkOperation, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The conditions a job must meet when the verb is applied.

    Who cancels what is ready means also what a node takes just then; it is asked to stop.
    """
    if operation.action != BulkAction.CANCEL:
        return asked
    return {word: value for word, value in asked.items() if word != "state"}


def _verb(jobs: JobQuerySet, operation: BulkOperation) -> Touched:
    arguments = operation.arguments
    match operation.action:
        case BulkAction.CANCEL:
            return jobs.cancel()
        case BulkAction.RETRY:
            return jobs.retry(spread_seconds=arguments.get("spread_seconds"))
        case BulkAction.RUN_NOW:
            return jobs.run_now()
        case BulkAction.MOVE:
            return jobs.move(arguments["queue"])
        case BulkAction.SET_PRIORITY:
            return jobs.set_priority(arguments["priority"])
        case BulkAction.DELETE:
            return jobs.delete_final()
    raise InvalidBulkOperation(f"there is no action {operation.action!r}", field="action")


def _locked(rows: Any) -> Any:
    """The rows, locked, without those that somebody else has locked. SQLite locks the file instead."""
    features = connections[rows.db].features
    can_skip = features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=can_skip, of=("self",), no_key=True)


def _jobs(using: str) -> JobQuerySet:
    jobs: JobQuerySet = Job.objects.using(using).all()
    return jobs


def _operations(using: str) -> BulkOperationQuerySet:
    operations: BulkOperationQuerySet = BulkOperation.objects.using(using).all()
    return operations
