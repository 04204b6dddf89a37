"""The search words of the API, the commands and bulk operations: which jobs they are about.

``asked`` maps words to values that a form has checked; each word has its own line here, and none reaches
the ORM by name. A word that is not there is no condition.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import F, Q

from jobs.models.job_listing import metadata_value
from jobs.models.job_queryset import JobQuerySet
from jobs.states import Reason, State

# What no index knows: ``jobs.job_search`` tests it job by job.
SEARCHED = frozenset({"attempt", "error", "args"})
# Counting stops here; beyond it the answer would cost more than it tells.
COUNT_LIMIT = 100_000
MAX_METADATA = 5
MAX_METADATA_KEY = 60


class Pair(NamedTuple):
    """A key, and a value in the form in which values are compared."""

    key: str
    value: str


class Sort(NamedTuple):
    """Jobs of one state, perhaps of some reasons only, and perhaps only as far as their attempts go."""

    state: State
    reasons: tuple[Reason, ...] = ()
    # Whether it was ever tried; whether it has no attempt left.
    is_tried: bool | None = None
    is_exhausted: bool | None = None

    def holds(self, job: Any) -> bool:
        return (
            job.state == self.state
            and (not self.reasons or job.reason in self.reasons)
            and self.is_tried in (None, job.attempts > 0)
            and self.is_exhausted in (None, job.attempts >= job.max_attempts)
        )

    @property
    def is_retrying(self) -> bool:
        """It waits for another attempt, or for a node that makes it."""
        return self.is_tried is True and self.state in (State.SCHEDULED, State.READY)

    @property
    def attempts_sql(self) -> str:
        """The part of it that is about attempts, of the job `j`."""
        parts = ["TRUE"]
        if self.is_tried is not None:
            parts.append("j.attempts > 0" if self.is_tried else "j.attempts = 0")
        if self.is_exhausted is not None:
            parts.append(f"j.attempts {'>=' if self.is_exhausted else '<'} j.max_attempts")
        return " AND ".join(parts[1:] or parts)

    @property
    def condition(self) -> Q:
        found = Q(state=self.state)
        if self.reasons:
            found &= Q(reason__in=self.reasons)
        if self.is_tried is not None:
            found &= Q(attempts__gt=0) if self.is_tried else Q(attempts=0)
        if self.is_exhausted is not None:
            is_exhausted = Q(attempts__gte=F("max_attempts"))
            found &= is_exhausted if self.is_exhausted else ~is_exhausted
        return found


def filtered(jobs: JobQuerySet, asked: Mapping[str, Any]) -> JobQuerySet:
    """The jobs that meet all conditions; none of them may be one of those that are searched for."""
    if searched := SEARCHED & asked.keys():
        raise ValueError(f"{min(searched)} is no condition of a query")
    if states := asked.get("state"):
        # One state is a range of an index; `IN` is not, for the order a list needs.
        jobs = (
            jobs.filter(state=states[0]) if len(set(states)) == 1 else jobs.filter(state__in=states)
        )
    if sorts := asked.get("sorts"):
        jobs = jobs.filter(reduce(or_, (sort.condition for sort in sorts)))
    if "queue" in asked:
        jobs = jobs.filter(queue=asked["queue"])
    if "type" in asked:
        jobs = jobs.filter(type=asked["type"])
    if asked.get("queues"):
        jobs = jobs.filter(queue__in=asked["queues"])
    if asked.get("types"):
        jobs = jobs.filter(type__in=asked["types"])
    if "kind" in asked:
        jobs = jobs.filter(kind=asked["kind"])
    if "tag" in asked:
        jobs = jobs.tagged(asked["tag"])
    for pair in asked.get("metadata", ()):
        jobs = jobs.with_metadata(*parse_metadata(pair))
    if "reason" in asked:
        jobs = jobs.filter(state=State.FAILED, reason=asked["reason"])
    if "is_held" in asked:
        jobs = jobs.filter(is_held=asked["is_held"])
    if "failure" in asked:
        jobs = jobs.filter(fingerprint=asked["failure"])
    if "copy_of" in asked:
        jobs = jobs.filter(copy_of=asked["copy_of"])
    if "schedule" in asked:
        jobs = jobs.filter(schedule_id=asked["schedule"])
    if "trigger" in asked:
        jobs = jobs.filter(trigger=asked["trigger"])
    if "workflow_run" in asked:
        jobs = jobs.filter(workflow_run_id=asked["workflow_run"])
    if "unique_key" in asked:
        jobs = jobs.filter(unique_key=asked["unique_key"])
    if "node" in asked:
        jobs = jobs.filter(state=State.RUNNING, node_id=asked["node"])
    for word in ("since", "created_after"):
        if word in asked:
            jobs = jobs.filter(created_at__gte=asked[word])
    if "created_before" in asked:
        jobs = jobs.filter(created_at__lt=asked["created_before"])
    if "finished_after" in asked:
        jobs = jobs.filter(finished_at__gte=asked["finished_after"])
    if "finished_before" in asked:
        # No job ends before it is made, and lists are in the order of making.
        jobs = jobs.filter(
            finished_at__lt=asked["finished_before"], created_at__lt=asked["finished_before"]
        )
    return jobs


def parse_metadata(text: str) -> Pair:
    """A key and a value from ``key:value``; ValueError says what is wrong with it.

    The value is a string, number or boolean of JSON, and whatever is none of these is a string as it
    stands: ``n:1`` is the number, ``n:"1"`` the text.
    """
    key, colon, value = text.partition(":")
    if not colon or not 1 <= len(key) <= MAX_METADATA_KEY:
        raise ValueError(f"Must be key:value, with a key of 1 to {MAX_METADATA_KEY} characters.")
    try:
        meant = json.loads(value)
    except (ValueError, RecursionError):
        meant = value
    if not isinstance(meant, str | int | float) or (
        isinstance(meant, float) and not math.isfinite(meant)
    ):
        meant = value
    compared = metadata_value(meant)
    if not compared.isascii() and any("\ud800" <= character <= "\udfff" for character in compared):
        raise ValueError("Holds half a surrogate pair.")
    return Pair(key, compared)


def as_json(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The checked words in a form that JSON can keep; ``filtered`` reads this form as well."""
    return {
        word: value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, UUID)
        else value
        for word, value in asked.items()
    }


def estimated_count(jobs: JobQuerySet) -> dict[str, Any]:
    """How many rows PostgreSQL's planner expects."""
    plan = json.loads(jobs.order_by().values("pk").explain(format="json"))
    return {"count": int(plan[0]["Plan"]["Plan Rows"]), "is_exact": False}
