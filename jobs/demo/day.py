"""The jobs of the day that have ended: with their attempts, logs, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from jobs.demo.play import Trouble, Work
from jobs.demo.rows import JobRow
from jobs.demo.stage import MINUTE, Stage
from jobs.states import Outcome, Reason, State

# Shares of jobs that succeed and leave lines; of letters in an outage.
LOGGED, LOGGED_FAILURES = 0.02, 0.08
# Jobs of the full day that ended without a try.
CANCELLED, EXPIRED = 118, 25
# While the queue drains after an outage, letters wait up to so many seconds.
JAM = (31.0, 12.0, 95.0)
TOLD_EVERY = 500


def write(stage: Stage, say: Callable[[int], None]) -> None:
    """Write jobs until there are as many as were wanted."""
    troubled = [*_troubled(stage)]
    others = stage.some(CANCELLED) + stage.some(EXPIRED)
    plain = max(stage.wanted - stage.written - len(troubled) - others, 0)
    coming: list[tuple[datetime, Work, Trouble | None, bool]] = [
        *((at, work, None, False) for at, work in _plain(stage, plain)),
        *troubled,
    ]
    # By their times alone: what else is in them has no order.
    coming.sort(key=lambda one: one[0])
    for number, (at, work, trouble, is_lost) in enumerate(coming):
        if trouble is None:
            _succeed(stage, work, at)
        else:
            _fail(stage, work, trouble, at, is_lost)
        if number % TOLD_EVERY == 0:
            say(stage.written)
    _without_a_try(stage)
    say(stage.written)


def _plain(stage: Stage, number: int) -> Iterator[tuple[datetime, Work]]:
    """When jobs come that succeed: more of them where the day is busy."""
    works = [work for work in stage.play.works if work.share]
    minutes = [stage.begun + MINUTE * index for index in range(1440)]
    busy = [stage.play.hours[minute.hour] for minute in minutes]
    chosen = stage.random.choices(works, [work.share for work in works], k=number)
    times = stage.random.choices(minutes, busy, k=number)
    for at, work in zip(times, chosen, strict=True):
        yield min(at + MINUTE * stage.random.random(), stage.ago(seconds=3)), work


def _troubled(stage: Stage) -> Iterator[tuple[datetime, Work, Trouble, bool]]:
    for trouble in stage.play.troubles:
        work = stage.play.work(trouble.type)
        first, last = stage.ago(minutes=trouble.begun), stage.ago(minutes=trouble.over)
        for count, is_lost in ((trouble.failed, True), (trouble.recovered, False)):
            for _ in range(stage.some(count) if count else 0):
                yield stage.between(max(first, stage.begun), last), work, trouble, is_lost


def _succeed(stage: Stage, work: Work, at: datetime) -> None:
    job = stage.job(work, at)
    _finish_well(stage, work, job, at + _wait(stage, work, at))


def _finish_well(stage: Stage, work: Work, job: JobRow, started_at: datetime) -> None:
    took = stage.takes(work.seconds, work.spread)
    # Nothing of the day ends after it.
    started_at = min(started_at, stage.now - took - timedelta(seconds=1))
    if started_at < job.run_at:
        took = max(stage.now - job.run_at - timedelta(seconds=1), timedelta(milliseconds=1))
        started_at = job.run_at
    ended_at = stage.attempt(job, started_at, took, Outcome.SUCCEEDED)
    if (result := work.result(stage.random)) is not None:
        job.result = json.dumps(result)
    if work.lines and stage.random.random() < LOGGED:
        stage.says(job, started_at, *work.lines, f"done in {took.total_seconds():.3f} s")
    assert job.finished_at == ended_at


def _fail(stage: Stage, work: Work, trouble: Trouble, at: datetime, is_lost: bool) -> None:
    """Try after try, until the last one; or until one goes well."""
    job = stage.job(work, at)
    tries = 1 if trouble.is_permanent or trouble.is_held else work.max_attempts
    if not is_lost:
        tries = stage.random.randrange(1, max(tries, 2))
    actor = stage.dead if trouble.outcome == Outcome.LOST else None
    started_at = at + _wait(stage, work, at)
    for number in range(1, tries + 1):
        took = stage.takes(work.seconds, 0.3)
        if trouble.outcome == Outcome.TIMEOUT:
            took = timedelta(seconds=work.timeout)
        if actor is not None and actor.ended_at is not None:
            started_at, took = actor.ended_at - took / 2, took / 2 + timedelta(seconds=30)
        ended_at = stage.attempt(
            job,
            started_at,
            took,
            trouble.outcome,
            trouble=trouble,
            is_last=is_lost and number == tries,
            actor=actor,
        )
        if stage.random.random() < LOGGED_FAILURES or trouble.failed < 100:
            stage.says(job, started_at, *work.lines[:1], f"attempt {number} of {work.max_attempts}")
            stage.says(job, ended_at, job.error or "failed", level="error")
        # Full jitter, longer each time.
        started_at = ended_at + timedelta(seconds=stage.random.uniform(1, 15 * 2**number))
        if not (is_lost and number == tries):
            job.run_at = started_at
    if is_lost:
        if trouble.outcome == Outcome.LOST:
            job.crashes = 1
        job.is_held = trouble.is_held
        return
    _finish_well(stage, work, job, started_at + stage.takes(0.03))


def _wait(stage: Stage, work: Work, at: datetime) -> timedelta:
    """How long a job that is due waits for a node."""
    busy = stage.play.load_at(at)
    wait = stage.takes(0.02 + 0.06 * busy**3, 0.7)
    begun, over, longest = JAM
    ago = (stage.now - at).total_seconds() / 60
    if work.queue == "mail" and stage.play.drains >= 0 and over < ago < begun:
        wait += timedelta(seconds=longest * (ago - over) / (begun - over) * stage.random.random())
    return wait


def _without_a_try(stage: Stage) -> None:
    """Jobs that somebody cancelled together, and some that came too late to be of use."""
    first = stage.play.works[0]
    at = stage.ago(hours=4, minutes=10)
    for _ in range(stage.some(CANCELLED)):
        job = stage.job(first, at - timedelta(seconds=stage.random.uniform(5, 600)))
        job.cancel_requested_at = at
        stage.ended(job, at, State.CANCELLED)
    last = stage.play.works[2]
    for _ in range(stage.some(EXPIRED)):
        born = stage.between(stage.ago(hours=9), stage.ago(hours=8))
        job = stage.job(last, born, expires_at=born + timedelta(minutes=10))
        job.error = "not started before it expired"
        stage.ended(job, born + timedelta(minutes=10, seconds=1), State.FAILED, Reason.EXPIRED)
