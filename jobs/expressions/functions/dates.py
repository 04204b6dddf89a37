"""Functions that make dates, durations and zones."""

from __future__ import annotations

from typing import Any

from jobs.expressions.bounds import (
    CALL,
    READ_DATE,
    ExpressionError,
    Run,
)
from jobs.expressions.dates import (
    Duration,
    Moment,
    Place,
    now,
    read_duration,
    read_moment,
    read_place,
)
from jobs.expressions.functions.arguments import (
    a_string,
    function,
    wrong,
)


@function("now", 0, 1)
def _now(run: Run, place: Any = None) -> Moment:
    if place is not None and type(place) is not Place:
        wrong(place, "a time zone")
    return now() if place is None else now().within(place)


@function("duration", 1)
def _duration(run: Run, value: Any) -> Duration:
    run.spend(2 * CALL)
    return read_duration(a_string(run, value))


@function("date", 1, 3)
def _date(run: Run, *values: Any) -> Moment:
    place = values[0] if type(values[0]) is Place else None
    run.spend(READ_DATE)
    words = [a_string(run, value) for value in (values[1:] if place else values)]
    if not words or len(words) > (2 if place else 3):
        raise ExpressionError("takes a date, a layout and a time zone")
    if len(words) == 3:
        place = read_place(words.pop())
    return read_moment(words[0], words[1] if len(words) > 1 else None, place)


@function("timezone", 1)
def _timezone(run: Run, name: Any) -> Place:
    run.spend(READ_DATE)
    return read_place(a_string(run, name))
