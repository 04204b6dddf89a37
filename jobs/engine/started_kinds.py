"""The kinds of all that goes on when jobs are started again.

A step that is retried takes up the job that it is a part of, which makes its other steps then. Whoever
starts the step answers for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from django.db.models import Q

from jobs.executors import CONDUCTED, KINDS, kinds_started
from jobs.models import Job, Schedule, Step

# Definitions may be large; so many are read at a time.
_AT_ONCE = 100


def kinds_started_by(using: str, kinds: Mapping[UUID, str]) -> dict[UUID, list[str]]:
    """What each of these jobs starts, by their ids; given are their own kinds."""
    tops = _tops(using, kinds)
    started = _started(using, {*tops, *tops.values()})
    return {
        pk: sorted({kind, *started.get(pk, ()), *started.get(tops.get(pk, pk), ())})
        for pk, kind in kinds.items()
    }


def jobs_that_start(using: str, kinds: Mapping[UUID, str], barred: Collection[str]) -> set[UUID]:
    """Those of these jobs that start work of a barred kind."""
    if not barred:
        return set()
    started = kinds_started_by(using, kinds)
    return {pk for pk, names in started.items() if not {*names}.isdisjoint(barred)}


def kinds_to_grant(schedule: Schedule) -> frozenset[str]:
    """Kinds of what a schedule starts that need a grant of whoever wrote it."""
    wanted = frozenset(
        name
        for name in kinds_started(schedule.kind, schedule.payload)
        if name in KINDS and KINDS[name].needs_grant
    )
    # Steps that code of this installation asks for, which has a name without an origin, need none.
    is_of_code = ":" not in schedule.updated_by
    return wanted & {schedule.kind} if is_of_code else wanted


def _tops(using: str, kinds: Iterable[UUID]) -> dict[UUID, UUID]:
    """Those that are steps or made of steps, each with the outermost job that it is a part of."""
    rows = Job.objects.using(using).filter(pk__any_of=[*kinds])
    # Whatever is a step is waited for by its parent.
    rows = rows.filter(Q(has_dependants=True) | Q(kind__in=CONDUCTED)).order_by()
    tops = {pk: pk for pk in rows.values_list("pk", flat=True)}
    while found := _roots(using, {*tops.values()}):
        tops = {pk: found.get(top, top) for pk, top in tops.items()}
    return tops


def _roots(using: str, ids: Collection[UUID]) -> dict[UUID, UUID]:
    if not ids:
        return {}
    steps = Step.objects.using(using).filter(pk__any_of=[*ids])
    return dict(steps.order_by().values_list("pk", "root_id"))


def _started(using: str, ids: Collection[UUID]) -> dict[UUID, list[str]]:
    started: dict[UUID, list[str]] = {}
    ordered = sorted(ids)
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        rows = Job.objects.using(using).filter(pk__any_of=some, kind__in=CONDUCTED).order_by()
        for pk, kind, payload in rows.values_list("pk", "kind", "payload"):
            started[pk] = kinds_started(kind, payload)
    return started
