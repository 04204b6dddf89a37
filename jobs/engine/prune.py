"""Prune: finished jobs and what belongs to them, when nobody needs them any more. On by default.

Only final rows go, only those that no open job waits for, and never one that is held for a person. One
node at a time prunes, in transactions that are short and take their rows in the order of their ids, so
pruners neither meet nor wait. The pause between two transactions is upkeep's.

Jobs are found by their age along the index of finished jobs. What is old but not yet due stays behind
the cursor; from time to time the walk begins anew, and seldom enough that walking is a small part of
the time.

Where the cluster has an archive, jobs are moved there instead, and their log lines go with them; see
``jobs.engine.archive``. While it cannot be reached they stay, and all else is pruned as ever.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, OuterRef, Q

from clusters.deeds import require
from clusters.log import LogEntry, LogEntryQuerySet
from clusters.models import ALIVE, Node, awaits_confirmation
from clusters.policy import ClusterPolicy
from jobs.engine.archive import Archive, Stamp, archive_of, stamps_of
from jobs.engine.clock import countdown, database_now
from jobs.errors import ArchiveUnavailable, Conflict
from jobs.models import BulkOperation, Job, JobDependency, LogLine, Queue, Step, StepsListing
from jobs.models.erase import erase
from jobs.models.steps_release import all_below
from jobs.states import FINAL, State

logger = logging.getLogger(__name__)

# Jobs in one transaction, at most; fewer where that takes longer than it should.
BATCH = 2000
LOG_BATCH = 5000
WHOLE_SECONDS = {"postgresql": 0.5, "sqlite": 0.1}
# Of this database; any number that nobody else uses.
ADVISORY_LOCK = 0x59_41_52_44_50
NODES_KEPT = timedelta(days=1)
BULK_OPERATIONS_KEPT = timedelta(days=30)
# A walk begins anew after a part of the retention, and after many times what the last one took.
AGAIN_PARTS, AGAIN_TIMES = 24, 20
AGAIN_SOONEST, AGAIN_LATEST = 60.0, 6 * 3600.0
# Between two transactions of a sweep.
PAUSE_SECONDS = 0.05

# Leaves the trace of jobs of a state that a transaction has deleted, so many; called in it.
Told = Callable[[State, int], None]


@dataclass(slots=True)
class Retention:
    """For how long finished jobs of one state are kept, by queue."""

    seconds: float
    of_queues: dict[str, float] = field(default_factory=dict)

    def of(self, queue: str) -> timedelta:
        return timedelta(seconds=self.of_queues.get(queue, self.seconds))

    @property
    def shortest(self) -> timedelta:
        return timedelta(seconds=min([self.seconds, *self.of_queues.values()]))


@dataclass(slots=True)
class Walk:
    """How far one state has been looked through, from the oldest on."""

    state: State
    retention: Retention | None = None
    after: tuple[datetime, UUID] | None = None
    begun_at: float = 0.0
    again_at: float = 0.0

    def begin(self, retention: Retention) -> None:
        """Go on from where it was, or anew if it is time for that."""
        now = countdown()
        if now >= self.again_at or retention != self.retention:
            self.after, self.begun_at, self.again_at = None, now, float("inf")
        self.retention = retention

    def end(self) -> None:
        """All there is has been seen."""
        if self.again_at == float("inf"):
            assert self.retention is not None
            part = self.retention.shortest.total_seconds() / AGAIN_PARTS
            took = countdown() - self.begun_at
            wait = min(max(part, AGAIN_SOONEST), AGAIN_LATEST)
            self.again_at = countdown() + max(wait, AGAIN_TIMES * took)


class Pruner:
    """A duty: each call is one short transaction; 0 when there is no more to do for now."""

    def __init__(self) -> None:
        self._walks = [Walk(state) for state in FINAL]
        self._steps: list[Callable[[str, ClusterPolicy], int | None]] = []
        # Why jobs could not be archived in this round.
        self._refused: ArchiveUnavailable | None = None
        self._batch = BATCH
        self._log_after = self._listed_after = 0

    def __call__(self, using: str, policy: ClusterPolicy) -> int:
        if not self._steps:
            self._begin(using, policy)
        # Steps that find nothing end here; the next one may find something.
        while self._steps:
            try:
                done = self._steps[0](using, policy)
            except ArchiveUnavailable as error:
                # Until the next round; what is no matter of the archive goes on.
                done, self._refused = None, error
                self._steps[:] = [self._steps[0], *self._rest()]
            if done is not None:
                return max(done, 1)
            del self._steps[:1]
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused
        return 0

    def sweep(
        self, using: str, policy: ClusterPolicy, seconds: float, told: Told
    ) -> Counter[State]:
        """Delete jobs that are due, for so long at most; how many of each state.

        Each transaction that deletes some leaves its trace by ``told``. Refused while the cluster was
        restored and waits for a person.
        """
        require("jobs.delete", using)
        if awaits_confirmation():
            raise Conflict("the cluster was restored: nothing is deleted until that is confirmed")
        self._begin(using, policy)
        until = countdown() + seconds
        deleted: Counter[State] = Counter()
        for walk in self._walks:
            while countdown() < until:
                done = self._jobs(walk, using, policy, told)
                if done is None:
                    break
                deleted[walk.state] += done
                if done:
                    # Others write too.
                    time.sleep(PAUSE_SECONDS)
        return deleted

    def _begin(self, using: str, policy: ClusterPolicy) -> None:
        retentions = _retentions(using, policy)
        for walk in self._walks:
            walk.begin(retentions[walk.state])
        self._log_after = self._listed_after = 0
        self._refused = None
        self._steps = [
            *(partial(self._jobs, walk) for walk in self._walks),
            self._kept_shorter,
            *self._rest(),
        ]

    def _rest(self) -> list[Callable[[str, ClusterPolicy], int | None]]:
        return [self._logs, _cluster_log, _bulk_operations, _nodes]

    # -- Jobs --------------------------------------------------------------------------------------

    def _jobs(
        self, walk: Walk, using: str, policy: ClusterPolicy, told: Told | None = None
    ) -> int | None:
        """Delete what is due among the next jobs of a state; None after the last of them."""
        now = database_now(connections[using])
        assert walk.retention is not None
        page = _oldest(using, walk, now)[: self._batch]
        rows = [*page.values_list("pk", "created_at", "queue", "finished_at")]
        if not rows:
            walk.end()
            return None
        due = {pk: ended for pk, _, queue, ended in rows if ended < now - walk.retention.of(queue)}
        deleted: int | None = 0
        if due:
            begun = countdown()
            which = Q(state=walk.state, finished_at__lte=max(due.values()))
            try:
                archived = _archived(using, policy, [*due], which)
                with transaction.atomic(using=using):
                    deleted = delete_jobs(using, [*due], which, archived)
                    if deleted and told:
                        told(walk.state, deleted)
                _take_back(using, archived)
            finally:
                # Also where the database has stopped it: as many would take too long again.
                self._fit(countdown() - begun, connections[using].vendor)
        if deleted is None:
            self._steps.clear()  # another prunes, and needs no help
            return None
        walk.after = (rows[-1][1], rows[-1][0])
        return deleted

    def _kept_shorter(self, using: str, policy: ClusterPolicy) -> int | None:
        """Delete those that say themselves how long they are kept after their success."""
        now = database_now(connections[using])
        listed = StepsListing.objects.using(using).filter(
            pk__gt=self._listed_after, delete_after_seconds__isnull=False
        )
        words = ("pk", "job_id", "delete_after_seconds", "job__state", "job__finished_at")
        rows = [*listed.order_by("pk").values_list(*words)[: self._batch]]
        if not rows:
            return None
        self._listed_after = rows[-1][0]
        due = [
            job_id
            for _, job_id, seconds, state, ended in rows
            if state == State.SUCCEEDED and (now - ended).total_seconds() >= seconds
        ]
        if not due:
            return 0
        archived = _archived(using, policy, due, Q(state=State.SUCCEEDED))
        deleted = delete_jobs(using, due, Q(state=State.SUCCEEDED), archived)
        _take_back(using, archived)
        return deleted

    def _fit(self, took: float, vendor: str) -> None:
        whole = WHOLE_SECONDS[vendor]
        if took > whole:
            self._batch = max(self._batch // 2, 1)
        elif took < whole / 4:
            self._batch = min(self._batch * 2, BATCH)

    # -- Logs --------------------------------------------------------------------------------------

    def _logs(self, using: str, policy: ClusterPolicy) -> int | None:
        """Delete old lines, whoever wrote them; they lie about in the order of their age."""
        if policy.archive_to:
            return None  # they go with their jobs
        cutoff = database_now(connections[using]) - timedelta(seconds=policy.retain_log_seconds)
        lines = LogLine.objects.using(using).filter(pk__gt=self._log_after).order_by("pk")
        rows = [*lines.values_list("pk", "logged_at")[:LOG_BATCH]]
        due = [pk for pk, logged_at in rows if logged_at < cutoff]
        if not due:
            return None
        self._log_after = rows[-1][0]
        return _delete(using, LogLine, Q(pk__in=due))


def _retentions(using: str, policy: ClusterPolicy) -> dict[State, Retention]:
    succeeded = Retention(policy.retain_succeeded_seconds)
    failed = Retention(policy.retain_failed_seconds)
    queues = Queue.objects.using(using).exclude(
        retain_succeeded_seconds=None, retain_failed_seconds=None
    )
    for name, succeeded_seconds, failed_seconds in queues.values_list(
        "name", "retain_succeeded_seconds", "retain_failed_seconds"
    ):
        if succeeded_seconds is not None:
            succeeded.of_queues[name] = succeeded_seconds
        if failed_seconds is not None:
            failed.of_queues[name] = failed_seconds
    return {state: failed if state == State.FAILED else succeeded for state in FINAL}


def _oldest(using: str, walk: Walk, now: datetime) -> Any:
    """Candidates along the index job_final: nothing ends before it is created."""
    assert walk.retention is not None
    jobs = Job.objects.using(using).filter(
        state=walk.state,
        finished_at__isnull=False,
        is_held=False,
        created_at__lt=now - walk.retention.shortest,
    )
    if walk.after is not None:
        created_at, job_id = walk.after
        jobs = jobs.filter(created_at__gte=created_at).exclude(
            created_at=created_at, pk__lte=job_id
        )
    return jobs.order_by("created_at", "pk")


@dataclass(slots=True)
class Archived:
    """Jobs that were copied to an archive, steps of theirs too; those that are deleted are taken out."""

    archive: Archive
    left: dict[UUID, Stamp]

    def unchanged(self, using: str, going: Sequence[UUID], below: Sequence[UUID]) -> bool:
        """Whether all of these jobs are as they were copied; they are locked, or steps of such."""
        ids = [*going, *below]
        return stamps_of(using, ids) == {pk: self.left.get(pk) for pk in ids}


def _archived(using: str, policy: ClusterPolicy, ids: Sequence[UUID], still: Q) -> Archived | None:
    """Copy jobs that are about to be deleted to the archive, where there is one."""
    archive = archive_of(using, policy)
    if archive is None:
        return None
    going = [*_deletable(using, ids, still).values_list("pk", flat=True)]
    return Archived(archive, archive.copy([*going, *all_below(using, going)]))


def _take_back(using: str, archived: Archived | None) -> None:
    """Copies of jobs that were not deleted, because somebody has taken them up again meanwhile."""
    if archived is not None and archived.left:
        changed = stamps_of(using, [*archived.left])
        if stale := [pk for pk, stamp in archived.left.items() if changed.get(pk, stamp) != stamp]:
            archived.archive.undo(stale)


def _deletable(using: str, ids: Sequence[UUID], still: Q) -> Any:
    jobs = Job.objects.using(using)
    return jobs.filter(still, ~_has_open_dependants(), pk__in=ids, is_held=False)


def delete_jobs(
    using: str, ids: Sequence[UUID], still: Q, archived: Archived | None = None
) -> int | None:
    """Delete jobs that are still so, with all that is theirs; None if another prunes.

    With ``archived`` only those of them that were copied, and are as they were then.
    """
    connection = connections[using]
    skip_locked = connection.features.has_select_for_update_skip_locked
    with transaction.atomic(using=using):
        if not _alone(using):
            return None
        rows = _deletable(using, ids, still)
        locked = rows.select_for_update(skip_locked=skip_locked).order_by("pk")
        found = locked.values_list("pk", *Stamp._fields)
        going = [
            pk for pk, *stamp in found if archived is None or archived.left.get(pk) == (*stamp,)
        ]
        if not going:
            return 0
        # Steps of theirs have ended before them.
        below = all_below(using, going)
        if archived is not None:
            if not archived.unchanged(using, going, below):
                return 0
            for pk in (*going, *below):
                del archived.left[pk]
        erase(using, [*going, *below])
        _delete(using, JobDependency, Q(parent_id__in=going))
        return len(going)


def _has_open_dependants() -> Q:
    waiting = JobDependency.objects.filter(parent_id=OuterRef("pk"), child__finished_at=None)
    # A step goes with the job that it is of, which may be retried and need what it left.
    part = Step.objects.filter(job_id=OuterRef("pk"), root__created_at__isnull=False)
    return Q(has_dependants=True) & (Q(Exists(waiting)) | Q(Exists(part)))


def _alone(using: str) -> bool:
    """Whether nobody else prunes just now; the answer holds until the end of the transaction."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return True  # whoever writes is alone
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        return bool(cursor.fetchone()[0])


# -- Other rows ------------------------------------------------------------------------------------


def _cluster_log(using: str, policy: ClusterPolicy) -> int | None:
    cutoff = database_now(connections[using]) - timedelta(seconds=policy.retain_log_seconds)
    entries: LogEntryQuerySet = LogEntry.objects.using(using).all()
    ids = entries.oldest(cutoff, LOG_BATCH)
    return _delete(using, LogEntry, Q(pk__in=ids)) if ids else None


def _bulk_operations(using: str, policy: ClusterPolicy) -> int | None:
    cutoff = database_now(connections[using]) - BULK_OPERATIONS_KEPT
    operations = BulkOperation.objects.using(using).filter(
        created_at__lt=cutoff, finished_at__lt=cutoff
    )
    ids = [*operations.order_by("created_at").values_list("pk", flat=True)[:BATCH]]
    return _delete(using, BulkOperation, Q(pk__in=ids)) if ids else None


def _nodes(using: str, policy: ClusterPolicy) -> int | None:
    """Nodes that ended long ago. A running job of one of them is for rescue to find first."""
    cutoff = database_now(connections[using]) - NODES_KEPT
    held = Job.objects.using(using).filter(node_id=OuterRef("pk"), state=State.RUNNING)
    ended = Q(closed_at__lt=cutoff) & ~Q(status__in=ALIVE) & ~Q(Exists(held))
    ids = [*Node.objects.using(using).filter(ended).values_list("pk", flat=True)[:BATCH]]
    return _delete(using, Node, Q(pk__in=ids) & ended) if ids else None


def _delete(using: str, model: Any, which: Q) -> int:
    deleted: int = model.objects.using(using).filter(which)._raw_delete(using)
    return deleted
