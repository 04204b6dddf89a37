"""Samples of hosts as time series: steps of any length, each with what its samples say together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.db.models import Avg, Count, Func, Max, Sum, Value

from jobs.models import HostSample

# Of the ends of a distribution the worst minute counts, and of the rest the mean.
_WORST = ("read_p95_seconds", "read_p99_seconds", "write_p95_seconds", "write_p99_seconds")
_ADDED = ("disk_read_bytes", "disk_write_bytes")
_MEANS = (
    *("cpu_percent", "memory_bytes", "disk_used_percent", "read_p50_seconds", "write_p50_seconds"),
    *("rows_read", "rows_written", "connections_active", "connections_idle"),
)
_LATEST = ("connections_max", "database_bytes", "wal_bytes")
MAX_HOSTS = 200


class _Step(Func):
    """In which step after a moment a time lies."""

    output_field = models.BigIntegerField()

    def __init__(self, column: str, start: int, step: int) -> None:
        whole = models.BigIntegerField()
        super().__init__(models.F(column), Value(start, whole), Value(step, whole))

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        (column, start, step), parameters = self._parts(compiler)
        seconds = f"extract(epoch FROM {column})::bigint"
        return f"(({seconds} - {start}) / {step})", parameters

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        (column, start, step), parameters = self._parts(compiler)
        return f"((CAST(strftime('%%s', {column}) AS INTEGER) - {start}) / {step})", parameters

    def _parts(self, compiler: Any) -> tuple[list[str], list[Any]]:
        pieces = [compiler.compile(one) for one in self.get_source_expressions()]
        return [sql for sql, _ in pieces], [value for _, values in pieces for value in values]


def host_series(
    using: str, start: datetime, step_seconds: int, number: int
) -> dict[str, list[dict[str, Any]]]:
    """Of each host the steps of which there are samples, in order; ``step`` tells which one it is."""
    first = int(start.timestamp())
    end = datetime.fromtimestamp(first + step_seconds * number, UTC)
    samples = HostSample.objects.using(using).filter(minute__gte=start, minute__lt=end)
    grouped = samples.annotate(step=_Step("minute", first, step_seconds)).values("host", "step")
    found: dict[str, list[dict[str, Any]]] = {}
    rows = grouped.annotate(
        minutes=Count("host"),
        **{f"of_{name}": Max(name) for name in (*_WORST, *_LATEST)},
        **{f"of_{name}": Sum(name) for name in _ADDED},
        **{f"of_{name}": Avg(name) for name in _MEANS},
    )
    for row in rows.order_by("host", "step")[: MAX_HOSTS * number]:
        values = {name.removeprefix("of_"): value for name, value in row.items()}
        found.setdefault(row["host"], []).append(values)
    return found
