"""Functions that make one kind of value of another."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NoReturn

from jobs.expressions.bounds import (
    CALL,
    CHARACTERS_PER_OPERATION,
    MAX_INTEGER,
    MAX_ITEMS,
    MIN_INTEGER,
    ExpressionError,
    Run,
)
from jobs.expressions.functions.arguments import (
    a_number,
    a_string,
    function,
)
from jobs.expressions.values import (
    encoded,
    finite,
    text,
    to_json,
    type_name,
    whole,
)

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_NUMERAL = 400
# Numbers of JSON that may not fit.
_LONG_NUMERAL = re.compile(r"[0-9][eE]|[0-9]{19}")


@function("type", 1)
def _type(run: Run, value: Any) -> str:
    return type_name(value)


@function("int", 1)
def _int(run: Run, value: Any) -> int:
    if type(value) is str:
        if _INTEGER.fullmatch(value) is None:
            raise ExpressionError("cannot read an int from this string")
        return whole(int(value))
    return whole(int(a_number(value)))


@function("float", 1)
def _float(run: Run, value: Any) -> float:
    if type(value) is str:
        if len(value) > _MAX_NUMERAL or _FLOAT.fullmatch(value) is None:
            raise ExpressionError("cannot read a float from this string")
        run.spend(CALL + len(value) // CHARACTERS_PER_OPERATION)
        return finite(float(value))
    return float(a_number(value))


@function("string", 1)
def _text(run: Run, value: Any) -> str:
    return text(value, run)


@function("toJSON", 1)
def _to_json(run: Run, value: Any) -> str:
    return to_json(value, run)


@function("fromJSON", 1)
def _from_json(run: Run, value: Any) -> Any:
    written = a_string(run, value)
    run.spend(len(written) // 16)
    # Each item has a comma, a bracket or a brace of its own; those in texts count too.
    items = written.count(",") + written.count("[") + written.count("{")
    if items > MAX_ITEMS:
        raise ExpressionError(f"makes a list of more than {MAX_ITEMS} items")
    run.spend(items // 2)
    try:
        if _LONG_NUMERAL.search(written) is None:
            return json.loads(written, parse_constant=_json_constant)
        return json.loads(
            written, parse_int=_json_integer, parse_float=_json_float, parse_constant=_json_constant
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError("the string is not JSON") from None


def _json_integer(written: str) -> float:
    if len(written) <= 20 and MIN_INTEGER <= (value := int(written)) <= MAX_INTEGER:
        return value
    return _json_float(written)


def _json_float(written: str) -> float:
    return finite(float(written))


def _json_constant(written: str) -> NoReturn:
    raise ExpressionError("the string is not JSON")


@function("toBase64", 1)
def _to_base64(run: Run, value: Any) -> str:
    data = encoded(a_string(run, value))
    run.take_text(len(data) * 4 // 3 + 4)
    return base64.b64encode(data).decode("ascii")


@function("fromBase64", 1)
def _from_base64(run: Run, value: Any) -> str:
    try:
        return base64.b64decode(a_string(run, value), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError("the string is not base64 of a text") from None
