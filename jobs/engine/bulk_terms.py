"""What a bulk operation may ask for: which jobs, which action, and what the action needs besides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import InvalidBulkOperation, UnknownQueue
from jobs.filters import as_json
from jobs.models import BulkAction, Queue
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.states import FINAL, RETRYABLE_FROM, State

# In place of all conditions.
EVERYTHING = {"all": True}
# The words that ``jobs.filters.filtered`` knows. One that it did not know would be no condition.
WORDS = frozenset(
    {
        "state", "queue", "type", "kind", "tag", "metadata", "reason", "is_held", "failure", "copy_of",
        "unique_key", "node", "created_after", "created_before", "finished_after", "finished_before",
        "schedule", "trigger", "workflow_run", "since", "attempt", "error", "args",
    }
)  # fmt: skip
MAX_REASON = 500
MAX_SPREAD_SECONDS = 7 * 86400
MAX_LIMIT = 1_000_000

NOT_FINAL = tuple(state for state in State if state not in FINAL)
# Where an action has nothing to do at all. Locking these jobs would only cost.
ELIGIBLE: Mapping[str, Sequence[str]] = {
    BulkAction.CANCEL: NOT_FINAL,
    BulkAction.RETRY: RETRYABLE_FROM,
    BulkAction.RUN_NOW: (State.SCHEDULED,),
    BulkAction.MOVE: NOT_FINAL,
    BulkAction.SET_PRIORITY: NOT_FINAL,
    BulkAction.DELETE: FINAL,
}
# What an action takes besides `limit`, which all of them do.
ARGUMENTS: Mapping[str, str] = {
    BulkAction.MOVE: "queue",
    BulkAction.SET_PRIORITY: "priority",
    BulkAction.RETRY: "spread_seconds",
}


def check_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidBulkOperation("say why; it is kept with the operation", field="reason")
    if len(reason) > MAX_REASON:
        raise InvalidBulkOperation(f"at most {MAX_REASON} characters", field="reason")


def check_filter(action: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """The action and the words, in the form in which they are stored."""
    if action not in BulkAction.values:
        known = ", ".join(BulkAction.values)
        raise InvalidBulkOperation(f"there is no such action; known: {known}", field="action")
    words = as_json(words)
    if not words or words == {"all": False}:
        raise InvalidBulkOperation(
            'which jobs? Give conditions, or {"all": true} for every job', field="filter"
        )
    if "all" in words and words != EVERYTHING:
        raise InvalidBulkOperation("`all` is true and goes alone", field="filter.all")
    conditions(words)
    return words


def conditions(words: Mapping[str, Any]) -> dict[str, Any]:
    """A stored filter as the search words it means; also when it was stored by another version."""
    if words == EVERYTHING:
        return {}
    if unknown := words.keys() - WORDS:
        name = min(unknown)[:100]
        raise InvalidBulkOperation(f"there is no search word {name!r}", field=f"filter.{name}")
    if not words:
        raise InvalidBulkOperation("the filter is empty", field="filter")
    for name, value in words.items():
        # A list of none is no condition to the search, which would mean every job.
        if value is None or value == []:
            raise InvalidBulkOperation("must not be empty", field=f"filter.{name}")
    return dict(words)


def check_arguments(
    action: str, arguments: Mapping[str, Any], *, is_complete: bool = True
) -> dict[str, Any]:
    known = ARGUMENTS.get(action)
    for name in sorted(arguments.keys() - {known, "limit"}):
        raise InvalidBulkOperation(f"{action} takes no such argument", field=f"arguments.{name}")
    limit = arguments.get("limit", 1)
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidBulkOperation(f"a whole number from 1 to {MAX_LIMIT}", field="arguments.limit")
    value = arguments.get(known) if known else None
    if not is_complete and known not in arguments:
        return dict(arguments)
    if action == BulkAction.MOVE:
        if not isinstance(value, str):
            raise InvalidBulkOperation("to which queue?", field="arguments.queue")
        if not Queue.objects.filter(name=value[:101]).exists():
            raise UnknownQueue(f"there is no queue {value[:100]!r}", field="arguments.queue")
    if action == BulkAction.SET_PRIORITY and (
        type(value) is not int or not HIGHEST_PRIORITY <= value <= LOWEST_PRIORITY
    ):
        raise InvalidBulkOperation(
            f"a whole number from {HIGHEST_PRIORITY} to {LOWEST_PRIORITY}",
            field="arguments.priority",
        )
    if "spread_seconds" in arguments and not _is_spread(value):
        raise InvalidBulkOperation(
            f"a number of seconds above 0 and at most {MAX_SPREAD_SECONDS}",
            field="arguments.spread_seconds",
        )
    return dict(arguments)


def _is_spread(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 < value <= MAX_SPREAD_SECONDS


def narrowed(
    action: str, asked: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Mapping[str, Any]:
    """With a limit only those that the action is for, because the oldest of them are meant."""
    # None of these jobs may be for the action, as each will be told.
    return (eligible(action, asked) or asked) if "limit" in arguments else asked


def eligible(action: str, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The conditions of those jobs that the action is for; None: it is for none of them."""
    states = [state for state in asked.get("state") or State.values if state in ELIGIBLE[action]]
    if not states:
        # No state would be no condition.
        return None
    chosen = {**asked, "state": states}
    return {"is_held": False, **chosen} if action == BulkAction.RETRY else chosen
