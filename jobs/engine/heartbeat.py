"""The heartbeat: one small update per node, on a thread and connection of its own.

A busy pool or a long statement in the node's loop must not look like death, and neither must one beat
that waits for a lock: it gives up soon and is tried again while there is lease. The answer to a beat
tells whether the node still counts and whether somebody wants it to drain.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

import psutil
from django.conf import settings
from django.db import connections, transaction
from django.db.models.functions import Now

from clusters.binding import cluster_bound
from clusters.databases import limit_calls
from clusters.models import ALIVE, Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs.engine.clock import countdown, host_now
from jobs.engine.fuse import Fuse
from jobs.engine.host_samples import Latencies
from jobs.engine.trouble import Trouble
from jobs.engine.watchdog import Watchdog
from jobs.executors import IO

logger = logging.getLogger(__name__)

SKEW_ALARM_SECONDS = 2.0
USAGE_SECONDS = 0.1
# No call to the database takes longer, however long the lease is: the watchdog is there too.
LONGEST_CALL_SECONDS = 5.0


class Heartbeat(threading.Thread):
    """Beats until ``stop``; calls ``wake`` when the node has something to hear."""

    def __init__(
        self,
        cluster_id: str,
        node_id: str,
        policy: ClusterPolicy,
        count_running: Callable[[], Mapping[str, int]],
        wake: Callable[[], None],
        watchdog: Watchdog,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._policy = policy
        self._count_running = count_running
        self._wake = wake
        self._is_ending = is_ending
        self._watchdog = watchdog
        # From now on, not from when its thread runs: a node must not call itself ready before.
        self._pulse = watchdog.watch("heartbeat", policy.heartbeat_seconds)
        self._stopping = threading.Event()
        self._usage = Usage()
        self._limit_seconds = min(policy.lease_seconds / 10, LONGEST_CALL_SECONDS)
        self.latencies = Latencies()
        self._trouble = Trouble(
            f"the heartbeat of node {node_id}",
            shortest=self._limit_seconds / 4,
            longest=min(self._limit_seconds, policy.heartbeat_seconds),
        )
        self._skew: float | None = None
        # When the last beat that was answered had been sent.
        self.last_good_at = countdown()
        self.is_dead = False
        self.drain_is_ordered = False

    def lease_is_in_doubt(self) -> bool:
        """Two thirds of the lease without an answer: time left to stop all work before it ends."""
        silent = countdown() - self.last_good_at
        return self.is_dead or silent > self._policy.lease_seconds * 2 / 3

    def stop(self) -> None:
        self._stopping.set()
        self.join(timeout=self._policy.lease_seconds / 10)

    def run(self) -> None:
        Fuse(self._policy.lease_seconds, self.lease_is_in_doubt, self._wake, self._stopping).start()
        with cluster_bound(self._cluster_id) as cluster:
            limit_calls(
                connections[cluster.alias], self._limit_seconds, is_pooled=settings.DB_POOLED
            )
            while not self._stopping.wait(self._pause()):
                self._pulse.beat()
                try:
                    self._beat(cluster.alias)
                    self._trouble.end()
                except Exception as error:  # one bad beat is not the end of the heart
                    self._trouble.note(error)
                    with contextlib.suppress(Exception):
                        connections[cluster.alias].close()
            connections[cluster.alias].close()
        self._watchdog.forget(self._pulse)

    def _pause(self) -> float:
        if self._trouble.is_on:
            return max(self._trouble.retry_at - countdown(), 0.0)
        return self._policy.heartbeat_seconds * random.uniform(0.8, 1.2)  # noqa: S311

    def _beat(self, alias: str) -> None:
        cpu, memory = self._usage.read()
        sent = countdown()
        nodes = Node.objects.using(alias).filter(pk=self._node_id)
        running = self._count_running()
        with self._limited(alias):
            living = nodes.filter(status__in=ALIVE).update(
                heartbeat_at=Now(),
                lease_until=Now() + timedelta(seconds=self._policy.lease_seconds),
                running_jobs=sum(running.values()),
                running_io_jobs=running[IO],
                cpu_percent=cpu,
                memory_bytes=memory,
                clock_skew_seconds=self._skew,
            )
        if not living:
            self.is_dead = True
            self._wake()
            return
        self.last_good_at = sent
        written = countdown()
        self.latencies.writes.append(written - sent)
        with self._limited(alias):
            beat_at, drain_at, status = nodes.values_list(
                "heartbeat_at", "drain_requested_at", "status"
            ).get()
        answered = countdown()
        self.latencies.reads.append(answered - written)
        self._measure_skew(beat_at, answered - sent)
        self._heed_drain(alias, drain_at is not None, status)

    def _heed_drain(self, alias: str, is_ordered: bool, status: str) -> None:
        """Drain, or take work again, as somebody wants it; and let the row say which of the two it is."""
        nodes = Node.objects.using(alias).filter(pk=self._node_id)
        if is_ordered is not self.drain_is_ordered:
            self.drain_is_ordered = is_ordered
            self._wake()
        # What is told is put right with each beat: a signal may come between a look and a write.
        if status == NodeStatus.LIVE and (is_ordered or self._is_ending()):
            with self._limited(alias):
                nodes.say_draining()
        elif status == NodeStatus.DRAINING and not (is_ordered or self._is_ending()):
            with self._limited(alias):
                nodes.say_live()

    @contextmanager
    def _limited(self, alias: str) -> Iterator[None]:
        """A pooler in transaction mode hands its connections to others: limits are the transaction's."""
        if connections[alias].vendor != "postgresql" or not settings.DB_POOLED:
            yield
            return
        limit = f"{max(int(self._limit_seconds * 1000), 1)}ms"
        with transaction.atomic(using=alias):
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true),"
                    " set_config('lock_timeout', %s, true)",
                    [limit, limit],
                )
            yield

    def _measure_skew(self, beat_at: datetime, round_trip: float) -> None:
        """How far this host's clock is from the database's; shown and warned of, never acted upon."""
        behind = (host_now() - beat_at).total_seconds() - round_trip / 2
        skew = round(behind, 3)
        if abs(skew) > SKEW_ALARM_SECONDS and abs(self._skew or 0) <= SKEW_ALARM_SECONDS:
            logger.warning("this host's clock is %.1f s off the database's", skew)
        self._skew = skew


class Usage:
    """CPU and memory of a node with all its processes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._last: tuple[float, float] | None = None

    def read(self) -> tuple[float | None, int | None]:
        """Percent of one core since the last reading, and bytes of memory, shared pages once."""
        cpu = memory = 0.0
        begun = countdown()
        for process in [self._process, *self._process.children(recursive=True)]:
            # A job may have started thousands, and the lease does not wait for them to be counted.
            if countdown() - begun > USAGE_SECONDS:
                break
            with contextlib.suppress(psutil.Error, OSError):
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += _memory(process)
        now = countdown()
        last, self._last = self._last, (now, cpu)
        if last is None or now <= last[0]:
            return None, int(memory)
        return round(max(cpu - last[1], 0.0) / (now - last[0]) * 100, 1), int(memory)


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError):
        info = process.memory_info()
        return int(info.rss - getattr(info, "shared", 0))
