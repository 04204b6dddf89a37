"""The checker's own way to the database: plain SQL on a connection that knows nothing of Django."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote

import psycopg


class Queryable(Protocol):
    """Somewhere to ask in SQL."""

    is_postgresql: bool

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]: ...


class Database:
    """One database by its address. Every call has a connection of its own, so none outlives a fault."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_postgresql = address.startswith("postgresql")
        self.path = "" if self.is_postgresql else unquote(address.removeprefix("sqlite:///"))

    def connect(self) -> Any:
        if self.is_postgresql:
            return psycopg.connect(self.address, autocommit=True, connect_timeout=5)
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        connection = self.connect()
        try:
            if not self.is_postgresql:
                statement = statement.replace("%s", "?")
            # Without parameters psycopg takes several statements, and a % for what it is.
            done = (
                connection.execute(statement, parameters or None)
                if self.is_postgresql
                else (connection.execute(statement, parameters))
            )
            return list(done.fetchall()) if done.description else []
        finally:
            connection.close()

    def value(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        rows = self.rows(statement, parameters)
        return rows[0][0] if rows else None

    def wait_until_it_answers(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.rows("SELECT 1")
                return
            except (psycopg.Error, sqlite3.Error):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


class OwnTransaction:
    """The same questions on a Django connection, for tests that undo all they did."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_postgresql = connection.vendor == "postgresql"

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []


def plain_id(value: Any) -> str:
    """An id as all of this suite compares it: 32 hexadecimal digits."""
    return str(value).replace("-", "")


def seconds(value: Any) -> float | None:
    """A time of either database as seconds since 1970."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value).replace(tzinfo=UTC)
    return float(value.timestamp())
