"""What a cluster is doing at the moment, read once for a card or a page: a fixed number of queries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connections

from clusters.models import Node, NodeStatus, awaits_confirmation, current_policy
from jobs import metrics
from jobs.engine.clock import database_now
from jobs.metrics import Depth, Figures
from jobs.models import Queue
from jobs.states import State

PERIOD = timedelta(hours=1)
NOW = (State.READY, State.RUNNING)
_NONE = Depth(0, True)
MAX_NODES = 500


@dataclass(frozen=True, slots=True)
class QueueNow:
    """A queue with what waits and runs in it."""

    queue: Queue
    depths: dict[State, Depth]
    oldest_ready_at: datetime | None
    # Live nodes that take from it.
    nodes: int

    @property
    def ready(self) -> Depth:
        return self.depths.get(State.READY, _NONE)

    @property
    def running(self) -> Depth:
        return self.depths.get(State.RUNNING, _NONE)

    @property
    def scheduled(self) -> Depth:
        return self.depths.get(State.SCHEDULED, _NONE)

    @property
    def blocked(self) -> Depth:
        """Waits for other jobs, or for steps of its own."""
        return _sum([self.depths.get(state, _NONE) for state in (State.BLOCKED, State.WAITING)])


@dataclass(frozen=True, slots=True)
class Snapshot:
    taken_at: datetime
    queues: list[QueueNow]
    # Alive, whether or not their lease is over.
    nodes: list[Node]
    # Of the last hour, minute by minute.
    minutes: list[tuple[datetime, Figures]]
    is_restored: bool
    # What people have said that it may do, see clusters.policy.
    mode: str

    @property
    def ready(self) -> Depth:
        return _sum([one.ready for one in self.queues])

    @property
    def running(self) -> Depth:
        return _sum([one.running for one in self.queues])

    @property
    def live_nodes(self) -> list[Node]:
        return [
            node
            for node in self.nodes
            if node.lease_until >= self.taken_at and node.status == NodeStatus.LIVE
        ]

    @property
    def silent_nodes(self) -> list[Node]:
        """Alive as far as anybody has said, and their lease is over."""
        return [node for node in self.nodes if node.lease_until < self.taken_at]

    @property
    def oldest_ready_at(self) -> datetime | None:
        """Of the queues that are not paused."""
        waiting = (one.oldest_ready_at for one in self.queues if not one.queue.is_paused)
        return min((at for at in waiting if at is not None), default=None)

    @property
    def hour(self) -> Figures:
        whole = Figures()
        for _, figures in self.minutes:
            for event, count in figures.counts.items():
                whole.counts[event] += count
            for bucket, count in figures.wait.items():
                whole.wait[bucket] = whole.wait.get(bucket, 0) + count
            for bucket, count in figures.run.items():
                whole.run[bucket] = whole.run.get(bucket, 0) + count
        return whole


def read(using: str, *, states: Collection[State] = NOW, is_brief: bool = False) -> Snapshot:
    """Read the bound cluster, whose database this is; in brief without the last hour's figures."""
    is_restored = awaits_confirmation()
    now = database_now(connections[using])
    minutes: list[tuple[datetime, Figures]] = []
    if not is_brief:
        line = metrics.timeline(using, current_policy(), now - PERIOD, now, step_seconds=60)
        minutes = line.points
    depths = metrics.depths(using, states)
    oldest = metrics.oldest_ready(using)
    nodes = [*Node.objects.using(using).all().alive().order_by("host", "pid")[:MAX_NODES]]
    queues = []
    for queue in Queue.objects.using(using).order_by("name"):
        serving = [
            node
            for node in nodes
            if node.lease_until >= now
            and node.status == NodeStatus.LIVE
            and (node.queues is None or queue.name in node.queues)
        ]
        queues.append(
            QueueNow(
                queue,
                depths.get(queue.name, {}),
                oldest.get(queue.name),
                len(serving),
            )
        )
    return Snapshot(now, queues, nodes, minutes, is_restored, current_policy().mode)


def _sum(depths: list[Depth]) -> Depth:
    return Depth(sum(depth.count for depth in depths), all(depth.is_exact for depth in depths))
