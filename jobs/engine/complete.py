"""Complete: what the holder reports becomes the job's next state.

``decide`` holds the rules; the statements write them, for a whole batch at once, and only where the
fence and the node are still those of the report. Result and attempt row go in the same transaction.
A cancel request beats every ending but success.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clusters.policy import ClusterPolicy
from jobs.engine.backoff import full_jitter
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown, sqlite_time
from jobs.states import OnLost, Outcome, Reason, State

MAX_ERROR = 4096


@dataclass(slots=True)
class Report:
    """How one attempt ended, as its node saw it. Times are of ``clock.countdown``."""

    outcome: Outcome
    started_at: float
    finished_at: float
    result: str | None = None  # JSON text
    error: str | None = None
    error_type: str | None = None
    trace: str | None = None
    is_permanent: bool = False
    retry_after_seconds: float | None = None
    effect_unknown: bool = False
    crashed: bool = False  # it took its process down


@dataclass(slots=True)
class Completion:
    """One row of a batch: the next state of a job, and its attempt unless it was never begun."""

    id: str
    fence: int
    node: str
    state: State
    reason: Reason | None = None
    is_held: bool = False
    delay_seconds: float = 0.0
    refund: int = 0
    crash: int = 0
    report: Report | None = None


def decide(job: Claimed, node: str, report: Report, policy: ClusterPolicy) -> Completion:
    """The next state of a job whose attempt ended so."""
    move = Completion(job.id, job.fence, node, State.SUCCEEDED, report=report)
    if report.outcome == Outcome.SUCCEEDED:
        return move
    if report.outcome == Outcome.CANCELLED:
        move.state = State.CANCELLED
        return move
    if report.outcome == Outcome.RELEASED:
        move.state = State.READY
        return move
    if report.outcome == Outcome.LOST or report.effect_unknown:
        return _decide_lost(job, move, report, policy)
    exhausted = report.is_permanent or job.attempts >= job.max_attempts
    if exhausted:
        move.state = State.FAILED
        move.reason = Reason.TIMEOUT if report.outcome == Outcome.TIMEOUT else Reason.ERROR
    else:
        move.state = State.SCHEDULED
        move.delay_seconds = _delay(job.attempts, report, policy)
    return move


def _decide_lost(
    job: Claimed, move: Completion, report: Report, policy: ClusterPolicy
) -> Completion:
    """Nobody knows what the attempt did; the job's author said what follows."""
    move.crash = int(report.crashed)
    move.state = State.FAILED
    known_reason = {Outcome.TIMEOUT: Reason.TIMEOUT, Outcome.FAILED: Reason.ERROR}
    reason = known_reason.get(report.outcome, Reason.LOST)
    if job.crashes + move.crash >= policy.max_crashes:
        move.reason = Reason.POISONED
    elif job.on_lost == OnLost.FAIL:
        move.reason = reason
    elif job.on_lost == OnLost.HOLD:
        move.reason, move.is_held = reason, True
    elif job.attempts >= job.max_attempts or report.is_permanent:
        move.reason = reason
    else:
        move.state = State.SCHEDULED
        # The first loss says nothing against the job: it runs again at once.
        if report.outcome != Outcome.LOST or job.crashes:
            move.delay_seconds = _delay(job.attempts, report, policy)
    return move


def _delay(attempts: int, report: Report, policy: ClusterPolicy) -> float:
    delay = full_jitter(attempts, policy.retry_base_seconds, policy.retry_cap_seconds)
    if report.retry_after_seconds is not None:
        delay = max(delay, min(report.retry_after_seconds, policy.retry_cap_seconds))
    return delay


def hand_back(job: Claimed, node: str) -> Completion:
    """The next state of a job that this node claimed and never began: ready, nothing spent."""
    return Completion(job.id, job.fence, node, State.READY, refund=1)


# A cancel request turns every ending but success into `cancelled`.
_CANCELS = "job.cancel_requested_at IS NOT NULL AND d.state IN ('ready', 'scheduled', 'failed')"
_IS_FINAL = f"d.state IN ('succeeded', 'failed', 'cancelled') OR ({_CANCELS})"

# `state || ''` keeps the planner from reading all that the node holds for each row of the batch.
POSTGRES_CTES = f"""
d AS (
  SELECT * FROM unnest(
    %(d_id)s::uuid[], %(d_fence)s::bigint[], %(d_node)s::uuid[], %(d_state)s::text[],
    %(d_reason)s::text[], %(d_is_held)s::bool[], %(d_delay)s::float8[], %(d_refund)s::int[],
    %(d_crash)s::int[], %(d_result)s::text[], %(d_error)s::text[], %(d_outcome)s::text[],
    %(d_error_type)s::text[], %(d_trace)s::text[], %(d_effect_unknown)s::bool[],
    %(d_started_age)s::float8[], %(d_finished_age)s::float8[])
    AS d(id, fence, node, state, reason, is_held, delay, refund, crash, result, error, outcome,
         error_type, trace, effect_unknown, started_age, finished_age)
), done AS (
  UPDATE job SET
    state = CASE WHEN {_CANCELS} THEN 'cancelled' ELSE d.state END,
    reason = CASE WHEN {_CANCELS} THEN NULL ELSE d.reason END,
    is_held = d.is_held AND NOT ({_CANCELS}),
    finished_at = CASE WHEN {_IS_FINAL} THEN clock_timestamp() END,
    run_at = CASE WHEN d.state = 'scheduled'
                  THEN clock_timestamp() + d.delay * interval '1 second' ELSE job.run_at END,
    started_at = COALESCE(clock_timestamp() - d.started_age * interval '1 second', job.started_at),
    attempts = job.attempts - d.refund, crashes = job.crashes + d.crash,
    result = CASE WHEN d.outcome IS NULL THEN job.result ELSE d.result::jsonb END,
    error = CASE WHEN d.outcome IS NULL THEN job.error ELSE d.error END
  FROM d
  WHERE job.id = d.id AND job.fence = d.fence AND job.node_id = d.node
    AND job.state || '' = 'running'
  RETURNING job.id, job.fence, job.attempts AS number, d.node, d.outcome, d.error_type, d.trace,
            d.effect_unknown, d.started_age, d.finished_age
), history AS (
  INSERT INTO attempt (job_id, fence, number, node_id, outcome, error_type, error,
                       effect_unknown, started_at, finished_at)
  SELECT id, fence, number, node, outcome, error_type, trace, effect_unknown,
         clock_timestamp() - started_age * interval '1 second',
         clock_timestamp() - finished_age * interval '1 second'
    FROM done WHERE outcome IS NOT NULL
)
"""


def postgres_parameters(batch: Sequence[Completion]) -> dict[str, Any]:
    now = countdown()
    reports = [row.report for row in batch]
    return {
        "d_id": [row.id for row in batch],
        "d_fence": [row.fence for row in batch],
        "d_node": [row.node for row in batch],
        "d_state": [row.state.value for row in batch],
        "d_reason": [row.reason.value if row.reason else None for row in batch],
        "d_is_held": [row.is_held for row in batch],
        "d_delay": [row.delay_seconds for row in batch],
        "d_refund": [row.refund for row in batch],
        "d_crash": [row.crash for row in batch],
        "d_result": [r.result if r else None for r in reports],
        "d_error": [_bounded(r.error) if r else None for r in reports],
        "d_outcome": [r.outcome.value if r else None for r in reports],
        "d_error_type": [r.error_type if r else None for r in reports],
        "d_trace": [(r.trace or r.error) if r else None for r in reports],
        "d_effect_unknown": [r.effect_unknown if r else False for r in reports],
        "d_started_age": [now - r.started_at if r else None for r in reports],
        "d_finished_age": [now - r.finished_at if r else None for r in reports],
    }


_SQLITE_D = """
WITH d AS (SELECT value ->> 0 AS id, value ->> 1 AS fence, value ->> 2 AS node,
  value ->> 3 AS state, value ->> 4 AS reason, value ->> 5 AS is_held, value ->> 6 AS run_at,
  value ->> 7 AS refund, value ->> 8 AS crash, value ->> 9 AS result, value ->> 10 AS error,
  value ->> 11 AS outcome, value ->> 12 AS error_type, value ->> 13 AS trace,
  value ->> 14 AS effect_unknown, value ->> 15 AS started_at, value ->> 16 AS finished_at
  FROM json_each(%s))
"""
# The signs keep SQLite from walking the batch once for each job that the node holds: without an index
# on node or state to choose, it goes through the batch and finds each job by its key.
_SQLITE_HELD = """
job.id = d.id AND job.fence = d.fence AND +job.node_id = d.node AND +job.state = 'running'
"""
SQLITE_HISTORY = f"""{_SQLITE_D}
INSERT INTO attempt (job_id, fence, number, node_id, outcome, error_type, error, effect_unknown,
                     started_at, finished_at)
SELECT job.id, job.fence, job.attempts - d.refund, d.node, d.outcome, d.error_type, d.trace,
       d.effect_unknown, d.started_at, d.finished_at
  FROM d CROSS JOIN job WHERE {_SQLITE_HELD} AND d.outcome IS NOT NULL
"""
SQLITE_DONE = f"""{_SQLITE_D}
UPDATE job SET
  state = CASE WHEN {_CANCELS} THEN 'cancelled' ELSE d.state END,
  reason = CASE WHEN {_CANCELS} THEN NULL ELSE d.reason END,
  is_held = d.is_held AND NOT ({_CANCELS}),
  finished_at = CASE WHEN {_IS_FINAL} THEN %s END,
  run_at = COALESCE(d.run_at, job.run_at),
  started_at = COALESCE(d.started_at, job.started_at),
  attempts = job.attempts - d.refund, crashes = job.crashes + d.crash,
  result = CASE WHEN d.outcome IS NULL THEN job.result ELSE d.result END,
  error = CASE WHEN d.outcome IS NULL THEN job.error ELSE d.error END
FROM d WHERE {_SQLITE_HELD}
"""


def sqlite_complete(cursor: Any, batch: Sequence[Completion]) -> int:
    """Write a batch inside the caller's BEGIN IMMEDIATE; returns how many were still held."""
    now = countdown()
    rows = json.dumps([_sqlite_row(row, now) for row in batch])
    cursor.execute(SQLITE_HISTORY, [rows])
    cursor.execute(SQLITE_DONE, [rows, sqlite_time()])
    return int(cursor.rowcount)


def _sqlite_row(row: Completion, now: float) -> list[Any]:
    r = row.report
    return [
        row.id.replace("-", ""),
        row.fence,
        row.node.replace("-", ""),
        row.state.value,
        row.reason.value if row.reason else None,
        int(row.is_held),
        sqlite_time(row.delay_seconds) if row.state == State.SCHEDULED else None,
        row.refund,
        row.crash,
        r.result if r else None,
        _bounded(r.error) if r else None,
        r.outcome.value if r else None,
        r.error_type if r else None,
        (r.trace or r.error) if r else None,
        int(r.effect_unknown) if r else 0,
        sqlite_time(r.started_at - now) if r else None,
        sqlite_time(r.finished_at - now) if r else None,
    ]


def _bounded(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_ERROR else text[:MAX_ERROR]
