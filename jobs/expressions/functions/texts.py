"""Functions of texts."""

from __future__ import annotations

from typing import Any

from jobs.expressions.bounds import (
    CHARACTERS_PER_OPERATION,
    COMPARED_PER_OPERATION,
    ITEMS_PER_OPERATION,
    ExpressionError,
    Run,
)
from jobs.expressions.functions.arguments import (
    a_string,
    an_array,
    an_int,
    function,
)


@function("trim", 1, 2)
def _trim(run: Run, value: Any, characters: Any = None) -> str:
    if characters is None:
        return a_string(run, value).strip()
    run.spend(len(a_string(run, value)) // 8 + len(a_string(run, characters)) // 8)
    distinct = "".join(dict.fromkeys(characters))
    # Each character of the text may be compared with all of these.
    run.spend(len(value) * len(distinct) // COMPARED_PER_OPERATION)
    return str(value.strip(distinct))


@function("trimPrefix", 1, 2)
def _trim_prefix(run: Run, value: Any, prefix: Any = " ") -> str:
    return a_string(run, value).removeprefix(a_string(run, prefix))


@function("trimSuffix", 1, 2)
def _trim_suffix(run: Run, value: Any, suffix: Any = " ") -> str:
    return a_string(run, value).removesuffix(a_string(run, suffix))


@function("upper", 1)
def _upper(run: Run, value: Any) -> str:
    # Some characters have three as capitals.
    run.take_text(len(a_string(run, value)) * (1 if value.isascii() else 3))
    return str(value.upper())


@function("lower", 1)
def _lower(run: Run, value: Any) -> str:
    run.take_text(len(a_string(run, value)) * (1 if value.isascii() else 3))
    return str(value.lower())


@function("split", 2, 3)
def _split(run: Run, value: Any, separator: Any, most: Any = -1) -> list[str]:
    return _pieces(a_string(run, value), a_string(run, separator), an_int(most), run)


@function("splitAfter", 2, 3)
def _split_after(run: Run, value: Any, separator: Any, most: Any = -1) -> list[str]:
    pieces = _pieces(a_string(run, value), a_string(run, separator), an_int(most), run)
    run.spend(2 * len(pieces) // ITEMS_PER_OPERATION)
    return [piece + separator for piece in pieces[:-1]] + pieces[-1:]


def _pieces(value: str, separator: str, most: int, run: Run) -> list[str]:
    """As Go splits: into so many pieces at most if that is not negative, into characters by nothing."""
    run.take_search(value, separator)
    count = value.count(separator) + (1 if separator else -1)
    run.take_items(count if most < 0 else min(count, most))
    if most == 0 or (not separator and not value):
        return []
    if separator:
        return value.split(separator, most - 1 if most > 0 else -1)
    single = len(value) if most < 0 else min(most - 1, len(value) - 1)
    return [*value[:single], *([value[single:]] if single < len(value) else [])]


@function("replace", 3, 4)
def _replace(run: Run, value: Any, old: Any, new: Any, most: Any = -1) -> str:
    value, old, new = a_string(run, value), a_string(run, old), a_string(run, new)
    run.take_search(value, old)
    count = value.count(old)
    count = count if an_int(most) < 0 else min(count, most)
    run.take_text(len(value) + count * (len(new) - len(old)))
    return str(value.replace(old, new, count))


@function("repeat", 2)
def _repeat(run: Run, value: Any, count: Any) -> str:
    if an_int(count) < 0:
        raise ExpressionError("takes a count that is not negative")
    run.take_text(len(a_string(run, value)) * count)
    return str(value * count)


@function("join", 1, 2)
def _join(run: Run, items: Any, glue: Any = "") -> str:
    run.spend(len(an_array(run, items)) // 2)
    pieces = [a_string(run, item) for item in items]
    length = sum(map(len, pieces)) + len(a_string(run, glue)) * max(0, len(pieces) - 1)
    run.take_text(length)
    return str(glue.join(pieces))


@function("indexOf", 2)
def _index_of(run: Run, value: Any, part: Any) -> int:
    run.take_search(a_string(run, value), a_string(run, part))
    return int(value.find(part))


@function("lastIndexOf", 2)
def _last_index_of(run: Run, value: Any, part: Any) -> int:
    run.take_search(a_string(run, value), a_string(run, part))
    run.spend((len(value) + len(part)) // CHARACTERS_PER_OPERATION)
    # Backward: `rfind` would compare a long part at every place.
    place = value[::-1].find(part[::-1])
    return len(value) - place - len(part) if place >= 0 else -1


@function("hasPrefix", 2)
def _has_prefix(run: Run, value: Any, prefix: Any) -> bool:
    return a_string(run, value).startswith(a_string(run, prefix))


@function("hasSuffix", 2)
def _has_suffix(run: Run, value: Any, suffix: Any) -> bool:
    return a_string(run, value).endswith(a_string(run, suffix))
