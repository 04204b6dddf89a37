"""The nodes that live, what each of them serves and holds, and which queues nobody serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connections

from clusters.models import Node, NodeStatus
from jobs.engine.clock import database_now
from jobs.models import Job, Queue
from jobs.states import State

# So many nodes and held jobs are looked at.
MAX_NODES, MAX_HELD = 1000, 10_000


class Held(NamedTuple):
    """A job that a node holds."""

    job_id: UUID
    queue: str
    node_id: UUID


@dataclass(frozen=True, slots=True)
class Fleet:
    """The nodes of a cluster at one moment."""

    now: datetime
    # Those that may hold work, the longest there first.
    nodes: Sequence[Node]

    @classmethod
    def read(cls, using: str) -> Fleet:
        nodes = Node.objects.using(using).alive().order_by("started_at", "pk")
        return cls(database_now(connections[using]), list(nodes[:MAX_NODES]))

    def is_heard_of(self, node: Node) -> bool:
        """Whether its lease has not run out."""
        return node.lease_until > self.now

    def takes_from(self, node: Node, queue: Queue) -> bool:
        """Whether the node takes jobs of this queue now."""
        return (
            self.is_heard_of(node)
            and node.status == NodeStatus.LIVE
            and node.drain_requested_at is None
            and not queue.is_paused
            and serves(node, queue.name)
        )

    def unserved(self, queues: Iterable[Queue]) -> list[str]:
        """The queues from which no node takes anything: nobody serves them, or they are paused."""
        return [
            queue.name
            for queue in queues
            if not any(self.takes_from(node, queue) for node in self.nodes)
        ]

    def places(self, queue: Queue) -> int:
        """How many jobs of this queue may run at the same time."""
        if queue.max_concurrency is not None:
            return queue.max_concurrency
        there = (node for node in self.nodes if serves(node, queue.name) and self.is_heard_of(node))
        return sum(node.concurrency for node in there)


def serves(node: Node, queue: str) -> bool:
    return node.queues is None or queue in node.queues


def held(using: str, queue: str | None = None) -> list[Held]:
    """The jobs that nodes hold now, of all queues or of one."""
    rows = Job.objects.using(using).filter(state=State.RUNNING, node_id__isnull=False)
    if queue is not None:
        rows = rows.filter(queue=queue)
    return [Held(*row) for row in rows.values_list("pk", "queue", "node_id")[:MAX_HELD]]
