"""What a cluster is doing at the moment, read once for a card or a page: a fixed number of queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models.functions import Now

from clusters.models import Node, NodeStatus, awaits_confirmation, current_policy
from jobs import capacity, metrics
from jobs.capacity import Late
from jobs.depths import Depth, depths, oldest_ready
from jobs.engine.clock import database_now
from jobs.failure_figures import muted_failures
from jobs.metrics import Figures
from jobs.models import AlertRule, AlertState, Queue
from jobs.states import State

PERIOD = timedelta(hours=1)
NOW = (State.READY, State.RUNNING)
_NONE = Depth(0, True)
MAX_NODES = 500
MAX_ALERTS = 20


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
    # Those together.
    hour: Figures
    late: Late
    is_restored: bool
    # What people have said that it may do, see clusters.policy.
    mode: str
    # Failed in the last hour of what somebody has muted.
    muted: int = 0
    # Alerts that nobody has muted.
    firing: Sequence[AlertRule] = ()

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


def read(using: str, *, states: Collection[State] = NOW, is_brief: bool = False) -> Snapshot:
    """Read the bound cluster, whose database this is; in brief without the last hour's figures."""
    is_restored = awaits_confirmation()
    rows: list[Any] = [*Queue.objects.using(using).annotate(read_at=Now()).order_by("name")]
    # The default queue is always there, and tells the time without a question of its own.
    now = rows[0].read_at if rows else database_now(connections[using])
    policy, late = current_policy(), Late(0)
    minutes: list[tuple[datetime, Figures]] = []
    muted, firing = 0, list[AlertRule]()
    if not is_brief:
        minutes = metrics.timeline(
            using, policy, now - PERIOD, now, step_seconds=60, now=now
        ).points
        late = capacity.late_schedules(using, now)
        muted = muted_failures(using, now - PERIOD)
        firing = _firing(using, now)
    deep = depths(using, states)
    oldest = oldest_ready(using)
    nodes = [*Node.objects.using(using).all().alive().order_by("host", "pid")[:MAX_NODES]]
    queues = []
    for queue in rows:
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
                deep.get(queue.name, {}),
                oldest.get(queue.name),
                len(serving),
            )
        )
    return Snapshot(
        taken_at=now,
        queues=queues,
        nodes=nodes,
        minutes=minutes,
        hour=metrics.together(figures for _, figures in minutes),
        late=late,
        is_restored=is_restored,
        mode=policy.mode,
        muted=muted,
        firing=firing,
    )


def _firing(using: str, now: datetime) -> list[AlertRule]:
    rules = AlertRule.objects.using(using).filter(is_enabled=True, state=AlertState.FIRING)
    columns = ("name", "severity", "sentence", "page", "acknowledged_at", "acknowledged_by")
    rules = rules.exclude(muted_until__gt=now).only(*columns)
    return [*rules.order_by("severity", "state_since", "pk")[:MAX_ALERTS]]


def _sum(depths: list[Depth]) -> Depth:
    return Depth(sum(depth.count for depth in depths), all(depth.is_exact for depth in depths))
