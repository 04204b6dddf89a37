"""The columns of the list of jobs, of which each reader chooses some; and all of them as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections

from clusters.csv_text import csv_line, formula_safe
from jobs import job_search, listing
from jobs.api.items import item_sql, key_of


class Column(NamedTuple):
    name: str
    label: str
    is_number: bool = False


COLUMNS = {
    column.name: column
    for column in (
        Column("state", "State"),
        Column("queue", "Queue"),
        Column("kind", "Kind"),
        Column("priority", "Priority", True),
        Column("attempts", "Attempts", True),
        Column("took", "Took", True),
        Column("enqueued", "Enqueued"),
        Column("by", "By"),
        Column("due", "Due"),
        Column("started", "Started"),
        Column("finished", "Finished"),
        Column("unique_key", "Unique key"),
        Column("error", "Error"),
    )
}
SHOWN = ("state", "queue", "attempts", "took", "enqueued")

# Of an export: the fields of a job in the API.
EXPORTED = (
    *("id", "type", "kind", "queue", "state", "reason", "is_held", "priority", "tags", "attempts"),
    *(
        "max_attempts",
        "enqueued_by",
        "unique_key",
        "copy_of",
        "schedule_id",
        "node_id",
        "created_at",
    ),
    *("run_at", "started_at", "finished_at", "fingerprint", "error"),
)
# An export ends there; whoever needs more asks for one stretch of time after the other.
MAX_EXPORTED = 100_000
_PAGE = 500


def chosen(names: list[str] | None) -> list[Column]:
    """In the order of the table, whatever the order of the address."""
    return [column for name, column in COLUMNS.items() if name in (names or SHOWN)]


def csv_pieces(using: str, asked: Mapping[str, Any], limit: int = MAX_EXPORTED) -> Iterator[bytes]:
    """A heading and the newest jobs that match, in pieces; an empty one where a search goes on."""
    yield csv_line(EXPORTED).encode()
    columns = item_sql(connections[using].vendor)
    beyond, left = None, limit
    while left > 0:
        found, reached = job_search.find(using, asked, columns, min(_PAGE, left), beyond=beyond)
        items = [item for (item,) in found]
        yield "".join(map(_line, items)).encode("utf-8", "replace")
        left -= len(items)
        if reached is None and len(items) < _PAGE:
            return
        beyond = reached or _position(items[-1])


def _position(item: str) -> listing.Position:
    created_at, pk = key_of(item)
    return listing.Position(datetime.fromisoformat(created_at), UUID(pk))


def _line(item: str) -> str:
    job = json.loads(item)
    return csv_line(_cell(job[name]) for name in EXPORTED)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, int | float):
        return "" if value is None else json.dumps(value)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return formula_safe(str(value))
