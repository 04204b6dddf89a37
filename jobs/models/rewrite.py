"""Rewrite: many rows get values of their own by one statement.

Django's ``bulk_update`` writes a CASE with a branch for each row and column, which takes a hundred times
as long to build as the database takes to do it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connections, models


def rewrite(using: str, rows: Sequence[models.Model], columns: Sequence[str]) -> None:
    """Write these columns of rows that the caller holds; no JSON and no bytes among them."""
    if not rows:
        return
    connection = connections[using]
    model = type(rows[0])
    table = model._meta.db_table
    fields: list[Any] = [model._meta.get_field(name) for name in ("id", *columns)]
    is_postgresql = connection.vendor == "postgresql"
    said = [
        {f.attname: _plain(getattr(row, f.attname), is_postgresql) for f in fields} for row in rows
    ]
    names = [field.attname for field in fields]
    if is_postgresql:
        types = ", ".join(f"{f.attname} {_type(f, connection)}" for f in fields)
        source = f"jsonb_to_recordset(%s::jsonb) AS d({types})"
    else:
        picked = ", ".join(f"value ->> '{name}' AS {name}" for name in names)
        source = f"(SELECT {picked} FROM json_each(%s)) AS d"  # noqa: S608  names of columns
    values = ", ".join(f"{name} = d.{name}" for name in names[1:])
    with connection.cursor() as cursor:
        statement = f"UPDATE {table} SET {values} FROM {source} WHERE {table}.id = d.id"  # noqa: S608
        cursor.execute(statement, [json.dumps(said)])


def _type(field: Any, connection: Any) -> str:
    return str(
        field.rel_db_type(connection) if field.primary_key else field.cast_db_type(connection)
    )


def _plain(value: Any, is_postgresql: bool) -> Any:
    if isinstance(value, UUID):
        return str(value) if is_postgresql else value.hex
    if isinstance(value, datetime):
        moment = value.astimezone(UTC)
        return moment.isoformat() if is_postgresql else str(moment.replace(tzinfo=None))
    return value
