"""The words of this API that stand for one of ours, and how times are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.filters import Sort
from jobs.states import State

PENDING, IN_PROGRESS, DONE, FAILED, DEAD = "pending", "in_progress", "done", "failed", "dead"
STATUSES = (PENDING, IN_PROGRESS, DONE, FAILED, DEAD)

# Every stored job is of exactly one sort. `failed` has been tried and waits for the time of its next
# attempt, which is no state of its own.
SORTS: Mapping[str, tuple[Sort, ...]] = {
    PENDING: (Sort(State.BLOCKED), Sort(State.SCHEDULED, is_tried=False), Sort(State.READY)),
    IN_PROGRESS: (Sort(State.RUNNING), Sort(State.WAITING)),
    DONE: (Sort(State.SUCCEEDED),),
    FAILED: (Sort(State.SCHEDULED, is_tried=True),),
    DEAD: (Sort(State.FAILED), Sort(State.CANCELLED), Sort(State.SKIPPED)),
}


def status_of(job: Any) -> str:
    return next(status for status in STATUSES if any(sort.holds(job) for sort in SORTS[status]))


def asked_of(statuses: Iterable[str]) -> dict[str, Any]:
    """The search words that find the jobs of these statuses, and no others; none: of all."""
    wanted = set(statuses)
    if not wanted or wanted == set(STATUSES):
        return {}
    return {
        "sorts": tuple(sort for status in STATUSES if status in wanted for sort in SORTS[status])
    }


def time_to_wire(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
