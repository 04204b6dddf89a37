"""The states of tasks: one table from ours, which tells a task's word and filters by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.filters import Sort
from jobs.states import Reason, State

_WORN = (Reason.ERROR, Reason.LOST)

# Every stored job is of exactly one sort. `new` has never been tried; what failed on its last try has
# expired, and what failed with tries left was ended for good.
SORTS: Mapping[str, tuple[Sort, ...]] = {
    "new": (Sort(State.SCHEDULED, is_tried=False), Sort(State.READY, is_tried=False)),
    "active": (Sort(State.RUNNING), Sort(State.WAITING)),
    "retry": (Sort(State.SCHEDULED, is_tried=True), Sort(State.READY, is_tried=True)),
    "expired": (
        Sort(State.FAILED, (Reason.EXPIRED, Reason.TIMEOUT)),
        Sort(State.FAILED, _WORN, is_exhausted=True),
    ),
    "terminated": (
        Sort(State.FAILED, (Reason.POISONED,)),
        Sort(State.FAILED, _WORN, is_exhausted=False),
        Sort(State.CANCELLED),
    ),
    "complete": (Sort(State.SUCCEEDED),),
    "queue_error": (Sort(State.FAILED, (Reason.BAD_DEFINITION,)),),
    "blocked": (Sort(State.BLOCKED),),
    "unreachable": (Sort(State.FAILED, (Reason.DEPENDENCY,)), Sort(State.SKIPPED)),
}
_BY_STATE: dict[str, list[tuple[Sort, str]]] = {}
for _word, _sorts in SORTS.items():
    for _sort in _sorts:
        _BY_STATE.setdefault(_sort.state, []).append((_sort, _word))


def state_to_wire(job: Any) -> str:
    found = _BY_STATE[job.state]
    if len(found) == 1:
        return found[0][1]
    return next(word for sort, word in found if sort.holds(job))


def sorts_of(words: Iterable[str]) -> tuple[Sort, ...]:
    """What to ask for, where tasks in these states are wanted."""
    return tuple(sort for word in dict.fromkeys(words) for sort in SORTS[word])
