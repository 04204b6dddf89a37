"""Release: jobs have ended, and those that wait for them are told in the same transaction.

An edge is closed once, by the transaction in which its parent ended, and the child's counter is lowered
under the child's row lock; siblings are never counted. Children are locked in the order of their ids.
Those that end by their rule have children of their own: the walk keeps one page of them per level.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.hints import hint_ready
from jobs.models.dependency import Needs, OnParentFailure
from jobs.models.rollup import Event
from jobs.raw import fetch
from jobs.states import FINAL, Reason, State
from jobs.tallies import count

# Edges that are closed by one statement.
PAGE = 5000
# What becomes of a child, beside the two states it may end in.
_FREE = "free"
# How jobs are counted that end without an attempt.
_EVENTS: dict[str, str] = {
    State.FAILED: Event.FAILED.value,
    State.CANCELLED: Event.CANCELLED.value,
    State.SKIPPED: Event.SKIPPED.value,
}

_POSTGRES_NOW = "clock_timestamp()"
_SQLITE_NOW = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"

_POSTGRES_SOME = "= ANY(%({name})s::uuid[])"
_SQLITE_SOME = "IN (SELECT value FROM json_each(%({name})s))"

_ENDED = "SELECT id, state, schedule_id FROM job WHERE id {some} AND finished_at IS NOT NULL"
_CLOSE = """
UPDATE job_dependency SET satisfied_at = {now}
 WHERE satisfied_at IS NULL AND (child_id, parent_id) IN (
   SELECT child_id, parent_id FROM job_dependency
    WHERE satisfied_at IS NULL AND parent_id {parents}
      AND (parent_id, child_id) > (%(after_parent)s, %(after_child)s) {children}
    ORDER BY parent_id, child_id LIMIT %(page)s)
RETURNING child_id, parent_id, needs, on_failure
"""
# `state || ''` hides the guard from the partial indexes: it is the primary key that finds the rows.
_LOCK = """
SELECT id FROM job WHERE id = ANY(%(children)s::uuid[]) AND state || '' = 'blocked'
 ORDER BY id FOR NO KEY UPDATE
"""
# Who will be told, and of whom that may mean the end, so that those who wait for them are told as well.
_LOCK_ALL = """
WITH RECURSIVE told(id, ends) AS (
  SELECT id, id = ANY(%(ending)s::uuid[]) FROM unnest(%(ids)s::uuid[]) AS r(id)
  UNION
  SELECT e.child_id, told.ends AND e.on_failure <> 'run'
    FROM told JOIN job_dependency AS e ON e.parent_id = told.id AND e.satisfied_at IS NULL
   WHERE told.ends OR told.id = ANY(%(ids)s::uuid[]))
SELECT id FROM job WHERE id = ANY(ARRAY(SELECT id FROM told LIMIT %(limit)s))
 ORDER BY id FOR NO KEY UPDATE
"""
_OUTCOME = "COALESCE(d.at_once, CASE WHEN job.pending_dependencies <= d.closed THEN d.at_zero END)"
_TELL = f"""
UPDATE job SET
  state = CASE {_OUTCOME} WHEN 'failed' THEN 'failed' WHEN 'skipped' THEN 'skipped'
          WHEN '{_FREE}' THEN CASE WHEN job.run_at > {{now}} THEN 'scheduled' ELSE 'ready' END
          ELSE job.state END,
  reason = CASE {_OUTCOME} WHEN 'failed' THEN 'dependency' END,
  error = CASE {_OUTCOME} WHEN 'failed' THEN d.told ELSE job.error END,
  finished_at = CASE WHEN {_OUTCOME} IN ('failed', 'skipped') THEN {{now}} END,
  pending_dependencies = CASE WHEN {_OUTCOME} IS NULL
                              THEN job.pending_dependencies - d.closed ELSE 0 END
FROM d WHERE job.id = d.child AND job.state || '' = 'blocked'
RETURNING id, state, queue, type, has_dependants, schedule_id
"""
_POSTGRES_TELL = f"""
WITH d AS (
  SELECT * FROM unnest(%(child)s::uuid[], %(closed)s::int[], %(at_once)s::text[],
                       %(at_zero)s::text[], %(told)s::text[])
           AS d(child, closed, at_once, at_zero, told))
{_TELL.format(now=_POSTGRES_NOW)}
"""
_SQLITE_TELL = f"""
WITH d AS (
  SELECT value ->> 0 AS child, value ->> 1 AS closed, value ->> 2 AS at_once,
         value ->> 3 AS at_zero, value ->> 4 AS told FROM json_each(%(rows)s))
{_TELL.format(now=_SQLITE_NOW)}
"""


# A job and its state, queue, type, whether others wait for it, and the schedule that made it.
_Told = tuple[UUID, str, str, str, bool, object]


@dataclass(slots=True)
class _Verdict:
    """What closed edges mean for one child."""

    closed: int = 0
    at_once: str | None = None
    at_zero: str = _FREE
    told: str | None = None


@dataclass(slots=True)
class _Level:
    """Parents that have ended, and how far their edges have been closed."""

    states: dict[UUID, str]
    after: tuple[UUID, UUID] = (UUID(int=0), UUID(int=0))


def release(
    using: str, ended_ids: Iterable[UUID | str], *, children: Iterable[UUID] | None = None
) -> int:
    """Close the edges of jobs that have ended and move who waited; returns how many were moved.

    Call it in the transaction that ended the jobs. ``children``: only the edges of these.
    """
    connection = connections[using]
    some = _POSTGRES_SOME if connection.vendor == "postgresql" else _SQLITE_SOME
    statement = _ENDED.format(some=some.format(name="ids"))
    rows = fetch(connection, statement, {"ids": _ids(connection, _as_uuids(ended_ids))})
    runs = [_uuid(pk) for pk, _, schedule_id in rows if schedule_id is not None]
    states = {_uuid(pk): state for pk, state, _ in rows}
    return release_ended(using, states, children=children, runs=runs)


def release_ended(
    using: str,
    states: dict[UUID, str],
    *,
    children: Iterable[UUID] | None = None,
    runs: Iterable[UUID] = (),
) -> int:
    """The same for parents whose final states are known; ``runs`` are those that schedules made."""
    from jobs.models.runs import settle
    from jobs.models.steps_release import settle_steps

    # New children of parents that ended long ago: nobody has to be told of that again.
    is_attaching = children is not None
    connection = connections[using]
    moved = 0
    levels = [_Level(states)] if states else []
    ended_runs, all_ended = set(runs), dict(states)
    while levels:
        level = levels[-1]
        edges = _close(connection, level, children)
        children = None  # whoever ends by a rule is told of with all his edges
        if len(edges) < PAGE:
            levels.pop()
        else:
            level.after = max((parent, child) for child, parent, _, _ in edges)
        if not edges:
            continue
        told = _tell(connection, _verdicts(edges, level.states))
        _leave_traces_of_rules(using, told)
        moved += sum(state != State.BLOCKED for _, state, *_ in told)
        ended = {pk: state for pk, state, _, _, waited, _ in told if waited and state in FINAL}
        if ended:
            levels.append(_Level(ended))
            all_ended |= ended
            ended_runs |= {pk for pk, *_, made_by in told if pk in ended and made_by}
    if ended_runs and not is_attaching:
        settle(using, ended_runs)
    if all_ended and not is_attaching:
        settle_steps(using, all_ended)
    return moved


def lock_all(using: str, ids: Iterable[UUID | str], *, ending: Iterable[UUID | str] = ()) -> None:
    """Lock jobs that are about to end and all whom that moves, in the order of their ids.

    ``ending``: those that will not succeed. Whoever would lock the children only when he holds their
    parents could wait for somebody who holds a child and waits for one of those parents. A graph that
    is larger than a page is locked as far as that, and the rest of it on the way.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    parameters: dict[str, Any] = {"ids": list(ids), "ending": list(ending), "limit": PAGE}
    fetch(connection, _LOCK_ALL, parameters)


def _close(
    connection: BaseDatabaseWrapper, level: _Level, children: Iterable[UUID] | None
) -> list[tuple[UUID, UUID, str, str]]:
    """Close one page of open edges; nobody but the transaction that ended a parent closes its edges."""
    is_postgresql = connection.vendor == "postgresql"
    some = _POSTGRES_SOME if is_postgresql else _SQLITE_SOME
    statement = _CLOSE.format(
        now=_POSTGRES_NOW if is_postgresql else _SQLITE_NOW,
        parents=some.format(name="parents"),
        children="" if children is None else f"AND child_id {some.format(name='children')}",
    )
    parameters = {
        "parents": _ids(connection, level.states),
        "children": _ids(connection, children or ()),
        "after_parent": _id(connection, level.after[0]),
        "after_child": _id(connection, level.after[1]),
        "page": PAGE,
    }
    rows = fetch(connection, statement, parameters)
    return [(_uuid(child), _uuid(parent), needs, rule) for child, parent, needs, rule in rows]


def _verdicts(
    edges: Sequence[tuple[UUID, UUID, str, str]], states: dict[UUID, str]
) -> dict[UUID, _Verdict]:
    verdicts: dict[UUID, _Verdict] = {}
    for child, parent, needs, rule in edges:
        verdict = verdicts.setdefault(child, _Verdict())
        verdict.closed += 1
        if states[parent] == State.SUCCEEDED:
            if needs == Needs.ANY:
                verdict.at_once = _FREE
        elif rule != OnParentFailure.RUN:
            what = "failed" if rule == OnParentFailure.FAIL else "skipped"
            told = f"the job it waited for, {parent}, ended as {states[parent]}"
            if needs == Needs.ANY:
                # As long as another parent may yet succeed, this says nothing.
                verdict.at_zero, verdict.told = what, f"{told}, and none before it succeeded"
            elif verdict.at_once != "failed":
                verdict.at_once, verdict.told = what, told
    return verdicts


def _tell(connection: BaseDatabaseWrapper, verdicts: dict[UUID, _Verdict]) -> list[_Told]:
    """Lower the counters and move whom that frees or ends; who no longer waits is left alone."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_LOCK, {"children": list(verdicts)})
            blocked = [pk for (pk,) in cursor.fetchall()]
            locked = [verdicts[pk] for pk in blocked]
            if not blocked:
                return []
            cursor.execute(
                _POSTGRES_TELL,
                {
                    "child": blocked,
                    "closed": [verdict.closed for verdict in locked],
                    "at_once": [verdict.at_once for verdict in locked],
                    "at_zero": [verdict.at_zero for verdict in locked],
                    "told": [verdict.told for verdict in locked],
                },
            )
        else:
            told = [[pk.hex, v.closed, v.at_once, v.at_zero, v.told] for pk, v in verdicts.items()]
            cursor.execute(_SQLITE_TELL, {"rows": json.dumps(told)})
        return [(_uuid(pk), *rest) for pk, *rest in cursor.fetchall()]


def _leave_traces_of_rules(using: str, told: Sequence[_Told]) -> None:
    ended = [(q, type_, _EVENTS[s], 1) for _, s, q, type_, *_ in told if s in _EVENTS]
    count(using, ended, reason=Reason.DEPENDENCY.value)
    if ready := {queue for _, state, queue, *_ in told if state == State.READY}:
        hint_ready(using, ready)


def leave_traces(
    using: str, rows: Sequence[Any], state: State, reason: Reason | None = None
) -> None:
    """What follows when jobs end without an attempt: a tally, and word to those who wait for them.

    The rows have the pk, queue, type, has_dependants and schedule_id of jobs that this transaction put
    into ``state``, for this reason where they failed.
    """
    ended = [(row.queue, row.type, _EVENTS[state], 1) for row in rows]
    count(using, ended, reason=None if reason is None else reason.value)
    waited_for = [row for row in rows if row.has_dependants]
    runs = [row.pk for row in waited_for if row.schedule_id is not None]
    release_ended(using, {row.pk: state for row in waited_for}, runs=runs)


def _as_uuids(ids: Iterable[UUID | str]) -> list[UUID]:
    return [_uuid(one) for one in ids]


def _ids(connection: BaseDatabaseWrapper, ids: Iterable[UUID]) -> Any:
    return list(ids) if connection.vendor == "postgresql" else json.dumps([pk.hex for pk in ids])


def _id(connection: BaseDatabaseWrapper, pk: UUID) -> Any:
    return pk if connection.vendor == "postgresql" else pk.hex


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
