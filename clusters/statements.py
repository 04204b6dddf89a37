"""How long the statements of a request may take: a limit of its caller, on either database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from clusters.databases import STATEMENT_SECONDS

# Of SQLite's machine, between two questions whether to go on; it takes some milliseconds for them.
SQLITE_STEPS = 100_000


@contextmanager
def statements_limited(alias: str, seconds: float) -> Iterator[None]:
    """Let statements of this thread take so long and no longer, for the length of the block.

    Behind a pooler the role of the database carries the limit, and it is the same for all.
    """
    connection = connections[alias]
    if connection.vendor == "sqlite":
        with _interrupted_after(connection, seconds):
            yield
    elif seconds == STATEMENT_SECONDS or settings.DB_POOLED:
        yield
    else:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", [int(seconds * 1000)])
        try:
            yield
        finally:
            _forget_limit(connection)


def _forget_limit(connection: BaseDatabaseWrapper) -> None:
    """The next request's limit is the connection's own again, or it has another connection."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout")
    except (DatabaseError, InterfaceError):
        if not connection.in_atomic_block:
            connection.close()


@contextmanager
def _interrupted_after(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """SQLite knows no such limit, but it asks from time to time whether to go on."""
    connection.ensure_connection()
    opened: Any = connection.connection
    until = time.monotonic() + seconds

    def from_now_on(execute: Callable[..., Any], *statement: Any) -> Any:
        nonlocal until
        until = time.monotonic() + seconds
        return execute(*statement)

    opened.set_progress_handler(lambda: time.monotonic() > until, SQLITE_STEPS)
    try:
        with connection.execute_wrapper(from_now_on):
            yield
    finally:
        opened.set_progress_handler(None, 0)
