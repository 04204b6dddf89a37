"""Functions of lists and maps."""

from __future__ import annotations

from typing import Any

from jobs.expressions.bounds import (
    CHARACTERS_PER_OPERATION,
    MAX_NESTING,
    VISIT,
    ExpressionError,
    Run,
    too_nested,
)
from jobs.expressions.functions.arguments import (
    a_map,
    an_array,
    an_int,
    function,
    wrong,
)
from jobs.expressions.nodes import fetch
from jobs.expressions.values import (
    compare,
    is_map,
    is_number,
    key_text,
    to_json,
)


@function("len", 1)
def _len(run: Run, value: Any) -> int:
    if type(value) is not str and type(value) is not list and not is_map(value):
        wrong(value, "a string, an array or a map")
    return len(value)


@function("first", 1)
def _first(run: Run, items: Any) -> Any:
    return an_array(run, items)[0] if items else None


@function("last", 1)
def _last(run: Run, items: Any) -> Any:
    return an_array(run, items)[-1] if items else None


@function("get", 2)
def _get(run: Run, value: Any, key: Any) -> Any:
    """The item or the value of the key; nil if there is none."""
    if type(value) in (list, str) and not -len(value) <= an_int(key) < len(value):
        return None
    return None if value is None else fetch(value, key)


@function("take", 2)
def _take(run: Run, items: Any, count: Any) -> list[Any]:
    if an_int(count) < 0:
        raise ExpressionError("takes a count that is not negative")
    return an_array(run, items)[:count]


@function("keys", 1)
def _keys(run: Run, value: Any) -> list[Any]:
    return list(a_map(run, value))


@function("values", 1)
def _values(run: Run, value: Any) -> list[Any]:
    return list(a_map(run, value).values())


@function("toPairs", 1)
def _to_pairs(run: Run, value: Any) -> list[Any]:
    run.spend(2 * len(a_map(run, value)))
    return [[key, item] for key, item in value.items()]


@function("fromPairs", 1)
def _from_pairs(run: Run, pairs: Any) -> dict[str, Any]:
    made = {}
    run.spend(len(an_array(run, pairs)))
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2:
            raise ExpressionError("takes an array of pairs")
        made[key_text(pair[0])] = pair[1]
    return made


@function("reverse", 1)
def _reverse(run: Run, items: Any) -> list[Any]:
    return an_array(run, items)[::-1]


@function("concat", 1, 100)
def _concat(run: Run, *lists: Any) -> list[Any]:
    run.take_items(sum(len(an_array(run, items)) for items in lists))
    return [item for items in lists for item in items]


@function("flatten", 1)
def _flatten(run: Run, items: Any) -> list[Any]:
    made: list[Any] = []
    _flatten_into(made, an_array(run, items), run, 0)
    return made


def _flatten_into(made: list[Any], items: list[Any], run: Run, depth: int) -> None:
    if depth > MAX_NESTING:
        too_nested()
    run.spend(len(items))
    for item in items:
        if type(item) is list:
            _flatten_into(made, item, run, depth + 1)
        else:
            made.append(item)


@function("uniq", 1)
def _uniq(run: Run, items: Any) -> list[Any]:
    """The items without those equal to an earlier one."""
    seen: dict[Any, Any] = {}
    for item in an_array(run, items):
        seen.setdefault(_identity(run, item), item)
    return list(seen.values())


def _identity(run: Run, value: Any) -> Any:
    """Something to hash that is the same for equal values."""
    run.spend(VISIT)
    if type(value) is str:
        return value
    if is_number(value):
        return (0, value)
    return (type(value).__name__, to_json(value, run, indent=""))


@function("sort", 1, 2)
def _sort(run: Run, items: Any, order: Any = "asc") -> list[Any]:
    return arranged(run, an_array(run, items), items, order)


def arranged(run: Run, items: list[Any], keys: list[Any], order: Any) -> list[Any]:
    """The items by their keys: numbers, texts, dates or durations, all of a kind."""
    if order not in ("asc", "desc"):
        raise ExpressionError("the order is asc or desc")
    run.spend(len(keys) * len(keys).bit_length() // 8)
    for key in keys:
        # Refuses what has no order and what is of another kind.
        compare(keys[0], key, run)
    characters = sum(len(key) for key in keys if type(key) is str)
    run.spend(characters // CHARACTERS_PER_OPERATION * len(keys).bit_length() // 8)
    places = sorted(range(len(items)), key=keys.__getitem__, reverse=order == "desc")
    return [items[place] for place in places]
