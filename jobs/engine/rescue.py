"""Rescue: a node whose lease is over is dead, and its jobs go on elsewhere as their authors wished.

Every node rescues, as part of its loop. First the node is marked dead, guarded by its lease; from then
on its fence counts for nothing. Then its jobs are completed as `lost`, page by page, with the statement
a living holder would use.
"""

from __future__ import annotations

import logging

from django.db import connections

from clusters.models import Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown, database_now
from jobs.engine.complete import Report, decide
from jobs.engine.turn import take_turn
from jobs.models import Job
from jobs.states import Outcome, State

logger = logging.getLogger(__name__)

PAGE = 100


def rescue_lost(using: str, policy: ClusterPolicy) -> int:
    """Mark overdue nodes dead and end the attempts they held; returns how many jobs were rescued."""
    nodes = Node.objects.using(using)
    if nodes.overdue().exists():
        nodes.bury()
    rescued = 0
    gone = nodes.filter(status__in=(NodeStatus.DEAD, NodeStatus.CLOSED), job__state=State.RUNNING)
    for node in gone.distinct():
        rescued += _rescue_node(using, node, policy)
    return rescued


def _rescue_node(using: str, node: Node, policy: ClusterPolicy) -> int:
    rescued = 0
    held = Job.objects.using(using).filter(node_id=node.pk, state=State.RUNNING).order_by("pk")
    while True:
        jobs = list(held[:PAGE])
        if not jobs:
            break
        batch = []
        now = database_now(connections[using])
        for job in jobs:
            claimed = _as_claimed(job)
            began_ago = (now - (job.started_at or now)).total_seconds()
            report = Report(
                Outcome.LOST,
                started_at=countdown() - began_ago,
                finished_at=countdown(),
                error=f"node {node} stopped answering",
                error_type="NodeLost",
                crashed=True,
            )
            batch.append(decide(claimed, str(node.pk), report, policy))
        superseded = take_turn(connections[using], batch, None).superseded
        rescued += len(batch) - len(superseded)
        if len(jobs) < PAGE:
            break
    if rescued:
        logger.warning("node %s (%s) is dead; %d jobs rescued", node.pk, node, rescued)
    return rescued


def _as_claimed(job: Job) -> Claimed:
    return Claimed(
        id=str(job.pk),
        fence=job.fence,
        kind=job.kind,
        type=job.type,
        queue=job.queue,
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        crashes=job.crashes,
        on_lost=job.on_lost,
        timeout_seconds=job.timeout_seconds,
        payload=None,
        payload_bytes=None,
    )
