"""Time series of jobs, of hosts and of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from jobs.dialects.forge.wire.reading import Query, refuse
from jobs.dialects.forge.wire.words import time_to_wire
from jobs.histogram import Histogram, added, percentile
from jobs.metrics import Figures

FIRST_YEAR, LAST_YEAR = 1970, 2999
MAX_BUCKETS = 2000
MAX_BUCKET_SECONDS = 366 * 86_400
PERCENTS = (50, 95, 99)


class Range(NamedTuple):
    """So many steps from a moment on."""

    start: datetime
    step_seconds: int
    number: int

    @property
    def moments(self) -> list[str | None]:
        step = timedelta(seconds=self.step_seconds)
        return [time_to_wire(self.start + step * index) for index in range(self.number)]

    @classmethod
    def of(cls, query: Query, *, shortest: int = 1) -> Range | None:
        """What is asked for, cut after the most steps there may be; None where it is nothing."""
        start, end = query.moment("from"), query.moment("to")
        for name, moment in (("from", start), ("to", end)):
            if not FIRST_YEAR <= moment.year <= LAST_YEAR:
                refuse(name, f"Must lie between {FIRST_YEAR} and {LAST_YEAR}.")
        step = query.number("bucket_secs", 0, MAX_BUCKET_SECONDS)
        if end <= start or step == 0:
            return None
        step = max(step, shortest)
        number = -(-int((end - start).total_seconds()) // step)
        return cls(start, step, min(max(number, 1), MAX_BUCKETS))


def timeline_to_wire(at: str | None, figures: Figures) -> dict[str, Any]:
    counts = figures.counts
    return {
        "at": at,
        "enqueued": counts["enqueued"],
        "started": counts["started"],
        "retried": counts["retried"],
        "completed": counts["succeeded"],
        "failed": counts["failed"],
        **_latencies("processing", "total", figures),
    }


def metrics_to_wire(at: str | None, figures: Figures) -> dict[str, Any]:
    counts = figures.counts
    return {
        "at": at,
        "enqueued": counts["enqueued"],
        "completed": counts["succeeded"],
        "failed": counts["failed"],
        **_latencies("proc", "total", figures),
    }


def _latencies(processing: str, total: str, figures: Figures) -> dict[str, int]:
    """In whole milliseconds. ``total`` is estimated: waits and runs are counted apart."""
    histograms: Mapping[str, Histogram] = {
        processing: figures.run,
        total: added(figures.wait, figures.run) if figures.run else {},
    }
    return {
        f"{name}_p{percent}_ms": _milliseconds(percentile(histogram, percent / 100))
        for name, histogram in histograms.items()
        for percent in PERCENTS
    }


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else round(seconds * 1000)


# -- Hosts -----------------------------------------------------------------------------------------


def resources_to_wire(at: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "at": at,
        "cpu_pct": _fraction(values["cpu_percent"]),
        "rss_bytes": _whole(values["memory_bytes"]),
        "disk_read_bytes": _whole(values["disk_read_bytes"]),
        "disk_write_bytes": _whole(values["disk_write_bytes"]),
        "disk_used_pct": _fraction(values["disk_used_percent"]),
    }


def database_to_wire(at: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
    most, active = values["connections_max"], values["connections_active"]
    return {
        "at": at,
        **_durations("read", values),
        "reads_per_min": _whole(values["rows_read"]),
        **_durations("write", values),
        "writes_per_min": _whole(values["rows_written"]),
        "pool_active": _whole(active),
        "pool_idle": _whole(values["connections_idle"]),
        "pool_max": _whole(most),
        "pool_used_pct": round(100.0 * float(active or 0) / most, 2) if most else 0.0,
        "db_size_bytes": _whole(values["database_bytes"]),
        "wal_bytes": _whole(values["wal_bytes"]),
    }


def _durations(name: str, values: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{name}_p{percent}_ms": _fraction(1000.0 * (values[f"{name}_p{percent}_seconds"] or 0.0))
        for percent in PERCENTS
    }


def _whole(value: Any) -> int:
    return 0 if value is None else round(value)


def _fraction(value: Any) -> float:
    return 0.0 if value is None else round(float(value), 3)
