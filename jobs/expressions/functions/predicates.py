"""The functions of expressions that take a predicate: LOOPS, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.expressions.bounds import VISIT, ExpressionError, Run
from jobs.expressions.functions.arguments import Function
from jobs.expressions.functions.lists import arranged
from jobs.expressions.nodes import Predicate
from jobs.expressions.operators import add
from jobs.expressions.values import key_text, named

LOOPS: dict[str, Function] = {}


def _loop(name: str, most: int = 2) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(work: Callable[..., Any]) -> Callable[..., Any]:
        LOOPS[name] = Function(work, 2, most)
        return work

    return register


@_loop("all")
def _all(run: Run, items: list[Any], predicate: Predicate) -> bool:
    return all(predicate.holds(index, item) for index, item in enumerate(items))


@_loop("any")
def _any(run: Run, items: list[Any], predicate: Predicate) -> bool:
    return any(predicate.holds(index, item) for index, item in enumerate(items))


@_loop("none")
def _none(run: Run, items: list[Any], predicate: Predicate) -> bool:
    return not any(predicate.holds(index, item) for index, item in enumerate(items))


@_loop("one")
def _one(run: Run, items: list[Any], predicate: Predicate) -> bool:
    return sum(predicate.holds(index, item) for index, item in enumerate(items)) == 1


@_loop("count")
def _count(run: Run, items: list[Any], predicate: Predicate) -> int:
    return sum(predicate.holds(index, item) for index, item in enumerate(items))


@_loop("filter")
def _filter(run: Run, items: list[Any], predicate: Predicate) -> list[Any]:
    return [item for index, item in enumerate(items) if predicate.holds(index, item)]


@_loop("map")
def _map(run: Run, items: list[Any], predicate: Predicate) -> list[Any]:
    return list(predicate.values(items))


@_loop("find")
def _find(run: Run, items: list[Any], predicate: Predicate) -> Any:
    index = _find_index(run, items, predicate)
    return None if index < 0 else items[index]


@_loop("findIndex")
def _find_index(run: Run, items: list[Any], predicate: Predicate) -> int:
    places = range(len(items))
    return next((index for index in places if predicate.holds(index, items[index])), -1)


@_loop("findLast")
def _find_last(run: Run, items: list[Any], predicate: Predicate) -> Any:
    index = _find_last_index(run, items, predicate)
    return None if index < 0 else items[index]


@_loop("findLastIndex")
def _find_last_index(run: Run, items: list[Any], predicate: Predicate) -> int:
    places = reversed(range(len(items)))
    return next((index for index in places if predicate.holds(index, items[index])), -1)


@_loop("sum")
def _sum(run: Run, items: list[Any], predicate: Predicate) -> Any:
    total: Any = 0
    for value in predicate.values(items):
        total = add(total, value, run)
    return total


@_loop("groupBy")
def _group_by(run: Run, items: list[Any], predicate: Predicate) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for index, item in enumerate(items):
        run.spend(VISIT)
        groups.setdefault(key_text(predicate.value(index, item)), []).append(item)
    return groups


@_loop("sortBy", 3)
def _sort_by(run: Run, items: list[Any], predicate: Predicate, order: Any = "asc") -> list[Any]:
    return arranged(run, items, list(predicate.values(items)), order)


_MISSING: Any = object()


@_loop("reduce", 3)
def _reduce(run: Run, items: list[Any], predicate: Predicate, initial: Any = _MISSING) -> Any:
    """What is left when each item is worked into what there was before it."""
    start = 0
    if initial is _MISSING:
        if not items:
            raise ExpressionError("reduce of no items needs a value to start with")
        start, initial = 1, items[0]
    for index in range(start, len(items)):
        run.acc = initial
        initial = predicate.value(index, items[index])
    return initial


# Those that do without a predicate as well.
def _sum_plain(run: Run, items: Any) -> Any:
    return _plain(run, items, 0, lambda total, item: add(total, item, run))


def _count_plain(run: Run, items: Any) -> Any:
    return _plain(run, items, 0, _counted)


def _counted(total: int, item: Any) -> int:
    if type(item) is not bool:
        raise ExpressionError(f"counts true and false, not {named(item)}")
    return total + item


def _plain(run: Run, items: Any, total: Any, work: Callable[[Any, Any], Any]) -> Any:
    if type(items) is not list:
        raise ExpressionError(f"goes through an array, not {named(items)}")
    run.spend(len(items))
    for item in items:
        total = work(total, item)
    return total


WITHOUT_PREDICATE = {"sum": Function(_sum_plain, 1, 1), "count": Function(_count_plain, 1, 1)}
