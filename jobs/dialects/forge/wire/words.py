"""The words of this API that stand for one of ours, and how times are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.states import State

PENDING, IN_PROGRESS, DONE, FAILED, DEAD = "pending", "in_progress", "done", "failed", "dead"
STATUSES = (PENDING, IN_PROGRESS, DONE, FAILED, DEAD)

# Of a job that has not been tried yet, or is due again.
_STATUS_OF: Mapping[str, str] = {
    State.BLOCKED: PENDING,
    State.SCHEDULED: PENDING,
    State.READY: PENDING,
    State.RUNNING: IN_PROGRESS,
    State.WAITING: IN_PROGRESS,
    State.SUCCEEDED: DONE,
    State.FAILED: DEAD,
    State.CANCELLED: DEAD,
    State.SKIPPED: DEAD,
}
# `failed` is a job that has been tried and waits for the time of its next attempt; no state of its own.
_STATES_OF: Mapping[str, tuple[State, ...]] = {
    **{
        status: tuple(state for state, word in _STATUS_OF.items() if word == status)  # type: ignore[misc]
        for status in STATUSES
    },
    FAILED: (State.SCHEDULED,),
}


def status_of(state: str, attempts: int) -> str:
    if state == State.SCHEDULED and attempts:
        return FAILED
    return _STATUS_OF[state]


def asked_of(statuses: Iterable[str]) -> dict[str, Any]:
    """The search words that find the jobs of these statuses, and no others; none: of all."""
    wanted = set(statuses)
    if not wanted or wanted == set(STATUSES):
        return {}
    states = dict.fromkeys(state for status in STATUSES for state in _states_of(status, wanted))
    asked: dict[str, Any] = {"state": [str(state) for state in states]}
    if (PENDING in wanted) != (FAILED in wanted):
        asked["awaits_retry"] = FAILED in wanted
    return asked


def _states_of(status: str, wanted: set[str]) -> tuple[State, ...]:
    return _STATES_OF[status] if status in wanted else ()


def time_to_wire(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
