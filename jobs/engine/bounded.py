"""Bounded: one verb over the jobs that match a filter, here and now, as many as fit a request.

Bulk operations do any number in the background. This is for surfaces whose callers wait for a count: the
oldest jobs first, in batches of a transaction each, until there are no more, or enough, or it took too
long. Who has more to do asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections, transaction

from clusters.deeds import told_by_caller
from jobs import listing
from jobs.engine.clock import countdown, database_now
from jobs.engine.started_kinds import jobs_that_start
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet
from jobs.raw import read_id, read_moment

BATCH = 500
MOST = 10_000
SECONDS = 10.0

Verb = Callable[[JobQuerySet], int]
# Leaves the trace of a batch: called with its count in its own transaction, if it changed anything.
Told = Callable[[int], None]


class _Row(NamedTuple):
    created_at: datetime
    id: UUID
    kind: str


def over_filter(
    using: str,
    asked: Mapping[str, Any],
    verb: Verb,
    *,
    told: Told,
    barred_kinds: Collection[str] = (),
    left_out: Callable[[str], None] | None = None,
) -> int:
    """Apply the verb to jobs that match these search words now, and return how many it changed.

    Jobs that start work of ``barred_kinds`` are left alone, and ``left_out`` is told of such a kind.
    """
    until = countdown() + SECONDS
    # What is made meanwhile is not meant, and the walk comes to an end.
    asked = {**asked, "created_before": database_now(connections[using])}
    after: listing.Position | None = None
    changed = 0
    while changed < MOST and countdown() < until:
        rows = _read(using, asked, min(BATCH, MOST - changed), after)
        if not rows:
            break
        after = listing.Position(rows[-1].created_at, rows[-1].id)
        barred = jobs_that_start(using, {row.id: row.kind for row in rows}, barred_kinds)
        if left_out is not None:
            for kind in {*barred.values()}:
                left_out(kind)
        ids = [row.id for row in rows if row.id not in barred]
        if ids:
            changed += _do(using, ids, (verb,), told)
    return changed


def over_ids(using: str, ids: Sequence[UUID], *verbs: Verb, told: Told) -> int:
    """Apply each of these verbs to these jobs; one takes what the others may not touch."""
    changed = 0
    for start in range(0, len(ids), BATCH):
        changed += _do(using, ids[start : start + BATCH], verbs, told)
    return changed


def _do(using: str, ids: Sequence[UUID], verbs: Sequence[Verb], told: Told) -> int:
    # In one transaction, or what the first verb let go might run, end, and be counted again.
    with transaction.atomic(using=using):
        with told_by_caller():
            changed = sum(verb(_jobs(using, ids)) for verb in verbs)
        if changed:
            told(changed)
    return changed


def _read(
    using: str, asked: Mapping[str, Any], number: int, after: listing.Position | None
) -> list[_Row]:
    """The next jobs, the oldest first."""
    columns = "j.created_at, j.id, j.kind"
    rows = listing.newest(using, asked, columns, number, beyond=after, is_backwards=True)
    return [_Row(read_moment(made), read_id(pk), kind) for made, pk, kind in rows]


def _jobs(using: str, ids: Sequence[UUID]) -> JobQuerySet:
    rows: JobQuerySet = Job.objects.using(using).filter(pk__any_of=ids)
    return rows
