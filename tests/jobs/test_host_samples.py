"""Samples of hosts: one a minute and host, with what the heartbeat and the database say."""

from __future__ import annotations

import socket
from datetime import timedelta

import psutil
import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters import storage
from clusters.policy import ClusterPolicy
from jobs.engine import host_samples
from jobs.engine.host_samples import HostSampler, Latencies
from jobs.engine.upkeep import duties
from jobs.models import HostSample
from tests.factories import make_node

USING = "cluster-alpha"
POLICY = ClusterPolicy()
HOST = socket.gethostname()


@pytest.fixture(autouse=True)
def _bound(alpha: object) -> None:
    """In the cluster `alpha`."""


def started(latencies: Latencies) -> HostSampler:
    """A sampler that has had its first look."""
    sampler = HostSampler(latencies)
    sampler(USING, POLICY)
    return sampler


def test_the_first_look_is_of_no_time_at_all_and_not_kept() -> None:
    sampler = started(Latencies())
    assert not HostSample.objects.exists()
    sampler(USING, POLICY)
    assert HostSample.objects.count() == 1


def test_a_sample_tells_how_host_and_database_are_doing(is_postgresql: bool) -> None:
    make_node(host=HOST, memory_bytes=1000)
    make_node(host=HOST, memory_bytes=500)
    make_node(host="other", memory_bytes=7)
    latencies = Latencies()
    sampler = started(latencies)
    latencies.reads.extend([0.003, 0.001, 0.002])
    latencies.writes.append(0.5)
    sampler(USING, POLICY)
    sample = HostSample.objects.get()
    assert (sample.host, sample.minute.second) == (HOST, 0)
    assert sample.memory_bytes == 1500
    assert 0 <= sample.cpu_percent <= 100
    assert 0 < sample.disk_used_percent <= 100
    assert (sample.read_p50_seconds, sample.read_p99_seconds) == (0.002, 0.003)
    assert sample.write_p50_seconds == sample.write_p99_seconds == 0.5
    assert sample.database_bytes > 10_000
    assert sample.wal_bytes >= 0
    # SQLite does not count them.
    assert (sample.rows_read is None) == (not is_postgresql)
    if is_postgresql:
        assert sample.connections_active >= 1
        assert sample.connections_max > sample.connections_active + sample.connections_idle
    else:
        assert sample.connections_max is None
    assert not latencies.reads


def test_one_of_several_nodes_writes_once_a_minute() -> None:
    first, second = started(Latencies()), started(Latencies())
    for sampler in (first, second, first):
        assert sampler(USING, POLICY) == 0
    assert HostSample.objects.count() == 1
    HostSample.objects.update(minute=timezone.now() - timedelta(minutes=5))
    with CaptureQueriesContext(connections[USING]) as captured:
        second(USING, POLICY)
    assert len(captured) <= 9
    assert HostSample.objects.count() == 2


def test_counters_that_grow_are_told_by_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = HostSampler(Latencies())
    clock, rows, read = [0.0], [1000], [5000]
    monkeypatch.setattr(host_samples, "countdown", lambda: clock[0])
    monkeypatch.setattr(
        host_samples, "activity", lambda using: storage.Activity(rows_read=rows[0], rows_written=1)
    )
    monkeypatch.setattr(host_samples, "_disk", lambda: {"disk_read_bytes": read[0]})
    sampler(USING, POLICY)
    clock[0], rows[0], read[0] = 120.0, 1600, 100  # the disk's was set back
    sampler(USING, POLICY)
    latest = HostSample.objects.order_by("minute").last()
    assert (latest.rows_read, latest.rows_written, latest.disk_read_bytes) == (300, 0, 0)


def test_what_a_host_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise psutil.AccessDenied

    for name in ("cpu_percent", "disk_usage", "disk_io_counters"):
        monkeypatch.setattr(psutil, name, refuse)
    started(Latencies())(USING, POLICY)
    sample = HostSample.objects.get()
    assert (sample.cpu_percent, sample.disk_used_percent, sample.disk_read_bytes) == (None,) * 3


def test_old_samples_are_forgotten() -> None:
    now = timezone.now()
    kept = timedelta(seconds=POLICY.retain_rollup_seconds)
    for age in (timedelta(), kept - timedelta(hours=1), kept + timedelta(minutes=2), kept * 2):
        HostSample.objects.create(minute=now - age, host="a")
    assert host_samples.forget(USING, POLICY, limit=1) == 1
    assert host_samples.forget(USING, POLICY) == 1
    assert host_samples.forget(USING, POLICY) == 0
    assert HostSample.objects.count() == 2


def test_nodes_have_these_duties() -> None:
    latencies = Latencies()
    by_name = {duty.name: duty for duty in duties((), latencies)}
    assert by_name["sample_host"].is_everywhere
    assert by_name["sample_host"].work._latencies is latencies
    assert by_name["forget_samples"].work is host_samples.forget
