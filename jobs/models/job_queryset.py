"""The moves people make on jobs, many at once, each in one place for all surfaces.

The moves of the holder (claim, complete, release) are SQL of their own in ``jobs.engine``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, connections, models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest, Now

from clusters.deeds import deed, verb_of_rows
from jobs.errors import InvalidJob, UnknownQueue
from jobs.hints import ANY_QUEUE, hint_ready
from jobs.models.job_listing import JobMetadata, JobTag
from jobs.models.lookups import RandomMoment
from jobs.rights import check_start
from jobs.states import (
    FINAL,
    RETRYABLE_FROM,
    STOPPABLE,
    UNSTARTED,
    Reason,
    State,
)
from jobs.step_words import MADE_OF_STEPS

if TYPE_CHECKING:
    from jobs.models.job import Job  # noqa: F401  # in the base of the QuerySet

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

    def unstarted(self) -> JobQuerySet:
        return self.filter(state__in=UNSTARTED)

    def scheduled(self) -> JobQuerySet:
        return self.filter(state=State.SCHEDULED)

    def cancellable(self) -> JobQuerySet:
        """What has not started, and what is at work and was not asked to stop yet."""
        return self.filter(
            Q(state__in=UNSTARTED) | Q(state__in=STOPPABLE, cancel_requested_at=None)
        )

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
        jobs: JobQuerySet = self.model.objects.using(using)
        with transaction.atomic(using=using):
            # Under one lock: between two statements, a job that its node hands back would slip
            # through both.
            rows = self.cancellable()._lock_ending()
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
            rows = self.unstarted()._lock_ending()
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
            rows = self.unstarted().filter(is_late)._lock_ending()
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
        jobs = self.model.objects.using(self.db).filter(pk__any_of=[row.pk for row in rows])
        ended = jobs.unstarted().update(state=state, reason=reason, finished_at=Now(), **columns)
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

        jobs: JobQuerySet = self.model.objects.using(self.db)
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
            jobs: JobQuerySet = self.model.objects.using(self.db)
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
        return self.scheduled().update(state=State.READY)

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
        made_ready = self._hinted(self.scheduled()._write(state=State.READY, run_at=Now()))
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
        unstarted = self.unstarted()
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
            final = self.final().order_by("pk").select_for_update()
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
            jobs: JobQuerySet = self.model.objects.using(self.db)
            ids = [*self.unstarted().values_list("pk", flat=True)]
            jobs.filter(pk__any_of=ids).unstarted().cancel()
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
