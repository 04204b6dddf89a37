"""Rows by the thousand: what a job's row says, and the fastest way into either database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from psycopg import Cursor

# Rows of one transaction: half a second at most.
AT_ONCE = 4000


@dataclass(slots=True)
class JobRow:
    """A row of ``job``; documents are JSON texts."""

    id: UUID
    kind: str
    type: str
    queue: str
    state: str
    created_at: datetime
    run_at: datetime
    enqueued_by: str
    timeout_seconds: float
    max_attempts: int
    payload: str | None = None
    tags: str = "[]"
    metadata: str = "{}"
    reason: str | None = None
    is_held: bool = False
    priority: int = 0
    on_lost: str = "retry"
    attempts: int = 0
    crashes: int = 0
    fence: int = 0
    node_id: UUID | None = None
    progress_percent: float | None = None
    progress_note: str | None = None
    result: str | None = None
    error: str | None = None
    fingerprint: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    expires_at: datetime | None = None
    unique_key: str | None = None
    pending_dependencies: int = 0
    has_dependants: bool = False
    schedule_id: UUID | None = None
    due_at: datetime | None = None
    trigger: str | None = None
    workflow_run_id: UUID | None = None
    copy_of: UUID | None = None


JOB = tuple(field.name for field in fields(JobRow))
values_of_job = attrgetter(*JOB)
ATTEMPT = (
    *("job_id", "fence", "number", "node_id", "outcome", "error_type", "error", "effect_unknown"),
    *("started_at", "finished_at"),
)
LINE = ("job_id", "fence", "stream", "level", "message", "logged_at")
TAG = ("tag", "job_id", "created_at")
METADATA = ("key", "value", "created_at", "job_id")
SIGHTING = ("fingerprint", "job_id", "fence", "seen_at")
TALLY = ("minute", "queue", "type", "event", "bucket", "reason", "outcome", "count")


def put(using: str, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows, some thousand a transaction."""
    for start in range(0, len(rows), AT_ONCE):
        with transaction.atomic(using=using):
            _put(using, table, columns, rows[start : start + AT_ONCE])


def _put(using: str, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    connection = connections[using]
    names = ", ".join(f'"{name}"' for name in columns)
    if connection.vendor == "postgresql":
        with (
            connection.wrap_database_errors,
            Cursor(connection.connection) as driver,
            driver.copy(f"COPY {table} ({names}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)
        return
    places = ", ".join(["%s"] * len(columns))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} ({names}) VALUES ({places})",  # names of our own  # noqa: S608
            [[_for_sqlite(value) for value in row] for row in rows],
        )


def _for_sqlite(value: Any) -> Any:
    # Asked of millions of values, nearly all of which are texts and numbers.
    kind = type(value)
    if kind is datetime:
        # As Django stores a time. All of the demo's are in UTC.
        return str(value.replace(tzinfo=None))
    return value.hex if kind is UUID else value
