"""The one front door for new jobs.

One job or ten thousand, from a surface, a command or Python code: all are checked here and inserted in
one transaction, the caller's own where there is one on the same database.

Most single jobs are one statement on PostgreSQL. Jobs with parents, jobs that name a moment and jobs for
a queue that counts its entries take the longer way, which is also that of many jobs and of SQLite.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from clusters.acting import who_acts
from clusters.deeds import deed, require
from clusters.models import current_policy
from clusters.policy import ARCHIVED, ClusterPolicy
from jobs.engine import insert
from jobs.engine.clock import database_now
from jobs.engine.dependencies import Waits, attach_many
from jobs.engine.insert import Row, Shared
from jobs.engine.insert_one import insert_one
from jobs.engine.new_job import CheckedJob, NewJob, Terms, check, check_ids, unknown_queue
from jobs.engine.overflow import make_fit
from jobs.engine.repeat import is_repeat
from jobs.engine.started_kinds import check_news
from jobs.errors import ClusterArchived, Conflict, DuplicateJob, JobError
from jobs.hints import hint_ready
from jobs.models import Event, Job, Queue
from jobs.raw import fetch_models
from jobs.states import State, Trigger
from jobs.tallies import count

__all__ = ["Enqueued", "NewJob", "enqueue", "enqueue_many"]

# COPY is many times faster than an INSERT of many rows, once there are many.
COPY_FROM = 20
# Written out: to put the query together takes longer than to run it.
_POSTGRES_QUEUES = "SELECT * FROM queue WHERE name = ANY(%s)"
_SQLITE_QUEUES = "SELECT * FROM queue WHERE name IN (SELECT value FROM json_each(%s))"
# How often an insert gives way to a job that has ended when we look for it.
ROUNDS = 10


class Enqueued:
    """What became of one question: a new job, or with ``created`` False the one that was there.

    ``job_id`` is its id as text. ``job`` is read when it is first asked for: most who enqueue thousands
    never do.
    """

    __slots__ = ("_job", "_load", "created", "job_id")

    def __init__(self, job_id: str, created: bool, load: Callable[[str], Job]) -> None:
        self.job_id = job_id
        self.created = created
        self._load = load
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        if self._job is None:
            self._job = self._load(self.job_id)
        return self._job


def enqueue(new: NewJob, *, by: str) -> Enqueued:
    """Accept one job for the bound cluster; ``by`` names who asked."""
    try:
        if who_acts() is not None:
            return _as_deed([new], lambda: [_enqueue(new, by)])[0]
        return _enqueue(new, by)
    except JobError as error:
        error.index = None
        raise


def _enqueue(new: NewJob, by: str) -> Enqueued:
    return _in_one_statement(new, by[:200]) or _enqueue_many([new], by)[0]


def _in_one_statement(new: NewJob, by: str) -> Enqueued | None:
    using = router.db_for_write(Job)
    connection = connections[using]
    waits = new.depends_on or new.lost_parents
    is_made = new.origin or new.step or new.is_conducted
    if connection.vendor != "postgresql" or waits or new.names_a_moment or is_made:
        return None
    policy = current_policy()
    if policy.mode == ARCHIVED:
        _refuse_in_archive(new)
    (job,) = check((new,), policy, None)
    inserted = insert_one(connection, job, policy, by)
    if inserted is None:
        return None
    if inserted.is_ready:
        hint_ready(using, {job.terms.queue})
    return Enqueued(job.id, True, lambda job_id: inserted.to_model(using))


def enqueue_many(
    news: Sequence[NewJob], *, by: str, now: datetime | None = None, has_savepoint: bool = True
) -> list[Enqueued]:
    """Accept all of these jobs or none; the answers come in the order of the questions.

    ``now``: what the database's clock said a moment ago, where the caller knows. A caller that gives
    its own transaction up where a job is refused needs no savepoint.
    """
    if not news:
        return []
    accept = partial(_enqueue_many, news, by, now, has_savepoint)
    return accept() if who_acts() is None else _as_deed(news, accept)


def _as_deed(news: Sequence[NewJob], accept: Callable[[], list[Enqueued]]) -> list[Enqueued]:
    """What somebody enqueues. The job itself tells who did; the audit does where the cluster wants it."""
    using = router.db_for_write(Job)
    require("jobs.enqueue", using)
    check_news(using, news)
    if not current_policy().audit_enqueues:
        return accept()
    with deed("jobs.enqueue", "job", using=using) as trace:
        accepted = accept()
        made = [one.job_id for one in accepted if one.created]
        trace.about(made)
        trace.changed(len(made))
        trace.after = {
            "type": sorted({new.type for new in news}),
            "kind": sorted({new.kind for new in news}),
        }
    return accepted


def _enqueue_many(
    news: Sequence[NewJob],
    by: str,
    now: datetime | None = None,
    has_savepoint: bool = True,
) -> list[Enqueued]:
    using = router.db_for_write(Job)
    connection = connections[using]
    call = _Call(using, current_policy(), now or database_now(connection), by[:200], has_savepoint)
    if call.policy.mode == ARCHIVED:
        for new in news:
            _refuse_in_archive(new)
    check_ids(news)
    checked: Iterable[CheckedJob] = check(news, call.policy, call.now)
    is_plain = not any(
        new.may_exist
        or new.depends_on
        or new.lost_parents
        or new.origin
        or new.notes is not None
        or new.step
        or new.is_conducted
        for new in news
    )
    if connection.vendor == "postgresql" and is_plain and len(news) >= COPY_FROM:
        # One is checked while the server inserts another.
        return call.copy_all(checked, news)
    # Checked before the transaction: it takes a while, and on SQLite all other writers would wait.
    return call.insert_all([*checked], news)


def _refuse_in_archive(new: NewJob) -> None:
    """Only what belongs to work that was accepted before may still come."""
    is_mend = new.origin is not None and new.origin.trigger == Trigger.SCHEDULE
    if not (new.step or new.is_of_engine or is_mend):
        raise ClusterArchived


class _Call:
    """One call of ``enqueue_many``."""

    def __init__(
        self, using: str, policy: ClusterPolicy, now: datetime, by: str, has_savepoint: bool
    ) -> None:
        self.using = using
        self.policy = policy
        self.now = now
        self.by = by
        self.has_savepoint = has_savepoint
        self.fresh: Counter[Shared] = Counter()

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.using]

    def copy_all(self, checked: Iterable[CheckedJob], news: Sequence[NewJob]) -> list[Enqueued]:
        answers: list[Enqueued] = []
        load = _Stored(self.using, answers).get
        with transaction.atomic(using=self.using):
            queues = self._queues(news)

            def rows() -> Iterator[Row]:
                fresh = self.fresh
                for row in self._rows(checked, queues):
                    answers.append(Enqueued(row.job.id, True, load))
                    fresh[row.shared] += 1
                    yield row

            insert.copy_rows(self.connection, rows())
            self._finish(queues)
            self._hint(shared.state == State.READY and shared.queue for shared in self.fresh)
        return answers

    def insert_all(self, checked: Sequence[CheckedJob], news: Sequence[NewJob]) -> list[Enqueued]:
        with transaction.atomic(using=self.using, savepoint=self.has_savepoint):
            queues = self._queues(news)
            rows = [*self._rows(checked, queues)]
            known = self._insert(rows)
            fresh = [row for row in rows if row.job.index not in known]
            _refuse_what_is_late(fresh)
            insert.insert_words(self.using, fresh)
            insert.insert_steps(self.connection, fresh)
            self.fresh.update(row.shared for row in fresh)
            states = self._attach(fresh)
            self._finish(queues)
            self._hint(
                states.get(row.job.id, row.state) == State.READY and row.shared.queue
                for row in fresh
            )
        answers: list[Enqueued] = []
        stored = _Stored(self.using, answers)
        for row in rows:
            old = known.get(row.job.index)
            if old is None:
                answers.append(Enqueued(row.job.id, True, stored.get))
            else:
                answers.append(Enqueued(str(old.pk), False, stored.get))
        return answers

    def _queues(self, news: Sequence[NewJob]) -> dict[str, Queue]:
        """The queues as they are; those that count their entries are ours until we commit."""
        names = sorted({new.queue for new in news})
        rows = Queue.objects.using(self.using)
        if self.connection.vendor == "postgresql":
            found = fetch_models(Queue, self.connection, _POSTGRES_QUEUES, [names])
        else:
            found = fetch_models(Queue, self.connection, _SQLITE_QUEUES, [json.dumps(names)])
        queues = {queue.name: queue for queue in found}
        limited = [queue.name for queue in queues.values() if queue.max_entries is not None]
        if limited:
            locked = rows.filter(name__in=limited).order_by("name").select_for_update(no_key=True)
            queues |= {queue.name: queue for queue in locked}
        return queues

    def _rows(self, checked: Iterable[CheckedJob], queues: Mapping[str, Queue]) -> Iterator[Row]:
        known: dict[Terms, Shared] = {}
        for job in checked:
            shared = known.get(job.terms)
            if shared is None:
                queue = queues.get(job.terms.queue)
                if queue is None:
                    error = unknown_queue(job.terms.queue)
                    error.index = job.index
                    raise error
                shared = insert.fill_in(job.terms, queue, self.policy, self.now, self.by)
                known[job.terms] = shared
            yield Row(job, shared)

    def _insert(self, rows: Sequence[Row]) -> dict[int, Job]:
        """Insert what is not there; returns what is, by the place of its question."""
        known: dict[int, Job] = {}
        left = rows
        for _ in range(ROUNDS):
            fresh = insert.insert_rows(self.connection, left)
            missed = [row for row in left if row.job.id not in fresh]
            if not missed:
                return known
            known |= self._find(missed)
            # What was in the way has ended or gone since: there is room for ours.
            left = [row for row in missed if row.job.index not in known]
        raise Conflict("jobs with this unique key come and go; try again", field="unique_key")

    def _find(self, rows: Sequence[Row]) -> dict[int, Job]:
        jobs = Job.objects.using(self.using)
        by_id = jobs.in_bulk([row.job.new.id for row in rows if row.job.new.id is not None])
        keys = {row.job.new.unique_key for row in rows}
        by_key = {job.unique_key: job for job in jobs.filter(unique_key__in=keys, finished_at=None)}
        known = {}
        for row in rows:
            new = row.job.new
            old = by_id.get(new.id) if new.id is not None else None
            if old is not None and not is_repeat(old, row):
                error = DuplicateJob(field="id")
                error.index = row.job.index
                raise error
            old = old or by_key.get(new.unique_key)
            if old is not None:
                known[row.job.index] = old
        return known

    def _attach(self, fresh: Sequence[Row]) -> dict[str, State]:
        """Let jobs wait for their parents; returns the states they are in then."""
        children = [row for row in fresh if row.job.new.depends_on or row.job.new.lost_parents]
        waits = [
            Waits(
                UUID(row.job.id),
                [*row.job.new.depends_on],
                row.job.new.needs,
                row.job.new.on_dependency_failure,
                row.job.new.origin.rules if row.job.new.origin else {},
                row.job.new.lost_parents,
            )
            for row in children
        ]
        try:
            states = attach_many(self.using, waits)
        except JobError as error:
            if error.index is not None:
                error.index = children[error.index].job.index
            raise
        return {str(job_id): state for job_id, state in states.items()}

    def _finish(self, queues: Mapping[str, Queue]) -> None:
        kinds = ((one.queue, one.type, Event.ENQUEUED, n) for one, n in self.fresh.items())
        count(self.using, kinds)
        for name in sorted({shared.queue for shared in self.fresh}):
            make_fit(self.using, queues[name])

    def _hint(self, queues: Iterable[str | bool]) -> None:
        ready = {queue for queue in queues if isinstance(queue, str)}
        if ready:
            hint_ready(self.using, ready)


def _refuse_what_is_late(fresh: Iterable[Row]) -> None:
    """A repeat may come after the job should have ended; a new job may not."""
    for row in fresh:
        error = row.job.terms.too_late
        if error is not None:
            error.index = row.job.index
            raise error


class _Stored:
    """The jobs of one call, read together when the first of them is asked for."""

    def __init__(self, using: str, answers: Sequence[Enqueued]) -> None:
        self._using = using
        self._answers = answers
        self._jobs: dict[UUID, Job] | None = None

    def get(self, job_id: str) -> Job:
        if self._jobs is None:
            jobs = Job.objects.using(self._using)
            self._jobs = jobs.in_bulk([UUID(one.job_id) for one in self._answers])
        return self._jobs[UUID(job_id)]
