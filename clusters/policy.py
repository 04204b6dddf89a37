"""The settings of a cluster: their defaults, their limits, and which value wins.

A value set explicitly in this process's own configuration wins, then the value persisted in the
cluster's database, then the default here. A process that sets nothing changes nothing.

``mode`` is the cluster's alone: what one process thought of it would not hold for the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

ACTIVE, PASSIVE, ARCHIVED = MODES = ("active", "passive", "archived")
CLUSTER_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,23}[a-z0-9])?\Z")


def _setting(
    default: float, minimum: float, maximum: float, about: str, archived: float | None = None
) -> Any:
    """A number; ``archived`` is the default in a cluster of that mode, where it is another."""
    metadata = {"minimum": minimum, "maximum": maximum, "about": about, "archived": archived}
    return field(default=default, metadata=metadata)


_DECADE, _CENTURY = 3653 * 86400, 36525 * 86400


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
        7 * 86400, 60, _CENTURY, "how long succeeded, cancelled and skipped jobs are kept", _CENTURY
    )
    retain_failed_seconds: float = _setting(
        30 * 86400, 60, _CENTURY, "how long failed jobs are kept", _CENTURY
    )
    retain_log_seconds: float = _setting(
        7 * 86400, 60, _CENTURY, "how long log lines are kept", _CENTURY
    )
    retain_rollup_seconds: float = _setting(
        90 * 86400, 86400, _DECADE, "how long counts by the hour are kept"
    )
    mode: str = field(
        default=ACTIVE,
        metadata={
            "choices": MODES,
            "about": "active: runs jobs; passive: accepts jobs and starts none; archived: refuses new"
            " jobs too, and keeps what it has",
        },
    )
    archive_to: str = field(
        default="",
        metadata={
            "pattern": CLUSTER_ID,
            "about": "the archived cluster that finished jobs and log lines are moved to when their"
            " time is over; empty: they are deleted",
        },
    )
    audit_enqueues: int = _setting(
        0, 0, 1, "1: a plain enqueue leaves a row in the audit too, beside the job that tells of it"
    )


DEFAULTS = ClusterPolicy()
FIELDS = {setting.name: setting for setting in fields(ClusterPolicy)}
# Those that no process may set for itself.
OF_THE_CLUSTER = frozenset({"mode"})
# A lease shorter than this many beats would end whenever one beat is late.
BEATS_PER_LEASE = 4


def explicit_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings of a process: one sentence each, naming the setting."""
    problems = [problem for name, value in values.items() if (problem := _problem(name, value))]
    problems += [
        f"{name} is the same for all processes: change it over the API or with `manage.py clusters set`"
        for name in values
        if name in OF_THE_CLUSTER
    ]
    return problems or [*combination_problems(effective(values)).values()]


def _problem(name: str, value: Any) -> str | None:
    problem = value_problem(name, value)
    if problem is None:
        return None
    return problem if name not in FIELDS else f"{name} {problem}"


def value_problem(name: str, value: Any) -> str | None:
    """What is wrong with one setting, alone; None if nothing is."""
    if name not in FIELDS:
        return f"unknown setting {name!r}"
    limits = FIELDS[name].metadata
    if "choices" in limits:
        is_known = isinstance(value, str) and value in limits["choices"]
        return None if is_known else f"must be one of {', '.join(limits['choices'])}"
    if "pattern" in limits:
        is_sound = isinstance(value, str) and (value == "" or limits["pattern"].match(value))
        return None if is_sound else "must be the id of a cluster, or empty"
    integral = FIELDS[name].type == "int"
    if isinstance(value, bool) or not isinstance(value, int if integral else (int, float)):
        return f"must be a {'whole ' if integral else ''}number"
    low, high = limits["minimum"], limits["maximum"]
    return None if low <= value <= high else f"must be between {low:g} and {high:g}"


def combination_problems(policy: ClusterPolicy) -> dict[str, str]:
    """What is wrong with settings that are each sound alone, by the setting to change first."""
    problems = {}
    if policy.lease_seconds < BEATS_PER_LEASE * policy.heartbeat_seconds:
        problems["lease_seconds"] = (
            f"lease_seconds ({policy.lease_seconds:g}) must be at least {BEATS_PER_LEASE} times "
            f"heartbeat_seconds ({policy.heartbeat_seconds:g})"
        )
    if policy.retry_cap_seconds < policy.retry_base_seconds:
        problems["retry_cap_seconds"] = "retry_cap_seconds must not be below retry_base_seconds"
    return problems


def effective(*layers: Mapping[str, Any]) -> ClusterPolicy:
    """Defaults overlaid with each layer in turn; unknown names of older or newer versions are ignored."""
    values: dict[str, Any] = {}
    for layer in layers:
        values.update({name: value for name, value in layer.items() if name in FIELDS})
    return ClusterPolicy(**{**defaults_of(values.get("mode", ACTIVE)), **values})


def overridden(persisted: Mapping[str, Any], explicit: Mapping[str, Any]) -> list[str]:
    """Settings of which a process has another value of its own than the cluster says."""
    shared = effective(persisted)
    return [name for name in FIELDS if name in explicit and explicit[name] != getattr(shared, name)]


def defaults_of(mode: str) -> dict[str, Any]:
    """The defaults in a cluster of this mode: an archive is there to keep what comes to it."""
    defaults = {name: setting.default for name, setting in FIELDS.items()}
    if mode == ARCHIVED:
        for name, setting in FIELDS.items():
            if setting.metadata.get("archived") is not None:
                defaults[name] = setting.metadata["archived"]
    return defaults
