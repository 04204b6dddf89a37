"""The settings of a cluster: their defaults, their limits, and which value wins.

A value set explicitly in this process's own configuration wins, then the value persisted in the
cluster's database, then the default here. A process that sets nothing changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


def _setting(default: float, minimum: float, maximum: float, about: str) -> Any:
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum, "about": about})


_DECADE = 3653 * 86400


@dataclass(frozen=True)
class ClusterPolicy:
    """The effective settings of one cluster. Durations are seconds, sizes are bytes."""

    default_timeout_seconds: float = _setting(
        300, 0.1, 7 * 86400, "how long one attempt may run where the job does not say"
    )
    default_max_attempts: int = _setting(3, 1, 100, "attempts where the job does not say")
    retry_base_seconds: float = _setting(
        5, 0, 3600, "upper bound of the wait before the first retry; doubles with each attempt"
    )
    retry_cap_seconds: float = _setting(3600, 1, 7 * 86400, "upper bound of any wait for a retry")
    lease_seconds: float = _setting(
        30, 1, 3600, "a node that has not been heard of for this long is dead"
    )
    heartbeat_seconds: float = _setting(5, 0.1, 900, "how often a node says that it lives")
    cancel_grace_seconds: float = _setting(5, 0, 600, "between asking work to stop and killing it")
    drain_grace_seconds: float = _setting(
        25, 0, 86400, "how long a stopping node lets its work go on"
    )
    max_crashes: int = _setting(
        3, 1, 100, "a job that took its process down this often is poisoned"
    )
    max_payload_bytes: int = _setting(262_144, 1024, 16 << 20, "the largest payload of a job")
    max_result_bytes: int = _setting(65_536, 1024, 4 << 20, "the largest result of a job")
    child_memory_bytes: int = _setting(
        2 << 30,
        64 << 20,
        1 << 40,
        "a child above this is replaced between jobs, and ended at twice",
    )
    retain_succeeded_seconds: float = _setting(
        7 * 86400, 60, _DECADE, "how long succeeded, cancelled and skipped jobs are kept"
    )
    retain_failed_seconds: float = _setting(
        30 * 86400, 60, _DECADE, "how long failed jobs are kept"
    )
    retain_log_seconds: float = _setting(7 * 86400, 60, _DECADE, "how long log lines are kept")
    retain_rollup_seconds: float = _setting(
        90 * 86400, 86400, _DECADE, "how long counts by the hour are kept"
    )
    audit_enqueues: int = _setting(
        0, 0, 1, "1: a plain enqueue leaves a row in the audit too, beside the job that tells of it"
    )


DEFAULTS = ClusterPolicy()
FIELDS = {setting.name: setting for setting in fields(ClusterPolicy)}
# A lease shorter than this many beats would end whenever one beat is late.
BEATS_PER_LEASE = 4


def explicit_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings that somebody wrote: one sentence each, naming the setting."""
    problems = []
    for name, value in values.items():
        if name not in FIELDS:
            problems.append(f"unknown setting {name!r}")
            continue
        integral = FIELDS[name].type == "int"
        if isinstance(value, bool) or not isinstance(value, int if integral else (int, float)):
            problems.append(f"{name} must be a {'whole ' if integral else ''}number")
            continue
        low, high = FIELDS[name].metadata["minimum"], FIELDS[name].metadata["maximum"]
        if not low <= value <= high:
            problems.append(f"{name} must be between {low:g} and {high:g}")
    return problems or combination_problems(effective(values))


def combination_problems(policy: ClusterPolicy) -> list[str]:
    """What is wrong with settings that are each sound alone."""
    problems = []
    if policy.lease_seconds < BEATS_PER_LEASE * policy.heartbeat_seconds:
        problems.append(
            f"lease_seconds ({policy.lease_seconds:g}) must be at least {BEATS_PER_LEASE} times "
            f"heartbeat_seconds ({policy.heartbeat_seconds:g})"
        )
    if policy.retry_cap_seconds < policy.retry_base_seconds:
        problems.append("retry_cap_seconds must not be below retry_base_seconds")
    return problems


def effective(*layers: Mapping[str, Any]) -> ClusterPolicy:
    """Defaults overlaid with each layer in turn; unknown names of older or newer versions are ignored."""
    values: dict[str, Any] = {}
    for layer in layers:
        values.update({name: value for name, value in layer.items() if name in FIELDS})
    return ClusterPolicy(**values)
