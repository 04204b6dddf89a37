"""Queues: our policies as this API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from clusters.policy import ClusterPolicy
from jobs.dialects.asyncjobs.errors import refuse
from jobs.dialects.asyncjobs.wire.reading import Body
from jobs.dialects.asyncjobs.wire.times import SECOND_NS, moment_to_wire, seconds_of, seconds_to_ns
from jobs.models import Overflow, Queue

FIELDS = frozenset(
    {
        "name", "max_age", "max_runtime", "max_entries", "discard_old", "max_tries",
        "max_concurrent",
    }
)  # fmt: skip
UNLIMITED = -1
DEFAULT_RUNTIME_NS = 3600 * SECOND_NS
DEFAULT_CONCURRENT = 100
# What the original calls the queue that it makes by itself, if it may.
IMPLICIT = "DEFAULT"


def new_queue(body: Body, *, may_be_implicit: bool) -> tuple[str, dict[str, Any]]:
    """The name and the policies that a request asks for."""
    name = body.text("name")
    if not name:
        refuse("queue_name_required", "a queue needs a name", "name")
    if name == IMPLICIT and not may_be_implicit:
        refuse("default_queue_disallowed", f"{IMPLICIT} may not be created here", "name")
    age, runtime = body.duration("max_age"), body.duration("max_runtime")
    if runtime is not None and runtime < 0:
        refuse("invalid_duration", "max_runtime must not be negative", "max_runtime")
    entries = body.integer("max_entries", "queue_invalid", 0)
    tries = body.integer("max_tries", "queue_invalid", 1)
    concurrent = body.integer("max_concurrent", "queue_invalid", 1)
    # Without a limit there is no oldest item too many.
    discards = body.boolean("discard_old") and bool(entries)
    return name, {
        "max_age_seconds": seconds_of(age) if age is not None and age > 0 else None,
        "default_timeout_seconds": seconds_of(runtime or DEFAULT_RUNTIME_NS),
        "max_entries": entries or None,
        "overflow": Overflow.DROP_OLDEST if discards else Overflow.REFUSE,
        "default_max_attempts": tries,
        "max_concurrency": DEFAULT_CONCURRENT if concurrent is None else concurrent,
    }


# What the implicit queue is like, where it is made at start.
IMPLICIT_POLICIES: dict[str, Any] = {
    "default_timeout_seconds": 60.0,
    "default_max_attempts": 100,
    "max_concurrency": 100,
}


def queue_to_wire(queue: Queue, policy: ClusterPolicy, now: datetime) -> dict[str, Any]:
    runtime = queue.default_timeout_seconds
    return {
        "name": queue.name,
        "time": moment_to_wire(now),
        "max_age": seconds_to_ns(queue.max_age_seconds or 0),
        "max_entries": _or_unlimited(queue.max_entries),
        "discard_old": queue.overflow == Overflow.DROP_OLDEST,
        "max_tries": _or_unlimited(queue.default_max_attempts),
        "max_runtime": seconds_to_ns(
            policy.default_timeout_seconds if runtime is None else runtime
        ),
        "max_concurrent": _or_unlimited(queue.max_concurrency),
    }


def _or_unlimited(limit: int | None) -> int:
    return UNLIMITED if limit is None else limit
