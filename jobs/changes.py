"""What has happened to jobs since a moment: reads along indexes that are in the order of time.

Rows become visible a little later than they are dated, so whoever follows asks again from somewhat
before the last question, and leaves out what he has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections


class Change(NamedTuple):
    """A job to look at, and when something happened to it."""

    at: datetime
    job_id: UUID


class _Source(NamedTuple):
    table: str
    key: str
    moment: str
    # In the words of the index, which a database uses only then.
    condition: str = "TRUE"
    index_name: str | None = None


# Jobs that were made, that run, that were tried, and that ended without success, tried or not.
SOURCES: Mapping[str, _Source] = {
    "created": _Source("job_listing", "job_id", "created_at"),
    "started": _Source("job", "id", "started_at", "state = 'running'", "job_holder"),
    "tried": _Source("attempt", "job_id", "finished_at", index_name="attempt_ended"),
    "ended": _Source(
        "job",
        "id",
        "finished_at",
        "finished_at IS NOT NULL AND NOT (state = 'succeeded')",
        "job_unsuccessful",
    ),
}


def changes(using: str, source: str, beyond: Change, limit: int) -> list[Change]:
    """What happened after that, oldest first."""
    table, key, moment, condition, index_name = SOURCES[source]
    connection = connections[using]
    is_sqlite = connection.vendor == "sqlite"
    hint = f" INDEXED BY {index_name}" if is_sqlite and index_name else ""
    since: Any = beyond.at
    at: Any = beyond.at
    job_id: Any = beyond.job_id
    if is_sqlite:
        at, job_id = _whole(beyond.at), beyond.job_id.hex
        # Some of SQLite's times leave out digits at the end, which must not put them before it.
        since = at.rstrip("0").rstrip(".")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {moment}, {key} FROM {table}{hint} WHERE {condition} AND {moment} >= %s"
            f" AND ({moment} > %s OR {key} > %s) ORDER BY {moment}, {key} LIMIT {limit:d}",
            [since, at, job_id],
        )
        return [
            Change(read_moment(found), read_id(found_id)) for found, found_id in cursor.fetchall()
        ]


def _whole(moment: datetime) -> str:
    """A time with all of its digits, as it is compared in SQLite."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def read_moment(value: Any) -> datetime:
    """A time as a database gives it; SQLite's is UTC without saying so."""
    moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def read_id(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
