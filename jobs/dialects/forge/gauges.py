"""The gauges of this API, for Prometheus, and beside them the latencies that its manual promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connections
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusters.policy import ClusterPolicy
from jobs import depths, metrics
from jobs.dialects.forge.wire.queues import (
    NOTHING,
    age_seconds,
    counts_to_wire,
    max_workers,
)
from jobs.engine.clock import database_now
from jobs.engine.limits import rate_limited_until
from jobs.fleet import Fleet
from jobs.histogram import added, percentile
from jobs.models import Queue
from jobs.queue_counts import counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUANTILES = (0.5, 0.95, 0.99)
_HOUR = timedelta(hours=1)


class _Scraped(NamedTuple):
    """What is known of one queue at the moment of the scrape."""

    queue: Queue
    counts: Mapping[str, int]
    oldest_age_seconds: int
    max_workers: int
    is_throttled: bool


class _Gauge(NamedTuple):
    name: str
    about: str
    value: Callable[[_Scraped], int]


GAUGES = (
    _Gauge("queue_pending_jobs", "Jobs that may be claimed now.", lambda q: q.counts["pending"]),
    _Gauge(
        "queue_scheduled_jobs",
        "Jobs that are deferred, to a time or until others have ended.",
        lambda q: q.counts["scheduled"],
    ),
    _Gauge("queue_in_flight_jobs", "Jobs in progress.", lambda q: q.counts["in_progress"]),
    _Gauge("queue_done_jobs", "Completed jobs that are kept.", lambda q: q.counts["done"]),
    _Gauge(
        "queue_failed_jobs",
        "Jobs that failed and wait for their next attempt.",
        lambda q: q.counts["failed"],
    ),
    _Gauge(
        "queue_dead_jobs",
        "Jobs that ended without success and are kept.",
        lambda q: q.counts["dead"],
    ),
    _Gauge(
        "queue_oldest_pending_age_seconds",
        "For how long the oldest of the pending jobs has been due; 0: there is none.",
        lambda q: q.oldest_age_seconds,
    ),
    _Gauge("queue_max_workers", "How many workers it may have.", lambda q: q.max_workers),
    _Gauge("queue_paused", "1: it is paused.", lambda q: int(q.queue.is_paused_by_people)),
    _Gauge("queue_throttled", "1: it has used up its rate.", lambda q: int(q.is_throttled)),
)


def text(using: str, policy: ClusterPolicy) -> bytes:
    """Gauges and latencies of a cluster as one exposition."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QueueGauges(using, policy))
    return generate_latest(registry)


class QueueGauges(Collector):
    """The gauges of all queues of a cluster, counted when they are asked for."""

    def __init__(self, using: str, policy: ClusterPolicy) -> None:
        self._using = using
        self._policy = policy

    def describe(self) -> list[Any]:
        # Nothing is counted to be registered.
        return []

    def collect(self) -> Iterator[Metric]:
        scraped = list(_scrape(self._using, self._policy))
        for gauge in GAUGES:
            family = GaugeMetricFamily(gauge.name, gauge.about, labels=["queue"])
            for one in scraped:
                family.add_metric([one.queue.name], gauge.value(one))
            yield family
        yield from _latencies(self._using, self._policy)


def _scrape(using: str, policy: ClusterPolicy) -> Iterator[_Scraped]:
    fleet = Fleet.read(using)
    queues = list(Queue.objects.using(using).order_by("name"))
    counted = counts(using, policy, queues)
    oldest = depths.oldest_ready(using)
    for queue in queues:
        yield _Scraped(
            queue,
            counts_to_wire(counted.get(queue.name, NOTHING)),
            age_seconds(oldest.get(queue.name), fleet.now),
            max_workers(queue, fleet),
            rate_limited_until(queue, fleet.now) is not None,
        )


def _latencies(using: str, policy: ClusterPolicy) -> Iterator[Metric]:
    """Percentiles of this hour and the one before it, which are a row of each queue.

    They are summaries without count and sum, for nothing else has quantiles.
    """
    now = database_now(connections[using])
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    stats = metrics.stats(using, policy, this_hour - _HOUR, this_hour + _HOUR, group_by="queue")
    processing = Metric(
        "queue_processing_seconds",
        "How long attempts took, of this hour and the one before.",
        "summary",
    )
    total = Metric(
        "queue_total_seconds",
        "How long it took from when jobs were due to their end, of this hour and the one before; "
        "estimated from waits and runs.",
        "summary",
    )
    for name, figures in stats.groups:
        if not figures.run:
            continue
        both = added(figures.wait, figures.run)
        for share in QUANTILES:
            labels = {"queue": name, "quantile": str(share)}
            for metric, histogram in ((processing, figures.run), (total, both)):
                metric.add_sample(metric.name, labels, percentile(histogram, share) or 0.0)
    yield processing
    yield total
