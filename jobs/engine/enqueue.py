"""The one front door for new jobs.

One job or ten thousand, from a surface, a command or Python code: all are checked here and inserted in
one transaction, the caller's own where there is one on the same database.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import IntegrityError, connections, transaction
from psycopg import Cursor
from uuid_utils.compat import uuid7

from clusters.models import current_policy
from clusters.policy import ClusterPolicy
from jobs.engine.clock import database_now
from jobs.errors import DuplicateJob, InvalidJob, JobError, PayloadTooLarge, UnknownQueue
from jobs.executors import get_kind
from jobs.hints import hint_ready
from jobs.models import Job, JobTag, Queue
from jobs.models.job import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.states import OnLost, State

TYPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,199}\Z")
MAX_TAGS, MAX_TAG_LENGTH = 20, 60
MAX_TIMEOUT_SECONDS = 7 * 86400
MAX_ATTEMPTS = 100
FARTHEST = timedelta(days=366 * 10)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as asked for. None means: as the cluster's settings say.

    ``type`` is the registered handler's name for kind ``python``; for other kinds it is a label and
    may be left out. ``payload`` is any JSON value, ``payload_bytes`` raw bytes instead of it.
    ``delay_seconds`` counts from the database's now; ``run_at`` must be aware. ``id`` makes the
    enqueue repeatable: the same id with the same content is the same job.
    """

    type: str = ""
    payload: Any = None
    payload_bytes: bytes | None = None
    kind: str = "python"
    queue: str = "default"
    priority: int = 0
    run_at: datetime | None = None
    delay_seconds: float | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    tags: Sequence[str] = ()
    on_lost: str = OnLost.RETRY
    id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    job: Job
    created: bool


def enqueue(new: NewJob, *, by: str) -> Enqueued:
    """Accept one job for the bound cluster; ``by`` names who asked."""
    try:
        return enqueue_many([new], by=by)[0]
    except JobError as error:
        error.index = None
        raise


def enqueue_many(news: Sequence[NewJob], *, by: str) -> list[Enqueued]:
    """Accept all of these jobs or none; the answers come in the order of the questions."""
    try:
        return _enqueue_many(news, by)
    except IntegrityError:
        if not any(new.id for new in news):
            raise
        # Somebody inserted one of these ids since we looked; now it is there to be compared.
        return _enqueue_many(news, by)


def _enqueue_many(news: Sequence[NewJob], by: str) -> list[Enqueued]:
    using = Job.objects.all().db
    # Checked and built before the transaction: ten thousand jobs take a while, and on SQLite all
    # other writers would wait for it.
    policy = current_policy()
    _check_queues(news)
    now = database_now(connections[using])
    jobs = []
    for index, new in enumerate(news):
        try:
            jobs.append(_build(new, policy, now, by))
        except JobError as error:
            error.index = index
            raise
    with transaction.atomic(using=using):
        known = _already_there(news, jobs)
        fresh = [job for job in jobs if job.pk not in known]
        _insert(using, fresh)
        JobTag.objects.using(using).bulk_create(JobTag.objects.all().of(fresh))
        ready = {job.queue for job in fresh if job.state == State.READY}
        if ready:
            hint_ready(using, ready)
    return [Enqueued(known.get(job.pk, job), job.pk not in known) for job in jobs]


def _check_queues(news: Sequence[NewJob]) -> None:
    wanted = {new.queue for new in news}
    existing = set(Queue.objects.filter(name__in=wanted).values_list("name", flat=True))
    for index, new in enumerate(news):
        if new.queue not in existing:
            error = UnknownQueue(f"there is no queue {new.queue[:100]!r}", field="queue")
            error.index = index
            raise error


def _build(new: NewJob, policy: ClusterPolicy, now: datetime, by: str) -> Job:
    kind = get_kind(new.kind)
    type_name = new.type or (kind.name if kind.name != "python" else "")
    if not TYPE_NAME.match(type_name):
        raise InvalidJob(
            "a type has 1 to 200 letters, digits and _ . : / - and begins with a letter or digit",
            field="type",
        )
    if not HIGHEST_PRIORITY <= new.priority <= LOWEST_PRIORITY:
        raise InvalidJob(
            f"priority must be between {HIGHEST_PRIORITY} and {LOWEST_PRIORITY}", field="priority"
        )
    max_attempts = policy.default_max_attempts if new.max_attempts is None else new.max_attempts
    if not 1 <= max_attempts <= MAX_ATTEMPTS:
        raise InvalidJob(f"max_attempts must be between 1 and {MAX_ATTEMPTS}", field="max_attempts")
    timeout = policy.default_timeout_seconds if new.timeout_seconds is None else new.timeout_seconds
    if not 0 < timeout <= MAX_TIMEOUT_SECONDS:
        raise InvalidJob(
            f"timeout_seconds must be above 0 and at most {MAX_TIMEOUT_SECONDS}",
            field="timeout_seconds",
        )
    if new.on_lost not in OnLost.values:
        raise InvalidJob(f"on_lost must be one of {', '.join(OnLost.values)}", field="on_lost")
    _check_payload(new, policy)
    kind.validate(new.payload)
    run_at = _run_at(new, now)
    return Job(
        id=new.id or uuid7(),
        kind=kind.name,
        type=type_name,
        queue=new.queue,
        state=State.SCHEDULED if run_at > now else State.READY,
        priority=new.priority,
        payload=new.payload,
        payload_bytes=new.payload_bytes,
        tags=_tags(new.tags),
        enqueued_by=by[:200],
        on_lost=new.on_lost,
        timeout_seconds=timeout,
        max_attempts=max_attempts,
        run_at=run_at,
        created_at=now,
    )


def _check_payload(new: NewJob, policy: ClusterPolicy) -> None:
    if new.payload_bytes is not None:
        if new.payload is not None:
            raise InvalidJob("give a JSON payload or bytes, not both", field="payload_bytes")
        size = len(new.payload_bytes)
    else:
        try:
            text = json.dumps(new.payload, ensure_ascii=False, allow_nan=False)
            size = len(text.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidJob(f"payload is not JSON: {error}", field="payload") from error
        if "\\u0000" in text and _holds_nul(new.payload):
            raise InvalidJob("payload holds a NUL character", field="payload")
    if size > policy.max_payload_bytes:
        raise PayloadTooLarge(
            f"payload has {size} bytes, the cluster allows {policy.max_payload_bytes}",
            field="payload",
        )


def _holds_nul(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return False


def _tags(tags: Iterable[str]) -> list[str]:
    unique = list(dict.fromkeys(tags))
    if len(unique) > MAX_TAGS:
        raise InvalidJob(f"at most {MAX_TAGS} tags", field="tags")
    for tag in unique:
        if not 1 <= len(tag) <= MAX_TAG_LENGTH or not tag.isprintable():
            raise InvalidJob(f"a tag has 1 to {MAX_TAG_LENGTH} printable characters", field="tags")
    return unique


def _run_at(new: NewJob, now: datetime) -> datetime:
    if new.run_at is not None and new.delay_seconds is not None:
        raise InvalidJob("give run_at or delay_seconds, not both", field="delay_seconds")
    if new.delay_seconds is not None:
        if not 0 <= new.delay_seconds <= FARTHEST.total_seconds():
            raise InvalidJob("delay_seconds must be between 0 and ten years", field="delay_seconds")
        return now + timedelta(seconds=new.delay_seconds)
    if new.run_at is None:
        return now
    if new.run_at.tzinfo is None:
        raise InvalidJob("run_at needs a time zone, such as a trailing Z", field="run_at")
    if new.run_at > now + FARTHEST:
        raise InvalidJob("run_at is more than ten years ahead", field="run_at")
    # A time long past would put the job before everything else; it is simply due.
    return max(new.run_at.astimezone(UTC), now)


def _already_there(news: Sequence[NewJob], jobs: Sequence[Job]) -> dict[uuid.UUID, Job]:
    """Jobs whose id the client chose and which exist; refuse those that differ."""
    chosen = {new.id: index for index, new in enumerate(news) if new.id is not None}
    if not chosen:
        return {}
    for index, new in enumerate(news):
        if new.id is not None and chosen[new.id] != index:
            twice = InvalidJob("two jobs in one call have the same id", field="id")
            twice.index = chosen[new.id]
            raise twice
    known = Job.objects.in_bulk(chosen)
    for job_id, old in known.items():
        new_job, new = jobs[chosen[job_id]], news[chosen[job_id]]
        if _content(old, new) != _content(new_job, new):
            error = DuplicateJob(field="id")
            error.index = chosen[job_id]
            raise error
    return known


def _content(job: Job, asked: NewJob) -> tuple[Any, ...]:
    """What makes two jobs the same: all that was asked for, without what the cluster filled in."""
    data = None if job.payload_bytes is None else bytes(job.payload_bytes)
    return (
        job.kind,
        job.type,
        job.queue,
        job.priority,
        job.payload,
        data,
        sorted(job.tags),
        job.on_lost,
        None if asked.run_at is None else job.run_at,
        None if asked.max_attempts is None else job.max_attempts,
        None if asked.timeout_seconds is None else job.timeout_seconds,
    )


COLUMNS = (
    "id",
    "kind",
    "type",
    "queue",
    "state",
    "priority",
    "payload",
    "payload_bytes",
    "tags",
    "enqueued_by",
    "on_lost",
    "timeout_seconds",
    "max_attempts",
    "run_at",
    "created_at",
    "is_held",
    "attempts",
    "crashes",
    "fence",
)


def _insert(using: str, jobs: Sequence[Job]) -> None:
    connection = connections[using]
    if connection.vendor != "postgresql" or len(jobs) < COPY_FROM:
        Job.objects.using(using).bulk_create(jobs)
        return
    # COPY is ten times faster than multi-row inserts once there are many rows.
    with (
        connection.wrap_database_errors,
        Cursor(connection.connection) as cursor,
        cursor.copy(f"COPY job ({', '.join(COLUMNS)}) FROM STDIN") as copy,
    ):
        for job in jobs:
            copy.write_row([_copied(job, column) for column in COLUMNS])


COPY_FROM = 20


def _copied(job: Job, column: str) -> Any:
    value = getattr(job, column)
    return json.dumps(value) if column in ("tags", "payload") and value is not None else value
