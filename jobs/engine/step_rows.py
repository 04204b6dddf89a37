"""The rows of jobs made of steps: read under their locks, and written back, many parents at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Q
from django.db.models.functions import Now

from jobs.engine.step_parent import Child, Parent
from jobs.executors.steps import value_of
from jobs.models import Job, Step, StepsRun
from jobs.models.job_queryset import JobQuerySet
from jobs.models.steps_release import lock_runs
from jobs.raw import fetch, fetch_models, read_id
from jobs.sealing import Sealed, SealError, is_sealed, opened
from jobs.states import FINAL, State
from jobs.step_words import STEPS

# Parents that one transaction takes on.
BATCH = 50
# Before a parent whose steps were asked to stop is looked at again, whatever is heard of them.
LOOK_AGAIN_SECONDS = 1.0

_POSTGRES_STARTS = """
UPDATE steps_run AS r SET state = d.state::jsonb, wake_at = 0, open_steps = d.open_steps,
  failed_steps = d.failed_steps, is_watched = d.is_watched, woken_at = clock_timestamp(),
  stop_by = clock_timestamp() + d.seconds * interval '1 second'
FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::int[], %s::bool[], %s::float8[])
     AS d(id, state, open_steps, failed_steps, is_watched, seconds) WHERE r.job_id = d.id
"""
_SQLITE_STARTS = """
UPDATE steps_run AS r SET state = d.state, wake_at = 0, open_steps = d.open_steps,
  failed_steps = d.failed_steps, is_watched = d.is_watched,
  woken_at = strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'),
  stop_by = strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', d.seconds || ' seconds')
FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS open_steps,
             value ->> 3 AS failed_steps, value ->> 4 AS is_watched, value ->> 5 AS seconds
        FROM json_each(%s)) AS d
WHERE r.job_id = d.id
"""
_POSTGRES_RUNS = """
WITH d AS (
  SELECT * FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::int[], %s::float8[], %s::bool[],
                       %s::float8[]) AS d(id, state, wake_at, made, again, is_late, percent)),
shown AS (
  UPDATE job SET progress_percent = d.percent FROM d
   WHERE job.id = d.id AND d.percent IS NOT NULL AND job.state = 'waiting'
     AND job.progress_percent IS DISTINCT FROM d.percent)
UPDATE steps_run AS r SET state = d.state::jsonb, wake_at = d.wake_at, failed_steps = 0,
  open_steps = r.open_steps + d.made,
  woken_at = clock_timestamp() + d.again * interval '1 second',
  stop_by = CASE WHEN d.is_late THEN NULL ELSE r.stop_by END
FROM d WHERE r.job_id = d.id
RETURNING CASE WHEN %s THEN set_config('synchronous_commit', 'off', true) END
"""
_SQLITE_RUNS = """
UPDATE steps_run AS r SET state = d.state, wake_at = d.wake_at, failed_steps = 0,
  open_steps = r.open_steps + d.made,
  woken_at = strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', d.again || ' seconds'),
  stop_by = CASE WHEN d.is_late THEN NULL ELSE r.stop_by END
FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS wake_at, value ->> 3 AS made,
             value ->> 4 AS again, value ->> 5 AS is_late FROM json_each(%s)) AS d
WHERE r.job_id = d.id
"""
_SQLITE_PROGRESS = """
UPDATE job SET progress_percent = d.percent
  FROM (SELECT value ->> 0 AS id, value ->> 1 AS percent FROM json_each(%s)) AS d
 WHERE job.id = d.id AND job.state = 'waiting' AND job.progress_percent IS NOT d.percent
"""


# The reads of each look are written out: to put a query together takes as long as to run it.
_WOKEN = """
SELECT job_id FROM steps_run WHERE woken_at <= {now} ORDER BY woken_at LIMIT %s
"""
_JOBS = "SELECT * FROM job WHERE id {some} ORDER BY id {lock}"
_RUNS = """
SELECT *, COALESCE(stop_by <= {now}, false) AS is_late, {now} AS seen_at FROM steps_run
 WHERE job_id {some} ORDER BY job_id {lock}
"""
_CHILDREN = """
SELECT s.parent_id, s.key, j.state, s.name, s.is_tolerated, j.error
  FROM step AS s JOIN job AS j ON j.id = s.job_id WHERE s.parent_id {some}
"""


def _statement(using: str, text: str, *, skip_locked: bool = False) -> str:
    if connections[using].vendor != "postgresql":
        now = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
        return text.format(now=now, some="IN (SELECT value FROM json_each(%s))", lock="")
    lock = "FOR NO KEY UPDATE" + (" SKIP LOCKED" if skip_locked else "")
    return text.format(now="statement_timestamp()", some="= ANY(%s::uuid[])", lock=lock)


def _some(using: str, ids: Iterable[UUID]) -> list[Any]:
    if connections[using].vendor == "postgresql":
        return [[*ids]]
    return [json.dumps([pk.hex for pk in ids])]


def _rows(using: str, text: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    return fetch(connections[using], _statement(using, text), parameters)


def woken(using: str) -> list[UUID]:
    """Some parents that can go on; a look without any lock."""
    return [read_id(pk) for (pk,) in _rows(using, _WOKEN, [BATCH])]


def lock_woken(using: str, ids: Sequence[UUID]) -> list[Parent]:
    """Those of these parents that can go on, with all that is needed to see how; ours until we commit.

    What another node holds is left to it.
    """
    connection = connections[using]
    statement = _statement(using, _JOBS, skip_locked=True)
    found = fetch_models(Job, connection, statement, _some(using, ids))
    jobs = {job.pk: job for job in found}
    _forget_ended(using, ids, jobs)
    waiting = {pk: job for pk, job in jobs.items() if job.state == State.WAITING}
    if not waiting:
        return []
    parts = [pk for pk, job in waiting.items() if job.has_dependants]
    own = Step.objects.using(using).in_bulk(parts) if parts else {}
    # With those of the jobs they are part of, which hear of their ends: all in one order.
    counters = {*waiting, *(step.parent_id for step in own.values())}
    statement = _statement(using, _RUNS)
    runs = {
        run.pk: run
        for run in fetch_models(StepsRun, connection, statement, _some(using, counters))
        # Looked at under the lock: whoever held it may have taken this one on.
        if run.pk in waiting and run.woken_at is not None
    }
    return _with_context(using, {pk: waiting[pk] for pk in runs}, runs, own)


def _forget_ended(using: str, ids: Sequence[UUID], jobs: Mapping[UUID, Job]) -> None:
    """Wake-ups of jobs that do not wait for steps: they have ended, or are to be started first."""
    idle = [pk for pk in ids if pk in jobs and jobs[pk].state != State.WAITING]
    gone = set(ids) - set(jobs)
    if gone:
        # Locked by others, or deleted.
        there = Job.objects.using(using).filter(pk__in=gone).values_list("pk", flat=True)
        idle += gone - set(there)
    if idle:
        lock_runs(using, idle)
        StepsRun.objects.using(using).filter(pk__in=idle).update(woken_at=None)


def _with_context(
    using: str,
    jobs: Mapping[UUID, Job],
    runs: Mapping[UUID, StepsRun],
    own: Mapping[UUID, Step],
) -> list[Parent]:
    root_ids = {pk: pk if jobs[pk].kind == STEPS else own[pk].root_id for pk in jobs}
    elsewhere = {root for root in root_ids.values() if root not in jobs}
    roots = {**jobs, **(Job.objects.using(using).in_bulk(elsewhere) if elsewhere else {})}
    is_postgresql = connections[using].vendor == "postgresql"
    parents = {}
    for pk, job in jobs.items():
        root = roots[root_ids[pk]]
        run = runs[pk]
        kept, problem = _opened(job.payload)
        of_root, problem_of_root = (kept, problem) if root is job else _opened(root.payload)
        parents[pk] = Parent(
            job=job,
            run=run,
            definition=kept.payload or {},
            step=own.get(pk),
            root=root,
            root_definition=of_root.payload or {},
            masks=tuple(sorted({*kept.masks, *of_root.masks})),
            is_sealed=is_sealed(job.payload) or is_sealed(root.payload),
            problem=problem or problem_of_root,
            is_late=bool(getattr(run, "is_late", False)),
            seen_at=getattr(run, "seen_at", None) if is_postgresql else None,
            results=_once(partial(results_of, using, root.pk)),
        )
    _read_children(using, parents)
    return list(parents.values())


def _opened(stored: Any) -> tuple[Sealed, str | None]:
    """A payload, or why it cannot be read by this node."""
    try:
        return opened(stored), None
    except SealError as error:
        return Sealed(None), str(error)


def _once(read: Callable[[], Mapping[str, Any]]) -> Callable[[], Mapping[str, Any]]:
    kept: list[Mapping[str, Any]] = []

    def reader() -> Mapping[str, Any]:
        if not kept:
            kept.append(read())
        return kept[0]

    return reader


def _read_children(using: str, parents: Mapping[UUID, Parent]) -> None:
    """All of them; of a list's items, which may be many, one that failed where some did."""
    lists = [pk for pk, parent in parents.items() if "each" in parent.definition]
    others = parents.keys() - {*lists}
    rows = _rows(using, _CHILDREN, _some(using, others)) if others else []
    for parent_id, key, state, name, is_tolerated, error in rows:
        child = Child(key, state, name, bool(is_tolerated), error)
        parents[read_id(parent_id)].children.append(child)
    for pk in lists:
        if parents[pk].run.failed_steps:
            stopped = Q(job__state=State.FAILED, is_tolerated=False) | Q(job__state=State.CANCELLED)
            found = Step.objects.using(using).filter(stopped, parent_id=pk).order_by("index")[:1]
            for row in found.values_list("key", "job__state", "name", "is_tolerated", "job__error"):
                parents[pk].failed_child = Child(*row)


def results_of(using: str, root_id: UUID) -> Mapping[str, Any]:
    """`tasks`: what the steps of a job have left in their variables, the latest of each."""
    steps = Step.objects.using(using).filter(root_id=root_id, var__isnull=False)
    rows = steps.filter(job__state=State.SUCCEEDED).order_by("job__finished_at", "job_id")
    values = rows.values_list("var", "job__kind", "job__result")
    return {var: value_of(kind, result) for var, kind, result in values if var}


# -- Writing ---------------------------------------------------------------------------------------


def write_starts(using: str, runs: Sequence[tuple[StepsRun, float]]) -> None:
    """The counters of parents that begin, or begin again, each with its time limit in seconds."""
    connection = connections[using]
    if not runs:
        return
    rows = [
        (
            *(run.pk if connection.vendor == "postgresql" else run.pk.hex, json.dumps(run.state)),
            *(run.open_steps, run.failed_steps, run.is_watched, float(seconds)),
        )
        for run, seconds in runs
    ]
    if connection.vendor == "postgresql":
        columns = [list(column) for column in zip(*rows, strict=True)]
        fetch(connection, _POSTGRES_STARTS, columns)
        return
    with connection.cursor() as cursor:
        cursor.execute(_SQLITE_STARTS, [json.dumps(rows)])


def write_runs(using: str, parents: Sequence[Parent]) -> None:
    """The counters and states of parents as they are after this look."""
    connection = connections[using]
    for parent in parents:
        if parent.has_new_items:
            parent.run.save(using=using, update_fields=["items"])
    if connection.vendor == "postgresql":
        columns: list[Any] = [
            [parent.job.pk for parent in parents],
            [json.dumps(parent.state) for parent in parents],
            [parent.run.wake_at for parent in parents],
            [len(parent.made) for parent in parents],
            [_again_seconds(parent) for parent in parents],
            [_is_past_time(parent) for parent in parents],
            [parent.progress for parent in parents],
            # A crash of the database that undoes a look leaves the parents woken, as they were: only
            # an end, which somebody may have been told of, is worth a wait for the disk.
            not any(parent.ending for parent in parents),
        ]
        fetch(connection, _POSTGRES_RUNS, columns)
        return
    rows = [
        [
            parent.job.pk.hex,
            json.dumps(parent.state),
            parent.run.wake_at,
            len(parent.made),
            _again_seconds(parent),
            int(_is_past_time(parent)),
        ]
        for parent in parents
    ]
    shown = [(p.job.pk, p.progress) for p in parents if p.progress is not None]
    with connection.cursor() as cursor:
        cursor.execute(_SQLITE_RUNS, [json.dumps(rows)])
        if shown:
            cursor.execute(_SQLITE_PROGRESS, [json.dumps([[pk.hex, one] for pk, one in shown])])


def _is_past_time(parent: Parent) -> bool:
    """Nobody need look at the clock for it any more: it ends, or has been told that it is late."""
    return parent.ending is not None or parent.is_late


def _again_seconds(parent: Parent) -> float | None:
    if parent.ending is not None:
        return None
    if parent.again_seconds is not None:
        return parent.again_seconds
    return LOOK_AGAIN_SECONDS if parent.must_stop else None


def let_wait(using: str, node: str, held: Mapping[UUID, int]) -> dict[UUID, Job]:
    """Claimed jobs, by id with their fences, begin to wait; what this node no longer holds does not."""
    jobs: JobQuerySet = Job.objects.using(using)
    rows = jobs.filter(pk__any_of=held, node_id=node, state=State.RUNNING).order_by("pk")
    mine = {
        job.pk: job
        for job in rows.select_for_update(no_key=True).defer("payload")
        if job.fence == held[job.pk]
    }
    jobs.filter(pk__any_of=mine, state=State.RUNNING).update(state=State.WAITING)
    return mine


def postpone(using: str, job_id: UUID, seconds: float) -> None:
    """Let a parent that cannot be taken on rest for a while."""
    runs = StepsRun.objects.using(using).filter(pk=job_id)
    runs.update(woken_at=Now() + timedelta(seconds=seconds))


def wake_late(using: str) -> int:
    """Wake parents that are out of time; returns how many."""
    late = StepsRun.objects.using(using).filter(stop_by__lte=Now(), woken_at=None)
    ids = list(
        late.filter(job__state=State.WAITING)
        .order_by("stop_by")
        .values_list("pk", flat=True)[:BATCH]
    )
    return StepsRun.objects.using(using).filter(pk__in=ids).update(woken_at=Now()) if ids else 0


def open_steps_of(using: str, parent_id: UUID) -> list[UUID]:
    """The steps directly below a job that have not ended."""
    steps = Step.objects.using(using).filter(parent_id=parent_id)
    jobs = Job.objects.using(using).filter(pk__in=steps.values("job_id"), finished_at=None)
    return [pk for pk, state in jobs.values_list("pk", "state") if state not in FINAL]
