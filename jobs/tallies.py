"""Tallies: what happened, counted in the transaction in which it did.

Claims and completions write theirs inside their own statements. Everybody else who enqueues jobs, or
ends some that never started, calls ``count``. ``rollup.py`` folds them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connections

# Events that come in any number cost one row per queue and type, and one statement.
_POSTGRES = """
INSERT INTO tally (minute, queue, type, event, reason, count)
SELECT date_trunc('minute', clock_timestamp()), queue, type, event, reason, count
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::int[])
       AS t (queue, type, event, reason, count)
"""
_SQLITE = "INSERT INTO tally (minute, queue, type, event, reason, count) VALUES "
# As Django stores a time without a fraction.
_SQLITE_ROW = "(strftime('%%Y-%%m-%%d %%H:%%M:00', 'now'), %s, %s, %s, %s, %s)"
_FAILED = "failed"
# Values of one statement; SQLite as Python ships it takes 250,000, older ones 32,766.
_PAGE = 4000


# Queue, type, event, bucket; then why a job failed and how its attempt ended, where that is not said
# by the event.
Tallied = tuple[str, str, str, int | None, str | None, str | None]


def count(
    using: str, rows: Iterable[tuple[str, str, str, int]], *, reason: str | None = None
) -> None:
    """Tally events without a duration: rows of queue, type, event and how many. Call it in the
    transaction of the deed. ``reason`` is that of the failures among them."""
    grouped: Counter[tuple[str, str, str, str | None]] = Counter()
    for queue, type_, event, number in rows:
        grouped[queue, type_, event, reason if event == _FAILED else None] += number
    tallies = [(*key, number) for key, number in grouped.items() if number > 0]
    if not tallies:
        return
    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRES, [list(column) for column in zip(*tallies, strict=True)])
            return
        for start in range(0, len(tallies), _PAGE):
            page = tallies[start : start + _PAGE]
            places = ", ".join([_SQLITE_ROW] * len(page))
            cursor.execute(_SQLITE + places, [value for row in page for value in row])


def sqlite_tally(cursor: Any, tallies: Mapping[Tallied, int]) -> None:
    """Tally events with a duration, for claims and completions on SQLite."""
    if tallies:
        cursor.execute(
            "INSERT INTO tally (minute, queue, type, event, bucket, reason, outcome, count)"
            " SELECT strftime('%%Y-%%m-%%d %%H:%%M:00', 'now'), value ->> 0, value ->> 1,"
            "        value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6"
            "   FROM json_each(%s)",
            [json.dumps([[*key, number] for key, number in tallies.items()])],
        )
