"""The values of expressions: which there are, when they are equal, and how they read.

None, bool, int, float, str, list and dict with text keys, and the dates of `dates`. Everything goes by
the exact type, so that a bool is no number and no object of Python's own is ever asked for anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from jobs.expressions.bounds import (
    CHARACTERS_PER_OPERATION,
    MAX_INTEGER,
    MAX_ITEMS,
    MAX_NESTING,
    MAX_TEXT,
    MIN_INTEGER,
    SHOW_DATE,
    VISIT,
    ExpressionError,
    Root,
    Run,
    too_nested,
)
from jobs.expressions.dates import Duration, Moment, Place

_TYPES = {
    type(None): "nil",
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    list: "array",
    dict: "map",
    Root: "map",
    Moment: "time.Time",
    Duration: "time.Duration",
    Place: "time.Location",
}
_COMPARED_AS = {"int": "number", "float": "number"}
# Go writes whole floats of up to six digits in full, and JSON those below this.
_TEXT_EXPONENT, _JSON_EXPONENT = 6, 21
_EXACT = 1 << 53
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def type_name(value: Any) -> str:
    try:
        return _TYPES[type(value)]
    except KeyError:
        raise ExpressionError("a value of a kind that expressions do not know") from None


def named(value: Any) -> str:
    """The kind of a value, as a sentence names it."""
    name = type_name(value)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if name != "nil" else name


def known(value: Any) -> Any:
    """The same value, with other mappings made maps; anything unknown is refused."""
    if type(value) not in _TYPES:
        if isinstance(value, Mapping):
            return dict(value)
        type_name(value)
    return value


def is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def is_map(value: Any) -> bool:
    return type(value) is dict or type(value) is Root


def whole(value: int) -> int:
    """An integer, if it fits 64 bits."""
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise ExpressionError("the integer does not fit 64 bits")
    return value


def finite(value: float) -> float:
    if not math.isfinite(value):
        raise ExpressionError("the result is not a finite number")
    return value


def equal(left: Any, right: Any, run: Run, *, depth: int = 0) -> bool:
    """Whether two values are the same; ones of different kinds are not."""
    run.spend(VISIT)
    type_name(left)
    kind = type(left)
    if is_number(left):
        return is_number(right) and bool(left == right)
    if is_map(left):
        return is_map(right) and _equal_maps(left, right, run, depth)
    if kind is not type(right):
        return False
    if kind is str:
        if len(left) != len(right):
            return False
        run.spend(len(left) // CHARACTERS_PER_OPERATION)
    elif kind is list:
        if depth >= MAX_NESTING:
            too_nested()
        pairs = zip(left, right, strict=False)
        return len(left) == len(right) and all(equal(*pair, run, depth=depth + 1) for pair in pairs)
    return bool(left == right)


def _equal_maps(left: dict[str, Any], right: dict[str, Any], run: Run, depth: int) -> bool:
    if depth >= MAX_NESTING:
        too_nested()
    return len(left) == len(right) and all(
        key in right and equal(value, right[key], run, depth=depth + 1)
        for key, value in left.items()
    )


def same(left: Any, right: Any, run: Run) -> bool:
    """Whether two values are equal; comparing a text with a number and the like is an error."""
    one, other = type_name(left), type_name(right)
    if _COMPARED_AS.get(one, one) != _COMPARED_AS.get(other, other) and "nil" not in (one, other):
        raise ExpressionError(f"{named(left)} cannot be compared with {named(right)}")
    return equal(left, right, run)


def compare(left: Any, right: Any, run: Run) -> int:
    """Below, at or above 0 as a number, text, date or duration comes before, with or after another."""
    if type(left) is str and type(right) is str:
        run.spend(min(len(left), len(right)) // CHARACTERS_PER_OPERATION)
        return (left > right) - (left < right)
    is_ordered = type(left) is type(right) and isinstance(left, Moment | Duration)
    if is_ordered or (is_number(left) and is_number(right)):
        return int(left > right) - int(left < right)
    raise ExpressionError(f"{named(left)} cannot be compared with {named(right)}")


def key_text(value: Any) -> str:
    """A value as the key of a map."""
    if type(value) is str:
        return value
    if value is None or type(value) in (bool, int, float):
        return scalar_text(value)
    raise ExpressionError(f"{named(value)} cannot be the key of a map")


def scalar_text(value: Any) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return float_text(value, _TEXT_EXPONENT)
    return str(value)


def float_text(value: float, exponent: int) -> str:
    """A float in the fewest digits, as Go writes it: with an exponent from this one on."""
    numeral, _, power = repr(abs(finite(value))).partition("e")
    units, _, decimals = numeral.partition(".")
    digits = (units + decimals).lstrip("0")
    point = len(digits) + int(power or 0) - len(decimals)
    digits = digits.rstrip("0")
    if not digits:
        digits, point = "0", 1
    minus = "-" if math.copysign(1, value) < 0 else ""
    if not -4 <= point - 1 < exponent:
        tail = f".{digits[1:]}" if digits[1:] else ""
        return f"{minus}{digits[0]}{tail}e{point - 1:+03d}"
    if point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{minus}{digits.ljust(point, '0')}"
    return f"{minus}{digits[:point]}.{digits[point:]}"


class _Writer:
    """Puts a text together, piece by piece, within its bounds."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.pieces: list[str] = []
        self.length = 0

    def put(self, piece: str) -> None:
        self.length += len(piece)
        if self.length > MAX_TEXT:
            raise ExpressionError(f"makes a text of more than {MAX_TEXT} characters")
        self.run.spend(VISIT + len(piece) // CHARACTERS_PER_OPERATION)
        self.pieces.append(piece)

    def done(self) -> str:
        return "".join(self.pieces)


def text(value: Any, run: Run) -> str:
    """A value as Go prints it."""
    if type(value) is str:
        return value
    out = _Writer(run)
    _write_text(value, out, 0)
    return out.done()


def _write_text(value: Any, out: _Writer, depth: int) -> None:
    if depth > MAX_NESTING:
        too_nested()
    if type(value) is list:
        for index, item in enumerate(value):
            out.put(" " if index else "[")
            _write_text(item, out, depth + 1)
        out.put("]" if value else "[]")
    elif is_map(value):
        for index, key in enumerate(sorted(value)):
            out.put(f" {key}:" if index else f"map[{key}:")
            _write_text(value[key], out, depth + 1)
        out.put("]" if value else "map[]")
    else:
        type_name(value)
        if type(value) is Moment:
            out.run.spend(SHOW_DATE)
        elif type(value) is float:
            out.run.spend(VISIT)
        out.put(scalar_text(value))


def to_json(value: Any, run: Run, *, indent: str = "  ") -> str:
    """A value as JSON, as Go writes it: sorted keys, two spaces."""
    out = _Writer(run)
    _write_json(value, out, "\n" if indent else "", indent, 0)
    return out.done()


def _write_json(value: Any, out: _Writer, margin: str, indent: str, depth: int) -> None:
    if depth > MAX_NESTING:
        too_nested()
    inner = margin + indent
    if type(value) is list:
        for index, item in enumerate(value):
            out.put(f",{inner}" if index else f"[{inner}")
            _write_json(item, out, inner, indent, depth + 1)
        out.put(f"{margin}]" if value else "[]")
    elif is_map(value):
        colon = ": " if indent else ":"
        for index, key in enumerate(sorted(value)):
            out.put(f"{',' if index else '{'}{inner}{_quoted(key)}{colon}")
            _write_json(value[key], out, inner, indent, depth + 1)
        out.put(f"{margin}}}" if value else "{}")
    else:
        out.put(_scalar_json(value, out.run))


def _scalar_json(value: Any, run: Run) -> str:
    match value:
        case None:
            return "null"
        case str():
            return _quoted(value)
        case float():
            run.spend(VISIT)
            written = float_text(value, _JSON_EXPONENT)
            return written.replace("e-0", "e-")
        case Moment():
            run.spend(SHOW_DATE)
            return _quoted(value.rfc3339())
        case Duration():
            return str(value.nanoseconds)
        case Place():
            return _quoted(value.name)
    type_name(value)
    return scalar_text(value)


def _quoted(value: str) -> str:
    written = json.dumps(value, ensure_ascii=False)
    # One sign after the other: `translate` asks for each character of a text that is not ASCII.
    for sign, escape in _ESCAPES.items():
        written = written.replace(sign, escape)
    return written


_AS_THEY_ARE = (int, bool, type(None))


class _Plain:
    """Copies a value into what JSON can hold, within the bounds of one."""

    def __init__(self) -> None:
        self.items = 0
        self.characters = 0

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is list or is_map(value):
            return self.inside(value, depth + 1)
        if kind is float:
            is_exact = abs(finite(value)) < _EXACT and value.is_integer()
            return int(value) if is_exact else value
        if kind is Moment:
            # It takes the time of many plain items.
            self.count(SHOW_DATE)
            return value.rfc3339()
        if kind is Duration:
            return value.nanoseconds
        if kind is Place:
            return value.name
        type_name(value)
        return value

    def inside(self, value: Any, depth: int) -> Any:
        self.count(len(value))
        if depth > MAX_NESTING:
            too_nested()
        if type(value) is not list:
            return {self.text(key): self.copy(item, depth) for key, item in value.items()}
        return [item if type(item) in _AS_THEY_ARE else self.copy(item, depth) for item in value]

    def count(self, items: int) -> None:
        self.items += items
        if self.items > MAX_ITEMS:
            raise ExpressionError(f"makes a value of more than {MAX_ITEMS} items")

    def text(self, value: Any) -> str:
        if type(value) is not str:
            raise ExpressionError("the keys of a map are texts")
        self.characters += len(value)
        if self.characters > MAX_TEXT:
            raise ExpressionError(f"makes a value of more than {MAX_TEXT} characters")
        return storable(value)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: whole floats as integers, dates as texts, durations in nanoseconds."""
    return _Plain().copy(value, 0)


def storable(value: str) -> str:
    """A text that every database takes."""
    if "\0" in value:
        raise ExpressionError("the result holds a NUL character")
    if not value.isascii():
        encoded(value)
    return value


def encoded(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ExpressionError("the text is not valid Unicode") from None
