"""What procedures return, as JSON.

The server sends every value as text and says which type it has. Text is kept where JSON has no form of
its own: of ``numeric``, so that no digit is lost, of dates, times, durations and all that is rare.
``bytea`` becomes base64, arrays lists, composite values objects.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.pq import Escaping

from jobs.nul import holds_nul

# Values inside of values; a composite type may hold an array of itself.
MAX_DEPTH = 20
VOID, RECORD = 2278, 2249

# The types of these numbers and of what they consist.
TYPES_QUERY = """
WITH RECURSIVE wanted(oid) AS (
  SELECT pg_catalog.unnest(%s::pg_catalog.oid[])
  UNION
  SELECT part.oid FROM wanted JOIN pg_catalog.pg_type AS t USING (oid), LATERAL (
    SELECT t.typelem WHERE t.typcategory = 'A'
    UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
      WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) AS part(oid)
)
SELECT t.oid, t.typtype, t.typcategory, t.typdelim, t.typelem, t.typbasetype, (
  SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attname, a.atttypid::pg_catalog.int8)
                             ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute AS a
  WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
)
FROM wanted JOIN pg_catalog.pg_type AS t USING (oid)
"""

Row = Sequence["str | None"]

_DIMENSIONS = re.compile(r"(\[-?\d+:-?\d+\])+=")  # noqa: DUO138  brackets part them


@dataclass(frozen=True, slots=True)
class Composed:
    """A type that consists of others: the numbers of its element, its base or its fields."""

    element: int | None = None
    delimiter: str = ","
    base: int | None = None
    fields: Sequence[tuple[str, int]] | None = None


Types = Mapping[int, Composed]


def unknown_types(oids: Sequence[int]) -> list[int]:
    """Return those of these types that the server must be asked about."""
    return sorted({oid for oid in oids if oid not in _SCALARS})


def read_types(rows: Sequence[Row]) -> dict[int, Composed]:
    """Read the answer to ``TYPES_QUERY``."""
    found = {}
    for oid, kind, category, delimiter, element, base, fields in rows:
        number = int(oid or 0)
        if number in _SCALARS:
            continue
        if category == "A":
            found[number] = Composed(element=int(element or 0), delimiter=delimiter or ",")
        elif kind == "d":
            found[number] = Composed(base=int(base or 0))
        elif fields:
            found[number] = Composed(fields=[(name, oid) for name, oid in json.loads(fields)])
    return found


def as_json(text: str | None, oid: int, types: Types, depth: int = 0) -> Any:
    """Return the JSON value for what the server wrote; what cannot be read stays as it was written."""
    if text is None:
        return None
    if oid in _SCALARS:
        return _SCALARS[oid](text)
    composed = types.get(oid)
    if depth > MAX_DEPTH or (composed is None and oid != RECORD):
        return text
    try:
        if composed is None:
            return [*_fields(text)]
        if composed.base is not None:
            return as_json(text, composed.base, types, depth)
        if composed.element is not None:
            return _array(text, composed.element, composed.delimiter, types, depth)
        return _composite(text, composed.fields or (), types, depth)
    except ValueError:
        return text


# -- Values of one part ----------------------------------------------------------------------------


def _float(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else text


def _moment(text: str) -> str:
    """As ISO 8601 writes it; the server puts a blank between date and time."""
    return text.replace(" ", "T", 1)


def _bytes(text: str) -> str:
    return base64.b64encode(Escaping().unescape_bytea(text.encode())).decode()


def _json(text: str) -> Any:
    """The value itself where it can be kept; ``json`` may hold what a result cannot."""
    with contextlib.suppress(ValueError, RecursionError):
        if not holds_nul(text):
            value = json.loads(text)
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
            return value
    return text


# By the numbers the server has given them for ever.
_SCALARS: Mapping[int, Callable[[str], Any]] = {
    16: lambda text: text == "t",  # boolean
    17: _bytes,
    18: str,  # "char"
    19: str,  # name
    20: int,  # bigint
    21: int,  # smallint
    23: int,  # integer
    25: str,  # text
    26: int,  # oid
    114: _json,
    700: _float,
    701: _float,
    1042: str,  # character
    1043: str,  # character varying
    1082: str,  # date
    1083: str,  # time
    1114: _moment,
    1184: _moment,
    1186: str,  # interval
    1266: str,  # time with time zone
    1700: str,  # numeric
    VOID: lambda text: None,  # void
    2950: str,  # uuid
    3802: _json,
}


# -- Values of several parts -----------------------------------------------------------------------


def _composite(
    text: str, fields: Sequence[tuple[str, int]], types: Types, depth: int
) -> dict[str, Any]:
    values = [*_fields(text)]
    if len(values) != len(fields):
        raise ValueError
    return {
        name: as_json(value, oid, types, depth + 1)
        for (name, oid), value in zip(fields, values, strict=True)
    }


def _fields(text: str) -> Iterator[str | None]:
    """Return the fields of `(1,"a b",)`; one that is empty without quotes is null."""
    if len(text) < 2 or text[0] != "(" or text[-1] != ")":
        raise ValueError
    position, end = 1, len(text) - 1
    while True:
        field, position, is_quoted = _token(text, position, end, ",")
        yield field if field or is_quoted else None
        if position >= end:
            return
        position += 1


def _token(text: str, position: int, end: int, stops: str) -> tuple[str, int, bool]:
    """Read up to one of ``stops`` outside of quotes; both ways of escaping are known."""
    parts: list[str] = []
    in_quotes = is_quoted = False
    while position < end:
        letter = text[position]
        if letter == "\\" and position + 1 < end:
            position += 1
            parts.append(text[position])
        elif letter == '"':
            if in_quotes and text[position + 1 : position + 2] == '"':
                position += 1
                parts.append('"')
            else:
                in_quotes, is_quoted = not in_quotes, True
        elif letter in stops and not in_quotes:
            break
        else:
            parts.append(letter)
        position += 1
    return "".join(parts), position, is_quoted


def _array(text: str, element: int, delimiter: str, types: Types, depth: int) -> list[Any]:
    if found := _DIMENSIONS.match(text):
        text = text[found.end() :]
    if not text.startswith("{") or not text.endswith("}"):
        raise ValueError
    top: list[Any] = []
    open_lists = [top]
    position = 1
    while position < len(text) and open_lists:
        letter = text[position]
        if letter == "{":
            inner: list[Any] = []
            open_lists[-1].append(inner)
            open_lists.append(inner)
            position += 1
        elif letter == "}":
            open_lists.pop()
            position += 1
        elif letter == delimiter:
            position += 1
        else:
            item, position, is_quoted = _token(text, position, len(text), delimiter + "}")
            is_null = item == "NULL" and not is_quoted
            open_lists[-1].append(None if is_null else as_json(item, element, types, depth + 1))
    return top
