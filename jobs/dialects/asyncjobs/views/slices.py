"""Tasks by their ids, so few at a time that large ones do not fill the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from jobs.dialects.asyncjobs.views.base import json_bytes
from jobs.dialects.asyncjobs.wire.tasks import COLUMNS, tasks_to_wire
from jobs.models import Job
from jobs.models.job import JobQuerySet

# How many are read at first and at most, and about how many bytes of them.
FIRST, MOST, SLICE_BYTES = 32, 128, 4 << 20


class Told(NamedTuple):
    job: Job
    text: bytes


def slices(jobs: JobQuerySet, ids: Sequence[UUID]) -> Iterator[list[Told]]:
    """Each of these jobs as the text of a task, in this order; some may be gone."""
    begin, number = 0, FIRST
    while some := ids[begin : begin + number]:
        begin += len(some)
        found = {job.pk: job for job in jobs.filter(pk__any_of=some).only(*COLUMNS)}
        rows = [found[pk] for pk in some if pk in found]
        tasks = tasks_to_wire(jobs.db, rows) if rows else []
        told = [Told(job, json_bytes(task)) for job, task in zip(rows, tasks, strict=True)]
        yield told
        largest = max((len(one.text) for one in told), default=1)
        number = max(1, min(2 * number, MOST, SLICE_BYTES // largest))
