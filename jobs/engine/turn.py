"""One turn of a node at the database: write what has ended and claim what comes next.

On PostgreSQL that is one statement and one commit, prepared once; on SQLite one short transaction. A
batch that the database refuses is done again row by row, so that one bad row never holds up the rest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.db import DataError, IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.engine import claim, complete, limits
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.complete import Completion, Report, Success
from jobs.models.release import lock_all
from jobs.raw import fetch
from jobs.states import Outcome, Reason, State

logger = logging.getLogger(__name__)

Batch = Sequence[Success | Completion]


@dataclass(slots=True)
class Turn:
    claimed: list[Claimed] = field(default_factory=list)
    # Reports that came too late: the job had been taken from this node.
    superseded: list[Success | Completion] = field(default_factory=list)
    # Jobs have ended that others wait for.
    has_released: bool = False


def take_turn(
    connection: BaseDatabaseWrapper,
    batch: Batch,
    appetite: Appetite | None,
    *,
    with_limits: bool = False,
) -> Turn:
    """Complete ``batch`` and claim for ``appetite``; either may be empty.

    ``with_limits`` claims from queues with limits as well, which takes a transaction of its own.
    """
    if appetite is not None and appetite.is_empty:
        appetite = None
    nodes = sorted({row.node for row in batch})
    # What earlier lives of this node still have to say goes first, each in a statement of its own.
    earlier = nodes[:-1] if appetite is None else [n for n in nodes if n != appetite.node]
    if earlier:
        turns = [take_turn(connection, [r for r in batch if r.node == n], None) for n in earlier]
        rest = [row for row in batch if row.node not in earlier]
        turn = take_turn(connection, rest, appetite, with_limits=with_limits)
        turn.superseded += [row for other in turns for row in other.superseded]
        return turn
    try:
        return _take_turn(connection, batch, appetite, with_limits)
    except (DataError, IntegrityError):
        if not batch:
            raise
        logger.exception("a batch of completions was refused; writing them one by one")
        superseded = [row for one in batch for row in _complete_alone(connection, one)]
        return Turn(superseded=superseded)


def _complete_alone(connection: BaseDatabaseWrapper, row: Success | Completion) -> Batch:
    try:
        return _take_turn(connection, [row], None).superseded
    except (DataError, IntegrityError) as error:
        # What the attempt left behind cannot be stored; the job ends with that as its error.
        logger.error("job %s: its ending cannot be stored: %s", row.id, error)
        return _take_turn(connection, [_unstorable(row, error)], None).superseded


def _unstorable(row: Success | Completion, error: Exception) -> Completion:
    if isinstance(row, Success):
        report = Report(Outcome.FAILED, row.started_at, row.finished_at)
        row = Completion(row.id, row.fence, row.node, State.FAILED, report=report)
    row.state, row.reason, row.is_held = State.FAILED, Reason.BAD_DEFINITION, False
    if row.report is not None:
        row.report.result = row.report.trace = None
        row.report.error = "the result or error of this attempt could not be stored"
        row.report.error_type = type(error).__name__
    return row


def _take_turn(
    connection: BaseDatabaseWrapper,
    batch: Batch,
    appetite: Appetite | None,
    with_limits: bool = False,
) -> Turn:
    if connection.vendor != "postgresql":
        done, claimed, has_released = _sqlite_turn(connection, batch, appetite)
    else:
        awaited = [row for row in batch if row.is_awaited]
        alone = [row for row in batch if not row.is_awaited] if awaited else batch
        has_released = bool(awaited)
        ended = _complete_awaited(connection, awaited) if awaited else 0
        if with_limits and appetite is not None:
            done, _ = _postgres_turn(connection, alone, None)
            claimed = _claim_within_limits(connection, appetite)
        else:
            done, claimed = _postgres_turn(connection, alone, appetite)
        done += ended
    if done == len(batch):
        return Turn(claimed, has_released=has_released)
    return Turn(claimed, _not_ours(connection, batch), has_released=True)


# -- PostgreSQL ------------------------------------------------------------------------------------


def _postgres_turn(
    connection: BaseDatabaseWrapper, batch: Batch, appetite: Appetite | None
) -> tuple[int, list[Claimed]]:
    """One statement in one transaction; returns how many rows it completed, and what it claimed."""
    if not batch and appetite is None:
        return 0, []
    parameters: dict[str, Any] = {}
    if batch:
        successes, moves = _sorted_out(batch)
        parameters = complete.postgres_parameters(batch[0].node, successes, moves)
        ended, done = complete.postgres_ctes(bool(successes), bool(moves))
    else:
        ended, done = "", "0"
    if appetite is not None:
        parameters |= claim.postgres_parameters(appetite)
    rows = fetch(connection, _statement(ended, done, appetite is not None), parameters)
    return rows[0][0], [Claimed._make(row[1:]) for row in rows if row[1] is not None]


@cache
def _statement(ended: str, done: str, claims: bool, limited: bool = False) -> str:
    """The statement for one kind of turn; there are few, and each is prepared once."""
    if not claims:
        return f"WITH {ended} SELECT {done}, NULL"
    ctes = ", ".join(filter(None, [ended, claim.postgres_ctes(limited)]))
    return (
        f"WITH {ctes} SELECT {done}, {claim.POSTGRES_COLUMNS}"
        f" FROM (SELECT 1) AS one LEFT JOIN claimed ON true ORDER BY {claim.POSTGRES_ORDER}"
    )


def _sorted_out(batch: Batch) -> tuple[list[Success], list[Completion]]:
    successes = [row for row in batch if type(row) is Success]
    moves = [row for row in batch if type(row) is Completion]
    return successes, moves


def _claim_within_limits(connection: BaseDatabaseWrapper, appetite: Appetite) -> list[Claimed]:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        held = limits.lock(cursor, appetite, connection.vendor)
        rooms = limits.rooms(cursor, held)
        parameters = claim.postgres_parameters(appetite, rooms)
        rows = fetch(connection, _statement("", "0", True, bool(rooms)), parameters)
        claimed = [Claimed._make(row[1:]) for row in rows if row[1] is not None]
        limits.spend(cursor, held, Counter(job.queue for job in claimed))
        return claimed


def _complete_awaited(connection: BaseDatabaseWrapper, batch: Batch) -> int:
    """Complete jobs that others wait for, and tell those, in one transaction."""
    successes, moves = _sorted_out(batch)
    parameters = complete.postgres_parameters(batch[0].node, successes, moves)
    ended, done = complete.postgres_ctes(bool(successes), bool(moves), awaited=True)
    with transaction.atomic(using=connection.alias):
        # In one order with whoever ends several jobs at once, and before any of them is written.
        lock_all(connection.alias, [row.id for row in batch], ending=[row.id for row in moves])
        rows = fetch(connection, _statement(ended, done, False), parameters)
        _release(connection.alias, [row.id for row in batch])
        return int(rows[0][0])


def end_waiting(connection: BaseDatabaseWrapper, batch: Batch) -> int:
    """Complete jobs that waited for steps, in the caller's transaction and under its locks.

    The node of each row is the one that claimed the job. Returns how many were waiting still.
    """
    ids = [row.id for row in batch]
    done = 0
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            done, _ = complete.sqlite_complete(cursor, batch, held=State.WAITING)
        _release(connection.alias, ids)
        return done
    lock_all(connection.alias, ids, ending=[row.id for row in batch if type(row) is Completion])
    for node in sorted({row.node for row in batch}):
        successes, moves = _sorted_out([row for row in batch if row.node == node])
        parameters = complete.postgres_parameters(node, successes, moves)
        ended, count = complete.postgres_ctes(
            bool(successes), bool(moves), awaited=True, held=State.WAITING
        )
        done += int(fetch(connection, _statement(ended, count, False), parameters)[0][0])
    _release(connection.alias, ids)
    return done


def _release(alias: str, ids: Sequence[str]) -> None:
    from jobs.models.release import release

    release(alias, ids)


# -- SQLite ----------------------------------------------------------------------------------------


def _sqlite_turn(
    connection: BaseDatabaseWrapper, batch: Batch, appetite: Appetite | None
) -> tuple[int, list[Claimed], bool]:
    if not batch:
        with connection.cursor() as cursor:
            if appetite is None or not claim.sqlite_has_ready(cursor):
                return 0, [], False
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        done = 0
        awaited: list[str] = []
        if batch:
            done, awaited = complete.sqlite_complete(cursor, batch)
            if awaited:
                _release(connection.alias, awaited)
        if appetite is None:
            return done, [], bool(awaited)
        held = limits.lock(cursor, appetite, connection.vendor)
        claimed = claim.sqlite_claim(cursor, appetite, limits.rooms(cursor, held))
        limits.spend(cursor, held, Counter(job.queue for job in claimed))
        return done, claimed, bool(awaited)


# -- What the guard turned away --------------------------------------------------------------------


def _not_ours(
    connection: BaseDatabaseWrapper, batch: Batch, *, is_second_look: bool = False
) -> list[Success | Completion]:
    """Those of a batch that the guard turned away, without what an earlier commit had written.

    A commit whose answer was lost is offered again and finds nothing to do: same fence, no longer
    running. A job that others wait for is completed now. Anything else was taken from this node.
    """
    from jobs.models import Attempt, Job

    ids = [row.id for row in batch]
    jobs = {
        str(pk): rest
        for pk, *rest in Job.objects.using(connection.alias)
        .filter(pk__in=ids)
        .values_list("pk", "fence", "state", "node_id")
    }
    written = {
        (str(job_id), fence)
        for job_id, fence in Attempt.objects.using(connection.alias)
        .filter(job_id__in=ids)
        .exclude(outcome="lost")
        .values_list("job_id", "fence")
    }
    late: list[Success | Completion] = []
    held: list[Success | Completion] = []
    for row in batch:
        fence, state, node = jobs.get(row.id, (None, None, None))
        if fence == row.fence and state == State.RUNNING and str(node) == row.node:
            held.append(row)
        elif (fence != row.fence or state == State.RUNNING) and (row.id, row.fence) not in written:
            late.append(row)
    if held and is_second_look:
        raise RuntimeError(f"{len(held)} jobs of this node cannot be completed: {held[0].id}, …")
    if held and _complete_awaited(connection, held) != len(held):
        # Taken from this node since the look just now.
        late += _not_ours(connection, held, is_second_look=True)
    return late


def disown(connection: BaseDatabaseWrapper, node: str, held: set[tuple[str, int]]) -> int:
    """Hand back jobs that the database says this node runs and the node knows nothing of.

    They come from a claim whose commit arrived and whose answer was lost. Nothing of them was begun.
    """
    from jobs.models import Job

    rows = Job.objects.using(connection.alias).filter(node_id=node, state=State.RUNNING)
    unknown = [
        Completion(str(pk), fence, node, State.READY, refund=1)
        for pk, fence in rows.values_list("pk", "fence")
        if (str(pk), fence) not in held
    ]
    if unknown:
        _take_turn(connection, unknown, None)
    return len(unknown)
