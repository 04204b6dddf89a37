"""The database that a cluster lives in: what it is, how large it is and how busy, as it says itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

_PRAGMAS = {
    "journal_mode": "PRAGMA journal_mode",
    "synchronous": "PRAGMA synchronous",
    "page_size": "PRAGMA page_size",
    "page_count": "PRAGMA page_count",
}
_SYNCHRONOUS = {"0": "off", "1": "normal", "2": "full", "3": "extra"}
_SHOWN = (
    "server_version",
    "max_connections",
    "synchronous_commit",
    "wal_level",
    "statement_timeout",
)
# All of this database; what others' sessions do is told to their owners only, so they count as idle.
_ACTIVITY = """
SELECT count(*) FILTER (WHERE state <> 'idle'), count(*), current_setting('max_connections')::int,
       pg_database_size(current_database())
  FROM pg_stat_activity WHERE datname = current_database()
"""
_ROWS = """
SELECT tup_fetched, tup_inserted + tup_updated + tup_deleted
  FROM pg_stat_database WHERE datname = current_database()
"""
_MAY_LIST_WAL = "SELECT has_function_privilege('pg_catalog.pg_ls_waldir()', 'execute')"
_WAL = "SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()"


@dataclass(frozen=True, slots=True)
class Activity:
    """How large a database is, and how busy; None where it does not say.

    ``rows_read`` and ``rows_written`` only grow, from some start on.
    """

    connections_active: int | None = None
    connections_idle: int | None = None
    connections_max: int | None = None
    database_bytes: int | None = None
    wal_bytes: int | None = None
    rows_read: int | None = None
    rows_written: int | None = None


def facts(using: str) -> list[tuple[str, str]]:
    """What the database says of itself, by the names that it has for that."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        found = [(name, str(_one(connection, f"SHOW {name}"))) for name in _SHOWN]
        return [*found, ("database_size_bytes", str(activity(using).database_bytes))]
    found = [("sqlite_version", str(_one(connection, "SELECT sqlite_version()")))]
    found += [(name, str(_one(connection, sql))) for name, sql in _PRAGMAS.items()]
    timeout = int(_one(connection, "PRAGMA busy_timeout"))
    found = [(n, _SYNCHRONOUS.get(v, v) if n == "synchronous" else v) for n, v in found]
    return [
        *found,
        ("busy_timeout_secs", f"{timeout / 1000:g}"),
        # Of all processes that have the file open, one writes at a time.
        ("write_pool_max", "1"),
    ]


def activity(using: str) -> Activity:
    """How large the database is, and how busy at this moment."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        pages = int(_one(connection, _PRAGMAS["page_count"]))
        path = Path(f"{connection.settings_dict['NAME']}-wal")
        return Activity(
            database_bytes=pages * int(_one(connection, _PRAGMAS["page_size"])),
            wal_bytes=path.stat().st_size if path.exists() else 0,
        )
    with connection.cursor() as cursor:
        cursor.execute(_ACTIVITY)
        active, present, most, size = cursor.fetchone()
        cursor.execute(_ROWS)
        read, written = cursor.fetchone()
    may_list = _one(connection, _MAY_LIST_WAL)
    wal = int(_one(connection, _WAL)) if may_list else None
    return Activity(active, present - active, most, size, wal, read, written)


def _one(connection: BaseDatabaseWrapper, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]
