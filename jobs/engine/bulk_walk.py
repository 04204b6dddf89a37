"""Walk over all jobs that match a filter, in the order in which they were made, a stretch at a time.

No statement reads more than a window of keys, however few of them match: first the next keys of an index
that knows the order, then, by primary key, those among them that are meant. Nothing is locked.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import BooleanField, DateTimeField, F, Func, QuerySet, UUIDField, Value
from django.db.models.lookups import GreaterThan

from jobs.engine.clock import countdown
from jobs.filters import filtered
from jobs.models import Job, JobListing
from jobs.models.job import JobQuerySet
from jobs.states import FINAL, State

# One stretch ends after so many seconds, even where nothing was found in it.
STRETCH_SECONDS = 0.1
# SQLite takes about a thousand parameters in any version.
MAX_WINDOW = {"postgresql": 2_000, "sqlite": 900}

Key = tuple[datetime, uuid.UUID]


class Seen(NamedTuple):
    """A job as it was when it was read; its fields are columns."""

    pk: uuid.UUID
    created_at: datetime
    state: str
    kind: str
    is_held: bool
    queue: str
    type: str
    priority: int
    cancel_requested_at: datetime | None


class Stretch(NamedTuple):
    jobs: list[Seen]
    # Where the next one begins; None: there is nothing more.
    after: Key | None


def read_stretch(
    using: str, asked: Mapping[str, Any], until: datetime, after: Key | None, size: int
) -> Stretch:
    """Up to ``size`` jobs made after the key ``after`` and before ``until`` that meet the conditions."""
    largest = MAX_WINDOW[connections[using].vendor]
    window = min(size, largest)
    deadline = countdown() + STRETCH_SECONDS
    found: list[Seen] = []
    while True:
        keys = list(_keys(using, asked, until, after)[:window])
        found += matching(using, asked, [pk for _, pk in keys])
        if len(found) >= size:
            last = found[size - 1]
            return Stretch(found[:size], (last.created_at, last.pk))
        if len(keys) < window:
            return Stretch(found, None)
        after = keys[-1]
        if countdown() > deadline:
            return Stretch(found, after)
        window = min(2 * window, largest)


def matching(using: str, asked: Mapping[str, Any], ids: Collection[uuid.UUID]) -> list[Seen]:
    """Those of these jobs that meet the conditions now, in the order of the walk."""
    if not ids:
        return []
    # The state is looked at here: with it in the question a planner whose statistics are old reads a
    # partial index from end to end, a million entries for a thousand keys.
    states = asked.get("state")
    others = {word: value for word, value in asked.items() if word != "state"}
    jobs: JobQuerySet = Job.objects.using(using).all()
    rows = filtered(jobs.filter(pk__in=ids), others).order_by("created_at", "pk")
    return [
        seen
        for seen in (Seen(*row) for row in rows.values_list(*Seen._fields))
        if not states or seen.state in states
    ]


def _keys(
    using: str, asked: Mapping[str, Any], until: datetime, after: Key | None
) -> QuerySet[Any, Key]:
    state = _only_state(asked)
    by_listing = state is None or (
        state == State.SUCCEEDED and ("queue" in asked or "type" in asked)
    )
    if by_listing:
        identifier, rows = "job_id", _listed(using, asked)
    else:
        identifier, rows = "id", _in_state(using, str(state))
    if after is not None:
        # As one comparison, because a million jobs may have been made at the same moment.
        here = _Row(F("created_at"), F(identifier))
        there = _Row(Value(after[0], DateTimeField()), Value(after[1], UUIDField()))
        rows = rows.filter(GreaterThan(here, there))
    if "created_after" in asked:
        rows = rows.filter(created_at__gte=asked["created_after"])
    if "created_before" in asked:
        rows = rows.filter(created_at__lt=asked["created_before"])
    rows = rows.filter(created_at__lt=until)
    return rows.order_by("created_at", identifier).values_list("created_at", identifier)


def _only_state(asked: Mapping[str, Any]) -> str | None:
    """The state that all jobs of this filter are in, if there is one."""
    states = set(asked.get("state") or ())
    if "reason" in asked or asked.get("is_held"):
        return State.FAILED
    if "node" in asked:
        return State.RUNNING
    return states.pop() if len(states) == 1 else None


def _in_state(using: str, state: str) -> QuerySet[Any, Any]:
    rows = Job.objects.using(using).filter(state=state)
    # In the words of the indexes `job_open` and `job_final`.
    if state in FINAL:
        return rows.filter(finished_at__isnull=False)
    if state != State.RUNNING:
        return rows.filter(finished_at=None).exclude(state=State.RUNNING)
    return rows


def _listed(using: str, asked: Mapping[str, Any]) -> QuerySet[Any, Any]:
    rows = JobListing.objects.using(using).all()
    if "queue" in asked:
        rows = rows.filter(queue=asked["queue"])
    if "type" in asked:
        rows = rows.filter(type=asked["type"])
    return rows


class _Row(Func):
    """Several values compared as one."""

    function = None
    template = "(%(expressions)s)"
    output_field = BooleanField()
