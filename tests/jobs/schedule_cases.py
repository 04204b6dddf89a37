"""Schedules for tests: made through the verbs, and put back in time where they have to be due."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import fires, schedules
from jobs.models import Fire, Job, Schedule
from jobs.states import State
from tests.factories import make_node

USING = "cluster-alpha"
POLICY = ClusterPolicy()
# Of an hour: no test begins later than in this second of its last minute.
LAST_SECOND = 57
_names = iter(range(1, 10**9))
# The minute of the hour at which hourly schedules run: half an hour from now, both ways.
_turn = 30


def keep_away_from_the_turn() -> None:
    """Let no hourly schedule be due while the test that begins goes on, nor just before it.

    Nor does a test begin in the last seconds of an hour: what it counts for this hour or day would
    be looked for in the next one.
    """
    global _turn
    now = timezone.now()
    if now.minute == 59 and now.second >= LAST_SECOND:
        time.sleep(60 - now.second)
    _turn = (timezone.now().minute + 30) % 60


def hourly() -> str:
    """The expression of an hourly schedule, all of whose runs are well away from now."""
    return f"{_turn} * * * *"


def make_schedule(**values: Any) -> Schedule:
    """An hourly schedule of a job that does nothing, unless the values say otherwise."""
    depends_on = values.pop("depends_on", ())
    given = {"name": f"schedule {next(_names)}", "type": "demo:noop", **values}
    if "timing" not in given:
        given = {"timing": "cron", "expression": hourly(), **given}
    return schedules.create(given, by="test", depends_on=depends_on)


def put_back(schedule: Schedule, due_at: datetime) -> None:
    """Let the next run have been due at a moment of the past, as if no node had been there."""
    Schedule.objects.filter(pk=schedule.pk).update(
        next_due_at=due_at, next_run_at=due_at, accounted_until=due_at - timedelta(microseconds=1)
    )


def hours_ago(count: float) -> datetime:
    """The last instant of an hourly schedule that is at least so many hours ago."""
    now = timezone.now().astimezone(UTC)
    turn = now.replace(minute=_turn, second=0, microsecond=0)
    return turn - timedelta(hours=count + (turn > now))


def fire() -> int:
    return fires.fire_due(USING, POLICY)


def runs_of(schedule: Schedule) -> list[Job]:
    return list(Job.objects.filter(schedule_id=schedule.pk).order_by("due_at", "created_at"))


def fires_of(schedule: Schedule) -> list[tuple[str, str | None, int]]:
    rows = Fire.objects.filter(schedule=schedule).order_by("due_at")
    return [(row.state, row.reason, row.count) for row in rows]


def begin_run(job: Job) -> None:
    """Let a node have taken it."""
    Job.objects.filter(pk=job.pk).update(
        state=State.RUNNING, fence=1, node_id=make_node().pk, started_at=timezone.now()
    )


def end_run(job: Job, state: str = State.SUCCEEDED) -> None:
    """End a run as its node would."""
    from django.db import transaction

    from jobs.models.release import release

    reason = "error" if state == State.FAILED else None
    with transaction.atomic(using=USING):
        Job.objects.filter(pk=job.pk).update(
            state=state, reason=reason, finished_at=timezone.now(), waits_for=None
        )
        release(USING, [job.pk])
