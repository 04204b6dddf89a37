"""Complete: what the holder reports becomes the job's next state.

``decide`` holds the rules; the statements write them, for a whole batch at once, and only where the
fence and the node are still those of the report. Result, attempt row, tally and sighting of a failure
go in the same transaction. A cancel request beats every ending but success.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from clusters.policy import ClusterPolicy
from jobs.engine.backoff import full_jitter, spread, wait
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown, sqlite_time
from jobs.fingerprints import fingerprint
from jobs.histogram import POSTGRES_BUCKET, bucket_of
from jobs.states import FINAL, OnLost, Outcome, Reason, State
from jobs.tallies import Tallied, sqlite_tally

MAX_ERROR = 4096
# A job that was asked to come back later more often than this fails like any other.
MAX_THROTTLES = 100


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
    is_throttled: bool = False  # refused for now by what it calls
    crashed: bool = False  # it took its process down
    is_bad_definition: bool = False  # it was never begun, and can never be


class Success(NamedTuple):
    """One row of a batch: a job that succeeded. Nearly all rows are these, so they are small."""

    id: str
    fence: int
    node: str
    started_at: float
    finished_at: float
    result: str | None
    # As it was when it was claimed.
    is_awaited: bool = False


@dataclass(slots=True)
class Completion:
    """One row of a batch: any other next state of a job, with its attempt unless it was never begun."""

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
    is_awaited: bool = False


def decide(job: Claimed, node: str, report: Report, policy: ClusterPolicy) -> Success | Completion:
    """The next state of a job whose attempt ended so."""
    if report.outcome == Outcome.SUCCEEDED:
        times = (report.started_at, report.finished_at)
        return Success(job.id, job.fence, node, *times, report.result, job.is_awaited)
    move = Completion(
        job.id, job.fence, node, State.FAILED, report=report, is_awaited=job.is_awaited
    )
    if report.outcome == Outcome.CANCELLED:
        move.state = State.CANCELLED
        return move
    if report.outcome == Outcome.RELEASED and not report.effect_unknown:
        move.state = State.READY
        return move
    if report.outcome == Outcome.LOST or report.effect_unknown:
        return _decide_lost(job, move, report, policy)
    if report.is_throttled and (job.throttles or 0) < MAX_THROTTLES:
        move.state, move.refund = State.SCHEDULED, 1
        move.delay_seconds = _throttle_delay(job, report, policy)
        return move
    exhausted = report.is_permanent or job.attempts >= job.max_attempts
    if exhausted:
        move.state = State.FAILED
        move.reason = Reason.TIMEOUT if report.outcome == Outcome.TIMEOUT else Reason.ERROR
        if report.is_bad_definition:
            move.reason = Reason.BAD_DEFINITION
    else:
        move.state = State.SCHEDULED
        move.delay_seconds = _delay(job, report, policy)
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
            move.delay_seconds = _delay(job, report, policy)
    return move


def _throttle_delay(job: Claimed, report: Report, policy: ClusterPolicy) -> float:
    """As long as was asked for, else longer with each time; never longer than any wait may be."""
    base, cap = job.retry_base_seconds, job.retry_cap_seconds
    base = policy.retry_base_seconds if base is None else base
    cap = policy.retry_cap_seconds if cap is None else cap
    if report.retry_after_seconds is not None:
        return min(spread(report.retry_after_seconds), cap)
    return full_jitter((job.throttles or 0) + 1, base, cap)


def _delay(job: Claimed, report: Report, policy: ClusterPolicy) -> float:
    base, cap = job.retry_base_seconds, job.retry_cap_seconds
    cap = policy.retry_cap_seconds if cap is None else cap
    base = policy.retry_base_seconds if base is None else base
    delay = wait(job.retry_curve, job.attempts, base, cap)
    if report.retry_after_seconds is not None:
        delay = max(delay, min(report.retry_after_seconds, cap))
    return delay


def hand_back(job: Claimed, node: str) -> Completion:
    """The next state of a job that this node claimed and never began: ready, nothing spent."""
    return Completion(job.id, job.fence, node, State.READY, refund=1, is_awaited=job.is_awaited)


# -- PostgreSQL ------------------------------------------------------------------------------------

# The planner must find each job by its key and then hash the batch, whatever it believes of the table:
# `= ANY` tells it how many rows there are, and what the guard compares with comes from behind OFFSET 0,
# so that it neither reads all that the node holds nor takes the guard for picky and loops over the batch.
# A job that others wait for is left alone here: its end and what follows need a transaction.
_HELD = """
job.id = ANY(%({ids})s::uuid[]) AND job.id = d.id AND job.fence = d.fence
AND job.node_id = d.node AND job.state = d.held
"""
_RUNNING = "'running' AS held"
_GUARDED = f"SELECT *, %(node)s::uuid AS node, {_RUNNING} FROM"
_ALONE = "AND NOT job.has_dependants"
_RUN_BUCKET = POSTGRES_BUCKET.format(seconds="(started_age - finished_age)::float8 / 1e6")
_SUCCESSES = f"""
success AS (
  UPDATE job SET state = 'succeeded', finished_at = clock_timestamp(),
    started_at = clock_timestamp() - d.started_age * interval '1 microsecond',
    result = d.result::jsonb, error = NULL, fingerprint = NULL
  FROM ({_GUARDED} unnest(
    %(s_id)s::uuid[], %(s_fence)s::bigint[], %(s_result)s::text[], %(s_started_age)s::bigint[],
    %(s_finished_age)s::bigint[]) AS u(id, fence, result, started_age, finished_age) OFFSET 0) AS d
  WHERE {_HELD.format(ids="s_id")} {_ALONE}
  RETURNING job.id, job.fence, job.attempts, job.queue, job.type, d.started_age, d.finished_age
), success_history AS (
  INSERT INTO attempt (job_id, fence, number, node_id, outcome, effect_unknown, started_at,
                       finished_at)
  SELECT id, fence, attempts, %(node)s::uuid, 'succeeded', false,
         clock_timestamp() - started_age * interval '1 microsecond',
         clock_timestamp() - finished_age * interval '1 microsecond'
    FROM success
), success_tally AS (
  INSERT INTO tally (minute, queue, type, event, bucket, count)
  SELECT date_trunc('minute', clock_timestamp()), queue, type, 'succeeded',
         {_RUN_BUCKET} AS bucket, count(*)
    FROM success GROUP BY queue, type, bucket
)
"""
# A cancel request turns every ending but success into `cancelled`.
_CANCELS = "job.cancel_requested_at IS NOT NULL AND d.state IN ('ready', 'scheduled', 'failed')"
_IS_FINAL = f"d.state IN ('failed', 'cancelled') OR ({_CANCELS})"
# It was tried, and the attempt is given back.
_IS_THROTTLED = "d.outcome IS NOT NULL AND d.refund > 0"
_EVENT = """
CASE state WHEN 'scheduled' THEN 'retried' WHEN 'ready' THEN 'released' ELSE state END
"""
_MOVES = f"""
d AS (
  {_GUARDED} unnest(
    %(d_id)s::uuid[], %(d_fence)s::bigint[], %(d_state)s::text[], %(d_reason)s::text[],
    %(d_is_held)s::bool[], %(d_delay)s::float8[], %(d_refund)s::int[], %(d_crash)s::int[],
    %(d_result)s::text[], %(d_error)s::text[], %(d_outcome)s::text[], %(d_error_type)s::text[],
    %(d_trace)s::text[], %(d_effect_unknown)s::bool[], %(d_fingerprint)s::text[],
    %(d_started_age)s::bigint[], %(d_finished_age)s::bigint[])
    AS u(id, fence, state, reason, is_held, delay, refund, crash, result, error, outcome,
         error_type, trace, effect_unknown, fingerprint, started_age, finished_age) OFFSET 0
), move AS (
  UPDATE job SET
    state = CASE WHEN {_CANCELS} THEN 'cancelled' ELSE d.state END,
    reason = CASE WHEN {_CANCELS} THEN NULL ELSE d.reason END,
    is_held = d.is_held AND NOT ({_CANCELS}),
    finished_at = CASE WHEN {_IS_FINAL} THEN clock_timestamp() END,
    run_at = CASE WHEN d.state = 'scheduled'
                  THEN clock_timestamp() + d.delay * interval '1 second' ELSE job.run_at END,
    started_at = COALESCE(clock_timestamp() - d.started_age * interval '1 microsecond',
                          job.started_at),
    attempts = job.attempts - d.refund, crashes = job.crashes + d.crash,
    throttles = CASE WHEN {_IS_THROTTLED}
                     THEN COALESCE(job.throttles, 0) + 1 ELSE job.throttles END,
    result = CASE WHEN d.outcome IS NULL THEN job.result ELSE d.result::jsonb END,
    error = CASE WHEN d.outcome IS NULL THEN job.error ELSE d.error END,
    fingerprint = CASE WHEN d.outcome IS NULL THEN job.fingerprint ELSE d.fingerprint END
  FROM d
  WHERE {_HELD.format(ids="d_id")} {_ALONE}
  RETURNING job.id, job.fence, job.attempts, job.queue, job.type, job.state, job.reason,
            d.outcome, d.error_type, d.trace, d.effect_unknown, d.fingerprint, d.started_age,
            d.finished_age
), move_history AS (
  INSERT INTO attempt (job_id, fence, number, node_id, outcome, error_type, error,
                       effect_unknown, started_at, finished_at)
  SELECT id, fence, attempts, %(node)s::uuid, outcome, error_type, trace, effect_unknown,
         clock_timestamp() - started_age * interval '1 microsecond',
         clock_timestamp() - finished_age * interval '1 microsecond'
    FROM move WHERE outcome IS NOT NULL
), move_tally AS (
  INSERT INTO tally (minute, queue, type, event, bucket, reason, outcome, count)
  SELECT date_trunc('minute', clock_timestamp()), queue, type, {_EVENT} AS event,
         {_RUN_BUCKET} AS bucket, reason, outcome, count(*)
    FROM move WHERE outcome IS NOT NULL GROUP BY queue, type, event, bucket, reason, outcome
), sighting AS (
  INSERT INTO failure_sighting (fingerprint, job_id, fence, seen_at)
  SELECT fingerprint, id, fence, clock_timestamp() FROM move WHERE fingerprint IS NOT NULL
)
"""


@cache
def postgres_ctes(
    successes: bool, moves: bool, awaited: bool = False, held: State = State.RUNNING
) -> tuple[str, str]:
    """The parts of a turn's statement that complete, and an expression for how many rows they changed.

    ``awaited``: jobs that others wait for as well; the caller's transaction releases those. ``held``: the
    state that they must be in.
    """
    ctes, counts = [], []
    if successes:
        ctes.append(_SUCCESSES)
        counts.append("(SELECT count(*) FROM success)")
    if moves:
        ctes.append(_MOVES)
        counts.append("(SELECT count(*) FROM move)")
    text = ",".join(ctes).replace(_RUNNING, f"'{held.value}' AS held")
    return (text.replace(_ALONE, "") if awaited else text), " + ".join(counts)


def postgres_parameters(
    node: str, successes: Sequence[Success], moves: Sequence[Completion]
) -> dict[str, Any]:
    """Arrays as literals: the driver takes several times as long to make them from lists."""
    now = countdown()
    parameters: dict[str, Any] = {"node": node}
    if successes:
        parameters |= {
            "s_id": "{" + ",".join([row.id for row in successes]) + "}",
            "s_fence": "{" + ",".join([str(row.fence) for row in successes]) + "}",
            "s_result": _texts([row.result for row in successes]),
            "s_started_age": _ages(now, [row.started_at for row in successes]),
            "s_finished_age": _ages(now, [row.finished_at for row in successes]),
        }
    if moves:
        reports = [row.report for row in moves]
        parameters |= {
            "d_id": [row.id for row in moves],
            "d_fence": [row.fence for row in moves],
            "d_state": [row.state.value for row in moves],
            "d_reason": [row.reason.value if row.reason else None for row in moves],
            "d_is_held": [row.is_held for row in moves],
            "d_delay": [row.delay_seconds for row in moves],
            "d_refund": [row.refund for row in moves],
            "d_crash": [row.crash for row in moves],
            "d_result": [r.result if r else None for r in reports],
            "d_error": [_bounded(r.error) if r else None for r in reports],
            "d_outcome": [r.outcome.value if r else None for r in reports],
            "d_error_type": [r.error_type if r else None for r in reports],
            "d_trace": [(r.trace or r.error) if r else None for r in reports],
            "d_effect_unknown": [r.effect_unknown if r else False for r in reports],
            "d_fingerprint": [_fingerprint(row) for row in moves],
            "d_started_age": [_age(now, r.started_at) if r else None for r in reports],
            "d_finished_age": [_age(now, r.finished_at) if r else None for r in reports],
        }
    return parameters


def _ages(now: float, moments: Iterable[float]) -> str:
    """How long ago, in microseconds."""
    return "{" + ",".join([str(int((now - moment) * 1e6)) for moment in moments]) + "}"


def _age(now: float, moment: float) -> int:
    return int((now - moment) * 1e6)


def _texts(values: Sequence[str | None]) -> str:
    return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in values]) + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# Endings that say that something is wrong with the job or with what it calls.
_FAILURES = (Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST)


def _fingerprint(row: Success | Completion) -> str | None:
    report = None if isinstance(row, Success) else row.report
    if report is None or report.outcome not in _FAILURES:
        return None
    return fingerprint(report.error_type or "", report.error or "", report.trace or "")


# -- SQLite ----------------------------------------------------------------------------------------

_SQLITE_D = """
WITH d AS (SELECT value ->> 0 AS id, value ->> 1 AS fence, value ->> 2 AS node,
  value ->> 3 AS state, value ->> 4 AS reason, value ->> 5 AS is_held, value ->> 6 AS run_at,
  value ->> 7 AS refund, value ->> 8 AS crash, value ->> 9 AS result, value ->> 10 AS error,
  value ->> 11 AS outcome, value ->> 12 AS error_type, value ->> 13 AS trace,
  value ->> 14 AS effect_unknown, value ->> 15 AS started_at, value ->> 16 AS finished_at,
  value ->> 17 AS fingerprint
  FROM json_each(%s))
"""
# The signs keep SQLite from walking the batch once for each job that the node holds: without an index
# on node or state to choose, it goes through the batch and finds each job by its key.
_SQLITE_RUNNING = "+job.state = 'running'"
_SQLITE_HELD = f"""
job.id = d.id AND job.fence = d.fence AND +job.node_id = d.node AND {_SQLITE_RUNNING}
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
  finished_at = CASE WHEN d.state = 'succeeded' OR {_IS_FINAL} THEN %s END,
  run_at = COALESCE(d.run_at, job.run_at),
  started_at = COALESCE(d.started_at, job.started_at),
  attempts = job.attempts - d.refund, crashes = job.crashes + d.crash,
  throttles = CASE WHEN {_IS_THROTTLED}
                   THEN COALESCE(job.throttles, 0) + 1 ELSE job.throttles END,
  result = CASE WHEN d.outcome IS NULL THEN job.result ELSE d.result END,
  error = CASE WHEN d.outcome IS NULL THEN job.error ELSE d.error END,
  fingerprint = CASE WHEN d.outcome IS NULL THEN job.fingerprint ELSE d.fingerprint END
FROM d WHERE {_SQLITE_HELD}
RETURNING job.id, job.queue, job.type, job.state, job.reason, job.has_dependants
"""
_SQLITE_SIGHTINGS = """
INSERT INTO failure_sighting (fingerprint, job_id, fence, seen_at)
SELECT value ->> 0, value ->> 1, value ->> 2, %s FROM json_each(%s)
"""
_EVENTS: dict[str, str] = {State.SCHEDULED: "retried", State.READY: "released"}


def sqlite_complete(
    cursor: Any, batch: Sequence[Success | Completion], held: State = State.RUNNING
) -> tuple[int, list[str]]:
    """Write a batch inside the caller's BEGIN IMMEDIATE; ``held``: the state that they must be in.

    Returns how many were still held, and those that have ended and that other jobs wait for.
    """
    now = countdown()
    by_id = {row.id.replace("-", ""): row for row in batch}
    prints = {job_id: _fingerprint(row) for job_id, row in by_id.items()}
    rows = json.dumps(
        [_sqlite_row(job_id, row, now, prints[job_id]) for job_id, row in by_id.items()]
    )
    state_held = f"+job.state = '{held.value}'"
    cursor.execute(SQLITE_HISTORY.replace(_SQLITE_RUNNING, state_held), [rows])
    statement = SQLITE_DONE.replace(_SQLITE_RUNNING, state_held)
    done = cursor.execute(statement, [rows, sqlite_time()]).fetchall()
    tallies: Counter[Tallied] = Counter()
    sightings = []
    for job_id, queue, type_name, state, reason, _ in done:
        row = by_id[job_id]
        times = row if isinstance(row, Success) else row.report
        if times is None:
            continue
        event = _EVENTS.get(state, state)
        bucket = bucket_of(times.finished_at - times.started_at)
        outcome = None if isinstance(times, Success) else times.outcome.value
        tallies[queue, type_name, event, bucket, reason, outcome] += 1
        if prints[job_id]:
            sightings.append([prints[job_id], job_id, row.fence])
    sqlite_tally(cursor, tallies)
    if sightings:
        cursor.execute(_SQLITE_SIGHTINGS, [sqlite_time(), json.dumps(sightings)])
    ended = [job_id for job_id, _, _, state, _, awaited in done if awaited and state in FINAL]
    return len(done), ended


def _sqlite_row(
    job_id: str, row: Success | Completion, now: float, print_: str | None
) -> list[Any]:
    if isinstance(row, Success):
        state: str = "succeeded"
        ages = [sqlite_time(row.started_at - now), sqlite_time(row.finished_at - now)]
        rest: list[Any] = [None, 0, None, 0, 0, row.result, None, state, None, None, 0, *ages]
        return [job_id, row.fence, row.node.replace("-", ""), state, *rest, None]
    r = row.report
    return [
        job_id,
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
        print_,
    ]


def _bounded(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_ERROR else text[:MAX_ERROR]
