"""Asking for a bulk operation: what it would be about, the operation itself, and its end before time."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connections

from clusters.deeds import deed, require
from jobs import listing
from jobs.engine.bulk_count import Counted, TooSlow, at_most, count_by_state
from jobs.engine.bulk_terms import (
    ELIGIBLE,
    EVERYTHING,
    check_arguments,
    check_filter,
    check_reason,
    conditions,
    eligible,
    narrowed,
)
from jobs.engine.bulk_walk import Key, Seen, count_walking, meant, read_stretch
from jobs.engine.clock import countdown, database_now
from jobs.errors import BulkOperationNotFound, Conflict, InvalidTransition
from jobs.filters import COUNT_LIMIT, SEARCHED
from jobs.models import BulkAction, BulkOperation, BulkStatus, Job
from jobs.models.bulk_operation import BulkOperationQuerySet
from jobs.raw import read_id
from jobs.states import State

TARGET = "bulk_operation"
MAX_OPEN = 100
SAMPLE = 20
DRY_RUN_SECONDS = 2.0
# A page is no place to wait: so long may a count take, and then a walk.
GLANCE_SECONDS, WALK_SECONDS = 0.09, 0.02


@dataclass(frozen=True, slots=True)
class DryRun:
    """What an operation would be about; nothing was stored."""

    # How many match; at a glance, of those that the action is for.
    count: int | None
    # How many of them the action is for, by their states and up to the limit; None: not known.
    eligible: int | None
    is_exact: bool
    by_state: dict[str, int]
    sample: list[Seen]

    @property
    def size(self) -> int | None:
        """As far as it can be told, how many jobs it would change."""
        return self.count if self.eligible is None else self.eligible

    def has_grown(self, before: int | None) -> bool:
        """Whether it is so much larger than when somebody looked that he should look again."""
        if self.size is None:
            return False
        if before is None:
            # He was told of no number; one that a walk came to says nothing, and is not the first.
            return self.told is not None
        return 10 * self.size > 11 * before

    @property
    def told(self) -> int | None:
        """The number to compare with later: none where it is only how far a walk came."""
        return self.size if self.is_exact or (self.size or 0) >= COUNT_LIMIT else None


class Wanted(NamedTuple):
    """What an operation may be asked for with."""

    action: str
    filter: dict[str, Any]
    arguments: dict[str, Any]


def request(
    action: str,
    filter: Mapping[str, Any],  # noqa: A002  the word of the API
    *,
    reason: str,
    by: str,
    arguments: Mapping[str, Any] | None = None,
) -> BulkOperation:
    """Store an operation for the nodes of the bound cluster to carry out; ``by`` names who asked.

    ``filter`` holds checked search words, or ``{"all": True}`` and nothing else.
    """
    using = Job.objects.all().db
    words = check_filter(action, filter)
    arguments = check_arguments(action, arguments or {})
    check_reason(reason)
    if _operations(using).open().count() >= MAX_OPEN:
        raise Conflict(f"{MAX_OPEN} bulk operations are under way; let some of them end")
    # Now of whoever asks, and of him again when each batch runs.
    require(f"bulk_operations.{action}", using)
    with deed("bulk_operations.request", TARGET, using=using, reason=reason) as trace:
        now = database_now(connections[using])
        operation = BulkOperation.objects.using(using).create(
            action=action,
            filter=words,
            arguments=arguments,
            reason=reason,
            requested_by=by[:200],
            covers_until=now,
            created_at=now,
        )
        trace.target_id, trace.filter = str(operation.pk), words
        trace.after = {"action": action, **arguments}
    return operation


def dry_run(
    action: str,
    filter: Mapping[str, Any],  # noqa: A002
    arguments: Mapping[str, Any] | None = None,
) -> DryRun:
    """What the operation would be about: how many jobs in which states, and the first of them.

    Each look at the jobs takes two seconds at most; what cannot be counted in them is counted in part.
    With a limit those count that the action is for.
    """
    using = Job.objects.all().db
    words = check_filter(action, filter)
    chosen = check_arguments(action, arguments or {})
    asked = narrowed(action, conditions(words), chosen)
    now = database_now(connections[using])
    counted = (
        count_walking(using, asked, now, DRY_RUN_SECONDS)
        if SEARCHED & asked.keys()
        else count_by_state(meant(using, asked, now), DRY_RUN_SECONDS)
    )
    eligible = _eligible(action, asked, chosen.get("limit"), counted)
    sample = _sample(using, asked, now)
    return DryRun(counted.count, eligible, counted.is_exact, counted.by_state, sample)


def glance(
    action: str,
    filter: Mapping[str, Any],  # noqa: A002
    arguments: Mapping[str, Any] | None = None,
) -> DryRun:
    """The same of those jobs only that the action is for, as fast as a page must be.

    They are counted as lists count, along the shortest index; where even that takes long, a walk gets as
    far as it can. What else the action needs may still be chosen.
    """
    using = Job.objects.all().db
    words = check_filter(action, filter)
    limit = check_arguments(action, arguments or {}, is_complete=False).get("limit")
    given = {} if words == EVERYTHING else dict(filter)
    asked = eligible(action, given)
    if asked is None:
        return DryRun(0, 0, True, {}, [])
    try:
        if SEARCHED & asked.keys():
            raise TooSlow
        with at_most(using, GLANCE_SECONDS):
            by_state = listing.count_by_state(using, asked)
            sample = _oldest(using, asked)
    except TooSlow:
        return _walked(using, {**conditions(words), **_narrow(asked)}, limit)
    count = min(sum(by_state.values()), COUNT_LIMIT)
    is_exact = sum(by_state.values()) <= COUNT_LIMIT
    size = count if limit is None else min(count, limit)
    return DryRun(count, size, is_exact, by_state if is_exact else {}, sample)


def _narrow(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What makes conditions those of an action."""
    return {word: asked[word] for word in ("state", "is_held") if word in asked}


def _oldest(using: str, asked: Mapping[str, Any]) -> list[Seen]:
    ids = [read_id(pk) for (pk,) in listing.newest(using, asked, "j.id", SAMPLE, is_backwards=True)]
    rows = Job.objects.using(using).filter(pk__any_of=ids).order_by("created_at", "pk")
    return [Seen(*row) for row in rows.values_list(*Seen._fields)]


def _walked(using: str, asked: Mapping[str, Any], limit: int | None) -> DryRun:
    """As far as a walk from the oldest on gets."""
    now, deadline = database_now(connections[using]), countdown() + WALK_SECONDS
    found: list[Seen] = []
    after: Key | None = None
    seconds = WALK_SECONDS
    while True:
        stretch = read_stretch(using, asked, now, after, 500, seconds)
        found += stretch.jobs
        after, seconds = stretch.after, deadline - countdown()
        if after is None or seconds < 0:
            break
    by_state = dict(Counter(job.state for job in found))
    if after is not None:
        return DryRun(len(found) or None, limit, False, {}, found[:SAMPLE])
    size = len(found) if limit is None else min(len(found), limit)
    return DryRun(len(found), size, True, by_state, found[:SAMPLE])


def _eligible(
    action: str, asked: Mapping[str, Any], limit: int | None, counted: Counted
) -> int | None:
    states, found = asked.get("state"), counted.count
    if counted.is_exact:
        found = sum(n for state, n in counted.by_state.items() if state in ELIGIBLE[action])
    elif not states or not set(states) <= set(ELIGIBLE[action]):
        # Of so many jobs some are eligible; a limit is reached, as far as can be told.
        return limit
    return found if limit is None or found is None else min(found, limit)


def cancel(operation_id: uuid.UUID, *, by: str) -> BulkOperation:
    """Stop an operation after the batch that runs; what is done stays done. Twice is no error."""
    operations = _operations(Job.objects.all().db).filter(pk=operation_id)
    stopped = operations.cancel(by=by[:200])
    operation = operations.first()
    if operation is None:
        raise BulkOperationNotFound
    if not stopped and operation.status != BulkStatus.CANCELLED:
        raise InvalidTransition(f"the operation is {operation.status} already", field="status")
    return operation


def inverse(operation: BulkOperation) -> Wanted | None:
    """The operation that takes back what this one did, where the jobs can still be told by a filter.

    It is about no fewer jobs, but perhaps about some more: others may have come to the same place.
    """
    words = {word: value for word, value in operation.filter.items() if word not in _CHANGED}
    made = operation.covers_until.isoformat()
    words["created_before"] = min(words.get("created_before", made), made)
    if operation.action == BulkAction.CANCEL:
        since = operation.created_at.isoformat()
        words |= {"state": [State.CANCELLED.value], "finished_after": since}
        return Wanted(BulkAction.RETRY, words, {})
    if operation.action == BulkAction.MOVE and "queue" in words:
        back = {"queue": words["queue"]}
        return Wanted(BulkAction.MOVE, {**words, "queue": operation.arguments["queue"]}, back)
    return None


# What is another thing after an operation than it was before.
_CHANGED = ("all", "state", "finished_after", "finished_before")


def _sample(using: str, asked: Mapping[str, Any], now: datetime) -> list[Seen]:
    deadline = countdown() + DRY_RUN_SECONDS
    found: list[Seen] = []
    after: Key | None = None
    while len(found) < SAMPLE and countdown() < deadline:
        stretch = read_stretch(using, asked, now, after, 500)
        found += stretch.jobs
        after = stretch.after
        if after is None:
            break
    return found[:SAMPLE]


def _operations(using: str) -> BulkOperationQuerySet:
    operations: BulkOperationQuerySet = BulkOperation.objects.using(using).all()
    return operations
