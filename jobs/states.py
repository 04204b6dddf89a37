"""The states of a job and the moves between them.

            (dependencies)                 (due)                   (claim)
 enqueue -> blocked ------> scheduled --------------> ready ------------------> running -> succeeded
                 |              ^                                               |   | |
                 |              | retry later                                   |   | +--> failed
                 v              |                 (steps)                       v   +----> cancelled
              skipped/failed    +------------------------------------------- waiting -> succeeded,
                 (rule)                                                                 failed, cancelled

`blocked` waits for other jobs, `scheduled` is not due yet, `ready` may be claimed, `running` is held
by one node under one fence, `waiting` is a job whose steps run, which no node holds and which goes on
without a claim. The other four are final. A person
may bring `failed`, `cancelled` and `skipped` jobs back to `ready`, or to `scheduled` where many are
spread over time; nothing else leaves a final state.
"""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED)
# Not started, so a cancel needs nobody's consent.
UNSTARTED = (State.BLOCKED, State.SCHEDULED, State.READY)
# Somebody works for it, and is asked to stop.
STOPPABLE = (State.RUNNING, State.WAITING)
RETRYABLE_FROM = (State.FAILED, State.CANCELLED, State.SKIPPED)

MOVES: dict[State, tuple[State, ...]] = {
    State.BLOCKED: (State.SCHEDULED, State.READY, State.SKIPPED, State.FAILED, State.CANCELLED),
    # `skipped` where the run of a workflow stops before them
    State.SCHEDULED: (State.READY, State.CANCELLED, State.FAILED, State.SKIPPED),
    State.READY: (
        State.RUNNING,
        State.CANCELLED,
        State.FAILED,
        State.SKIPPED,
        State.SCHEDULED,  # put off while its schedule may not start
    ),
    State.RUNNING: (
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
        State.SCHEDULED,  # retry later, lost
        State.READY,  # handed back unstarted, released by a drain
        State.WAITING,
    ),
    State.WAITING: (
        State.READY,
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
        State.SCHEDULED,  # to be taken up again later, where it has attempts left
    ),
    State.SUCCEEDED: (),
    # `scheduled` where many are retried and spread over time
    State.FAILED: (State.READY, State.SCHEDULED),
    State.CANCELLED: (State.READY, State.SCHEDULED),
    State.SKIPPED: (State.READY, State.SCHEDULED),
}


class Reason(models.TextChoices):
    """Why a job failed."""

    ERROR = "error"  # the work failed, for good or on its last attempt
    TIMEOUT = "timeout"  # it ran out of time and is dead, no attempt left
    LOST = "lost"  # the node or child that ran it is gone
    EXPIRED = "expired"  # not started in time
    DEPENDENCY = "dependency"  # a job it waited for failed
    POISONED = "poisoned"  # it took its process down too often
    BAD_DEFINITION = "bad_definition"  # it can never run


class Outcome(models.TextChoices):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"
    RELEASED = "released"  # stopped by its node, which asks for another attempt


class OnLost(models.TextChoices):
    """What follows when the node or the child that ran a job is gone."""

    RETRY = "retry"
    FAIL = "fail"
    HOLD = "hold"  # fail, and wait for a person


class Trigger(models.TextChoices):
    """What made a job of a schedule, or a run of a workflow."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    RETRY = "retry"
    WORKFLOW = "workflow"


class WaitsFor(models.TextChoices):
    """What a blocked job of a schedule waits for, beside other jobs."""

    SCHEDULES = "schedules"  # those that its schedule depends on must succeed first
    RUN = "run"  # the run before it must end
