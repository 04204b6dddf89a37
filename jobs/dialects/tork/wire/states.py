"""Our states in the words of this API, and its words as searches know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.executors import CONDUCTED
from jobs.states import State

JOB_STATES: Mapping[str, str] = {
    State.BLOCKED: "PENDING",
    State.SCHEDULED: "PENDING",
    State.READY: "PENDING",
    # Claimed, and no task of it is made yet.
    State.RUNNING: "SCHEDULED",
    State.WAITING: "RUNNING",
    State.SUCCEEDED: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
    State.SKIPPED: "CANCELLED",
}
TASK_STATES: Mapping[str, str] = {
    # Waits for its next try.
    State.SCHEDULED: "PENDING",
    State.BLOCKED: "CREATED",
    State.READY: "SCHEDULED",
    State.RUNNING: "RUNNING",
    State.WAITING: "RUNNING",
    State.SUCCEEDED: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
    State.SKIPPED: "SKIPPED",
}
# Of tasks: nothing of them has begun.
WAITING = ("CREATED", "PENDING", "SCHEDULED")
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
_STEMS = {
    "PENDING": ("pend", "pending"),
    "SCHEDULED": ("schedul", "scheduled", "schedule", "schedules", "scheduling"),
    "RUNNING": ("run", "running", "runs"),
    "COMPLETED": ("complet", "completed", "complete", "completes", "completing"),
    "FAILED": ("fail", "failed", "fails", "failing"),
    "CANCELLED": ("cancel", "cancelled", "canceled", "cancels", "cancelling"),
}
# Words of searches that may mean the state of a job: as it is stemmed, so are they.
STATES_OF_WORDS: Mapping[str, Sequence[str]] = {
    word: [state for state, shown in JOB_STATES.items() if shown == name]
    for name, words in _STEMS.items()
    for word in words
}


def task_state(kind: str, state: str) -> str:
    if kind in CONDUCTED and state in (State.READY, State.SCHEDULED):
        # Tasks that are made of others are in no queue.
        return "RUNNING"
    return TASK_STATES[state]
