"""The row of one new job on PostgreSQL, in one statement.

It fills in the defaults of queue and cluster by itself, so that it needs no look at the queue before.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import Cursor

from clusters.policy import ClusterPolicy
from jobs.engine.new_job import CheckedJob, to_json
from jobs.models import Job
from jobs.models.job_listing import metadata_value
from jobs.states import State

# The time of a statement is one and the same all through it; that of the transaction may be long ago.
_AFTER = "statement_timestamp() + make_interval(secs => %s::float8)"
# Columns that a job may leave to others: how they are written where it says something, and where not.
# What is not said is no parameter, for each costs both sides time; a shape of jobs is a statement.
_OPTIONAL = (
    ("payload", "%s::jsonb", "NULL"),
    ("payload_bytes", "%s::bytea", "NULL"),
    ("tags", "%s::jsonb", "'[]'"),
    ("metadata", "%s::jsonb", "'{}'"),
    ("unique_key", "%s", "NULL"),
    ("copy_of", "%s::uuid", "NULL"),
    ("dialect_notes", "%s::jsonb", "NULL"),
    ("progress_timeout_seconds", "%s::float8", "NULL"),
    ("retry_curve", "%s", "NULL"),
    ("priority", "%s::int2", "coalesce(default_priority, 0)"),
    ("retry_cap_seconds", "%s::float8", "retry_cap_seconds"),
    (
        "retry_base_seconds",
        "%s::float8",
        "CASE WHEN is_backoff_enabled THEN retry_base_seconds ELSE 0 END",
    ),
    ("run_at", _AFTER, "statement_timestamp()"),
    ("deadline_at", _AFTER, "NULL"),
)
# The same, with another value to go on from.
_WITH_FALLBACK = (
    ("timeout_seconds", "%s::float8", "coalesce(default_timeout_seconds, %s::float8)"),
    ("max_attempts", "%s::int2", "coalesce(default_max_attempts, %s::int2)"),
    ("expires_at", _AFTER, _AFTER.replace("%s", "max_age_seconds + %s")),
)
# In the place of ``max_attempts``, where it is an upper limit; null counts for nothing here.
_LIMITED = "least(default_max_attempts, %s::int2)"
_ONE = """
WITH fresh AS (
  INSERT INTO job (id, kind, type, state, enqueued_by, on_lost, {columns},
                   queue, created_at, is_held, attempts, crashes, fence)
  SELECT %s::uuid, %s, %s, %s, %s, %s, {values},
         queue.name, statement_timestamp(), false, 0, 0, 0
    FROM queue WHERE queue.name = %s AND queue.max_entries IS NULL
  {conflict}
  RETURNING queue, type, id, priority, timeout_seconds, max_attempts, retry_base_seconds,
            retry_cap_seconds, created_at, expires_at
), counted AS (
  INSERT INTO tally (minute, queue, type, event, count)
  SELECT date_trunc('minute', created_at), queue, type, 'enqueued', 1 FROM fresh
){more}
SELECT priority, timeout_seconds, max_attempts, retry_base_seconds, retry_cap_seconds,
       (extract(epoch FROM created_at) * 1000000)::int8,
       (extract(epoch FROM expires_at) * 1000000)::int8 FROM fresh
"""
_TAGGED = """, tagged AS (
  INSERT INTO job_tag (tag, job_id, created_at)
  SELECT unnest(%s::text[]), id, created_at FROM fresh
)"""
_NOTED = """, noted AS (
  INSERT INTO job_metadata (key, value, job_id, created_at)
  SELECT m.key, m.value, id, created_at
    FROM fresh, unnest(%s::text[], %s::text[]) AS m (key, value)
)"""


@lru_cache(maxsize=256)
def _statement(
    said: tuple[bool, ...], is_limited: bool, may_exist: bool, is_tagged: bool, is_noted: bool
) -> str:
    columns: tuple[tuple[str, str, str], ...] = _OPTIONAL + _WITH_FALLBACK
    if is_limited:
        columns = tuple(
            (n, _LIMITED, o) if n == "max_attempts" else (n, g, o) for n, g, o in columns
        )
    return _ONE.format(
        columns=", ".join(name for name, _, _ in columns),
        values=", ".join(
            given if is_said else other
            for is_said, (_, given, other) in zip(said, columns, strict=True)
        ),
        conflict="ON CONFLICT DO NOTHING" if may_exist else "",
        more=(_TAGGED if is_tagged else "") + (_NOTED if is_noted else ""),
    )


def insert_one(
    connection: BaseDatabaseWrapper, job: CheckedJob, policy: ClusterPolicy, by: str
) -> InsertedJob | None:
    """Insert a job without parents, its tags and its tally in one statement.

    None where that is not all there is to it: the queue is missing or counts its entries, or there is
    such a job already. Nothing was written then.
    """
    terms, new = job.terms, job.new
    due = terms.due_after.total_seconds()
    optional = (
        job.payload,
        new.payload_bytes,
        to_json(job.tags) if job.tags else None,
        to_json(job.metadata) if job.metadata else None,
        new.unique_key,
        new.copy_of,
        None if new.notes is None else to_json(new.notes),
        terms.progress_timeout_seconds,
        terms.retry_curve,
        terms.priority,
        terms.retry_cap_seconds,
        terms.retry_base_seconds,
        due or None,
        None if terms.deadline_after is None else due + terms.deadline_after.total_seconds(),
    )
    with_fallback = (
        (terms.timeout_seconds, policy.default_timeout_seconds),
        (terms.max_attempts, policy.default_max_attempts),
        (None if terms.expires_after is None else due + terms.expires_after.total_seconds(), due),
    )
    values: list[Any] = [
        *(job.id, terms.kind.name, terms.type, "scheduled" if due else "ready", by, terms.on_lost),
        *(value for value in optional if value is not None),
        *(other if value is None else value for value, other in with_fallback),
        terms.queue,
    ]
    if job.tags:
        values.append([*job.tags])
    if job.metadata:
        values += [[*job.metadata], [metadata_value(value) for value in job.metadata.values()]]
    statement = _statement(
        (
            *(value is not None for value in optional),
            *(value is not None for value, _ in with_fallback),
        ),
        terms.is_limited_by_queue,
        new.may_exist,
        bool(job.tags),
        bool(job.metadata),
    )
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    # The driver's own cursor, because Django's puts values into the text and prepares nothing.
    with (
        _savepoint(connection),
        connection.wrap_database_errors,
        Cursor(connection.connection) as cursor,
    ):
        row = cursor.execute(statement, values, prepare=True).fetchone()
    return None if row is None else InsertedJob(job, by, row)


@dataclass(slots=True, eq=False)
class InsertedJob:
    """A job and what the database filled in; the model is made only for who wants to see it."""

    job: CheckedJob
    by: str
    filled_in: tuple[Any, ...]

    @property
    def is_ready(self) -> bool:
        return not self.job.terms.due_after

    def to_model(self, using: str) -> Job:
        new, terms = self.job.new, self.job.terms
        priority, timeout, max_attempts, retry_base, retry_cap, created, expires = self.filled_in
        created_at = _moment(created)
        run_at = created_at + terms.due_after
        job = Job(
            id=UUID(self.job.id),
            kind=terms.kind.name,
            type=terms.type,
            queue=terms.queue,
            state=State.READY if self.is_ready else State.SCHEDULED,
            priority=priority,
            payload=new.payload,
            payload_bytes=new.payload_bytes,
            tags=[*self.job.tags],
            metadata=dict(self.job.metadata),
            unique_key=new.unique_key,
            copy_of=new.copy_of,
            dialect_notes=None if new.notes is None else dict(new.notes),
            enqueued_by=self.by,
            on_lost=terms.on_lost,
            timeout_seconds=timeout,
            max_attempts=max_attempts,
            progress_timeout_seconds=terms.progress_timeout_seconds,
            retry_base_seconds=retry_base,
            retry_cap_seconds=retry_cap,
            retry_curve=terms.retry_curve,
            run_at=run_at,
            created_at=created_at,
            expires_at=None if expires is None else _moment(expires),
            deadline_at=None if terms.deadline_after is None else run_at + terms.deadline_after,
            pending_dependencies=0,
            has_dependants=False,
        )
        job._state.db, job._state.adding = using, False
        return job


# Whole microseconds: reading a time from the driver would cost more than all the other columns.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _savepoint(connection: BaseDatabaseWrapper) -> AbstractContextManager[Any]:
    """So that a refusal leaves the caller's transaction usable; without one a statement is its own."""
    if connection.get_autocommit():
        return nullcontext()
    return transaction.atomic(using=connection.alias)
