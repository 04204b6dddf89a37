"""Time series of jobs, hosts and the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine.rollup import fold_tallies
from jobs.histogram import added, bucket_of, percentile
from jobs.models import HostSample, Tally
from tests.dialects.forge.conftest import Caller
from tests.factories import make_queue

ALIAS = "cluster-alpha"
LATENCIES = ("p50_ms", "p95_ms", "p99_ms")
TIMELINE = {
    "at", "enqueued", "started", "retried", "completed", "failed",
    *(f"processing_{name}" for name in LATENCIES), *(f"total_{name}" for name in LATENCIES),
}  # fmt: skip
METRICS = {
    "at", "enqueued", "completed", "failed",
    *(f"proc_{name}" for name in LATENCIES), *(f"total_{name}" for name in LATENCIES),
}  # fmt: skip
NOTHING = {"enqueued": 0, "completed": 0, "failed": 0, "proc_p50_ms": 0, "total_p99_ms": 0}


def minutes_ago(count: float) -> datetime:
    now = timezone.now().astimezone(UTC).replace(second=0, microsecond=0)
    return now - timedelta(minutes=count)


def tally(event: str, minute: datetime, count: int = 1, seconds: float | None = None,
          queue: str = "default") -> None:  # fmt: skip
    bucket = None if seconds is None else bucket_of(seconds)
    Tally.objects.create(
        minute=minute, queue=queue, type="t", event=event, bucket=bucket, count=count
    )


def asked(start: datetime, minutes: float, step: int) -> str:
    end = start + timedelta(minutes=minutes)
    return f"from={start:%Y-%m-%dT%H:%M:%SZ}&to={end:%Y-%m-%dT%H:%M:%SZ}&bucket_secs={step}"


def at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


@pytest.mark.parametrize("is_folded", [False, True])
def test_the_timeline_is_of_all_queues(is_folded: bool, viewer: Caller) -> None:
    start = minutes_ago(10)
    make_queue("gh")
    for event, minute, count in (
        ("enqueued", 0, 5), ("started", 0, 4), ("retried", 1, 2), ("failed", 3, 1),
    ):  # fmt: skip
        tally(event, start + timedelta(minutes=minute), count, queue="gh")
    tally("succeeded", start + timedelta(minutes=1), 3, 0.1)
    tally("started", start + timedelta(minutes=1), 3, 1.0)
    if is_folded:
        assert fold_tallies(ALIAS, ClusterPolicy())
    found = viewer.read(f"queue/timeline?{asked(start, 5, 60)}")
    assert [one["at"] for one in found] == [at(start + timedelta(minutes=m)) for m in range(5)]
    assert all(set(one) == TIMELINE for one in found)
    assert [one["enqueued"] for one in found] == [5, 0, 0, 0, 0]
    assert [one["started"] for one in found] == [4, 3, 0, 0, 0]
    assert [one["retried"] for one in found] == [0, 2, 0, 0, 0]
    assert [one["completed"] for one in found] == [0, 3, 0, 0, 0]
    assert [one["failed"] for one in found] == [0, 0, 0, 1, 0]
    assert 80 <= found[1]["processing_p50_ms"] <= found[1]["processing_p99_ms"] <= 120
    assert 900 <= found[1]["total_p50_ms"] <= found[1]["total_p99_ms"] <= 1350
    assert found[2]["processing_p50_ms"] == found[2]["total_p99_ms"] == 0


def test_a_metric_series_is_of_one_queue(viewer: Caller) -> None:
    start = minutes_ago(20)
    make_queue("gh")
    tally("enqueued", start, 5, queue="gh")
    tally("enqueued", start, 7)
    tally("succeeded", start + timedelta(minutes=2), 1, 0.5, queue="gh")
    found = viewer.read(f"queue/metric-series?queue=gh&{asked(start, 4, 120)}")
    assert all(set(one) == METRICS for one in found)
    assert [(one["enqueued"], one["completed"]) for one in found] == [(5, 0), (0, 1)]
    # Of a wait nothing is known: the total is what the run took.
    assert found[1]["proc_p50_ms"] == found[1]["total_p50_ms"] > 400
    assert {name: found[0][name] for name in NOTHING} == {**NOTHING, "enqueued": 5}
    # Shorter steps than a minute become one.
    assert len(viewer.read(f"queue/metric-series?queue=gh&{asked(start, 4, 10)}")) == 4


def test_steps_begin_where_the_range_does_and_are_of_any_length(viewer: Caller) -> None:
    start = minutes_ago(9)
    for minute in range(9):
        tally("enqueued", start + timedelta(minutes=minute), 1)
    found = viewer.read(f"queue/timeline?{asked(start, 9, 150)}")
    assert [one["at"] for one in found][:2] == [at(start), at(start + timedelta(seconds=150))]
    assert [one["enqueued"] for one in found] == [3, 2, 3, 1]
    seconds = viewer.read(f"queue/timeline?{asked(start, 1, 20)}")
    assert [one["enqueued"] for one in seconds] == [1, 0, 0]


def test_what_is_kept_by_the_hour_goes_where_the_hour_begins(viewer: Caller) -> None:
    hour = minutes_ago(0).replace(minute=0) - timedelta(days=5)
    for minute in (5, 25, 45):
        tally("enqueued", hour + timedelta(minutes=minute), 1)
    fold_tallies(ALIAS, ClusterPolicy())
    found = viewer.read(f"queue/timeline?{asked(hour, 60, 600)}")
    assert [one["enqueued"] for one in found] == [3, 0, 0, 0, 0, 0]


def test_a_range_has_the_minutes_that_are_kept_and_hours_before(viewer: Caller) -> None:
    hour = minutes_ago(0).replace(minute=0) - timedelta(hours=70)
    lately = minutes_ago(61)
    for moment in (hour + timedelta(minutes=7), lately, lately + timedelta(minutes=1)):
        tally("enqueued", moment, 1)
    fold_tallies(ALIAS, ClusterPolicy())
    query = asked(hour, 75 * 60, 300)
    found = {one["at"]: one["enqueued"] for one in viewer.read(f"queue/timeline?{query}")}
    assert found[at(hour)] == 1
    bucket = hour + (lately - hour) // timedelta(minutes=5) * timedelta(minutes=5)
    assert found[at(bucket)] >= 1
    assert sum(found.values()) == 3


def test_years_are_kept_by_the_day(viewer: Caller) -> None:
    day = minutes_ago(0).replace(hour=0, minute=0) - timedelta(days=200)
    tally("enqueued", day + timedelta(hours=5), 4)
    fold_tallies(ALIAS, ClusterPolicy())
    found = viewer.read(f"queue/timeline?{asked(day, 24 * 60, 3600)}")
    assert [one["enqueued"] for one in found] == [4, *[0] * 23]
    whole = viewer.read(
        f"queue/timeline?{asked(day - timedelta(days=5), 365 * 24 * 60, 86400 * 30)}"
    )
    assert sum(one["enqueued"] for one in whole) == 4


def test_a_range_of_nothing_is_empty_and_a_long_one_is_cut(viewer: Caller) -> None:
    start = minutes_ago(60)
    for path in ("timeline?", "metric-series?queue=default&", "resource-series?", "db-series?"):
        assert viewer.read(f"queue/{path}{asked(start, 0, 60)}") == []
        assert viewer.read(f"queue/{path}{asked(start, -5, 60)}") == []
        assert viewer.read(f"queue/{path}{asked(start, 5, 0)}") == []
    far = viewer.read(f"queue/timeline?{asked(start - timedelta(days=3), 10_000, 60)}")
    assert len(far) == 2000


def test_a_sum_of_durations_is_near_the_truth() -> None:
    """Against the sums themselves, for waits and runs that know nothing of each other."""
    waits = {bucket_of(0.05): 70, bucket_of(0.4): 25, bucket_of(3.0): 5}
    runs = {bucket_of(0.2): 90, bucket_of(2.0): 10}
    sums = sorted(
        wait + run
        for wait, times in ((0.05, 70), (0.4, 25), (3.0, 5))
        for run, others in ((0.2, 90), (2.0, 10))
        for _ in range(times * others)
    )
    both = added(waits, runs)
    assert sum(both.values()) == pytest.approx(sum(runs.values()))
    for share in (0.5, 0.95, 0.99):
        expected = sums[int(len(sums) * share) - 1]
        assert percentile(both, share) == pytest.approx(expected, rel=0.25)
    assert added({}, runs) == runs
    assert added(waits, {}) == waits


# -- Hosts -----------------------------------------------------------------------------------------


def sample(minute: datetime, host: str = "a", **columns: Any) -> None:
    HostSample.objects.create(minute=minute, host=host, **columns)


def test_hosts_have_the_members_of_the_manual(viewer: Caller) -> None:
    start = minutes_ago(30)
    sample(
        start, cpu_percent=50.0, memory_bytes=1000, disk_read_bytes=10, disk_write_bytes=20,
        disk_used_percent=40.0,
    )  # fmt: skip
    sample(start + timedelta(minutes=1), cpu_percent=100.0, memory_bytes=3000, disk_read_bytes=30)
    sample(start + timedelta(minutes=4), "b", cpu_percent=7.0)
    sample(start + timedelta(minutes=9), "b", cpu_percent=9.0)
    found = viewer.read(f"queue/resource-series?{asked(start, 6, 120)}")
    assert found == [
        {
            "host": "a",
            "buckets": [
                {"at": at(start), "cpu_pct": 75.0, "rss_bytes": 2000, "disk_read_bytes": 40,
                 "disk_write_bytes": 20, "disk_used_pct": 40.0},
            ],
        },
        {
            "host": "b",
            "buckets": [
                {"at": at(start + timedelta(minutes=4)), "cpu_pct": 7.0, "rss_bytes": 0,
                 "disk_read_bytes": 0, "disk_write_bytes": 0, "disk_used_pct": 0.0},
            ],
        },
    ]  # fmt: skip


def test_the_database_has_the_members_of_the_manual(viewer: Caller) -> None:
    start = minutes_ago(30)
    columns: dict[str, Any] = {
        "read_p50_seconds": 0.002, "read_p95_seconds": 0.004, "read_p99_seconds": 0.005,
        "write_p50_seconds": 0.01, "write_p95_seconds": 0.02, "write_p99_seconds": 0.03,
        "rows_read": 100, "rows_written": 50, "connections_active": 5, "connections_idle": 15,
        "connections_max": 100, "database_bytes": 7000, "wal_bytes": 900,
    }  # fmt: skip
    sample(start, **columns)
    worse = {**columns, "read_p50_seconds": 0.004, "read_p99_seconds": 0.5, "database_bytes": 8000}
    sample(start + timedelta(minutes=1), **worse)
    (found,) = viewer.read(f"queue/db-series?{asked(start, 2, 120)}")
    assert found["host"] == "a"
    # Of several minutes the mean of the middle, and the worst of the ends.
    assert found["buckets"] == [
        {
            "at": at(start), "read_p50_ms": 3.0, "read_p95_ms": 4.0, "read_p99_ms": 500.0,
            "reads_per_min": 100, "write_p50_ms": 10.0, "write_p95_ms": 20.0, "write_p99_ms": 30.0,
            "writes_per_min": 50, "pool_active": 5, "pool_idle": 15, "pool_max": 100,
            "pool_used_pct": 5.0, "db_size_bytes": 8000, "wal_bytes": 900,
        }
    ]  # fmt: skip
