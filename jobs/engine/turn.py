"""One turn of a node at the database: write what has ended and claim what comes next.

On PostgreSQL that is one statement and one commit, prepared once; on SQLite one short transaction. A
batch that the database refuses is done again row by row, so that one bad row never holds up the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from django.db import DataError, IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.engine import claim, complete
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.complete import Completion
from jobs.states import Reason, State

logger = logging.getLogger(__name__)

_COMPLETE_AND_CLAIM = f"""
WITH {complete.POSTGRES_CTES}, {claim.POSTGRES_CTES}
SELECT (SELECT count(*) FROM done), {claim.POSTGRES_COLUMNS}
  FROM (SELECT 1) AS one LEFT JOIN claimed ON true ORDER BY {claim.POSTGRES_ORDER}
"""
_COMPLETE = f"WITH {complete.POSTGRES_CTES} SELECT count(*) FROM done"
_CLAIM = f"""
WITH {claim.POSTGRES_CTES}
SELECT {claim.POSTGRES_COLUMNS} FROM claimed ORDER BY {claim.POSTGRES_ORDER}
"""


@dataclass(slots=True)
class Turn:
    claimed: list[Claimed] = field(default_factory=list)
    # Reports that came too late: the job had been taken from this node.
    superseded: list[Completion] = field(default_factory=list)


def take_turn(
    connection: BaseDatabaseWrapper, batch: Sequence[Completion], appetite: Appetite | None
) -> Turn:
    """Complete ``batch`` and claim for ``appetite``; either may be empty."""
    if appetite is not None and appetite.is_empty:
        appetite = None
    try:
        return _take_turn(connection, batch, appetite)
    except (DataError, IntegrityError):
        if not batch:
            raise
        logger.exception("a batch of completions was refused; writing them one by one")
        superseded = [row for one in batch for row in _complete_alone(connection, one)]
        return Turn(superseded=superseded)


def _complete_alone(connection: BaseDatabaseWrapper, row: Completion) -> list[Completion]:
    try:
        return _take_turn(connection, [row], None).superseded
    except (DataError, IntegrityError) as error:
        # What the attempt left behind cannot be stored; the job ends with that as its error.
        logger.error("job %s: its ending cannot be stored: %s", row.id, error)
        row.state, row.reason, row.is_held = State.FAILED, Reason.BAD_DEFINITION, False
        if row.report is not None:
            row.report.result = row.report.trace = None
            row.report.error = "the result or error of this attempt could not be stored"
            row.report.error_type = type(error).__name__
        return _take_turn(connection, [row], None).superseded


def _take_turn(
    connection: BaseDatabaseWrapper, batch: Sequence[Completion], appetite: Appetite | None
) -> Turn:
    if connection.vendor == "postgresql":
        done, claimed = _postgres_turn(connection, batch, appetite)
    else:
        done, claimed = _sqlite_turn(connection, batch, appetite)
    superseded = [] if done == len(batch) else _not_ours(connection, batch)
    return Turn(claimed, superseded)


def _postgres_turn(
    connection: BaseDatabaseWrapper, batch: Sequence[Completion], appetite: Appetite | None
) -> tuple[int, list[Claimed]]:
    if not batch and appetite is None:
        return 0, []
    parameters = complete.postgres_parameters(batch) if batch else {}
    if appetite is not None:
        parameters |= claim.postgres_parameters(appetite)
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        if appetite is None:
            cursor.execute(_COMPLETE, parameters)
            return int(cursor.fetchall()[0][0]), []
        if not batch:
            cursor.execute(_CLAIM, parameters)
            return 0, [Claimed(*row) for row in cursor.fetchall()]
        cursor.execute(_COMPLETE_AND_CLAIM, parameters)
        rows = cursor.fetchall()
        return rows[0][0], [Claimed(*row[1:]) for row in rows if row[1] is not None]


def _sqlite_turn(
    connection: BaseDatabaseWrapper, batch: Sequence[Completion], appetite: Appetite | None
) -> tuple[int, list[Claimed]]:
    if not batch:
        with connection.cursor() as cursor:
            if appetite is None or not claim.sqlite_has_ready(cursor):
                return 0, []
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        done = complete.sqlite_complete(cursor, batch) if batch else 0
        return done, claim.sqlite_claim(cursor, appetite) if appetite is not None else []


def _not_ours(connection: BaseDatabaseWrapper, batch: Sequence[Completion]) -> list[Completion]:
    """Those of a batch that the guard turned away, without what an earlier commit had written.

    A commit whose answer was lost is offered again and finds nothing to do: same fence, no longer
    running. Anything else was taken from this node.
    """
    from jobs.models import Attempt, Job

    ids = [row.id for row in batch]
    jobs = {
        str(pk): rest
        for pk, *rest in Job.objects.using(connection.alias)
        .filter(pk__in=ids)
        .values_list("pk", "fence", "state")
    }
    written = {
        (str(job_id), fence)
        for job_id, fence in Attempt.objects.using(connection.alias)
        .filter(job_id__in=ids)
        .exclude(outcome="lost")
        .values_list("job_id", "fence")
    }
    late = []
    for row in batch:
        fence, state = jobs.get(row.id, (None, None))
        arrived = fence == row.fence and state != State.RUNNING
        if not arrived and (row.id, row.fence) not in written:
            late.append(row)
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
