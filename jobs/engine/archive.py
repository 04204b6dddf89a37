"""Archive: what a cluster no longer keeps is moved to another one, and lost on no way.

Three steps, each of which may be the last of a process that dies: the jobs are copied, with all that is
theirs, in transactions of the other database; what was copied is read there again and compared; then,
and only as far as they are still as they were copied, they are deleted here. Before the last step they
are in both places for a while, and whoever comes next finds the copy and goes on with it. Where the other
database does not answer, or is not the archive that it should be, nothing is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections, transaction

from clusters.binding import current_cluster
from clusters.models import ClusterSetting
from clusters.policy import ARCHIVED, ClusterPolicy
from jobs.errors import ArchiveUnavailable
from jobs.models import (
    ArchivedJob,
    Attempt,
    Job,
    JobDependency,
    JobMetadata,
    JobTag,
    LogLine,
    Queue,
    Step,
    StepsListing,
    StepsRun,
    WebhookEvent,
)
from jobs.models.erase import erase
from jobs.models.steps_release import all_below

logger = logging.getLogger(__name__)

# Jobs of one transaction over there: their payloads, results and logs are held in memory.
PORTION = 100
ROWS_AT_ONCE = 500
# What is a job's, beside its row; of those that count their rows themselves the number is left out.
_OWN: tuple[Any, ...] = (Attempt, LogLine, JobTag, JobMetadata, Step, StepsRun, StepsListing)
_OWN += (WebhookEvent,)
_NUMBERED = frozenset({LogLine, StepsListing, WebhookEvent})


class Stamp(NamedTuple):
    """Which end of a job is meant: a retry would give it another."""

    fence: int
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Archive:
    """The way from the cluster with the database ``using``, whose id is ``source``, to another one."""

    using: str
    source: str
    target: str

    def copy(self, ids: Sequence[UUID]) -> dict[UUID, Stamp]:
        """Copy these jobs; returns those that are over there now, each with the end that was copied."""
        copied: dict[UUID, Stamp] = {}
        for start in range(0, len(ids), PORTION):
            copied |= self._copy(ids[start : start + PORTION])
        return copied

    def undo(self, ids: Sequence[UUID]) -> None:
        """Take back copies of jobs that go on here."""
        with self._reaching(), transaction.atomic(using=self.target):
            mine = ArchivedJob.objects.using(self.target).filter(
                source=self.source, job_id__in=list(ids)
            )
            erase(self.target, [*mine.values_list("job_id", flat=True)])

    def _copy(self, ids: Sequence[UUID]) -> dict[UUID, Stamp]:
        jobs = {job.pk: job for job in Job.objects.using(self.using).filter(pk__in=ids)}
        wanted = {pk: stamp_of(job) for pk, job in jobs.items() if job.finished_at is not None}
        known, foreign = self._known([*wanted])
        if foreign:
            logger.error(
                "archive %s has other jobs with the ids of %d jobs, such as %s; these stay here",
                self.target,
                len(foreign),
                min(foreign),
            )
        gone = self._with_steps([pk for pk in known if known[pk] != wanted[pk]])
        due = [pk for pk in wanted if pk not in foreign and (pk not in known or pk in gone)]
        if due:
            self._write([jobs[pk] for pk in due], [*gone])
        ours = {pk: stamp for pk, stamp in wanted.items() if pk not in foreign}
        self._verify(ours)
        return ours

    def _known(self, ids: Sequence[UUID]) -> tuple[dict[UUID, Stamp], set[UUID]]:
        """What is over there of these jobs: copies of ours by their ends, and what is none."""
        with self._reaching():
            rows = ArchivedJob.objects.using(self.target).filter(job_id__in=ids)
            marked = {row.job_id: row for row in rows}
            there = set(
                Job.objects.using(self.target).filter(pk__in=ids).values_list("pk", flat=True)
            )
        ours = {
            pk: Stamp(row.fence, row.finished_at)
            for pk, row in marked.items()
            if row.source == self.source
        }
        return ours, there - ours.keys()

    def _with_steps(self, outdated: Sequence[UUID]) -> set[UUID]:
        """Copies over there that are of an earlier end of their jobs, and those of their steps."""
        if not outdated:
            return set()
        with self._reaching():
            return {*outdated, *all_below(self.target, outdated)}

    def _write(self, jobs: Sequence[Job], outdated: Sequence[UUID]) -> None:
        ids = [job.pk for job in jobs]
        own = {model: self._rows(model, job_id__in=ids) for model in _OWN}
        edges = self._rows(JobDependency, child_id__in=ids)
        # An edge goes with whichever of its two jobs goes first.
        edges += self._rows(JobDependency, parent_id__in=ids)
        marks = [
            ArchivedJob(
                job_id=job.pk, source=self.source, fence=job.fence, finished_at=job.finished_at
            )
            for job in jobs
            if job.finished_at is not None
        ]
        with self._reaching(), transaction.atomic(using=self.target):
            if outdated:
                erase(self.target, outdated)
            self._make_queues({job.queue for job in jobs})
            self._insert(ArchivedJob, marks)
            self._insert(Job, [_as_new(Job, job) for job in jobs])
            for model, rows in own.items():
                self._insert(model, rows)
            self._insert(JobDependency, edges, ignore_conflicts=True)

    def _rows(self, model: Any, **which: Any) -> list[Any]:
        rows = model.objects.using(self.using).filter(**which)
        if model in _NUMBERED:
            rows = rows.order_by("pk")
        return [_as_new(model, row) for row in rows]

    def _insert(self, model: Any, rows: Sequence[Any], **how: Any) -> None:
        if rows:
            model.objects.using(self.target).bulk_create(rows, batch_size=ROWS_AT_ONCE, **how)

    def _make_queues(self, names: set[str]) -> None:
        queues = Queue.objects.using(self.target)
        there = set(queues.filter(name__in=names).values_list("name", flat=True))
        queues.bulk_create([Queue(name=name) for name in sorted(names - there)])

    def _verify(self, wanted: Mapping[UUID, Stamp]) -> None:
        """Raise unless all of these jobs are over there, with as much of what is theirs as here."""
        ids = [*wanted]
        here = [model.objects.using(self.using).filter(job_id__in=ids).count() for model in _OWN]
        with self._reaching():
            jobs = Job.objects.using(self.target).filter(pk__in=ids)
            found = {pk: Stamp(*stamp) for pk, *stamp in jobs.values_list("pk", *Stamp._fields)}
            there = [
                model.objects.using(self.target).filter(job_id__in=ids).count() for model in _OWN
            ]
        if found != wanted or any(more < less for more, less in zip(there, here, strict=True)):
            raise ArchiveUnavailable(
                f"archive {self.target} does not hold what was copied to it; nothing was deleted"
            )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """The other database's troubles are not those of ours."""
        try:
            yield
        except (DatabaseError, InterfaceError, OSError) as error:
            if not connections[self.target].in_atomic_block:
                connections[self.target].close()
            raise ArchiveUnavailable(
                f"archive {self.target} does not take jobs ({type(error).__name__}: "
                f"{str(error).strip()[:200]}); nothing was deleted"
            ) from None


def archive_of(using: str, policy: ClusterPolicy) -> Archive | None:
    """Where the bound cluster's jobs go when their time is over; None: nowhere.

    Raises ``ArchiveUnavailable`` while that is no place for them.
    """
    if not policy.archive_to:
        return None
    cluster, target = current_cluster(), settings.CLUSTERS.get(policy.archive_to)
    if target is None or target.id == cluster.id:
        raise ArchiveUnavailable(
            f"the archive {policy.archive_to!r} is not configured here; nothing was deleted"
        )
    archive = Archive(using, cluster.id, target.alias)
    with archive._reaching():
        persisted = ClusterSetting.objects.using(target.alias).all().persisted()
    if persisted.get("mode") != ARCHIVED:
        raise ArchiveUnavailable(
            f"cluster {target.id} is not archived, so it is no place for an archive; nothing was deleted"
        )
    return archive


def stamp_of(job: Job) -> Stamp:
    return Stamp(job.fence, job.finished_at)


def stamps_of(using: str, ids: Sequence[UUID]) -> dict[UUID, Stamp]:
    """The ends of these jobs as they are now."""
    rows = Job.objects.using(using).filter(pk__in=ids).values_list("pk", *Stamp._fields)
    return {pk: Stamp(*stamp) for pk, *stamp in rows}


def _as_new(model: Any, row: Any) -> Any:
    """The same row, for another database; one that is numbered there gets a number of its own."""
    values = {
        field.attname: getattr(row, field.attname)
        for field in model._meta.concrete_fields
        if not (model in _NUMBERED and field.primary_key)
    }
    return model(**values)
