"""Schedules declared in code, beside the handler that they run.

    @job("report:daily")\\
        .every("0 7 * * 1-5", tz="Europe/Berlin", payload={"kind": "short"})\\
        .every(timedelta(hours=6), name="report:daily, full", payload={"kind": "full"})
    def daily(context, payload): ...

What is wrong with one is an error when the module is imported. Nodes bring declarations to their cluster
when they start, see ``jobs.engine.declared``. What is not said is as for any other schedule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict, get_args

from jobs import timing
from jobs.errors import InvalidSchedule
from jobs.exclusions import Exclusions
from jobs.timing import Rule

MisfireWord = Literal["latest", "all", "skip"]
OverlapWord = Literal["skip", "allow", "queue_one", "replace"]
GapWord = Literal["fire", "skip"]
LostWord = Literal["retry", "fail", "hold"]
WORDS = {
    "misfire": get_args(MisfireWord),
    "overlap": get_args(OverlapWord),
    "gap": get_args(GapWord),
    "on_lost": get_args(LostWord),
}
MAX_NAME_LENGTH = 200


class Terms(TypedDict, total=False):
    """What a declaration may say beside its timing."""

    name: str
    description: str
    tz: str
    payload: Any
    queue: str
    priority: int
    timeout_seconds: float
    max_attempts: int
    retry_base_seconds: float
    retry_cap_seconds: float
    retry_curve: str
    on_lost: LostWord
    tags: list[str]
    metadata: dict[str, Any]
    starts_at: datetime
    ends_at: datetime
    gap: GapWord
    spread_seconds: float
    exclusions: dict[str, Any]
    misfire: MisfireWord
    misfire_grace_seconds: float
    misfire_limit: int
    overlap: OverlapWord
    # Only of a schedule that is not there yet: afterwards the operators' word holds.
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class Declaration:
    """A schedule as code declares it; ``values`` are JSON, times as text."""

    name: str
    values: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What no other schedule has: names differ by more than their case."""
        return self.name.lower()

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "values": dict(self.values)}


def declare(type_name: str, when: str | float | timedelta, terms: Mapping[str, Any]) -> Declaration:
    """Check a declaration and put it into the words of a schedule's definition."""
    unknown = terms.keys() - Terms.__annotations__.keys()
    if unknown:
        raise TypeError(f"every() knows no {min(unknown)!r}")
    given = dict(terms)
    name = given.pop("name", type_name)
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= MAX_NAME_LENGTH:
        raise ValueError(f"name: a schedule's name has 1 to {MAX_NAME_LENGTH} characters")
    values: dict[str, Any] = {"type": type_name, "timezone": given.pop("tz", "UTC")}
    if isinstance(when, str):
        values |= {"timing": "cron", "expression": when.strip()}
    else:
        seconds = when.total_seconds() if isinstance(when, timedelta) else when
        values |= {"timing": "interval", "interval_seconds": seconds}
    for word, allowed in WORDS.items():
        if word in given and given[word] not in allowed:
            raise ValueError(f"{word}: must be one of {', '.join(allowed)}")
    try:
        given |= _checked_timing(values, given)
    except InvalidSchedule as error:
        # The cause says nothing more; the line of the declaration is what is looked for.
        raise ValueError(f"schedule {name!r}: {error.field or 'timing'}: {error}") from None
    values |= given
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"schedule {name!r}: only what JSON can hold: {error}") from None
    return Declaration(name.strip(), values)


def _checked_timing(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Times and exclusions as they are stored; refused where no run could ever come of them."""
    now = datetime.now(UTC)
    document = given.get("exclusions") or {}
    # Which calendars there are is the cluster's to say.
    named = document.get("calendars", ()) if isinstance(document, Mapping) else ()
    exclusions = Exclusions.parse(document, {name: frozenset() for name in named})
    for field in ("starts_at", "ends_at"):
        if given.get(field) is not None and not isinstance(given[field], datetime):
            raise InvalidSchedule("must be a datetime", field=field)
    rule = Rule(
        timing=values["timing"],
        expression=values.get("expression"),
        interval_seconds=values.get("interval_seconds"),
        timezone=values["timezone"],
        starts_at=given.get("starts_at"),
        ends_at=given.get("ends_at"),
        gap=given.get("gap", "fire"),
        exclusions=exclusions,
    )
    # A module must still be importable when the time of its schedule has passed.
    timing.check(rule, now, must_lie_ahead=False)
    stored: dict[str, Any] = {
        field: given[field].astimezone(UTC).isoformat()
        for field in ("starts_at", "ends_at")
        if given.get(field) is not None
    }
    if "exclusions" in given:
        stored["exclusions"] = exclusions.to_json()
    return stored
