"""The stage: the seed, the clock, the nodes of the day, and all rows on their way into the database.

Whatever happens to a job is said here once, and is counted where the engine would count it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings

from clusters.models import Node, NodeStatus
from jobs.demo.play import Play, Trouble, Work
from jobs.demo.rows import (
    ATTEMPT,
    JOB,
    LINE,
    METADATA,
    SIGHTING,
    TAG,
    TALLY,
    JobRow,
    put,
    values_of_job,
)
from jobs.engine.upkeep import duties
from jobs.fingerprints import fingerprint
from jobs.histogram import bucket_of
from jobs.models import HostSample, Job, Queue, UpkeepDuty
from jobs.models.job_listing import metadata_value
from jobs.states import Outcome, Reason, State

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# Nodes that look alive are so for this long without anybody behind them; then their work goes to others.
LEASE = timedelta(minutes=15)
OLD_VERSION = "0.0.9"
FLUSHED_AT = 4000
_FINAL = {"succeeded", "failed", "cancelled", "skipped"}


class Actor(NamedTuple):
    """A node as the day saw it."""

    pk: UUID
    host: str
    version: str
    started_at: datetime
    ended_at: datetime | None = None
    is_dead: bool = False
    drains: bool = False


class Stage:
    def __init__(self, using: str, play: Play, jobs: int, seed: int, now: datetime) -> None:
        self.using, self.play, self.now = using, play, now
        self.begun = now - DAY
        self.wanted = jobs
        # Of the full day; smaller ones have less of everything.
        self.scale = min(1.0, jobs / play.jobs)
        # A demo is to be the same for the same seed, and keeps no secret.
        self.random = random.Random(f"{seed}-{play.name}")  # noqa: S311
        # A second day in the same cluster has ids of its own.
        latest = (
            Job.objects.using(using).order_by("-created_at", "-id").values_list("pk", flat=True)
        )
        self._ids = random.Random(f"{seed}-{play.name}-{latest.first()}")  # noqa: S311
        self.actors: list[Actor] = []
        self.written = 0
        self._jobs: list[JobRow] = []
        self._attempts: list[Sequence[Any]] = []
        self._lines: list[Sequence[Any]] = []
        self._tags: list[Sequence[Any]] = []
        self._metadata: list[Sequence[Any]] = []
        self._sightings: list[Sequence[Any]] = []
        self._tallies: Counter[tuple[Any, ...]] = Counter()

    # -- Small things -----------------------------------------------------------------------------

    def ago(self, **length: float) -> datetime:
        return self.now - timedelta(**length)

    def some(self, number: int, least: int = 1) -> int:
        """So many of the full day, fewer in a smaller one."""
        return max(least, round(number * self.scale))

    def id_at(self, moment: datetime) -> UUID:
        """An id that begins with its time, as the engine's do."""
        milliseconds = int(moment.timestamp() * 1000)
        chance = self._ids.getrandbits(74)
        high, low = chance >> 62, chance & ((1 << 62) - 1)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)

    def takes(self, median: float, spread: float = 0.5) -> timedelta:
        """Some length of time about this many seconds."""
        return timedelta(seconds=median * self.random.lognormvariate(0.0, spread))

    def between(self, first: datetime, last: datetime) -> datetime:
        return first + (last - first) * self.random.random()

    def node_at(self, moment: datetime) -> Actor:
        """A node that took jobs then."""
        alive = [
            one
            for one in self.actors
            if one.started_at <= moment and (one.ended_at is None or moment < one.ended_at)
        ]
        return self.random.choice(alive or self.actors)

    @property
    def living(self) -> list[Actor]:
        return [one for one in self.actors if one.ended_at is None]

    @property
    def dead(self) -> Actor:
        return next(one for one in self.actors if one.is_dead)

    # -- Scenery ----------------------------------------------------------------------------------

    def build(self) -> None:
        """Queues, nodes, hosts, and upkeep that is done in time."""
        for line in self.play.queues:
            about = dict(line.about)
            if line.paused_for is not None:
                at = self.now - line.paused_for
                about |= {"is_paused": True, "paused_at": at, "paused_by": line.paused_by}
                about |= {"pause_reason": line.pause_reason}
                about |= {"resume_at": self.now + line.resumes_in if line.resumes_in else None}
            Queue.objects.using(self.using).update_or_create(name=line.name, defaults=about)
        self._make_nodes()
        self._make_samples()
        UpkeepDuty.objects.using(self.using).bulk_create(
            [
                UpkeepDuty(
                    name=duty.name,
                    last_started_at=self.ago(seconds=2),
                    last_finished_at=self.ago(seconds=1),
                    last_count=0,
                )
                for duty in duties()
            ],
            ignore_conflicts=True,
        )

    def _make_nodes(self) -> None:
        """Those of the version before, ended by a roll-out; those of today: one died, one drains."""
        rolled_out = self.ago(hours=6, minutes=12)
        hosts = [f"{self.play.host}-{number}" for number in range(1, self.play.nodes + 1)]
        for number, host in enumerate(hosts):
            turn = rolled_out + number * timedelta(minutes=3)
            begun = self.begun - timedelta(days=5, minutes=7 * number)
            self.actors.append(Actor(self.id_at(begun), host, OLD_VERSION, begun, turn))
            fresh = turn + timedelta(seconds=40)
            if number == self.play.dies:
                died = self.ago(hours=2, minutes=5)
                dead = Actor(self.id_at(fresh), host, settings.VERSION, fresh, died, is_dead=True)
                self.actors.append(dead)
                fresh = died + timedelta(minutes=4)
            drains = number == self.play.drains
            actor = Actor(self.id_at(fresh), host, settings.VERSION, fresh, drains=drains)
            self.actors.append(actor)
        Node.objects.using(self.using).bulk_create([self._node(one) for one in self.actors])

    def _node(self, actor: Actor) -> Node:
        is_over = actor.ended_at is not None
        beat = actor.ended_at or self.ago(seconds=2)
        status = NodeStatus.DRAINING if actor.drains else NodeStatus.LIVE
        if is_over:
            status = NodeStatus.DEAD if actor.is_dead else NodeStatus.CLOSED
        return Node(
            id=actor.pk,
            host=actor.host,
            pid=1000 + self.random.randrange(30_000),
            version=actor.version,
            status=status,
            kinds=["container", "files", "http", "procedure", "python", "shell", "steps"],
            types=sorted({work.type for work in self.play.works if work.kind == "python"}),
            concurrency=self.play.slots,
            io_concurrency=2 * self.play.slots,
            cpu_percent=round(self.random.uniform(18, 64), 1),
            memory_bytes=round(self.random.uniform(180, 420) * (1 << 20)),
            clock_skew_seconds=round(self.random.gauss(0, 0.01), 4),
            started_at=actor.started_at,
            heartbeat_at=beat,
            lease_until=beat + (timedelta(seconds=30) if is_over else LEASE),
            drain_requested_at=self.ago(minutes=11) if actor.drains else None,
            closed_at=actor.ended_at + timedelta(seconds=30 if actor.is_dead else 0)
            if actor.ended_at
            else None,
        )

    def _make_samples(self) -> None:
        this_minute = self.now.replace(second=0, microsecond=0)
        hosts = sorted({actor.host for actor in self.actors})
        step = 1 if self.scale > 0.2 else 15
        HostSample.objects.using(self.using).bulk_create(
            [
                HostSample(
                    minute=this_minute - MINUTE * back,
                    host=host,
                    cpu_percent=round(100 * self.play.load_at(this_minute - MINUTE * back), 1),
                    memory_bytes=round(self.random.uniform(260, 420) * (1 << 20)),
                    disk_used_percent=61.5,
                    read_p95_seconds=round(self.random.uniform(0.002, 0.006), 4),
                    write_p95_seconds=round(self.random.uniform(0.004, 0.011), 4),
                )
                for back in range(1, 1440, step)
                for host in hosts
            ],
            batch_size=1000,
            ignore_conflicts=True,
        )

    # -- What happens to a job --------------------------------------------------------------------

    def job(self, work: Work, created_at: datetime, **more: Any) -> JobRow:
        """A new job of this work, ready at once; counted as enqueued."""
        payload = work.payload(self.random)
        job = JobRow(
            id=self.id_at(created_at),
            kind=work.kind,
            type=work.type,
            queue=work.queue,
            state=State.READY.value,
            created_at=created_at,
            run_at=created_at,
            enqueued_by=work.by,
            timeout_seconds=work.timeout,
            max_attempts=work.max_attempts,
            payload=None if payload is None else json.dumps(payload),
            on_lost=work.on_lost,
        )
        for name, value in more.items():
            setattr(job, name, value)
        if work.tags:
            tag = self.random.choice(work.tags)
            job.tags = json.dumps([tag])
            self._tags.append((tag, job.id, created_at))
        if work.metadata:
            value = work.metadata(self.random)
            job.metadata = json.dumps(value)
            self._metadata += [
                (key, metadata_value(one), created_at, job.id) for key, one in value.items()
            ]
        self._count(created_at, job, "enqueued")
        self._jobs.append(job)
        self.written += 1
        if len(self._jobs) >= FLUSHED_AT:
            self._flush()
        return job

    def attempt(
        self,
        job: JobRow,
        started_at: datetime,
        took: timedelta,
        outcome: Outcome,
        *,
        trouble: Trouble | None = None,
        is_last: bool = True,
        actor: Actor | None = None,
    ) -> datetime:
        """A try of the job that has ended; returns when."""
        actor = actor or self.node_at(started_at)
        finished_at = started_at + took
        job.attempts += 1
        job.fence += 1
        job.node_id, job.started_at = actor.pk, started_at
        self.started(job)
        error_type = trace = None
        if trouble is not None:
            message = trouble.message(self.random)
            error_type, trace = trouble.error, trouble.trace(message)
            job.error = message
            job.fingerprint = fingerprint(error_type, message, trace)
            self._sightings.append((job.fingerprint, job.id, job.fence, finished_at))
        else:
            job.error = job.fingerprint = None
        said = None if outcome == Outcome.SUCCEEDED else outcome.value
        self._attempts.append(
            (
                *(job.id, job.fence, job.attempts, actor.pk, outcome.value, error_type, trace),
                *(False, started_at, finished_at),
            )
        )
        event, reason = "retried", None
        if is_last:
            job.finished_at = finished_at
            job.state = outcome.value if outcome.value in _FINAL else "failed"
            if job.state == "failed":
                job.reason = reason = _REASONS[outcome].value
            event = job.state
        self._count(finished_at, job, event, bucket_of(took.total_seconds()), reason, said)
        return finished_at

    def started(self, job: JobRow) -> None:
        """Count a claim, with its wait."""
        assert job.started_at is not None
        wait = (job.started_at - job.run_at).total_seconds()
        self._count(job.started_at, job, "started", bucket_of(wait))

    def ended(self, job: JobRow, at: datetime, state: State, reason: Reason | None = None) -> None:
        """A job that ends without a try."""
        job.state, job.finished_at = state.value, at
        job.reason = None if reason is None else reason.value
        self._count(at, job, state.value, None, job.reason)

    def says(self, job: JobRow, at: datetime, *messages: str, level: str = "info") -> None:
        """Lines in the job's log."""
        for number, message in enumerate(messages):
            moment = at + timedelta(milliseconds=7 * number)
            self._lines.append((job.id, job.fence, "log", level, message, moment))

    def _count(
        self,
        at: datetime,
        job: JobRow,
        event: str,
        bucket: int | None = None,
        reason: str | None = None,
        outcome: str | None = None,
    ) -> None:
        minute = at.replace(second=0, microsecond=0)
        self._tallies[minute, job.queue, job.type, event, bucket, reason, outcome] += 1

    # -- Writing ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """All but the newest job, which its maker is still busy with."""
        last = self._jobs.pop()
        self._write()
        self._jobs.append(last)

    def _write(self) -> None:
        using = self.using
        put(using, "job", JOB, [values_of_job(job) for job in self._jobs])
        put(using, "attempt", ATTEMPT, self._attempts)
        put(using, "job_log", LINE, self._lines)
        put(using, "job_tag", TAG, self._tags)
        put(using, "job_metadata", METADATA, self._metadata)
        put(using, "failure_sighting", SIGHTING, self._sightings)
        for rows in (
            *(self._jobs, self._attempts, self._lines, self._tags, self._metadata),
            self._sightings,
        ):
            rows.clear()

    def finish(self) -> None:
        """Write what is left, and what was counted."""
        self._write()
        put(
            self.using,
            "tally",
            TALLY,
            [(*key, count) for key, count in sorted(self._tallies.items(), key=_by_time)],
        )
        self._tallies.clear()


def _by_time(item: tuple[tuple[Any, ...], int]) -> tuple[Any, ...]:
    return tuple(part if part is not None else "" for part in item[0][:4])


_REASONS = {
    Outcome.FAILED: Reason.ERROR,
    Outcome.TIMEOUT: Reason.TIMEOUT,
    Outcome.LOST: Reason.LOST,
}
