"""What follows for the jobs they belong to when steps have ended, in the same transaction.

The parent's counter is lowered under the lock of its row, and siblings are never counted: of all the
transactions that end steps exactly one sees it fall to where the parent is to wake. Locks go upwards,
from a job to the counter of its parent, and counters are taken in the order of their ids.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F
from django.db.models.functions import Now

from jobs.hints import hint_steps
from jobs.models.step import Step, StepsRun
from jobs.raw import fetch
from jobs.states import FINAL, RETRYABLE_FROM, State

_IS_DUE = "r.open_steps - d.ended <= r.wake_at OR d.failed > 0"
_LOWER = f"""
UPDATE steps_run AS r SET
  open_steps = CASE WHEN r.open_steps > d.ended THEN r.open_steps - d.ended ELSE 0 END,
  failed_steps = r.failed_steps + d.failed,
  woken_at = CASE WHEN {_IS_DUE} THEN {{now}} ELSE r.woken_at END
FROM d WHERE r.job_id = d.parent
RETURNING woken_at
"""
_POSTGRES = f"""
WITH d AS (SELECT * FROM unnest(%s::uuid[], %s::int[], %s::int[]) AS d(parent, ended, failed))
{_LOWER.format(now="clock_timestamp()")}
"""
_LOCK = """
SELECT s.job_id, s.parent_id, s.is_tolerated
  FROM step AS s JOIN steps_run AS r ON r.job_id = s.parent_id
 WHERE s.job_id = ANY(%s::uuid[]) ORDER BY s.parent_id FOR NO KEY UPDATE OF r
"""
_SQLITE = f"""
WITH d AS (SELECT value ->> 0 AS parent, value ->> 1 AS ended, value ->> 2 AS failed
             FROM json_each(%s))
{_LOWER.format(now="strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')")}
"""


def settle_steps(using: str, states: Mapping[UUID, str]) -> None:
    """Tell the parents of jobs that this transaction has put into these final states."""
    told: dict[UUID, list[int]] = {}
    for job_id, parent_id, is_tolerated in _steps(using, states):
        counts = told.setdefault(parent_id, [0, 0])
        counts[0] += 1
        is_well = states[job_id] in (State.SUCCEEDED, State.SKIPPED)
        counts[1] += not (is_well or (is_tolerated and states[job_id] == State.FAILED))
    if told:
        _lower(using, told)


def _steps(using: str, ids: Iterable[UUID]) -> list[tuple[UUID, UUID, bool]]:
    """Those of these jobs that are steps, with the counters of their parents locked."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        steps = Step.objects.using(using).filter(job_id__any_of=ids)
        return list(steps.values_list("job_id", "parent_id", "is_tolerated"))
    return [(pk, parent, tolerated) for pk, parent, tolerated in fetch(connection, _LOCK, [[*ids]])]


def _lower(using: str, told: Mapping[UUID, list[int]]) -> None:
    connection = connections[using]
    parents = sorted(told)
    if connection.vendor == "postgresql":
        columns: list[Any] = [
            parents,
            [told[pk][0] for pk in parents],
            [told[pk][1] for pk in parents],
        ]
        rows = fetch(connection, _POSTGRES, columns)
    else:
        rows = fetch(connection, _SQLITE, [json.dumps([[pk.hex, *told[pk]] for pk in parents])])
    if any(woken_at is not None for (woken_at,) in rows):
        hint_steps(using)


def lock_runs(using: str, parents: Iterable[UUID]) -> None:
    """Lock counters in the order of their ids; whoever does holds the jobs he needs already."""
    runs = StepsRun.objects.using(using).filter(job_id__any_of=[*parents]).order_by("job_id")
    list(runs.select_for_update(no_key=True).values_list("job_id", flat=True))


def open_below(using: str, parents: Iterable[UUID]) -> list[UUID]:
    """Steps of these jobs, at every depth, that have not ended; under locks, from the top down.

    A level is looked at only when its parents are held, so that nobody makes a step meanwhile.
    """
    from jobs.models.job import Job

    found: list[UUID] = []
    level = list(parents)
    while level:
        steps = Step.objects.using(using).filter(parent_id__any_of=level)
        jobs = Job.objects.using(using).filter(pk__in=steps.values("job_id"), finished_at=None)
        rows = jobs.order_by("pk").select_for_update(no_key=True).values_list("pk", "state")
        below = [(pk, state) for pk, state in rows if state not in FINAL]
        found += [pk for pk, _ in below]
        level = [pk for pk, state in below if state == State.WAITING]
    return found


def all_below(using: str, parents: Iterable[UUID]) -> list[UUID]:
    """Steps of jobs that have ended, at every depth: they have ended too."""
    found: list[UUID] = []
    level = list(parents)
    while level:
        steps = Step.objects.using(using).filter(parent_id__any_of=level)
        level = list(steps.values_list("job_id", flat=True))
        found += level
    return found


def parts_of_others(using: str, ids: Iterable[UUID], going: Container[UUID]) -> set[UUID]:
    """Those of these jobs that are steps of one that stays: its later steps, or a retry, need them."""
    from jobs.models.job import Job

    if not (ids := list(ids)):
        return set()
    steps = Step.objects.using(using).filter(job_id__any_of=ids)
    roots = dict(steps.values_list("job_id", "root_id"))
    there = Job.objects.using(using).filter(pk__any_of=set(roots.values()))
    staying = {pk for pk in there.values_list("pk", flat=True) if pk not in going}
    return {pk for pk, root in roots.items() if root in staying}


def with_open_steps(using: str, ids: Iterable[UUID]) -> set[UUID]:
    """Those of these jobs that have ended while a step of theirs has not."""
    steps = Step.objects.using(using).filter(root_id__any_of=[*ids], job__finished_at=None)
    return set(steps.values_list("root_id", flat=True))


def lock_above(using: str, ids: Iterable[UUID]) -> None:
    """Lock the jobs that these are steps of, at every height, before the steps themselves."""
    from jobs.models.job import Job

    above: set[UUID] = set()
    level = list(ids)
    while level:
        steps = Step.objects.using(using).filter(job_id__any_of=level)
        level = list(set(steps.values_list("parent_id", flat=True)) - above)
        above |= {*level}
    jobs = Job.objects.using(using).filter(pk__any_of=above).order_by("pk")
    list(jobs.select_for_update(no_key=True).values_list("pk", flat=True))


def take_up_again(using: str, ids: Iterable[UUID]) -> list[UUID]:
    """The jobs that these are steps of and that have ended otherwise than well, at every height.

    A step alone would run for nobody, so they are retried with it. One that goes on counts it anew.
    """
    from jobs.models.job import Job

    above: list[UUID] = []
    level = list(ids)
    while level:
        steps = Step.objects.using(using).filter(job_id__any_of=level)
        parents = set(steps.values_list("parent_id", flat=True)) - {*above, *ids}
        jobs = Job.objects.using(using).filter(pk__any_of=parents).order_by("pk")
        rows = jobs.select_for_update(no_key=True).values_list("pk", "state", "unique_key")
        keys = {key for _, _, key in rows if key is not None}
        held = Job.objects.using(using).filter(unique_key__in=keys, finished_at=None)
        taken = {*held.values_list("unique_key", flat=True)} if keys else set()
        level = [pk for pk, state, key in rows if state in RETRYABLE_FROM and key not in taken]
        above += level
    waiting = Step.objects.using(using).filter(job_id__any_of=ids, parent__state=State.WAITING)
    for parent_id in sorted(waiting.values_list("parent_id", flat=True)):
        StepsRun.objects.using(using).filter(pk=parent_id).update(open_steps=F("open_steps") + 1)
    return above


def wake(using: str, parents: Iterable[UUID]) -> None:
    """Let jobs that wait for their steps look what has changed."""
    lock_runs(using, parents := [*parents])
    StepsRun.objects.using(using).filter(job_id__any_of=parents).update(woken_at=Now())
    hint_steps(using)
