"""Jobs that no index finds: by their attempts, the text of their error, what is in their arguments.

They are looked for in the order of lists, a few at a time and for a short time; then it is said how far
that was, and from there it goes on. Arguments are looked at as they may be shown: whoever could look into
secrets would soon have guessed them.
"""

from __future__ import annotations

import json
import operator
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections

from jobs import listing
from jobs.engine.clock import countdown
from jobs.filters import SEARCHED
from jobs.models import Job
from jobs.payload_search import payloads_at_once
from jobs.raw import fetch, read_id, read_moment
from jobs.secrets import shown_payload

# One look lasts so long, and reads so many jobs at a time; fewer where they are large.
SECONDS = 0.1
PAGE, LARGEST_PAGE = 50, 1000
_PAGE_SECONDS = 0.03
MAX_PATH = 200
COLUMNS = ("attempts", "error", "kind", "payload")

_COMPARED = re.compile(r"(>=|<=|>|<|=)?([0-9]{1,9})\Z")
_SIGNS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


class Found(NamedTuple):
    rows: list[tuple[Any, ...]]
    # Where the look ended before the page was full; None: there is nothing to go on with.
    reached: listing.Position | None


@dataclass(frozen=True, slots=True)
class Search:
    """The words that are tested job by job."""

    attempt: str | None
    error: str | None
    args: tuple[str, ...]

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Search | None:
        if not SEARCHED & asked.keys():
            return None
        return cls(asked.get("attempt"), asked.get("error"), tuple(asked.get("args", ())))

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of a job, besides its id."""
        wanted = (
            ("attempts", self.attempt is not None),
            ("error", self.error is not None),
            ("kind", bool(self.args)),
            ("payload", bool(self.args)),
        )
        return tuple(name for name, is_wanted in wanted if is_wanted)

    def holds(self, job: Mapping[str, Any]) -> bool:
        return self.may_hold(job) and self.has_arguments(job)

    def may_hold(self, job: Mapping[str, Any]) -> bool:
        """As far as is known without the payload."""
        if self.attempt is not None and not compares(self.attempt, job["attempts"]):
            return False
        return self.error is None or self.error.casefold() in (job["error"] or "").casefold()

    def has_arguments(self, job: Mapping[str, Any]) -> bool:
        if not self.args:
            return True
        shown = shown_payload(job["kind"], job["payload"])
        return all(_has(shown, *parse_argument(one)) for one in self.args)


def compares(comparison: str, number: int) -> bool:
    """Whether a number is as ``>3`` says; ValueError where that says nothing."""
    match = _COMPARED.match(comparison)
    if match is None:
        raise ValueError("Must be a number such as 3, or >3, >=3, <3 or <=3.")
    return bool(_SIGNS[match[1] or "="](number, int(match[2])))


def parse_argument(text: str) -> tuple[list[str], str]:
    """The names that lead to a value, and the value; ValueError says what is wrong."""
    path, colon, value = text.partition(":")
    names = path.split(".")
    if not colon or not value or not all(names) or len(path) > MAX_PATH:
        raise ValueError("Must be the names that lead there and the value, such as user.id:123.")
    return names, value


def _place(name: str) -> int:
    """Where in a list a name leads; beyond its end, if it is no number."""
    return int(name[:9]) if name.isascii() and name.isdigit() else sys.maxsize


def _has(payload: Any, names: Sequence[str], value: str) -> bool:
    for name in names:
        if isinstance(payload, dict) and name in payload:
            payload = payload[name]
        elif isinstance(payload, list) and _place(name) < len(payload):
            payload = payload[_place(name)]
        else:
            return False
    return payload == value if isinstance(payload, str) else json.dumps(payload) == value


def find(
    using: str,
    asked: Mapping[str, Any],
    columns: str,
    limit: int,
    *,
    beyond: listing.Position | None = None,
    is_backwards: bool = False,
) -> Found:
    """What ``listing.newest`` gives, also for words that no index knows."""
    search = Search.of(asked)
    words = {word: value for word, value in asked.items() if word not in SEARCHED}
    if search is None:
        rows = listing.newest(
            using, words, columns, limit, beyond=beyond, is_backwards=is_backwards
        )
        return Found(rows, None)
    largest = most_at_once(search)
    until, size = countdown() + SECONDS, min(PAGE, largest)
    ids: list[UUID] = []
    # In the order in which they are tested; errors may be long.
    read = f"j.id, j.created_at, j.attempts, {'NULL' if search.error is None else 'j.error'}"
    while True:
        begun = countdown()
        page = listing.newest(using, words, read, size, beyond=beyond, is_backwards=is_backwards)
        ids += _held(using, page, search)
        if len(ids) >= limit or len(page) < size:
            return Found(_rows(using, ids[:limit], columns), None)
        beyond = listing.Position(read_moment(page[-1][1]), read_id(page[-1][0]))
        if countdown() >= until:
            return Found(_rows(using, ids, columns), beyond)
        size = min(PAGE if countdown() - begun > _PAGE_SECONDS else 2 * size, largest)


def most_at_once(search: Search) -> int:
    """So many jobs are read at a time, that what is read of them has its place in memory."""
    return payloads_at_once(LARGEST_PAGE) if "payload" in search.columns else LARGEST_PAGE


def _held(using: str, page: Sequence[tuple[Any, ...]], search: Search) -> list[UUID]:
    """Those of a page that the search is for, in its order.

    What most jobs fail by is tested first, as the database gives it: that is most of the time.
    """
    ids = [
        read_id(pk)
        for pk, _, attempts, error in page
        if search.may_hold({"attempts": attempts, "error": error})
    ]
    if not search.args or not ids:
        return ids
    rows = Job.objects.using(using).filter(pk__any_of=ids).order_by()
    found = {row["pk"]: row for row in rows.values("pk", "kind", "payload")}
    return [pk for pk in ids if pk in found and search.has_arguments(found[pk])]


def _rows(using: str, ids: Sequence[UUID], columns: str) -> list[tuple[Any, ...]]:
    if not ids:
        return []
    connection = connections[using]
    marks = ", ".join(["%s"] * len(ids))
    values = [pk.hex if connection.vendor == "sqlite" else pk for pk in ids]
    sql = f"SELECT j.id, {columns} FROM job j WHERE j.id IN ({marks})"
    found = {read_id(pk): tuple(rest) for pk, *rest in fetch(connection, sql, values)}
    return [found[pk] for pk in ids if pk in found]
