"""Host samples: once a minute a node notes how its host is doing and how the database answers it.

What heartbeats took is measured anyway; the rest costs a few small statements a minute, on the thread of
upkeep. Of several nodes on a host the first one to come writes.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psutil
from django.conf import settings
from django.db import connections
from django.db.models import Sum

from clusters.models import Node
from clusters.policy import ClusterPolicy
from clusters.storage import activity
from jobs.engine.clock import countdown, database_now
from jobs.models import HostSample

EVERY_SECONDS = 20.0
# As many heartbeats as can be within a few minutes.
_KEPT = 1000


@dataclass(slots=True)
class Latencies:
    """How long a node's small statements took, in seconds: written by its heartbeat, read by upkeep."""

    reads: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    writes: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))


class HostSampler:
    """A duty of every node: one sample of its host a minute."""

    def __init__(self, latencies: Latencies) -> None:
        self._latencies = latencies
        self._host = socket.gethostname()[:255]
        # What the counters said the last time, and when that was.
        self._last: dict[str, int] = {}
        self._last_at: float | None = None
        with contextlib.suppress(OSError, psutil.Error):
            psutil.cpu_percent()  # the first answer is about no time at all

    def __call__(self, using: str, policy: ClusterPolicy) -> int:
        now = database_now(connections[using])
        minute = now.replace(second=0, microsecond=0)
        samples = HostSample.objects.using(using)
        # The look keeps those that come for nothing from taking SQLite's write lock.
        if samples.filter(minute=minute, host=self._host).exists():
            return 0
        is_first = self._last_at is None
        sample = HostSample(minute=minute, host=self._host, **self._measure(using))
        # Most of the first one is of no time at all: a node that starts would look like a host at rest.
        if not is_first:
            samples.bulk_create([sample], ignore_conflicts=True)
        return 0

    def _measure(self, using: str) -> dict[str, Any]:
        busy = activity(using)
        counters = {"rows_read": busy.rows_read, "rows_written": busy.rows_written, **_disk()}
        return {
            **self._since_last({name: n for name, n in counters.items() if n is not None}),
            **_host(),
            "memory_bytes": self._memory(using),
            **_percentiles("read", _taken(self._latencies.reads)),
            **_percentiles("write", _taken(self._latencies.writes)),
            "connections_active": busy.connections_active,
            "connections_idle": busy.connections_idle,
            "connections_max": busy.connections_max,
            "database_bytes": busy.database_bytes,
            "wal_bytes": busy.wal_bytes,
        }

    def _since_last(self, counters: dict[str, int]) -> dict[str, int]:
        """What was added in a minute; nothing the first time, and none where a counter was set back."""
        now = countdown()
        since = now if self._last_at is None else self._last_at
        minutes = max((now - since) / 60.0, 1e-3)
        grown = {
            name: round(max(number - self._last[name], 0) / minutes)
            for name, number in counters.items()
            if name in self._last
        }
        self._last, self._last_at = counters, now
        return grown

    def _memory(self, using: str) -> int | None:
        here = Node.objects.using(using).alive().filter(host=self._host)
        total: int | None = here.aggregate(total=Sum("memory_bytes"))["total"]
        return total


def forget(using: str, policy: ClusterPolicy, limit: int = 2000) -> int:
    """Delete some samples that are kept no longer than roll-ups by the hour; a duty of upkeep."""
    now = database_now(connections[using])
    samples = HostSample.objects.using(using)
    old = samples.filter(minute__lt=now - timedelta(seconds=policy.retain_rollup_seconds))
    # The look keeps idle nodes from taking SQLite's write lock.
    keys = list(old.order_by("pk").values_list("pk", flat=True)[:limit])
    if not keys:
        return 0
    return samples.filter(pk__in=keys)._raw_delete(using) or 0


def _taken(kept: deque[float]) -> list[float]:
    found = []
    with contextlib.suppress(IndexError):
        while True:
            found.append(kept.popleft())
    return sorted(found)


def _percentiles(name: str, durations: Sequence[float]) -> dict[str, float]:
    """By the nearest rank."""
    if not durations:
        return {}
    return {
        f"{name}_p{percent}_seconds": durations[math.ceil(len(durations) * percent / 100) - 1]
        for percent in (50, 95, 99)
    }


def _host() -> dict[str, float]:
    found = {}
    with contextlib.suppress(OSError, psutil.Error):
        found["cpu_percent"] = float(psutil.cpu_percent())
    with contextlib.suppress(OSError, psutil.Error):
        found["disk_used_percent"] = float(psutil.disk_usage(str(settings.BASE_DIR)).percent)
    return found


def _disk() -> dict[str, int]:
    """What was read from disks and written to them since the host started, where the system tells."""
    with contextlib.suppress(OSError, RuntimeError, psutil.Error):
        if (counted := psutil.disk_io_counters()) is not None:
            return {"disk_read_bytes": counted.read_bytes, "disk_write_bytes": counted.write_bytes}
    return {}
