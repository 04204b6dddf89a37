"""Walk over all jobs that match a filter, in the order in which they were made, a stretch at a time.

No statement reads more than a window of keys, however few of them match: the next keys of an index that
knows the order and, by primary key, those among them that are meant. Nothing is locked.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import BooleanField, DateTimeField, F, Func, Q, QuerySet, UUIDField, Value
from django.db.models.lookups import GreaterThan

from jobs.engine.bulk_count import Counted
from jobs.engine.clock import countdown
from jobs.filters import SEARCHED, filtered
from jobs.job_search import Search, most_at_once
from jobs.models import Job, JobListing
from jobs.models.job_queryset import JobQuerySet
from jobs.states import FINAL, State

# One stretch ends after so many seconds, even where nothing was found in it.
STRETCH_SECONDS = 0.1
LARGEST_WINDOW = 4_000

Key = tuple[datetime, uuid.UUID]


class Seen(NamedTuple):
    """A job as it was when it was read; its fields are columns."""

    pk: uuid.UUID
    state: str
    kind: str
    is_held: bool
    queue: str
    type: str
    priority: int
    cancel_requested_at: datetime | None
    created_at: datetime


class Stretch(NamedTuple):
    jobs: list[Seen]
    # Where the next one begins; None: there is nothing more.
    after: Key | None


def read_stretch(
    using: str,
    asked: Mapping[str, Any],
    until: datetime,
    after: Key | None,
    size: int,
    seconds: float = STRETCH_SECONDS,
) -> Stretch:
    """Up to ``size`` jobs made after the key ``after`` and before ``until`` that meet the conditions."""
    deadline = countdown() + seconds
    search = Search.of(asked)
    largest = max(LARGEST_WINDOW, size) if search is None else most_at_once(search)
    window = min(size, largest)
    found: list[Seen] = []
    while True:
        window_read = _read_window(_keys(using, asked, until, after), window)
        if window_read is None:
            continue
        ids, end = window_read
        rows = _ordered(_jobs(using).filter(pk__any_of=ids), asked)
        if len(found) + len(rows) > size and window > size:
            if found:
                return Stretch(found, after)
            window = size
            continue
        found += rows
        after = end
        if after is None or 2 * len(found) >= size or countdown() > deadline:
            return Stretch(found, after)
        window = min(2 * window, largest)


def _read_window(
    keys: QuerySet[Any, Key], window: int
) -> tuple[list[uuid.UUID], Key | None] | None:
    """The next ids and the last one's key, or None as the key if they are all; None: look again.

    The one key is read first, because a thousand times take long to be read. What comes into the
    window between the two looks may push its end out of it, but nothing out unseen.
    """
    end = keys[window - 1 : window].first()
    ids = list(keys.values_list(_identifier(keys), flat=True)[:window])
    if end is None:
        return (ids, None) if len(ids) < window else None
    return (ids[: ids.index(end[1]) + 1], end) if end[1] in ids else None


def matching(
    rows: JobQuerySet, asked: Mapping[str, Any], columns: Sequence[str] = Seen._fields
) -> list[Any]:
    """Those of these jobs, named by their ids, that meet the conditions; tuples that begin pk, state.

    The state is looked at here: with it in the question a planner whose statistics are old reads a
    partial index from end to end, a million entries for a thousand keys.
    """
    states, search = asked.get("state"), Search.of(asked)
    apart = SEARCHED | {"state"}
    others = {word: value for word, value in asked.items() if word not in apart}
    beside = () if search is None else search.columns
    found = filtered(rows, others).values_list(*columns, *beside)
    chosen = [row for row in found if not states or row[1] in states]
    if search is None:
        return chosen
    width = len(columns)
    return [
        row[:width] for row in chosen if search.holds(dict(zip(beside, row[width:], strict=True)))
    ]


def _ordered(rows: JobQuerySet, asked: Mapping[str, Any]) -> list[Seen]:
    return [Seen(*row) for row in matching(rows.order_by("created_at", "pk"), asked)]


def count_walking(using: str, asked: Mapping[str, Any], until: datetime, seconds: float) -> Counted:
    """The same as ``count_by_state`` for words that are searched for: as far as it gets in the time."""
    deadline = countdown() + seconds
    by_state: Counter[str] = Counter()
    after: Key | None = None
    while countdown() < deadline:
        stretch = read_stretch(using, asked, until, after, 1000)
        by_state.update(job.state for job in stretch.jobs)
        after = stretch.after
        if after is None:
            return Counted(by_state.total(), True, dict(by_state))
    return Counted(by_state.total() or None, False, {})


def meant(using: str, asked: Mapping[str, Any], until: datetime) -> JobQuerySet:
    """All jobs that meet the conditions and were made before ``until``."""
    return filtered(_jobs(using).filter(created_at__lt=until), asked)


def _jobs(using: str) -> JobQuerySet:
    jobs: JobQuerySet = Job.objects.using(using).all()
    return jobs


def _keys(
    using: str, asked: Mapping[str, Any], until: datetime, after: Key | None
) -> QuerySet[Any, Key]:
    state = _only_state(asked)
    by_listing = state is None or (
        state == State.SUCCEEDED and ("queue" in asked or "type" in asked)
    )
    rows = _listed(using, asked) if by_listing else _in_state(using, str(state))
    if after is not None:
        rows = rows.filter(_beyond(rows, after))
    for word in ("since", "created_after"):
        if word in asked:
            rows = rows.filter(created_at__gte=asked[word])
    if "created_before" in asked:
        rows = rows.filter(created_at__lt=asked["created_before"])
    rows = rows.filter(created_at__lt=until)
    identifier = _identifier(rows)
    return rows.order_by("created_at", identifier).values_list("created_at", identifier)


def _identifier(rows: QuerySet[Any, Any]) -> str:
    return "job_id" if rows.model is JobListing else "id"


def _beyond(rows: QuerySet[Any, Any], key: Key) -> Q:
    """Rows after a key. One comparison, because a million jobs may have been made at one moment."""
    here = _Row(F("created_at"), F(_identifier(rows)))
    return Q(GreaterThan(here, _Row(Value(key[0], DateTimeField()), Value(key[1], UUIDField()))))


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
