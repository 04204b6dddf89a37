"""A queue: a named line of jobs, and what people may do with it.

What a queue's policies are stands in ``queue_policies``; ``rate_grants`` is the claim's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.core.validators import RegexValidator
from django.db import IntegrityError, connections, models, transaction
from django.db.models import F, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Now
from django.db.models.lookups import GreaterThan, LessThan
from uuid_utils.compat import uuid7

from clusters.deeds import Trace, deed, differences, verb_of_rows
from jobs.errors import DuplicateQueue, InvalidQueue, QueueInUse
from jobs.hints import ANY_QUEUE, hint_ready
from jobs.models.queue_policies import (
    POLICIES,
    Overflow,
    check_policies,
    check_together,
    text_problem,
)
from jobs.states import UNSTARTED, State

QUEUE_NAME = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}\Z",
    "1 to 100 letters, digits and _ . : - and the first a letter or a digit",
)
_NAME = re.compile(QUEUE_NAME.regex)
# The queue of jobs that name none.
DEFAULT_QUEUE = "default"
# That of deliveries of alerts, made with the first of them. Every node that can deliver takes from it,
# so that no pause, no limit and no crowd in a queue of jobs keeps an alert about it.
ALERT_QUEUE = "yardmaster:alerts"
# `queues/count` is the number of queues.
RESERVED_NAMES = frozenset({"count"})
MAX_REASON_LENGTH = 500
LONGEST_PAUSE = timedelta(days=3653)
COUNTED_IN_REFUSALS = 1000
# Why a queue is paused that may have no workers; behind another reason where somebody paused it too.
NO_WORKERS = "max_workers is 0"
_TOO = f"; {NO_WORKERS}"
# A change of these may let waiting jobs go.
_LIMITS = frozenset({"max_concurrency", "rate_limit", "rate_period_seconds"})

# The states are written out: only so does SQLite see that an index with a condition will do.
_UNREADY = "state IN ('blocked', 'scheduled', 'waiting')"
_IS_UNREADY = RawSQL("state IN ('blocked', 'scheduled', 'waiting')", [], models.BooleanField())
_OPEN = {
    State.BLOCKED: f"{_UNREADY} AND state = 'blocked'",
    State.SCHEDULED: f"{_UNREADY} AND state = 'scheduled'",
    State.READY: "state = 'ready'",
    State.RUNNING: "state = 'running'",
    State.WAITING: f"{_UNREADY} AND state = 'waiting'",
}
_COUNTED = "(SELECT count(*) FROM (SELECT 1 FROM job WHERE {} LIMIT %(limit)s) AS found)"
_COUNT_OPEN = "SELECT " + ", ".join(
    _COUNTED.format(f"{condition} AND queue = %(queue)s") for condition in _OPEN.values()
)


class QueueQuerySet(models.QuerySet["Queue"]):
    def named(self, name: str) -> QueueQuerySet:
        """The queue of this name; none where no queue can have it."""
        # Such a name is not asked for: some databases refuse the very question.
        return self.filter(name=name) if _NAME.match(name) else self.none()

    def create_queue(self, name: str, **policies: Any) -> Queue:
        """Make a queue; policies that are not given are as the cluster's settings say."""
        if not isinstance(name, str) or not _NAME.match(name):
            raise InvalidQueue(f"a name has {QUEUE_NAME.message}", field="name")
        if name in RESERVED_NAMES:
            raise InvalidQueue("this name is part of an address of the API", field="name")
        check_policies(policies)
        queue = Queue(name=name, **policies)
        check_together(policies, queue.policies())
        try:
            # A transaction of its own: the refusal must not spoil one around us.
            with deed("queues.create", "queue", name, using=self.db) as trace:
                trace.after = queue.policies()
                queue.save(using=self.db, force_insert=True)
        except IntegrityError:
            if not self.filter(name=name).exists():
                raise
            raise DuplicateQueue(f"queue {name!r} exists", field="name") from None
        queue.refresh_from_db()
        return queue

    def change(self, **policies: Any) -> int:
        """Change policies of these queues, of all or of none."""
        check_policies(policies)
        with deed("queues.change", "queue", using=self.db) as trace:
            # Locked: two changes that are each sound might not be so together.
            queues = [*self.select_for_update(no_key=True)]
            _tell_change(trace, queues, policies)
            for queue in queues:
                check_together(policies, {**queue.policies(), **policies})
            changed = Queue.objects.using(self.db).filter(pk__in=[queue.pk for queue in queues])
            changed.update(**policies, version=F("version") + 1)
            if queues and not _LIMITS.isdisjoint(policies):
                hint_ready(self.db, {ANY_QUEUE})
        return len(queues)

    @verb_of_rows("queues.pause", "queue", key="name", says=("resume_at", "resume_in_seconds"))
    def pause(
        self,
        *,
        by: str,
        reason: str = "",
        resume_at: datetime | None = None,
        resume_in_seconds: float | None = None,
    ) -> int:
        """Stop claims from these queues. Their jobs stay ready; what runs goes on.

        What was paused before stays so, now for this reason and until this time.
        """
        if problem := text_problem(reason, MAX_REASON_LENGTH):
            raise InvalidQueue(f"reason {problem}", field="reason")
        rows, until = self, _pause_until(resume_at, resume_in_seconds)
        if isinstance(until, datetime):
            moment = Value(until, models.DateTimeField())
            rows = self.filter(GreaterThan(moment, Now()), LessThan(moment, Now() + LONGEST_PAUSE))
        paused = rows.update(
            is_paused=True,
            paused_by=by[:200],
            pause_reason=reason,
            paused_at=Coalesce(F("paused_at"), Now()),
            resume_at=until,
            version=F("version") + 1,
        )
        if not paused and rows is not self and self.exists():
            raise InvalidQueue("resume_at must lie ahead, at most ten years", field="resume_at")
        return paused

    @verb_of_rows("queues.resume", "queue", key="name")
    def resume(self) -> int:
        """Let nodes claim from these queues again."""
        resumed = self.filter(is_paused=True).update(
            is_paused=False,
            paused_by=None,
            pause_reason=None,
            paused_at=None,
            resume_at=None,
            version=F("version") + 1,
        )
        if resumed:
            hint_ready(self.db, {ANY_QUEUE})
        return resumed

    @verb_of_rows("queues.change", "queue", key="name", says=("number",))
    def limit_workers(self, number: int, *, by: str) -> int:
        """Let so many jobs of these queues run at a time; with none they rest until a number comes.

        A pause by people is another matter, and neither begins nor ends here.
        """
        with transaction.atomic(using=self.db):
            queues = [*self.select_for_update(no_key=True)]
            for queue in queues:
                one = Queue.objects.using(self.db).filter(pk=queue.pk)
                if number:
                    one.change(max_concurrency=number)
                if bool(number) is not queue.has_no_workers:
                    continue
                if number and not queue.is_paused_by_people:
                    one.resume()
                elif number:
                    one._tell_why((queue.pause_reason or "").removesuffix(_TOO))
                elif queue.is_paused:
                    one._tell_why(
                        (queue.pause_reason or "")[: MAX_REASON_LENGTH - len(_TOO)] + _TOO
                    )
                else:
                    one.pause(by=by, reason=NO_WORKERS)
        return len(queues)

    def set_paused(self, is_paused: bool, *, by: str, reason: str) -> int:
        """Begin or end the pause by people; returns how many changed.

        A queue that may have no workers rests on.
        """
        verb = "queues.pause" if is_paused else "queues.resume"
        with deed(verb, "queue", using=self.db, reason=reason) as trace:
            queues = [*self.select_for_update(no_key=True)]
            queues = [queue for queue in queues if queue.is_paused_by_people is not is_paused]
            trace.about([queue.name for queue in queues])
            trace.changed(len(queues))
            for queue in queues:
                one = Queue.objects.using(self.db).filter(pk=queue.pk)
                if is_paused:
                    one.pause(by=by, reason=reason + _TOO if queue.has_no_workers else reason)
                elif queue.has_no_workers:
                    one.pause(by=by, reason=NO_WORKERS)
                else:
                    one.resume()
        return len(queues)

    def end_pauses(self) -> int:
        """Resume these queues; those that may have no workers rest on."""
        resting = self.filter(pause_reason__endswith=_TOO)
        return resting.set_paused(False, by="upkeep", reason="") + self.resume()

    def _tell_why(self, reason: str) -> None:
        self.update(pause_reason=reason, version=F("version") + 1)

    def due_to_resume(self) -> QueueQuerySet:
        """Queues whose pause was to last until now."""
        return self.filter(is_paused=True, resume_at__lte=Now())

    @verb_of_rows("queues.delete", "queue", key="name")
    def delete_unused(self) -> int:
        """Delete those of these queues whose jobs have all ended and into which no schedule puts more;
        the default queue stays.

        A job that is accepted, retried or moved at this very moment may find its queue gone; upkeep
        brings the queue back then, see ``ticks.restore_queues``.
        """
        with transaction.atomic(using=self.db):
            queues = self.exclude(name=DEFAULT_QUEUE).select_for_update()
            unused = [
                q.pk
                for q in queues
                if not any(count_open(self.db, q.name, 1).values())
                and not schedules_into(self.db, q.name)
            ]
            return Queue.objects.using(self.db).filter(pk__in=unused)._raw_delete(self.db) or 0

    @verb_of_rows("queues.delete", "queue", key="name")
    def delete_with_waiting(self, most: int) -> int:
        """Delete these queues and cancel what waits in them, as long as that is not more than so many.

        Refused where something runs, where more waits, and for the default queue. Those jobs stay, with
        the name of their queue.
        """
        from jobs.models.job import Job

        deleted = 0
        with transaction.atomic(using=self.db):
            for queue in self.order_by("name").select_for_update():
                left = count_open(self.db, queue.name, most + 1)
                runs = left[State.RUNNING] or left[State.WAITING]
                if queue.name == DEFAULT_QUEUE or runs or sum(left.values()) > most:
                    raise queue.in_use()
                jobs = Job.objects.using(self.db).filter(queue=queue.name)
                # Two halves, which have an index each.
                ids = [*jobs.filter(state=State.READY).values_list("pk", flat=True)]
                ids += jobs.filter(_IS_UNREADY).values_list("pk", flat=True)
                Job.objects.using(self.db).filter(pk__any_of=ids, state__in=UNSTARTED).cancel()
                if not Queue.objects.using(self.db).filter(pk=queue.pk).delete_unused():
                    # Some of it was claimed, or more came, just now.
                    raise queue.in_use()
                deleted += 1
        return deleted


def _tell_change(trace: Trace, queues: Sequence[Queue], policies: Mapping[str, Any]) -> None:
    """What is different in the first of these queues, which is mostly the only one."""
    trace.about([queue.name for queue in queues])
    trace.changed(len(queues))
    if queues:
        trace.before, trace.after = differences(queues[0].policies(), policies)


def schedules_into(using: str, queue: str) -> list[str]:
    """The names of some schedules that put jobs into a queue."""
    from jobs.models.schedule import Schedule

    schedules = Schedule.objects.using(using).all().kept().filter(queue=queue)
    return [*schedules.order_by("name").values_list("name", flat=True)[:3]]


def count_open(using: str, queue: str, limit: int) -> dict[str, int]:
    """How many jobs of a queue are in each state before the end, counted up to the limit."""
    with connections[using].cursor() as cursor:
        cursor.execute(_COUNT_OPEN, {"queue": queue, "limit": limit})
        counts: tuple[int, ...] = cursor.fetchone()
    return dict(zip((state.value for state in _OPEN), counts, strict=True))


def _pause_until(resume_at: datetime | None, resume_in_seconds: float | None) -> Any:
    """When a pause ends: a time, an expression of the database's clock, or None."""
    if resume_in_seconds is None:
        if resume_at is not None and resume_at.tzinfo is None:
            raise InvalidQueue("resume_at needs a time zone", field="resume_at")
        return resume_at
    if resume_at is not None:
        raise InvalidQueue(
            "give resume_at or resume_in_seconds, not both", field="resume_in_seconds"
        )
    if not 0 < resume_in_seconds <= LONGEST_PAUSE.total_seconds():
        raise InvalidQueue(
            "resume_in_seconds must be above 0 and at most ten years", field="resume_in_seconds"
        )
    return Now() + timedelta(seconds=resume_in_seconds)


class Queue(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100, unique=True, validators=[QUEUE_NAME])
    description = models.CharField(max_length=500, default="", blank=True)
    is_paused = models.BooleanField(default=False)
    paused_by = models.CharField(max_length=200, null=True)
    pause_reason = models.CharField(max_length=500, null=True)
    paused_at = models.DateTimeField(null=True)
    # When a pause ends by itself.
    resume_at = models.DateTimeField(null=True)
    # Over all nodes, what they hold but have not begun included.
    max_concurrency = models.PositiveIntegerField(null=True)
    # So many starts in any stretch of so many seconds, over all nodes.
    rate_limit = models.PositiveIntegerField(null=True)
    rate_period_seconds = models.FloatField(default=1.0, db_default=1.0)
    # Starts that still count; see jobs.engine.limits. No business of people.
    rate_grants = models.JSONField(default=list, db_default=Value([], models.JSONField()))
    # For jobs that do not say; null: as the cluster's settings say.
    default_priority = models.SmallIntegerField(null=True)
    default_timeout_seconds = models.FloatField(null=True)
    default_max_attempts = models.PositiveSmallIntegerField(null=True)
    is_backoff_enabled = models.BooleanField(default=True, db_default=True)
    retry_base_seconds = models.FloatField(null=True)
    retry_cap_seconds = models.FloatField(null=True)
    # Not started so long after it was due: failed as `expired`.
    max_age_seconds = models.FloatField(null=True)
    # Jobs that have not been started; beyond it the newest is refused or the oldest dropped.
    max_entries = models.PositiveIntegerField(null=True)
    overflow = models.CharField(
        max_length=11, choices=Overflow, default=Overflow.REFUSE, db_default=Overflow.REFUSE.value
    )
    # How long finished jobs are kept; null: as the cluster's settings say.
    retain_succeeded_seconds = models.FloatField(null=True)
    retain_failed_seconds = models.FloatField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    # Counts the edits; the ETag of the row.
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Queue]] = QueueQuerySet.as_manager()

    class Meta:
        db_table = "queue"
        constraints = [
            models.CheckConstraint(
                name="queue_pause_tells_when_and_who",
                condition=models.Q(is_paused=True, paused_at__isnull=False, paused_by__isnull=False)
                | models.Q(is_paused=False, paused_at=None, paused_by=None),
            ),
            models.CheckConstraint(
                name="queue_resumes_what_is_paused",
                condition=models.Q(is_paused=True) | models.Q(resume_at=None),
            ),
            models.CheckConstraint(
                name="queue_limits_positive",
                condition=(models.Q(max_concurrency=None) | models.Q(max_concurrency__gte=1))
                & (models.Q(rate_limit=None) | models.Q(rate_limit__gte=1))
                & (models.Q(max_entries=None) | models.Q(max_entries__gte=1))
                & models.Q(rate_period_seconds__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def has_no_workers(self) -> bool:
        reason = self.pause_reason or ""
        return self.is_paused and (reason == NO_WORKERS or reason.endswith(_TOO))

    @property
    def is_paused_by_people(self) -> bool:
        return self.is_paused and self.pause_reason != NO_WORKERS

    def policies(self) -> dict[str, Any]:
        """What people have set, by name."""
        return {name: getattr(self, name) for name in POLICIES}

    def delete_unused(self) -> None:
        """Delete this queue, unless a job in it has not ended."""
        if not Queue.objects.using(self._state.db).filter(pk=self.pk).delete_unused():
            raise self.in_use()

    def in_use(self) -> QueueInUse:
        """Why this queue is not deleted."""
        if self.name == DEFAULT_QUEUE:
            return QueueInUse("the default queue cannot be deleted", field="name")
        if names := schedules_into(str(self._state.db), self.name):
            told = ", ".join(map(repr, names))
            return QueueInUse(f"schedules put jobs into queue {self.name!r}: {told}", field="name")
        left = count_open(str(self._state.db), self.name, COUNTED_IN_REFUSALS)
        jobs = ", ".join(f"{_number(n)} {state}" for state, n in left.items() if n)
        return QueueInUse(
            f"jobs in queue {self.name!r} have not ended: {jobs or 'none any more, try again'}",
            field="name",
        )


def _number(counted: int) -> str:
    return str(counted) if counted < COUNTED_IN_REFUSALS else f"{counted} or more"
