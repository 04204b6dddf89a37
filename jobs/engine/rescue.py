"""Rescue: a node whose lease is over is dead, and its jobs go on elsewhere as their authors wished.

Every node rescues, as part of its upkeep. First the node is marked dead, guarded by its lease; from then
on its fence counts for nothing. Then its jobs are completed as `lost`, page by page, with the statement
a living holder would use. Of rows that another node is rescuing just now it keeps off, and a job that
cannot be rescued keeps back no other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import DatabaseError, connections, transaction

from clusters.models import Node
from clusters.policy import ClusterPolicy
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown, database_now
from jobs.engine.complete import Completion, Report, Success, decide, hand_back
from jobs.engine.trouble import is_outage
from jobs.engine.turn import take_turn
from jobs.executors import CONDUCTED
from jobs.models import Job
from jobs.states import OnLost, Outcome, State

logger = logging.getLogger(__name__)

PAGE = 100


@dataclass(frozen=True, slots=True)
class Gone:
    """A holder that has ended, and what is written about what it held."""

    id: UUID
    error: str
    error_type: str = "NodeLost"
    # Whether its end counts against its jobs.
    crashed: bool = True
    # What a person decided, in place of what the jobs' authors did: never that enough was tried.
    on_lost: OnLost | None = None


def rescue_lost(using: str, policy: ClusterPolicy) -> int:
    """Mark overdue nodes dead and end the attempts they held; returns how many jobs were rescued."""
    nodes = Node.objects.using(using)
    if nodes.overdue().exists():
        nodes.all().bury()
    # By who holds jobs: one whose row is gone is as dead as one that is marked so.
    running = Job.objects.using(using).filter(state=State.RUNNING)
    holders = {*running.order_by().values_list("node_id", flat=True).distinct()}
    names = {node.pk: f"{node}" for node in nodes.filter(pk__in=holders).only("host", "pid")}
    living = {*nodes.alive().filter(pk__in=holders).values_list("pk", flat=True)}
    rescued = 0
    for holder in sorted(holders - living):
        gone = Gone(holder, f"node {names.get(holder, 'unknown')} stopped answering")
        rescued += rescue_node(using, gone, policy)
    return rescued


def rescue_node(using: str, node: Gone, policy: ClusterPolicy) -> int:
    """End all attempts that the node held; returns how many."""
    held = Job.objects.using(using).filter(node_id=node.id, state=State.RUNNING)
    # Without an order, which would tempt the planner to walk the whole table in that order.
    ids = sorted(held.values_list("pk", flat=True))
    rescued = 0
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        try:
            rescued += _rescue_page(using, node, page, policy)
        except DatabaseError as error:
            if is_outage(error):
                raise
            logger.warning(
                "a page of jobs of node %s cannot be rescued at once", node.id, exc_info=True
            )
            rescued += sum(_rescue_alone(using, node, job_id, policy) for job_id in page)
    if rescued:
        logger.warning("node %s is dead (%s); %d jobs rescued", node.id, node.error, rescued)
    return rescued


def _rescue_page(using: str, node: Gone, ids: Sequence[UUID], policy: ClusterPolicy) -> int:
    connection = connections[using]
    skip_locked = connection.features.has_select_for_update_skip_locked
    with transaction.atomic(using=using):
        rows = Job.objects.using(using).filter(pk__in=ids, node_id=node.id, state=State.RUNNING)
        locked = rows.select_for_update(skip_locked=skip_locked).order_by("pk")
        batch = _as_lost(using, node, [*locked], policy)
        return len(batch) - len(take_turn(connection, batch, None).superseded)


def _rescue_alone(using: str, node: Gone, job_id: UUID, policy: ClusterPolicy) -> int:
    """Outside of a transaction, where a completion that is refused is written in a form that is not."""
    try:
        job = Job.objects.using(using).filter(pk=job_id, node_id=node.id, state=State.RUNNING)
        batch = _as_lost(using, node, [*job], policy)
        return len(batch) - len(take_turn(connections[using], batch, None).superseded)
    except DatabaseError as error:
        if is_outage(error):
            raise
        logger.exception("job %s cannot be rescued", job_id)
        return 0


def _as_lost(
    using: str, node: Gone, jobs: Sequence[Job], policy: ClusterPolicy
) -> list[Success | Completion]:
    now = database_now(connections[using])
    batch: list[Success | Completion] = []
    for job in jobs:
        began_ago = (now - (job.started_at or now)).total_seconds()
        report = Report(
            Outcome.LOST,
            started_at=countdown() - began_ago,
            finished_at=countdown(),
            error=node.error,
            error_type=node.error_type,
            crashed=node.crashed,
        )
        claimed = as_claimed(job)
        if job.kind in CONDUCTED:
            # Its node had not come to it, or nothing of that was committed.
            batch.append(hand_back(claimed, str(node.id)))
            continue
        if node.on_lost is not None:
            claimed = claimed._replace(on_lost=node.on_lost, attempts=0, crashes=0)
        batch.append(decide(claimed, str(node.id), report, policy))
    return batch


def as_claimed(job: Job) -> Claimed:
    """A job that somebody holds, as its holder would know it; without its payload."""
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
        retry_base_seconds=job.retry_base_seconds,
        retry_cap_seconds=job.retry_cap_seconds,
        retry_curve=job.retry_curve,
        is_awaited=job.has_dependants,
    )
