"""How a function is registered, and how it checks what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, cast

from jobs.expressions.bounds import (
    CHARACTERS_PER_OPERATION,
    ExpressionError,
    Run,
)
from jobs.expressions.values import (
    is_map,
    is_number,
    named,
)


class Function(NamedTuple):
    work: Callable[..., Any]
    least: int
    most: int


FUNCTIONS: dict[str, Function] = {}


def function(
    name: str, least: int, most: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(work: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS[name] = Function(work, least, least if most is None else most)
        return work

    return register


def wrong(value: Any, wanted: str) -> NoReturn:
    raise ExpressionError(f"takes {wanted}, not {named(value)}")


def a_string(run: Run, value: Any) -> str:
    """A text that is about to be gone through."""
    if type(value) is not str:
        wrong(value, "a string")
    run.spend(len(value) // CHARACTERS_PER_OPERATION)
    return value


def an_int(value: Any) -> int:
    if type(value) is not int:
        wrong(value, "an int")
    return value


def an_array(run: Run, value: Any) -> list[Any]:
    if type(value) is not list:
        wrong(value, "an array")
    run.take_items(len(value))
    return value


def a_map(run: Run, value: Any) -> dict[str, Any]:
    if not is_map(value):
        wrong(value, "a map")
    run.take_items(len(value))
    return cast("dict[str, Any]", value)


def a_number(value: Any) -> Any:
    if not is_number(value):
        wrong(value, "a number")
    return value
