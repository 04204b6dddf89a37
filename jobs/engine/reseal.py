"""Reseal: what an earlier key encrypts is encrypted with the first one, so that the other can go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import F, Model, Q

from jobs.executors import PYTHON, STORED_KINDS
from jobs.models import Job, Schedule, Secret, Step, StepsRun
from jobs.sealing import SEAL, first_key, is_sealed, key_of, opened, seal

# Rows of one look.
BATCH = 200
_WORK = ("payload", "dialect_notes")


def reseal(using: str) -> dict[str, int]:
    """Encrypt anew what needs it; returns how many rows of each sort that were.

    Raises ``SealError`` where the key of a row is not there. Done twice it does no harm; a row that
    somebody changes meanwhile is left as it is, and is encrypted with the first key already.
    """
    schedules = Schedule.objects.using(using)
    runs = StepsRun.objects.using(using).filter(items__isnull=False)
    return {
        "secrets": Secret.objects.using(using).all().reseal(),
        "schedules": sum(_anew(using, row, _WORK) for row in _walk(schedules, "pk")),
        "jobs": sum(_anew(using, row, _WORK) for row in _jobs(using)),
        "steps": sum(_anew(using, row, ("items",)) for row in _walk(runs, "pk")),
    }


def _jobs(using: str) -> Iterator[Job]:
    """Jobs that may be sealed: of uncommon kinds, and of the common one those that others have made.

    Each sort by an index of its own: most jobs are in none.
    """
    jobs = Job.objects.using(using)
    for kind in STORED_KINDS:
        if kind != PYTHON:
            yield from _walk(jobs.filter(kind=kind), "created_at", "pk")
    steps = Step.objects.using(using).filter(job__kind=PYTHON).select_related("job")
    yield from (step.job for step in _walk(steps, "pk"))
    yield from _walk(jobs.filter(kind=PYTHON, copy_of__isnull=False), "copy_of", "pk")


def _walk(rows: Any, *order: str) -> Iterator[Any]:
    """All rows in this order, page by page; the last column tells them apart."""
    after: list[Any] | None = None
    while True:
        page = rows if after is None else rows.filter(_beyond(order, after))
        found = list(page.order_by(*map(F, order))[:BATCH])
        yield from found
        if len(found) < BATCH:
            return
        after = [getattr(found[-1], column) for column in order]


def _beyond(order: tuple[str, ...], after: list[Any]) -> Q:
    if len(order) == 1:
        return Q(**{f"{order[0]}__gt": after[0]})
    (first, last), (one, other) = order, after
    return Q(**{f"{first}__gte": one}) & (
        Q(**{f"{first}__gt": one}) | Q(**{first: one, f"{last}__gt": other})
    )


def _anew(using: str, row: Model, columns: tuple[str, ...]) -> bool:
    before = {column: getattr(row, column) for column in columns}
    after = {column: _value_anew(value) for column, value in before.items()}
    changed = {column: after[column] for column in columns if after[column] != before[column]}
    if not changed:
        return False
    same: Any = type(row)._default_manager.using(using).filter(pk=row.pk)
    return bool(same.filter(**{column: before[column] for column in changed}).update(**changed))


def _value_anew(value: Any) -> Any:
    """The same with all that is sealed in it sealed by the first key; notes hold it one level down."""
    if is_sealed(value):
        if key_of(value[SEAL]) == first_key():
            return value
        kept = opened(value)
        return seal(kept.payload, kept.masks)
    if isinstance(value, dict):
        return {key: _value_anew(item) if is_sealed(item) else item for key, item in value.items()}
    return value
