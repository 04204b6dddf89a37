"""The operators of expressions: each takes two worked-out values and the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

from jobs.expressions.bounds import (
    CHARACTERS_PER_OPERATION,
    ITEMS_PER_OPERATION,
    MAX_ITEMS,
    MAX_PATTERN,
    ExpressionError,
    Run,
)
from jobs.expressions.dates import Duration, Moment
from jobs.expressions.values import (
    compare,
    encoded,
    equal,
    finite,
    is_map,
    is_number,
    key_text,
    named,
    same,
    whole,
)

Operator = Callable[[Any, Any, Run], Any]

# A pattern may become a program of this many bytes, and a search costs an operation for so many
# steps in the worst of cases: characters of the text times instructions of the program.
_PATTERN_MEMORY = 256 << 10
_STEPS_PER_OPERATION = 150
_COMPILING = 100


def _refused(sign: str, left: Any, right: Any) -> ExpressionError:
    return ExpressionError(f"{sign} does not take {named(left)} and {named(right)}")


def add(left: Any, right: Any, run: Run) -> Any:
    if type(left) is str and type(right) is str:
        run.take_text(len(left) + len(right))
        return left + right
    if is_number(left) and is_number(right):
        return _number(left + right)
    match left, right:
        case (Moment(), Duration()):
            return left.moved(right)
        case (Duration(), Moment()):
            return right.moved(left)
        case (Duration(), Duration()):
            return Duration(left.nanoseconds + right.nanoseconds)
    raise _refused("+", left, right)


def subtract(left: Any, right: Any, run: Run) -> Any:
    if is_number(left) and is_number(right):
        return _number(left - right)
    match left, right:
        case (Moment(), Moment()):
            return left.since(right)
        case (Moment(), Duration()):
            return left.moved(Duration(-right.nanoseconds))
        case (Duration(), Duration()):
            return Duration(left.nanoseconds - right.nanoseconds)
    raise _refused("-", left, right)


def multiply(left: Any, right: Any, run: Run) -> Any:
    if is_number(left) and is_number(right):
        return _number(left * right)
    if isinstance(right, Duration):
        left, right = right, left
    if isinstance(left, Duration) and is_number(right):
        return Duration(int(finite(left.nanoseconds * right)))
    raise _refused("*", left, right)


def divide(left: Any, right: Any, run: Run) -> float:
    if not (is_number(left) and is_number(right)):
        raise _refused("/", left, right)
    if right == 0:
        raise ExpressionError("division by zero")
    return finite(left / right)


def remainder(left: Any, right: Any, run: Run) -> int:
    """What is left of a division, with the sign of the left, as in Go."""
    if type(left) is not int or type(right) is not int:
        raise _refused("%", left, right)
    if right == 0:
        raise ExpressionError("division by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def power(left: Any, right: Any, run: Run) -> float:
    if not (is_number(left) and is_number(right)):
        raise _refused("**", left, right)
    try:
        return finite(math.pow(left, right))
    except (OverflowError, ValueError):
        raise ExpressionError("the result is not a finite number") from None


def _number(value: float) -> float:
    return whole(value) if type(value) is int else finite(value)


def interval(left: Any, right: Any, run: Run) -> list[int]:
    """Whole numbers from the left to the right, both included."""
    if type(left) is not int or type(right) is not int:
        raise _refused("..", left, right)
    count = min(max(0, right - left + 1), MAX_ITEMS + 1)
    run.take_items(count)
    # Each is a number of its own.
    run.spend(count // ITEMS_PER_OPERATION)
    return list(range(left, right + 1))


def contained(left: Any, right: Any, run: Run) -> bool:
    """Whether the left is an item of a list or a key of a map; nil holds nothing."""
    if right is None:
        return False
    if type(right) is list:
        return any(equal(item, left, run) for item in right)
    if is_map(right):
        return key_text(left) in right
    raise _refused("in", left, right)


def _of_texts(sign: str, work: Callable[[str, str], bool]) -> Operator:
    def operator(left: Any, right: Any, run: Run) -> bool:
        if type(left) is not str or type(right) is not str:
            raise _refused(sign, left, right)
        run.spend(len(left) // CHARACTERS_PER_OPERATION)
        run.take_search(left, right)
        return work(left, right)

    return operator


def matches(left: Any, right: Any, run: Run) -> bool:
    """Whether the text holds what the pattern describes."""
    if type(left) is not str or type(right) is not str:
        raise _refused("matches", left, right)
    run.spend(_COMPILING + len(right))
    return _found(compiled(right), left, run)


def matches_pattern(pattern: str) -> Operator:
    """`matches` with a pattern that stands in the expression."""
    ready = compiled(pattern)

    def operator(left: Any, right: Any, run: Run) -> bool:
        if type(left) is not str:
            raise _refused("matches", left, right)
        return _found(ready, left, run)

    return operator


def _found(pattern: Any, value: str, run: Run) -> bool:
    run.spend(1 + len(value) * pattern.programsize // _STEPS_PER_OPERATION)
    encoded(value)
    return pattern.search(value) is not None


@lru_cache(maxsize=200)
def compiled(pattern: str) -> Any:
    """The pattern in an engine whose time grows with the text and no faster."""
    if len(pattern) > MAX_PATTERN:
        raise ExpressionError(f"a pattern has at most {MAX_PATTERN} characters")
    encoded(pattern)
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise ExpressionError("this is no pattern, or too large a one") from None


BINARY: dict[str, Operator] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": remainder,
    "**": power,
    "^": power,
    "..": interval,
    "==": same,
    "!=": lambda left, right, run: not same(left, right, run),
    "<": lambda left, right, run: compare(left, right, run) < 0,
    ">": lambda left, right, run: compare(left, right, run) > 0,
    "<=": lambda left, right, run: compare(left, right, run) <= 0,
    ">=": lambda left, right, run: compare(left, right, run) >= 0,
    "in": contained,
    "matches": matches,
    "contains": _of_texts("contains", lambda left, right: right in left),
    "startsWith": _of_texts("startsWith", str.startswith),
    "endsWith": _of_texts("endsWith", str.endswith),
}


def negative(value: Any) -> Any:
    if type(value) is Duration:
        return Duration(-value.nanoseconds)
    if not is_number(value):
        raise ExpressionError(f"- does not take {named(value)}")
    return whole(-value) if type(value) is int else -value


def positive(value: Any) -> Any:
    if not is_number(value):
        raise ExpressionError(f"+ does not take {named(value)}")
    return value


def opposite(value: Any) -> bool:
    if type(value) is not bool:
        raise ExpressionError(f"not does not take {named(value)}")
    return not value


UNARY: dict[str, Callable[[Any], Any]] = {
    "-": negative,
    "+": positive,
    "!": opposite,
    "not": opposite,
}
