"""Rows by their ids, so few at a time that large ones do not fill the memory, and answers of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from jobs.dialects.asyncjobs.views.base import json_bytes
from jobs.dialects.asyncjobs.wire.schedules import schedule_to_wire
from jobs.dialects.asyncjobs.wire.tasks import COLUMNS, tasks_to_wire
from jobs.models.job_queryset import JobQuerySet
from jobs.models.schedule_queryset import ScheduleQuerySet

# How many are read at first and at most, and about how many bytes of them.
FIRST, MOST, SLICE_BYTES = 32, 128, 4 << 20
# An answer with large rows ends before its limit.
MAX_ANSWER_BYTES = 16 << 20


class Told(NamedTuple):
    row: Any
    text: bytes


def task_slices(jobs: JobQuerySet, ids: Sequence[UUID]) -> Iterator[list[Told]]:
    """Each of these jobs as the text of a task, in this order; some may be gone."""

    def read(some: Sequence[UUID]) -> list[Told]:
        found = {job.pk: job for job in jobs.filter(pk__any_of=some).only(*COLUMNS)}
        rows = [found[pk] for pk in some if pk in found]
        tasks = tasks_to_wire(jobs.db, rows) if rows else []
        return [Told(job, json_bytes(task)) for job, task in zip(rows, tasks, strict=True)]

    return _slices(ids, read)


def schedule_slices(schedules: ScheduleQuerySet, ids: Sequence[UUID]) -> Iterator[list[Told]]:
    """The same for schedules."""

    def read(some: Sequence[UUID]) -> list[Told]:
        found = {row.pk: row for row in schedules.filter(pk__any_of=some)}
        return [
            Told(found[pk], json_bytes(schedule_to_wire(found[pk]))) for pk in some if pk in found
        ]

    return _slices(ids, read)


def fitting(slices: Iterable[list[Told]]) -> list[bytes]:
    """As many texts as one answer may hold, and one at least."""
    texts: list[bytes] = []
    left = MAX_ANSWER_BYTES
    for told in slices:
        for _, text in told:
            left -= len(text)
            if left < 0 and texts:
                return texts
            texts.append(text)
    return texts


def _slices(
    ids: Sequence[UUID], read: Callable[[Sequence[UUID]], list[Told]]
) -> Iterator[list[Told]]:
    begin, number = 0, FIRST
    while some := ids[begin : begin + number]:
        begin += len(some)
        told = read(some)
        yield told
        largest = max((len(one.text) for one in told), default=1)
        number = max(1, min(2 * number, MOST, SLICE_BYTES // largest))
