"""Pages by keyset: each page begins where the one before ended, whatever came in between.

No COUNT and no OFFSET: page 10,000 costs what page 1 does. A cursor is signed for one list of one
cluster with one set of filters; anywhere else it is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core import signing
from django.db.models import Q, QuerySet
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.fields import QueryNumber, Text, refuse
from clusters.binding import bound_cluster_id

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
# Parameters that choose a page and not what is listed.
_PAGE_PARAMETERS = frozenset({"cursor", "limit", "count"})


class PageQuery(serializers.Serializer[Any]):
    limit = QueryNumber(
        min_value=1,
        max_value=MAX_LIMIT,
        required=False,
        help_text=f"Items a page, {DEFAULT_LIMIT} unless told.",
    )
    cursor = Text(
        max_length=1000, required=False, help_text="Where a page begins; from `next` or `previous`."
    )


@dataclass(frozen=True, slots=True)
class Order:
    """The columns a list is sorted by, the last one unique, and how to read them from a cursor."""

    columns: tuple[str, ...]
    readers: tuple[Callable[[str], Any], ...]
    is_descending: bool = True


NEWEST_FIRST = Order(("created_at", "id"), (datetime.fromisoformat, uuid.UUID))


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[Any]
    next: str | None
    previous: str | None

    def to_json(self, to_json: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {
            "items": [to_json(row) for row in self.rows],
            "next": self.next,
            "previous": self.previous,
        }


class Turning:
    """Which page of a list is asked for, and the addresses of those beside it."""

    def __init__(self, request: Request, order: Order, query: Mapping[str, Any]) -> None:
        self._request = request
        self._signer = signing.Signer(salt=_scope(request))
        self.limit: int = query.get("limit", DEFAULT_LIMIT)
        self.is_backwards, self.position = _open(self._signer, order, query.get("cursor"))

    def page(
        self,
        found: list[Any],
        key: Callable[[Any], Sequence[Any]],
        *,
        reached: Sequence[Any] | None = None,
    ) -> Page:
        """The page of rows found in the direction asked for, of which there is one more than the
        limit where there is another page. ``reached`` is where a search goes on that took too long."""
        goes_on = len(found) > self.limit
        rows = found[: self.limit]
        if self.is_backwards:
            rows.reverse()
        has_next = bool(rows) and (self.is_backwards or goes_on)
        has_previous = bool(rows) and (goes_on if self.is_backwards else self.position is not None)
        after = key(rows[-1]) if has_next else None
        before = key(rows[0]) if has_previous else None
        if reached is not None and self.is_backwards:
            before = reached
        elif reached is not None:
            after = reached
        return Page(
            rows,
            None if after is None else self._url(after, is_back=False),
            None if before is None else self._url(before, is_back=True),
        )

    def _url(self, key: Sequence[Any], *, is_back: bool) -> str:
        cursor = self._signer.sign_object([int(is_back), *map(_written, key)])
        parameters = [
            (name, value)
            for name, values in self._request.query_params.lists()
            if name not in ("cursor", "count")
            for value in values
        ]
        return f"{self._request.path}?{urlencode([*parameters, ('cursor', cursor)])}"


def read_page(
    request: Request, rows: QuerySet[Any, Any], order: Order, query: Mapping[str, Any]
) -> Page:
    """One page of ``rows``, which hold the columns of the order as attributes."""
    turning = Turning(request, order, query)
    descends = order.is_descending != turning.is_backwards
    if turning.position is not None:
        rows = rows.filter(_beyond(order, turning.position, descends))
    sign = "-" if descends else ""
    rows = rows.order_by(*(sign + column for column in order.columns))
    found = list(rows[: turning.limit + 1])
    return turning.page(found, lambda row: [getattr(row, column) for column in order.columns])


def _beyond(order: Order, position: Sequence[Any], descends: bool) -> Q:
    """Rows after a position. The first term alone is the index range; the rest settles ties."""
    less = "lt" if descends else "gt"
    first, *others = zip(order.columns, position, strict=True)
    if not others:
        return Q(**{f"{first[0]}__{less}": first[1]})
    ((tie, value),) = others
    return Q(**{f"{first[0]}__{less}e": first[1]}) & (
        Q(**{f"{first[0]}__{less}": first[1]}) | Q(**{first[0]: first[1], f"{tie}__{less}": value})
    )


def _scope(request: Request) -> str:
    filters = sorted(
        (name, sorted(values))
        for name, values in request.query_params.lists()
        if name not in _PAGE_PARAMETERS
    )
    return f"yardmaster.page:{bound_cluster_id()}:{request.path.rstrip('/')}:{filters!r}"


def _open(
    signer: signing.Signer, order: Order, cursor: str | None
) -> tuple[bool, list[Any] | None]:
    if cursor is None:
        return False, None
    try:
        is_back, *values = signer.unsign_object(cursor)
        pairs = zip(order.readers, values, strict=True)
        return bool(is_back), [reader(value) for reader, value in pairs]
    except (signing.BadSignature, ValueError, TypeError):
        refuse("cursor", "This cursor is not of this list with these filters.")


def _written(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
