"""Types of the arguments of procedures: what JSON may stand for them, and as what text they are sent.

The server reads the text as the type, so a value is never part of a statement. What only it can decide,
such as whether an enumeration has a label, it decides when the job runs.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any
from uuid import UUID

MAX_ELEMENTS = 10_000
# Names longer than this the server would cut, and then find something else.
MAX_NAME_BYTES = 63
NAME = re.compile(r"[A-Za-z_]\w*")

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_DURATION = re.compile(
    r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?", re.ASCII
)
_ARRAY_SPECIALS = re.compile(r'(["\\])')

Read = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class ArgumentType:
    """One type. ``names`` are the schema and the name the server knows it by."""

    name: str
    names: tuple[str, str]
    is_array: bool
    _read: Read

    def text(self, value: Any) -> str | None:
        """Return what the server gets for a JSON value; ``ValueError`` says what is expected."""
        if value is None:
            return None
        if not self.is_array:
            return self._read(value)
        if not isinstance(value, list) or len(value) > MAX_ELEMENTS:
            raise ValueError(f"a list of up to {MAX_ELEMENTS} values")
        return "{" + ",".join([_element(self._read, item) for item in value]) + "}"


def find_type(name: str) -> ArgumentType:
    """Return the type of this name; ``schema.name`` is a type of the database, such as an enumeration."""
    base = name.removesuffix("[]")
    is_array = base != name
    if base in _TYPES:
        pg_name, read = _TYPES[base]
        return ArgumentType(name, ("pg_catalog", pg_name), is_array, read)
    schema, dot, own = base.partition(".")
    if dot and is_name(schema) and is_name(own):
        return ArgumentType(name, (schema, own), is_array, _text)
    raise ValueError(
        f"{name[:40]!r} is none of {', '.join(_TYPES)}, nor a schema.name; [] is a list"
    )


def is_name(text: str) -> bool:
    """Whether this is a name of one part that the server takes as it is."""
    return NAME.fullmatch(text) is not None and len(text.encode()) <= MAX_NAME_BYTES


def _element(read: Read, item: Any) -> str:
    return "NULL" if item is None else '"' + _ARRAY_SPECIALS.sub(r"\\\1", read(item)) + '"'


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    if "\0" in value:
        raise ValueError("text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("Unicode text; it holds half a character") from None
    return value


def _whole(bits: int) -> Read:
    def read(value: Any) -> str:
        is_whole = type(value) is int or (isinstance(value, str) and _WHOLE.fullmatch(value))
        number = int(value) if is_whole else None
        if number is None or not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise ValueError(f"a whole number of {bits} bits")
        return str(number)

    return read


def _decimal(value: Any) -> str:
    if isinstance(value, str) and len(value) <= 1000 and _DECIMAL.fullmatch(value):
        return value
    if type(value) is int and abs(value) < 10**1000:
        return str(value)
    if type(value) is float and math.isfinite(value):
        return repr(value)
    raise ValueError("a number, as a string where every digit counts")


def _float(value: Any) -> str:
    number = float(_decimal(value))
    if not math.isfinite(number):
        raise ValueError("a number that fits")
    return repr(number)


def _boolean(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value in ("true", "false"):
        return str(value)
    raise ValueError("true or false")


def _date(value: Any) -> str:
    return _in_iso("a date such as 2026-01-31", lambda text: date.fromisoformat(text), value)


def _time(value: Any) -> str:
    return _in_iso("a time of day such as 16:30:00", lambda text: _naive(time, text), value)


def _timestamp(value: Any) -> str:
    expected = "a date and time without offset such as 2026-01-31T16:30:00"
    return _in_iso(expected, lambda text: _naive(datetime, text), value)


def _timestamptz(value: Any) -> str:
    expected = "a date and time with its offset such as 2026-01-31T16:30:00Z"
    return _in_iso(expected, _aware, value)


def _in_iso(expected: str, read: Callable[[str], date | time], value: Any) -> str:
    try:
        return read(_text(value)).isoformat()
    except ValueError:
        raise ValueError(expected) from None


def _naive(of: type[datetime] | type[time], text: str) -> datetime | time:
    found = of.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError
    return found


def _aware(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    # Which offset is meant would else depend on the settings of a database.
    if found.tzinfo is None:
        raise ValueError
    return found


def _interval(value: Any) -> str:
    if isinstance(value, str) and len(value) <= 100 and _DURATION.fullmatch(value):
        return value
    raise ValueError("a duration such as P1DT2H30M")


def _uuid(value: Any) -> str:
    if isinstance(value, str) and len(value) == 36:
        try:
            return str(UUID(value))
        except ValueError:
            pass
    raise ValueError("a UUID of 36 characters")


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, TypeError, RecursionError):
        raise ValueError("a JSON value") from None
    return text


def _bytes(value: Any) -> str:
    try:
        return "\\x" + base64.b64decode(_text(value).encode(), validate=True).hex()
    except (binascii.Error, ValueError):
        raise ValueError("bytes in base64") from None


# By the names people use; the server's own stand beside them.
_TYPES: Mapping[str, tuple[str, Read]] = {
    "smallint": ("int2", _whole(16)),
    "integer": ("int4", _whole(32)),
    "bigint": ("int8", _whole(64)),
    "numeric": ("numeric", _decimal),
    "real": ("float4", _float),
    "double precision": ("float8", _float),
    "boolean": ("bool", _boolean),
    "text": ("text", _text),
    "varchar": ("varchar", _text),
    "date": ("date", _date),
    "time": ("time", _time),
    "timestamp": ("timestamp", _timestamp),
    "timestamptz": ("timestamptz", _timestamptz),
    "interval": ("interval", _interval),
    "uuid": ("uuid", _uuid),
    "json": ("json", _json),
    "jsonb": ("jsonb", _json),
    "bytea": ("bytea", _bytes),
}
