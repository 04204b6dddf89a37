"""Functions of numbers and of their bits."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from jobs.expressions.bounds import (
    CALL,
    MAX_INTEGER,
    MAX_NESTING,
    ExpressionError,
    Run,
    too_nested,
)
from jobs.expressions.functions.arguments import (
    FUNCTIONS,
    Function,
    a_number,
    an_int,
    function,
)
from jobs.expressions.operators import interval
from jobs.expressions.values import (
    finite,
    whole,
)


@function("abs", 1)
def _abs(run: Run, value: Any) -> Any:
    return abs(a_number(value)) if type(value) is float else whole(abs(a_number(value)))


@function("ceil", 1)
def _ceil(run: Run, value: Any) -> float:
    return float(math.ceil(a_number(value)))


@function("floor", 1)
def _floor(run: Run, value: Any) -> float:
    return float(math.floor(a_number(value)))


@function("round", 1)
def _round(run: Run, value: Any) -> float:
    """To the nearest whole number, halves away from zero."""
    rest, full = math.modf(a_number(value))
    return full + math.copysign(1.0, value) if abs(rest) >= 0.5 else full


def _numbers(run: Run, values: tuple[Any, ...], depth: int = 0) -> Iterator[Any]:
    """The numbers there are, in lists of lists of them too."""
    if depth > MAX_NESTING:
        too_nested()
    for value in values:
        if type(value) is list:
            yield from _numbers(run, tuple(value), depth + 1)
        else:
            run.spend(1)
            yield a_number(value)


@function("max", 1, 100)
def _max(run: Run, *values: Any) -> Any:
    return max(_numbers(run, values), default=None)


@function("min", 1, 100)
def _min(run: Run, *values: Any) -> Any:
    return min(_numbers(run, values), default=None)


@function("mean", 1, 100)
def _mean(run: Run, *values: Any) -> float:
    numbers = list(_numbers(run, values))
    return finite(float(sum(numbers)) / len(numbers)) if numbers else 0.0


@function("median", 1, 100)
def _median(run: Run, *values: Any) -> float:
    numbers = sorted(map(float, _numbers(run, values)))
    middle = len(numbers) // 2
    if not numbers:
        return 0.0
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2


@function("randomInt", 0, 1)
def _random_int(run: Run, most: Any = MAX_INTEGER) -> int:
    """A whole number from 0 to below this."""
    if an_int(most) <= 0:
        raise ExpressionError("takes an int above 0")
    run.spend(CALL)
    return secrets.randbelow(most)


@function("sequence", 2)
def _sequence(run: Run, start: Any, stop: Any) -> list[int]:
    """Whole numbers from the start to before the stop."""
    return interval(an_int(start), an_int(stop) - 1, run)


def _bits(name: str, work: Callable[[int, int], int]) -> None:
    def function(run: Run, left: Any, right: Any) -> int:
        return _wrapped(work(an_int(left), an_int(right)))

    FUNCTIONS[name] = Function(function, 2, 2)


def _wrapped(value: int) -> int:
    """The lowest 64 bits as an integer with a sign."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value > MAX_INTEGER else value


def _shift(count: int) -> int:
    if count < 0:
        raise ExpressionError("takes a shift that is not negative")
    return min(count, 64)


_bits("bitand", lambda left, right: left & right)
_bits("bitor", lambda left, right: left | right)
_bits("bitxor", lambda left, right: left ^ right)
_bits("bitnand", lambda left, right: left & ~right)
_bits("bitshl", lambda left, right: left << _shift(right))
_bits("bitshr", lambda left, right: left >> _shift(right))
_bits("bitushr", lambda left, right: (left & ((1 << 64) - 1)) >> _shift(right))


@function("bitnot", 1)
def _bitnot(run: Run, value: Any) -> int:
    return ~an_int(value)
