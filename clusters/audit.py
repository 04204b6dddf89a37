"""The audit as it is read: the newest first, as JSON, and as CSV for a spreadsheet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Q

from clusters.api.fields import format_time
from clusters.csv_text import csv_line, formula_safe
from clusters.models import TraceQuerySet

COLUMNS = (
    *("id", "at", "actor", "credential", "surface", "address", "request_id", "verb"),
    *("target_type", "target_id", "filter", "count", "reason", "before", "after"),
)
# An export ends there; whoever needs more asks for one stretch of time after the other.
MAX_EXPORTED = 100_000
_PAGE = 500


def entry_to_json(entry: Any) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "at": format_time(entry.at),
        **{name: getattr(entry, name) for name in COLUMNS[2:]},
    }


def csv_lines(rows: TraceQuerySet, limit: int = MAX_EXPORTED) -> Iterator[str]:
    """A heading and the newest of these rows, each as a line; read page by page."""
    yield csv_line(COLUMNS)
    for entry in newest(rows, limit):
        yield csv_line(_cell(value) for value in entry_to_json(entry).values())


def newest(rows: TraceQuerySet, limit: int) -> Iterator[Any]:
    """The newest of these rows, however many there are: each page begins where the last one ended."""
    beyond, left = Q(), limit
    while left > 0:
        page = list(rows.filter(beyond).order_by("-at", "-id")[: min(_PAGE, left)])
        yield from page
        if len(page) < _PAGE:
            return
        left -= len(page)
        last = page[-1]
        beyond = Q(at__lte=last.at) & (Q(at__lt=last.at) | Q(at=last.at, id__lt=last.id))


def _cell(value: Any) -> str:
    if value is None or isinstance(value, int | float):
        return "" if value is None else json.dumps(value)
    if isinstance(value, Mapping | list):
        value = json.dumps(value, ensure_ascii=False)
    return formula_safe(str(value))
