"""A job: one unit of work that was accepted, and the moves people make on it.

The moves of the holder (claim, complete, release) are SQL of their own in ``jobs.engine``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from django.db import IntegrityError, connections, models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest, Now
from uuid_utils.compat import uuid7

from clusters.deeds import deed, verb_of_rows
from jobs.errors import InvalidJob, InvalidTransition, UniqueKeyTaken, UnknownQueue
from jobs.hints import ANY_QUEUE, hint_ready
from jobs.models.lookups import RandomMoment
from jobs.rights import check_start
from jobs.states import (
    FINAL,
    RETRYABLE_FROM,
    STOPPABLE,
    UNSTARTED,
    OnLost,
    Reason,
    State,
    Trigger,
    WaitsFor,
)
from jobs.step_words import MADE_OF_STEPS

LOWEST_PRIORITY, HIGHEST_PRIORITY = 100, -100


class Touched(int):
    """How many jobs a verb changed; ``outcomes`` counts by what became of each, changed or left out."""

    outcomes: dict[str, int]

    def __new__(cls, changed: int, /, **outcomes: int) -> Touched:
        touched = super().__new__(cls, changed)
        touched.outcomes = {name: count for name, count in outcomes.items() if count}
        return touched


class Restart(NamedTuple):
    """What a job was when somebody wanted it to run, and whether it may now."""

    was: State
    is_due: bool


# What the end of a job is told with.
_TOLD_OF = ("pk", "state", "queue", "type", "has_dependants", "schedule_id", "kind")


class JobQuerySet(models.QuerySet["Job"]):
    def final(self) -> JobQuerySet:
        return self.filter(state__in=FINAL)

    def tagged(self, tag: str) -> JobQuerySet:
        """Jobs that carry a tag."""
        return self.filter(
            Q(models.Exists(JobTag.objects.filter(job=models.OuterRef("pk"), tag=tag)))
        )

    def with_metadata(self, key: str, value: str) -> JobQuerySet:
        """Jobs that have this value under this key; ``value`` as ``metadata_value`` writes it."""
        pairs = JobMetadata.objects.filter(
            job=models.OuterRef("pk"),
            created_at=models.OuterRef("created_at"),
            key=key,
            value=value,
        )
        return self.filter(Q(models.Exists(pairs)))

    def retryable(self, *, include_held: bool = False) -> JobQuerySet:
        """What may be retried without looking at each: held jobs wait for a person's decision."""
        stopped = self.filter(state__in=RETRYABLE_FROM)
        return stopped if include_held else stopped.filter(is_held=False)

    @verb_of_rows("jobs.cancel", "job")
    def cancel(self) -> Touched:
        """Cancel what has not started, and ask running work to stop; with all steps of those jobs."""
        from jobs.models.steps_release import open_below, wake

        using = self.db
        jobs: JobQuerySet = Job.objects.using(using)
        open_jobs = Q(state__in=UNSTARTED) | Q(state__in=STOPPABLE, cancel_requested_at=None)
        with transaction.atomic(using=using):
            # Under one lock: between two statements, a job that its node hands back would slip
            # through both.
            rows = self.filter(open_jobs)._lock_ending()
            unstarted = [row for row in rows if row.state in UNSTARTED]
            running = [row.pk for row in rows if row.state in STOPPABLE]
            waiting = [row.pk for row in rows if row.state == State.WAITING]
            # Of those that were to be taken up again, steps may be open too.
            whole = [row.pk for row in unstarted if row.kind in MADE_OF_STEPS]
            cancelled = self._end(unstarted, State.CANCELLED, cancel_requested_at=Now())
            asked = 0
            if running:
                asked = jobs.filter(
                    pk__any_of=running, state__in=STOPPABLE, cancel_requested_at=None
                ).update(cancel_requested_at=Now())
            if waiting or whole:
                if below := open_below(using, [*waiting, *whole]):
                    jobs.filter(pk__any_of=below).cancel()
                wake(using, waiting)
        return Touched(cancelled + asked, cancelled=cancelled, cancel_requested=asked)

    @verb_of_rows("jobs.cancel", "job")
    def skip(self) -> Touched:
        """End jobs that have not started without running them."""
        with transaction.atomic(using=self.db):
            rows = self.filter(state__in=UNSTARTED)._lock_ending()
            skipped = self._end(rows, State.SKIPPED)
        return Touched(skipped, skipped=skipped)

    def expire(self) -> Touched:
        """Fail what was not started before it expired."""
        error = "not started before it expired"
        return self._fail(Q(expires_at__lte=Now()), Reason.EXPIRED, error, "expired")

    def fail_overdue(self) -> Touched:
        """Fail what has not started, or not started again, by its deadline."""
        error = "not finished by its deadline"
        return self._fail(Q(deadline_at__lte=Now()), Reason.TIMEOUT, error, "overdue")

    def give_up(self, error: str) -> Touched:
        """Fail what waits for something that will never be there."""
        return self._fail(Q(), Reason.DEPENDENCY, error, "given_up")

    def _fail(self, is_late: Q, reason: Reason, error: str, outcome: str) -> Touched:
        with transaction.atomic(using=self.db):
            rows = self.filter(is_late, state__in=UNSTARTED)._lock_ending()
            failed = self._end(rows, State.FAILED, reason, error=error)
        return Touched(failed, **{outcome: failed})

    def _lock_ending(self) -> list[Any]:
        """The same for rows that are about to end, together with those who wait for them."""
        from jobs.models.release import lock_all

        if connections[self.db].vendor == "postgresql":
            # Nobody else writes while SQLite does.
            waited_for = dict(self.order_by().values_list("pk", "has_dependants"))
            if any(waited_for.values()):
                lock_all(self.db, waited_for, ending=waited_for)
        return self._lock()

    def _lock(self) -> list[Any]:
        """Lock the rows in id order and return what their ends must be told with."""
        rows = self.order_by("pk").select_for_update(no_key=True)
        return list(rows.values_list(*_TOLD_OF, named=True))

    def _end(
        self, rows: Sequence[Any], state: State, reason: Reason | None = None, **columns: Any
    ) -> int:
        """End locked jobs that have not started, and leave the traces of that."""
        from jobs.models.release import leave_traces

        if not rows:
            return 0
        jobs = Job.objects.using(self.db).filter(pk__any_of=[row.pk for row in rows])
        ended = jobs.filter(state__in=UNSTARTED).update(
            state=state, reason=reason, finished_at=Now(), **columns
        )
        leave_traces(self.db, rows, state, reason)
        return ended

    @verb_of_rows("jobs.retry", "job", says=("spread_seconds",))
    def retry(self, *, spread_seconds: float | None = None) -> Touched:
        """Make failed, cancelled and skipped jobs ready again, now, with at least one attempt left.

        With ``spread_seconds`` each is due at a moment of its own within that time, because many at
        once would be a flood.

        It is a person's word: a full queue takes them, they wait for no other job, and neither for
        their turn nor for a time that has passed. Of jobs with one unique key the newest is taken,
        and none while another holds the key.
        """
        check_start(self)
        for _ in range(3):
            try:
                with transaction.atomic(using=self.db):
                    return self._retry(spread_seconds)
            except IntegrityError:
                # Somebody took a unique key between the look and the write; now it can be seen.
                continue
        with transaction.atomic(using=self.db):
            return self._retry(spread_seconds)

    def _retry(self, spread_seconds: float | None) -> Touched:
        from jobs.models.steps_release import lock_above, take_up_again

        jobs: JobQuerySet = Job.objects.using(self.db)
        stopped = self.filter(state__in=RETRYABLE_FROM).order_by("pk")
        parts = [pk for pk, awaited in stopped.values_list("pk", "has_dependants") if awaited]
        if parts:
            # From the top down, as whoever takes up a job that is made of them.
            lock_above(self.db, parts)
        locked = stopped.select_for_update(no_key=True)
        rows = list(locked.values_list("pk", "unique_key", "has_dependants"))
        keys = {key for _, key, _ in rows if key is not None}
        held = jobs.filter(unique_key__in=keys, finished_at=None) if keys else jobs.none()
        taken = set(held.values_list("unique_key", flat=True))
        chosen = []
        for pk, key, _ in reversed(rows):
            if key not in taken:
                chosen.append(pk)
                taken |= {key} - {None}
        whole = take_up_again(self.db, chosen) if any(awaited for *_, awaited in rows) else []
        chosen += whole
        retried = 0
        if chosen:
            retried = jobs.filter(pk__any_of=chosen, state__in=RETRYABLE_FROM).update(
                state=State.READY if spread_seconds is None else State.SCHEDULED,
                reason=None,
                is_held=False,
                fingerprint=None,
                crashes=0,
                throttles=None,
                pending_dependencies=0,
                waits_for=None,
                run_at=Now() if spread_seconds is None else RandomMoment(spread_seconds),
                finished_at=None,
                cancel_requested_at=None,
                expires_at=_unless_passed("expires_at"),
                deadline_at=_unless_passed("deadline_at"),
                max_attempts=Greatest(F("max_attempts"), F("attempts") + 1),
            )
        self._hinted(retried)
        left = len(rows) + len(whole) - len(chosen)
        return Touched(retried, retried=retried, unique_key_taken=left)

    def restart(self) -> dict[UUID, Restart]:
        """Let jobs run again, or at once where they have not started; says of each what it was.

        What runs, has succeeded or waits for other jobs is left alone.
        """
        with deed("jobs.retry", "job", using=self.db) as trace:
            rows = self.order_by("pk").select_for_update(no_key=True)
            states = {pk: State(state) for pk, state in rows.values_list("pk", "state")}
            jobs: JobQuerySet = Job.objects.using(self.db)
            stopped = [pk for pk, state in states.items() if state in RETRYABLE_FROM]
            retried = jobs.filter(pk__any_of=stopped).retry() if stopped else Touched(0)
            left: set[UUID] = set()
            if retried.outcomes.get("unique_key_taken"):
                still = jobs.filter(pk__any_of=stopped, state__in=RETRYABLE_FROM)
                left = set(still.values_list("pk", flat=True))
            waiting = [pk for pk, state in states.items() if state == State.SCHEDULED]
            if waiting:
                jobs.filter(pk__any_of=waiting).run_now()
            changed = [pk for pk in [*stopped, *waiting] if pk not in left]
            trace.about(changed)
            trace.changed(len(changed))
        runs = (*RETRYABLE_FROM, State.SCHEDULED, State.READY)
        return {pk: Restart(was, was in runs and pk not in left) for pk, was in states.items()}

    def promote(self) -> int:
        """Make scheduled jobs ready and keep their due time, which is their place in the queue."""
        return self.filter(state=State.SCHEDULED).update(state=State.READY)

    def free(self) -> int:
        """Let blocked jobs go on without waiting any longer."""
        is_due = Case(
            When(run_at__gt=Now(), then=Value(State.SCHEDULED)), default=Value(State.READY)
        )
        freed = self.filter(state=State.BLOCKED).update(
            state=is_due, pending_dependencies=0, waits_for=None
        )
        return self._hinted(freed)

    def postpone(self, until: datetime) -> int:
        """Let ready jobs wait until a moment."""
        return self.filter(state=State.READY)._write(state=State.SCHEDULED, run_at=until)

    @verb_of_rows("jobs.close", "job")
    def close(self) -> Touched:
        """Somebody has decided about held jobs: they stay failed, and wait for nobody any more."""
        closed = self.filter(is_held=True)._write(is_held=False)
        return Touched(closed, closed=closed)

    @verb_of_rows("jobs.run_now", "job")
    def run_now(self) -> Touched:
        """Make scheduled jobs ready without waiting for their time."""
        check_start(self)
        scheduled = self.filter(state=State.SCHEDULED)
        made_ready = self._hinted(scheduled._write(state=State.READY, run_at=Now()))
        return Touched(made_ready, made_ready=made_ready)

    @verb_of_rows("jobs.change", "job", says=("queue",))
    def move(self, queue: str) -> Touched:
        """Put jobs that have not started into another queue, where their place is by the same order."""
        check_queue(self.db, queue)
        moved = self.edit(Q(queue=queue), queue=queue)
        if moved:
            hint_ready(self.db, {queue})
        return Touched(moved, moved=moved)

    @verb_of_rows("jobs.change", "job", says=("priority",))
    def set_priority(self, priority: int) -> Touched:
        """Give jobs that have not started another priority; the lower number runs first."""
        check_priority(priority)
        changed = self.edit(Q(priority=priority), priority=priority)
        return Touched(changed, changed=changed)

    def edit(self, is_so_already: Q | None = None, **columns: Any) -> int:
        """Write columns of jobs that have not started; their values have been checked."""
        unstarted = self.filter(state__in=UNSTARTED)
        if is_so_already is not None:
            unstarted = unstarted.exclude(is_so_already)
        return unstarted._write(**columns)

    def _write(self, **columns: Any) -> int:
        """Update the rows in id order, so that two such updates never wait for each other."""
        with transaction.atomic(using=self.db):
            ids = [row.pk for row in self._lock()]
            return self.filter(pk__any_of=ids).update(**columns) if ids else 0

    def _hinted(self, made_ready: int) -> int:
        if made_ready:
            hint_ready(self.db, {ANY_QUEUE})
        return made_ready

    @verb_of_rows("jobs.delete", "job")
    def delete_final(self) -> Touched:
        """Delete finished jobs with all that is theirs. Those that open jobs depend on are kept."""
        from jobs.models.dependency import JobDependency
        from jobs.models.erase import erase
        from jobs.models.steps_release import all_below, parts_of_others, with_open_steps

        using = self.db
        with transaction.atomic(using=using):
            final = self.filter(state__in=FINAL).order_by("pk").select_for_update()
            rows = dict(final.values_list("pk", "has_dependants"))
            edges = JobDependency.objects.using(using)
            # Looked at under the lock, which whoever adds an edge takes first.
            awaited = [pk for pk, has_dependants in rows.items() if has_dependants]
            waiting = edges.filter(parent_id__in=awaited, child__finished_at=None)
            kept = set(waiting.values_list("parent_id", flat=True)) if awaited else set()
            kept |= parts_of_others(using, awaited, rows) | with_open_steps(using, rows)
            ids = [pk for pk in rows if pk not in kept]
            erase(using, [*ids, *all_below(using, ids)])
        return Touched(len(ids), deleted=len(ids), has_dependants=len(kept))

    @verb_of_rows("jobs.delete", "job")
    def discard(self) -> Touched:
        """Delete finished jobs, and those that have not started, which are cancelled first."""
        with transaction.atomic(using=self.db):
            jobs: JobQuerySet = Job.objects.using(self.db)
            ids = [*self.filter(state__in=UNSTARTED).values_list("pk", flat=True)]
            jobs.filter(pk__any_of=ids, state__in=UNSTARTED).cancel()
            return self.delete_final()


def check_queue(using: str | None, name: str) -> None:
    from jobs.models.queue import QUEUE_NAME, Queue

    # What no queue can be called is not asked for: some databases refuse the very question.
    if (
        not re.match(QUEUE_NAME.regex, name)
        or not Queue.objects.using(using).filter(name=name).exists()
    ):
        raise UnknownQueue(f"there is no queue {name[:100]!r}", field="queue")


def check_priority(priority: int) -> None:
    if not HIGHEST_PRIORITY <= priority <= LOWEST_PRIORITY:
        allowed = f"between {HIGHEST_PRIORITY} and {LOWEST_PRIORITY}"
        raise InvalidJob(f"priority must be {allowed}", field="priority")


def _unless_passed(column: str) -> Case:
    return Case(When(**{f"{column}__gt": Now()}, then=F(column)))


class Job(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=16, default="python")
    type = models.CharField(max_length=200)
    queue = models.CharField(max_length=100, default="default")
    state = models.CharField(max_length=10, choices=State)
    reason = models.CharField(max_length=16, choices=Reason, null=True)
    is_held = models.BooleanField(default=False)
    priority = models.SmallIntegerField(default=0)
    payload = models.JSONField(null=True)
    payload_bytes = models.BinaryField(null=True)
    tags = models.JSONField(default=list)
    enqueued_by = models.CharField(max_length=200)
    on_lost = models.CharField(max_length=5, choices=OnLost, default=OnLost.RETRY)
    timeout_seconds = models.FloatField()
    max_attempts = models.PositiveSmallIntegerField()
    attempts = models.PositiveIntegerField(default=0)
    crashes = models.PositiveSmallIntegerField(default=0)
    # How often what it calls asked it to come back later, which spent no attempt; null: never.
    throttles = models.PositiveSmallIntegerField(null=True)
    # Grows by one at each claim and is never reset; with the node it is the holder's proof.
    fence = models.BigIntegerField(default=0)
    # No database constraint: checking it on every claim would lock one node row thousands of times a
    # second. A node row is deleted only where no running job names it.
    node = models.ForeignKey(
        "clusters.Node", on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False
    )
    progress_percent = models.FloatField(null=True)
    progress_note = models.CharField(max_length=200, null=True)
    result = models.JSONField(null=True)
    error = models.TextField(null=True)
    run_at = models.DateTimeField(db_default=Now())
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    # Not started by then: failed as `expired`.
    expires_at = models.DateTimeField(null=True)
    # Over all attempts: not finished by then, failed as `timeout`.
    deadline_at = models.DateTimeField(null=True)
    # Without a word of progress for so long, an attempt is out of time.
    progress_timeout_seconds = models.FloatField(null=True)
    # The curve of waits between attempts; null: as the cluster's settings say at that time.
    retry_base_seconds = models.FloatField(null=True)
    retry_cap_seconds = models.FloatField(null=True)
    # See jobs.engine.backoff; null: full jitter.
    retry_curve = models.CharField(max_length=200, null=True)
    # Keys to strings, numbers and booleans; for filters also in JobMetadata.
    metadata = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    # Only one job that has not ended may carry it.
    unique_key = models.CharField(max_length=200, null=True)
    # How many more parents must satisfy this job before it leaves `blocked`.
    pending_dependencies = models.PositiveIntegerField(default=0, db_default=0)
    # Some job waits for this one: its end must be told to them in the same transaction.
    has_dependants = models.BooleanField(default=False, db_default=False)
    # What made it: a schedule, for which instant, by whose doing, in which run of a workflow.
    schedule_id = models.UUIDField(null=True)
    due_at = models.DateTimeField(null=True)
    trigger = models.CharField(max_length=8, choices=Trigger, null=True)
    workflow_run_id = models.UUIDField(null=True)
    # Its schedule holds it back, without any edge to another job.
    waits_for = models.CharField(max_length=9, choices=WaitsFor, null=True)
    # The job this one was requeued from.
    copy_of = models.UUIDField(null=True)
    # Of the failure it ended with; see Failure.
    fingerprint = models.CharField(max_length=16, null=True)
    # What a dialect must say again word for word and no column holds, such as a signature.
    dialect_notes = models.JSONField(null=True)

    objects: ClassVar[models.Manager[Job]] = JobQuerySet.as_manager()

    class Meta:
        db_table = "job"
        constraints = [
            models.CheckConstraint(name="job_state_known", condition=Q(state__in=State.values)),
            models.CheckConstraint(
                name="job_finished_at_tells_the_end",
                condition=Q(state__in=FINAL, finished_at__isnull=False)
                | (~Q(state__in=FINAL) & Q(finished_at=None)),
            ),
            models.CheckConstraint(
                name="job_running_has_a_holder",
                condition=~Q(state=State.RUNNING)
                | Q(node__isnull=False, fence__gt=0, started_at__isnull=False),
            ),
            models.CheckConstraint(
                name="job_reason_goes_with_failed",
                # NULL IN (…) is NULL, and a CHECK lets that pass: say that there is a reason.
                condition=Q(state=State.FAILED, reason__isnull=False, reason__in=Reason.values)
                | (~Q(state=State.FAILED) & Q(reason=None)),
            ),
            models.CheckConstraint(
                name="job_held_is_failed", condition=Q(is_held=False) | Q(state=State.FAILED)
            ),
            models.CheckConstraint(
                name="job_priority_range",
                condition=Q(priority__gte=HIGHEST_PRIORITY, priority__lte=LOWEST_PRIORITY),
            ),
            models.CheckConstraint(
                # PostgreSQL puts NaN above every number, so this keeps it out too.
                name="job_progress_range",
                condition=Q(progress_percent=None)
                | Q(progress_percent__gte=0, progress_percent__lte=100),
            ),
            models.CheckConstraint(
                name="job_limits_positive",
                condition=Q(max_attempts__gte=1, timeout_seconds__gt=0),
            ),
            models.CheckConstraint(
                name="job_blocked_waits_for_something",
                condition=Q(state=State.BLOCKED, pending_dependencies__gt=0)
                | ~Q(state=State.BLOCKED),
            ),
            models.UniqueConstraint(
                name="job_unique_while_open",
                fields=["unique_key"],
                condition=Q(unique_key__isnull=False, finished_at=None),
            ),
        ]
        indexes = [
            # claim: the next ready jobs of one queue and kind, in order
            models.Index(
                name="job_ready",
                fields=["queue", "kind", "priority", "run_at", "id"],
                condition=Q(state=State.READY),
            ),
            # promotion: what has become due
            models.Index(name="job_due", fields=["run_at"], condition=Q(state=State.SCHEDULED)),
            # what waits for another attempt; few jobs do
            models.Index(
                name="job_retrying",
                fields=["created_at", "id", "queue"],
                condition=Q(state__in=(State.SCHEDULED, State.READY), attempts__gt=0),
            ),
            # queues: what is in them besides ready and running jobs, which have indexes of their own
            models.Index(
                name="job_unready",
                fields=["queue", "state"],
                condition=Q(state__in=(State.BLOCKED, State.SCHEDULED, State.WAITING)),
            ),
            # rescue, cancel requests: what a node holds; limits: how much of it is of one queue
            models.Index(
                name="job_holder", fields=["node", "queue"], condition=Q(state=State.RUNNING)
            ),
            # Lists by state, in two halves; read backwards, for where new rows come last, an index is
            # filled page by page. A job is written to one half when it is enqueued and to the other
            # when it has ended; a claim touches neither. Lists by queue and by type are JobListing's.
            # The second half is retention's too.
            models.Index(
                name="job_open",
                fields=["state", "created_at", "id"],
                condition=Q(finished_at=None) & ~Q(state=State.RUNNING),
            ),
            models.Index(
                name="job_final",
                fields=["state", "created_at", "id"],
                condition=Q(finished_at__isnull=False),
            ),
            # what was not started, or not finished, in time
            models.Index(
                name="job_expiring",
                fields=["expires_at"],
                condition=Q(expires_at__isnull=False, state__in=UNSTARTED),
            ),
            models.Index(
                name="job_deadline",
                fields=["deadline_at"],
                condition=Q(deadline_at__isnull=False, state__in=UNSTARTED),
            ),
            # copies of a job; failed jobs of one group of failures
            models.Index(name="job_copies", fields=["copy_of"], condition=Q(copy_of__isnull=False)),
            models.Index(
                name="job_fingerprint",
                fields=["fingerprint", "created_at", "id"],
                condition=Q(fingerprint__isnull=False),
            ),
            # Lists by what few jobs have: why they failed, held ones, an uncommon kind, a unique key
            # (the other half of job_unique_while_open). Most jobs are in none of them.
            models.Index(
                name="job_reason",
                fields=["reason", "created_at", "id"],
                condition=Q(reason__isnull=False),
            ),
            models.Index(name="job_held", fields=["created_at", "id"], condition=Q(is_held=True)),
            models.Index(
                name="job_kind",
                fields=["kind", "created_at", "id"],
                condition=~Q(kind="python"),
            ),
            # jobs made of steps by their state; those and no others
            models.Index(
                name="job_steps_state",
                fields=["state", "created_at", "id"],
                condition=Q(kind="steps"),
            ),
            # runs of a schedule; those that have not ended, which the next one may have to wait for
            models.Index(
                name="job_schedule",
                fields=["schedule_id", "created_at", "id"],
                condition=Q(schedule_id__isnull=False),
            ),
            models.Index(
                name="job_schedule_open",
                fields=["schedule_id", "created_at", "id"],
                condition=Q(schedule_id__isnull=False, finished_at=None),
            ),
            # runs of all schedules: lists and their counts, which need no row; when they began and ended
            models.Index(
                name="job_scheduled_newest",
                fields=["created_at", "id", "kind", "state"],
                condition=Q(schedule_id__isnull=False),
            ),
            models.Index(
                name="job_scheduled_started",
                fields=["started_at"],
                condition=Q(schedule_id__isnull=False, started_at__isnull=False),
            ),
            models.Index(
                name="job_scheduled_ended",
                fields=["finished_at"],
                condition=Q(schedule_id__isnull=False, finished_at__isnull=False),
            ),
            models.Index(
                name="job_workflow_run",
                fields=["workflow_run_id"],
                condition=Q(workflow_run_id__isnull=False),
            ),
            models.Index(
                name="job_held_back",
                fields=["created_at", "id"],
                condition=Q(waits_for__isnull=False, state=State.BLOCKED),
            ),
            models.Index(
                name="job_unique_ended",
                fields=["unique_key", "created_at", "id"],
                condition=Q(unique_key__isnull=False, finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"

    def _only_me(self) -> JobQuerySet:
        return Job.objects.using(self._state.db).filter(pk=self.pk)

    def _move(self, verb: str, rows: int) -> None:
        """Zero rows means that somebody else was faster, or that the state never allowed it."""
        if not rows:
            raise InvalidTransition(f"cannot {verb} a job that is {self.state}", field="state")
        self.refresh_from_db()

    def cancel(self) -> None:
        """Cancel this job, or ask it to stop; asking twice is no error."""
        rows: int = self._only_me().cancel()
        if not rows and self._only_me().filter(state__in=STOPPABLE).exists():
            rows = 1
        self.refresh_from_db()
        self._move("cancel", rows)

    def retry(self) -> None:
        retried = self._only_me().retry()
        self.refresh_from_db()
        if retried.outcomes.get("unique_key_taken"):
            raise UniqueKeyTaken(
                f"another job with the unique key {self.unique_key!r} has not ended yet",
                field="unique_key",
            )
        self._move("retry", retried)

    def close(self) -> None:
        rows = self._only_me().close()
        if not rows:
            raise InvalidTransition("the job does not wait for a decision", field="state")
        self.refresh_from_db()

    def run_now(self) -> None:
        rows = self._only_me().run_now()
        self.refresh_from_db()
        self._move("run now", rows)

    def move(self, queue: str) -> None:
        """Put this job into another queue; it may be there already."""
        moved: int = self._only_me().move(queue)
        self._changed("move", moved)

    def set_priority(self, priority: int) -> None:
        changed: int = self._only_me().set_priority(priority)
        self._changed("change", changed)

    def _changed(self, verb: str, rows: int) -> None:
        self.refresh_from_db()
        # Of a job that has not started, nothing was left to do.
        self._move(verb, rows or self.state in UNSTARTED)

    def delete_final(self) -> None:
        deleted = self._only_me().delete_final()
        if deleted.outcomes.get("has_dependants"):
            raise InvalidTransition("cannot delete a job that others depend on", field="state")
        if not deleted:
            raise InvalidTransition(
                f"cannot delete a job that is {self.state}; cancel it first", field="state"
            )


class JobListing(models.Model):
    """What lists need and claims must not touch: the columns of a job that rarely change.

    An update of a row renews its entry in every index of the table, so a claim and a completion would
    pay twice for each index that only lists read. Those indexes are here. Triggers of the database keep
    the rows in step with ``job``, whoever writes there.
    """

    pk = models.CompositePrimaryKey("created_at", "job_id")
    created_at = models.DateTimeField()
    job = models.ForeignKey(
        Job,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="listing",
    )
    queue = models.CharField(max_length=100)
    type = models.CharField(max_length=200)

    class Meta:
        db_table = "job_listing"
        indexes = [
            models.Index(name="job_listing_queue", fields=["queue", "created_at", "job"]),
            models.Index(name="job_listing_type", fields=["type", "created_at", "job"]),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.job_id}"


class JobTagQuerySet(models.QuerySet["JobTag"]):
    def of(self, jobs: Iterable[Job]) -> list[JobTag]:
        return [
            JobTag(job_id=job.pk, tag=tag, created_at=job.created_at)
            for job in jobs
            for tag in job.tags
        ]


class JobTag(models.Model):
    """A tag of a job, in a table of its own: an index over a list inside the hot table would bloat."""

    pk = models.CompositePrimaryKey("tag", "job_id")
    tag = models.CharField(max_length=60)
    # The job's, so that the newest with a tag are the end of a range.
    created_at = models.DateTimeField(db_default=Now())
    job = models.ForeignKey(Job, on_delete=models.DO_NOTHING, db_constraint=False)

    objects: ClassVar[models.Manager[JobTag]] = JobTagQuerySet.as_manager()

    class Meta:
        db_table = "job_tag"
        indexes = [models.Index(name="job_tag_newest", fields=["tag", "created_at", "job"])]

    def __str__(self) -> str:
        return self.tag


class JobMetadataQuerySet(models.QuerySet["JobMetadata"]):
    def of(self, jobs: Iterable[Job]) -> list[JobMetadata]:
        return [
            JobMetadata(
                job_id=job.pk, key=key, value=metadata_value(value), created_at=job.created_at
            )
            for job in jobs
            for key, value in job.metadata.items()
        ]


def metadata_value(value: str | float | bool) -> str:
    """A value as it is compared: its JSON, so that the number 1 is neither "1" nor true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


class JobMetadata(models.Model):
    """One key and value of a job, to filter by."""

    pk = models.CompositePrimaryKey("key", "value", "created_at", "job_id")
    key = models.CharField(max_length=60)
    # As JSON, where a character may become six.
    value = models.CharField(max_length=1600)
    created_at = models.DateTimeField()
    job = models.ForeignKey(Job, on_delete=models.DO_NOTHING, db_constraint=False)

    objects: ClassVar[models.Manager[JobMetadata]] = JobMetadataQuerySet.as_manager()

    class Meta:
        db_table = "job_metadata"

    def __str__(self) -> str:
        return f"{self.key}={self.value}"
