"""Rows of new jobs: COPY for many, and what both databases understand.

A row is what jobs that were asked for alike share (``Shared``), with the queue's defaults filled in, and
what is the job's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import Cursor

from clusters.policy import ClusterPolicy
from jobs.engine.new_job import CheckedJob, StepOf, Terms, to_json
from jobs.models import JobMetadata, JobTag, Needs, Queue, StepsListing, StepsRun
from jobs.models.job_listing import metadata_value
from jobs.sealing import is_sealed
from jobs.secrets import shown_payload
from jobs.states import State
from jobs.step_words import AUDIENCE, DELETE_AFTER, STEPS

# -- Any number, both databases --------------------------------------------------------------------

_OWN = (
    *("id", "payload", "payload_bytes", "tags", "metadata"),
    *("unique_key", "copy_of", "state", "pending_dependencies"),
)
_SHARED = (
    *("kind", "type", "queue", "enqueued_by", "on_lost"),
    *("priority", "timeout_seconds", "max_attempts", "progress_timeout_seconds"),
    *(
        "retry_base_seconds",
        "retry_cap_seconds",
        "retry_curve",
        "run_at",
        "created_at",
        "expires_at",
    ),
    *("deadline_at", "is_held", "attempts", "crashes", "fence"),
)
COLUMNS = _OWN + _SHARED
# Of jobs that something made: a schedule, a workflow.
_MADE = ("schedule_id", "trigger", "due_at", "workflow_run_id", "waits_for", "has_dependants")
# Of jobs of dialects.
_NOTES = ("dialect_notes",)
# Rows of one statement: SQLite takes 32,766 values, the driver for PostgreSQL as many.
PORTION = 500


@dataclass(slots=True, eq=False)
class Shared:
    """Columns that jobs asked for alike have in common. ``state`` is that of one without parents."""

    queue: str
    type: str
    state: State
    created_at: datetime
    values: tuple[Any, ...]
    # The same as the end of a line of COPY, with the columns of no job here.
    tail: str


@dataclass(slots=True, eq=False)
class Row:
    job: CheckedJob
    shared: Shared

    @property
    def state(self) -> State:
        new = self.job.new
        is_held_back = new.origin is not None and new.origin.waits_for is not None
        waits = new.depends_on or new.lost_parents or is_held_back
        return State.BLOCKED if waits else self.shared.state


def fill_in(terms: Terms, queue: Queue, policy: ClusterPolicy, now: datetime, by: str) -> Shared:
    """The defaults of queue and cluster where the job does not say; as ``insert_one`` does."""
    retry_base = queue.retry_base_seconds if queue.is_backoff_enabled else 0.0
    expires_after = terms.expires_after
    if expires_after is None and queue.max_age_seconds is not None:
        expires_after = timedelta(seconds=queue.max_age_seconds)
    run_at = now + terms.due_after
    state = State.SCHEDULED if terms.due_after else State.READY
    attempts = _first(terms.max_attempts, queue.default_max_attempts, policy.default_max_attempts)
    if terms.is_limited_by_queue:
        attempts = min(attempts, _first(queue.default_max_attempts, attempts))
    values = (
        *(terms.kind.name, terms.type, terms.queue, by, terms.on_lost),
        _first(terms.priority, queue.default_priority, 0),
        _first(
            terms.timeout_seconds, queue.default_timeout_seconds, policy.default_timeout_seconds
        ),
        attempts,
        terms.progress_timeout_seconds,
        _first(terms.retry_base_seconds, retry_base),
        _first(terms.retry_cap_seconds, queue.retry_cap_seconds),
        terms.retry_curve,
        *(run_at, now),
        None if expires_after is None else run_at + expires_after,
        None if terms.deadline_after is None else run_at + terms.deadline_after,
        *(False, 0, 0, 0),
    )
    return Shared(terms.queue, terms.type, state, now, values, _fields(state.value, 0, *values))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def insert_rows(connection: BaseDatabaseWrapper, rows: Sequence[Row]) -> set[str]:
    """Insert jobs where none with that id or unique key is there; returns the ids of the new ones.

    In the order of their unique keys, because two calls that wait for each other's would never end.
    """
    fresh: set[str] = set()
    is_made = any(row.job.new.origin or row.job.new.step for row in rows)
    has_notes = any(row.job.new.notes is not None for row in rows)
    columns = COLUMNS + (_MADE if is_made else ()) + (_NOTES if has_notes else ())
    places = f"({', '.join(['%s'] * len(columns))})"
    ordered = iter(sorted(rows, key=_by_unique_key))
    with connection.cursor() as cursor:
        while portion := [*islice(ordered, PORTION)]:
            values = [value for row in portion for value in _values(row, is_made, has_notes)]
            cursor.execute(
                f"INSERT INTO job ({', '.join(columns)}) VALUES {', '.join([places] * len(portion))}"
                " ON CONFLICT DO NOTHING RETURNING id",
                _for_database(connection, values),
            )
            fresh.update(str(UUID(str(job_id))) for (job_id,) in cursor.fetchall())
    return fresh


def insert_words(using: str, rows: Iterable[Row]) -> None:
    """Tags and metadata of new jobs, to find them by."""
    tags: list[JobTag] = []
    metadata: list[JobMetadata] = []
    for row in rows:
        own: dict[str, Any] = {"job_id": UUID(row.job.id), "created_at": row.shared.created_at}
        tags += [JobTag(tag=tag, **own) for tag in row.job.tags]
        metadata += [
            JobMetadata(key=key, value=metadata_value(value), **own)
            for key, value in row.job.metadata.items()
        ]
    JobTag.objects.using(using).bulk_create(tags)
    JobMetadata.objects.using(using).bulk_create(metadata)


_SAID_OF_STEPS = tuple(name for name in StepOf.__slots__ if name != "definition")
_STEP_COLUMNS = ("job_id", "created_at", "definition", *_SAID_OF_STEPS)
_STEP_NAMES = ", ".join(f'"{name}"' for name in _STEP_COLUMNS)


def insert_steps(connection: BaseDatabaseWrapper, rows: Iterable[Row]) -> None:
    """What makes new jobs steps of others, and what those count who will have steps."""
    using = connection.alias
    steps: list[tuple[Any, ...]] = []
    runs: list[StepsRun] = []
    listed: list[StepsListing] = []
    for row in rows:
        new, own = row.job.new, {"job_id": UUID(row.job.id), "created_at": row.shared.created_at}
        if (step := new.step) is not None:
            rest = [getattr(step, name) for name in _SAID_OF_STEPS]
            steps.append((*own.values(), to_json(step.definition), *rest))
        if new.is_conducted:
            said = new.payload if isinstance(new.payload, dict) else {}
            if is_sealed(said):
                said = shown_payload(new.kind, said)
            texts = {name: said.get(name) or "" for name in ("name", "description")}
            # Only what it does itself is told, and so only of whole definitions.
            is_watched = True if new.kind == STEPS and said.get("webhooks") else None
            runs.append(StepsRun(**own, **texts, is_watched=is_watched))
            if new.kind == STEPS:
                notes = new.notes or {}
                kept = {
                    "audience": notes.get(AUDIENCE),
                    "delete_after_seconds": notes.get(DELETE_AFTER),
                }
                listed.append(StepsListing(**own, **texts, **kept))
    for start in range(0, len(steps), PORTION):
        portion = steps[start : start + PORTION]
        # Written out, as jobs are: each step of a job made of them waits for this one.
        places = f"({', '.join(['%s'] * len(_STEP_COLUMNS))})"
        values = _for_database(connection, [value for row in portion for value in row])
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO step ({_STEP_NAMES}) VALUES {', '.join([places] * len(portion))}",
                values,
            )
    if runs:
        StepsRun.objects.using(using).bulk_create(runs)
    if listed:
        StepsListing.objects.using(using).bulk_create(listed)
    if watched := [run.pk for run in runs if run.is_watched]:
        from jobs.engine.webhooks import tell

        tell(using, watched)


def _by_unique_key(row: Row) -> str:
    return row.job.new.unique_key or ""


def _values(row: Row, is_made: bool, has_notes: bool) -> tuple[Any, ...]:
    """The values of all columns: those every job has, of what made it, and what a dialect notes."""
    job, new = row.job, row.job.new
    pending = 0
    if parents := len(new.depends_on) + len(new.lost_parents or ()):
        pending = 1 if new.needs == Needs.ANY else parents
    origin: tuple[Any, ...] = (None, None, None, None, None, False)
    if (made := new.origin) is not None:
        pending += made.waits_for is not None
        # Its schedule hears of its end.
        origin = (
            *(made.schedule_id, made.trigger, made.due_at, made.workflow_run_id, made.waits_for),
            True,
        )
    elif new.step is not None:
        origin = (*origin[:-1], True)
    return (
        UUID(job.id),
        job.payload,
        new.payload_bytes,
        to_json(job.tags),
        to_json(job.metadata),
        *(new.unique_key, new.copy_of, row.state.value, pending),
        *row.shared.values,
        *(origin if is_made else ()),
        *((None if new.notes is None else to_json(new.notes),) if has_notes else ()),
    )


def _for_database(connection: BaseDatabaseWrapper, values: list[Any]) -> list[Any]:
    """Parameters as the database takes them."""
    if connection.vendor == "postgresql":
        return values
    return [_for_sqlite(connection, value) for value in values]


def _for_sqlite(connection: BaseDatabaseWrapper, value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


# -- Many, PostgreSQL ------------------------------------------------------------------------------

_COPIED = (
    *("id", "payload", "payload_bytes", "tags", "metadata"),
    *("state", "pending_dependencies"),
    *_SHARED,
)
_COPY = f"COPY job ({', '.join(_COPIED)}) FROM STDIN"
_COPY_TAGS = "COPY job_tag (tag, job_id, created_at) FROM STDIN"
_COPY_METADATA = "COPY job_metadata (key, value, job_id, created_at) FROM STDIN"
# Lines that are handed over together: enough to make a call worth while, few enough that the server
# has work while the next are made.
_LINES = 100


def copy_rows(connection: BaseDatabaseWrapper, rows: Iterable[Row]) -> None:
    """Insert jobs that nobody else can have inserted: new ids, no unique keys, no parents.

    The rows are made while the server works on those before.
    """
    tags: list[str] = []
    metadata: list[str] = []
    with connection.wrap_database_errors, Cursor(connection.connection) as cursor:
        with cursor.copy(_COPY) as copy:
            lines: list[str] = []
            for row in rows:
                lines.append(_line(row))
                if len(lines) == _LINES:
                    copy.write("".join(lines))
                    lines.clear()
                job, created_at = row.job, row.shared.created_at
                if job.tags:
                    tags += [_fields(tag, job.id, created_at) for tag in job.tags]
                if job.metadata:
                    metadata += [
                        _fields(key, metadata_value(value), job.id, created_at)
                        for key, value in job.metadata.items()
                    ]
            copy.write("".join(lines))
        for statement, more in ((_COPY_TAGS, tags), (_COPY_METADATA, metadata)):
            if more:
                with cursor.copy(statement) as copy:
                    copy.write("".join(more))


def _line(row: Row) -> str:
    job = row.job
    payload = job.payload
    if payload is None:
        payload = r"\N"
    elif "\\" in payload:
        payload = payload.replace("\\", r"\\")
    data = job.new.payload_bytes
    payload_bytes = r"\N" if data is None else r"\\x" + data.hex()
    tags = _copied(to_json(job.tags)) if job.tags else "[]"
    metadata = _copied(to_json(job.metadata)) if job.metadata else "{}"
    return f"{job.id}\t{payload}\t{payload_bytes}\t{tags}\t{metadata}\t{row.shared.tail}"


def _fields(*values: Any) -> str:
    return "\t".join(map(_copied, values)) + "\n"


def _copied(value: Any) -> str:
    """A value as COPY reads it."""
    if value is None:
        return r"\N"
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    if "\\" in text or not text.isprintable():
        text = text.replace("\\", r"\\")
        text = text.replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")
    return text
