"""The policies of a queue: every setting that people may give it, its range, and what must fit together.

One table for the model's verbs, the API's fields and the command's options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import models

from clusters.policy import FIELDS as CLUSTER_SETTINGS
from jobs.errors import InvalidQueue
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY

_DAY, _MONTH, _DECADE = 86400, 31 * 86400, 3653 * 86400


class Overflow(models.TextChoices):
    """What happens to a job too many for its queue's ``max_entries``."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop_oldest"


@dataclass(frozen=True, slots=True)
class Policy:
    """One setting. ``kind`` is int, float, bool or str; the range holds its ends."""

    kind: type
    about: str
    minimum: float | None = None
    maximum: float | None = None
    is_nullable: bool = True
    choices: tuple[str, ...] | None = None
    max_length: int | None = None


def _as_cluster(kind: type, setting: str, about: str) -> Policy:
    """A setting with the range it has for the whole cluster."""
    limits = CLUSTER_SETTINGS[setting].metadata
    return Policy(kind, about, limits["minimum"], limits["maximum"])


POLICIES: Mapping[str, Policy] = {
    "description": Policy(str, "What the queue is for.", is_nullable=False, max_length=500),
    "max_concurrency": Policy(
        int, "Jobs that run at the same time, over all nodes; null: no limit.", 1, 100_000
    ),
    "rate_limit": Policy(
        int, "Starts within `rate_period_seconds`, over all nodes; null: no limit.", 1, 1_000_000
    ),
    "rate_period_seconds": Policy(
        float, "The period of `rate_limit`.", 0.01, _MONTH, is_nullable=False
    ),
    "default_priority": Policy(
        int, "Priority of jobs that do not say; null: 0.", HIGHEST_PRIORITY, LOWEST_PRIORITY
    ),
    "default_timeout_seconds": _as_cluster(
        float,
        "default_timeout_seconds",
        "Timeout of jobs that do not say; null: as the cluster's settings say.",
    ),
    "default_max_attempts": _as_cluster(
        int,
        "default_max_attempts",
        "Attempts of jobs that do not say; null: as the cluster's settings say.",
    ),
    "is_backoff_enabled": Policy(
        bool, "Whether a failed job waits before its next attempt.", is_nullable=False
    ),
    "retry_base_seconds": Policy(
        float,
        "Longest wait before the first retry, doubled with each attempt; null: as the cluster's "
        "settings say.",
        0,
        _DAY,
    ),
    "retry_cap_seconds": _as_cluster(
        float,
        "retry_cap_seconds",
        "Longest wait before any retry; null: as the cluster's settings say.",
    ),
    "max_age_seconds": Policy(
        float,
        "A job that is not started so long after it was due fails as `expired`; null: never.",
        0.1,
        _DECADE,
    ),
    # Each enqueue counts them under the queue's lock, so there is a limit to the limit.
    "max_entries": Policy(int, "Jobs that wait to be started; null: no limit.", 1, 100_000),
    "overflow": Policy(
        str,
        "What becomes of a job too many: it is refused, or the oldest that waits is dropped.",
        is_nullable=False,
        choices=tuple(Overflow.values),
    ),
    "retain_succeeded_seconds": _as_cluster(
        float,
        "retain_succeeded_seconds",
        "How long succeeded, cancelled and skipped jobs are kept; null: as the cluster's settings "
        "say.",
    ),
    "retain_failed_seconds": _as_cluster(
        float,
        "retain_failed_seconds",
        "How long failed jobs are kept; null: as the cluster's settings say.",
    ),
}


def check_policies(values: Mapping[str, Any]) -> None:
    """Refuse a setting that no queue may have, whatever its others are."""
    for name, value in values.items():
        policy = POLICIES.get(name)
        if policy is None:
            raise InvalidQueue(f"a queue has no setting {name!r}", field=name)
        if problem := _problem(policy, value):
            raise InvalidQueue(f"{name} {problem}", field=name)


def check_together(changed: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Refuse settings that are each sound and do not go together.

    ``whole`` is the queue as it would be; what is named is a setting somebody has just changed.
    """
    base, cap = whole["retry_base_seconds"], whole["retry_cap_seconds"]
    if base is not None and cap is not None and cap < base:
        raise InvalidQueue(
            f"retry_cap_seconds ({cap:g}) must not be below retry_base_seconds ({base:g})",
            field=_guilty(changed, "retry_cap_seconds", "retry_base_seconds"),
        )
    if whole["overflow"] == Overflow.DROP_OLDEST and whole["max_entries"] is None:
        raise InvalidQueue(
            "overflow 'drop_oldest' needs max_entries",
            field=_guilty(changed, "overflow", "max_entries"),
        )


def _guilty(changed: Mapping[str, Any], *names: str) -> str:
    return next((name for name in names if name in changed), names[0])


def _problem(policy: Policy, value: Any) -> str | None:
    if value is None:
        return None if policy.is_nullable else "must not be null"
    if policy.kind is str:
        return _text_problem(policy, value)
    if policy.kind is bool:
        return None if isinstance(value, bool) else "must be true or false"
    allowed = int if policy.kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or value != value:
        return f"must be a {'whole ' if policy.kind is int else ''}number"
    low, high = policy.minimum or 0, policy.maximum or math.inf
    return None if low <= value <= high else f"must be between {low:.10g} and {high:.10g}"


def _text_problem(policy: Policy, value: Any) -> str | None:
    if policy.choices is not None:
        known = isinstance(value, str) and value in policy.choices
        return None if known else f"must be one of {', '.join(policy.choices)}"
    return text_problem(value, policy.max_length or 0)


def text_problem(value: Any, max_length: int) -> str | None:
    """Why this cannot be stored as a text of this length."""
    if not isinstance(value, str):
        return "must be a text"
    if len(value) > max_length:
        return f"may have {max_length} characters"
    # Surrogates are no UTF-8, and PostgreSQL stores no NUL.
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        return "holds characters that no text may hold"
    return None
