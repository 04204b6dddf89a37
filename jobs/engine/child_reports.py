"""What became of an attempt, by its child's account or by how the child ended.

A child ran foreign code, so it may say anything: what the database could not store is refused here.
"""

from __future__ import annotations

import json
from typing import Any

from jobs.engine.claim import Claimed
from jobs.engine.complete import Report
from jobs.engine.frames import MOST_RETRY_AFTER_SECONDS, BrokenPeer
from jobs.engine.held import Held
from jobs.executors.files_request import may_change
from jobs.sealing import Sealed, SealError, opened
from jobs.states import Outcome

_OUTCOMES = {
    "ok": Outcome.SUCCEEDED,
    "error": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
    "crashed": Outcome.LOST,
}


def report_of(held: Held, row: list[Any], started_at: float, finished_at: float) -> Report:
    """A child's account of an attempt; what we asked for names the kind of stop."""
    outcome = _OUTCOMES[row[1]]
    if outcome == Outcome.CANCELLED:
        report = _stopped(held, started_at, finished_at)
        # Most kinds say no more; who adds something was cut off where nobody can tell.
        report.effect_unknown = report.effect_unknown or len(row) > 4
        return report
    report = Report(outcome, started_at, finished_at, crashed=outcome == Outcome.LOST)
    if len(row) > 4:
        check_texts(*row[4:8])
        if row[9] is not None:
            check_number(row[9], MOST_RETRY_AFTER_SECONDS)
        report.result, report.error_type, report.error, report.trace = row[4:8]
        report.retry_after_seconds = row[9]
        report.is_permanent, report.effect_unknown = bool(row[8]), bool(row[10])
        report.is_throttled, report.is_bad_definition = bool(row[11]), bool(row[12])
    if held.asked == Outcome.TIMEOUT and outcome in (Outcome.FAILED, Outcome.LOST):
        report.outcome = Outcome.TIMEOUT
    return report


def last_report(held: Held, started_at: float, now: float, is_charged: bool, how: str) -> Report:
    if held.asked is not None:
        return _stopped(held, started_at, now)
    return Report(
        Outcome.LOST,
        started_at,
        now,
        error=held.verdict or how,
        error_type="LimitExceeded" if held.verdict else "ProcessDied",
        crashed=is_charged,
    )


def _stopped(held: Held, started_at: float, finished_at: float) -> Report:
    if held.asked == Outcome.TIMEOUT:
        return Report(
            Outcome.TIMEOUT,
            started_at,
            finished_at,
            error=held.complaint,
            error_type="Timeout",
            effect_unknown=_may_have_effect(held.job),
        )
    if held.asked == Outcome.RELEASED:
        return Report(Outcome.RELEASED, started_at, finished_at)
    if held.asked == Outcome.CANCELLED:
        return Report(
            Outcome.CANCELLED, started_at, finished_at, effect_unknown=_may_have_effect(held.job)
        )
    # Nobody asked: the work stopped itself.
    return Report(
        Outcome.FAILED,
        started_at,
        finished_at,
        error="the work cancelled itself",
        error_type="Cancelled",
    )


def _opened(job: Claimed) -> Sealed:
    """The payload; of one that cannot be opened nothing is known."""
    try:
        return opened(json.loads(job.payload or "null"))
    except SealError:
        return Sealed(None)


def _may_have_effect(job: Claimed) -> bool:
    """A request that was cut off may have worked on the other side, unless its method is safe."""
    if job.kind not in ("http", "files"):
        return False
    payload = _opened(job).payload
    if job.kind == "files":
        return may_change(payload)
    method = payload.get("method", "GET") if isinstance(payload, dict) else "GET"
    return str(method).upper() not in ("GET", "HEAD", "OPTIONS")


def check_texts(*values: Any) -> None:
    """Refuse what the database cannot store as text, which would be offered to it for ever."""
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str):
            raise BrokenPeer("a text that is none")
        if not value.isascii():
            value.encode()


def check_number(value: Any, most: float) -> None:
    if not (isinstance(value, (int, float)) and 0 <= value <= most):
        raise BrokenPeer("a number that is none, or out of its range")
