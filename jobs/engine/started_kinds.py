"""The kinds of all that goes on when jobs are started, and whether whoever acts may start them.

Every verb that starts work, or writes down what will be started, asks here; what surfaces leave out is
refused all the same. A step that is retried takes up the job that it is a part of, which makes its other
steps then. Whoever starts the step answers for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from clusters.acting import who_acts
from clusters.registry import id_of
from jobs.errors import KindNotGranted
from jobs.executors import CONDUCTED, GRANTED_KINDS, KINDS, kinds_started
from jobs.models import Job, Schedule, Step

# Definitions may be large; so many are read at a time.
_AT_ONCE = 100
# Most work: it needs no grant and starts nothing else.
_FREE = frozenset(KINDS) - {*GRANTED_KINDS, *CONDUCTED}


def barred_kinds(using: str) -> frozenset[str]:
    """Kinds that need a grant which whoever acts does not have on this cluster; none for the program."""
    somebody = who_acts()
    if somebody is None:
        return frozenset()
    return frozenset(GRANTED_KINDS) - somebody.kinds(id_of(using))


def check_kinds(using: str, kinds: Iterable[str]) -> None:
    """Refuse whoever acts, if one of these kinds needs a grant that he does not have."""
    for name in sorted(barred_kinds(using).intersection(kinds)):
        raise not_granted(name)


def check_news(using: str, news: Sequence[Any]) -> None:
    """The same for new jobs; says which of them it is."""
    for index, new in enumerate(news):
        if new.kind not in _FREE:
            try:
                check_kinds(using, kinds_started(new.kind, new.payload))
            except KindNotGranted as error:
                error.index = index
                raise


def check_rows(rows: Any) -> None:
    """The same for jobs that are there, chosen by a QuerySet; asks nothing for who has all grants."""
    if barred := barred_kinds(rows.db):
        kinds = dict(rows.order_by().values_list("pk", "kind"))
        for names in kinds_started_by(rows.db, kinds).values() if kinds else ():
            check_kinds(rows.db, barred.intersection(names))


def check_schedule(schedule: Schedule, using: str) -> None:
    """The same for what a schedule starts, itself or by its workflow: its writer answers for it."""
    check_kinds(using, kinds_started(schedule.kind, schedule.payload))
    if schedule.workflow_id is not None and barred_kinds(using):
        check_schedules(using, workflow_nodes__workflow_id=schedule.workflow_id)


def check_schedules(using: str, **which: Any) -> None:
    """The same for several that a workflow puts together."""
    if barred_kinds(using):
        rows = Schedule.objects.using(using).filter(**which).values_list("kind", "payload")
        check_kinds(
            using, {name for kind, payload in rows for name in kinds_started(kind, payload)}
        )


def kinds_started_by(using: str, kinds: Mapping[UUID, str]) -> dict[UUID, list[str]]:
    """What each of these jobs starts, by their ids; given are their own kinds."""
    tops = _tops(using, kinds)
    started = _started(using, {*tops, *tops.values()})
    return {
        pk: sorted({kind, *started.get(pk, ()), *started.get(tops.get(pk, pk), ())})
        for pk, kind in kinds.items()
    }


def jobs_that_start(
    using: str, kinds: Mapping[UUID, str], barred: Collection[str]
) -> dict[UUID, str]:
    """Those of these jobs that start work of a barred kind, each with the first such kind."""
    if not barred:
        return {}
    started = kinds_started_by(using, kinds)
    first = {pk: min({*names}.intersection(barred), default="") for pk, names in started.items()}
    return {pk: name for pk, name in first.items() if name}


def not_granted(kind: str) -> KindNotGranted:
    """What whoever lacks the grant for this kind is told."""
    return KindNotGranted(
        f"jobs of kind {kind!r} need a grant of their own", field="kind", kind=kind
    )


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


def _tops(using: str, kinds: Mapping[UUID, str]) -> dict[UUID, UUID]:
    """Those that are steps or made of steps, each with the outermost job that it is a part of."""
    tops = {pk: pk for pk, kind in kinds.items() if kind in CONDUCTED}
    tops |= _roots(using, kinds)
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
