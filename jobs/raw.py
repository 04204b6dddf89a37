"""Statements of ours: prepared where that pays, and values as a database gives them.

Django puts the parameters into the text of each statement, so PostgreSQL plans it anew each time. What
is written out and run for each job or step goes through here instead, and is planned once a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

_Model = TypeVar("_Model", bound=models.Model)
Parameters = Sequence[Any] | Mapping[str, Any]


def fetch(
    connection: BaseDatabaseWrapper, statement: str, parameters: Parameters = ()
) -> list[tuple[Any, ...]]:
    """Run a statement and give its rows; none where it has none to give."""
    if connection.vendor != "postgresql" or connection.queries_logged:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return [] if cursor.description is None else list(cursor.fetchall())
    _, rows = _prepared(connection, statement, parameters)
    return rows


def fetch_models(
    model: type[_Model],
    connection: BaseDatabaseWrapper,
    statement: str,
    parameters: Parameters = (),
) -> list[_Model]:
    """The same as instances; columns that are no fields of the model become attributes."""
    if connection.vendor != "postgresql" or connection.queries_logged:
        return list(model._default_manager.using(connection.alias).raw(statement, parameters))
    columns, rows = _prepared(connection, statement, parameters)
    fields, beside = _plan(model, columns)
    names = [name for name, _, _ in fields]
    found = []
    for row in rows:
        values = [
            row[place] if read is None else read(row[place], None, connection)
            for _, place, read in fields
        ]
        one = model.from_db(connection.alias, names, values)
        for name, place in beside:
            setattr(one, name, row[place])
        found.append(one)
    return found


def _prepared(
    connection: BaseDatabaseWrapper, statement: str, parameters: Parameters
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(statement, parameters)
        found = cursor.pgresult
        if found is None or not found.nfields:
            return (), []
        # Not the cursor's description: that is an object with all that is known of each column.
        names = tuple((found.fname(place) or b"").decode() for place in range(found.nfields))
        return names, cursor.fetchall()


_Read = Callable[[Any, Any, BaseDatabaseWrapper], Any]


@cache
def _plan(
    model: type[models.Model], columns: tuple[str, ...]
) -> tuple[list[tuple[str, int, _Read | None]], list[tuple[str, int]]]:
    """Of each field that was read its name, its place in a row and how it is read, in the order of the
    model; and the name and place of each column that is no field."""
    places = {column: place for place, column in enumerate(columns)}
    fields = [
        (field.attname, places.pop(field.column), getattr(field, "from_db_value", None))
        for field in model._meta.concrete_fields
        if field.column in places
    ]
    return fields, [*places.items()]


def read_moment(value: Any) -> datetime:
    """A time; SQLite gives text, which is UTC without saying so."""
    moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def read_id(value: Any) -> UUID:
    """An id; SQLite gives text."""
    return value if isinstance(value, UUID) else UUID(value)
