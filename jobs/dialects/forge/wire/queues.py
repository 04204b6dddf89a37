"""Queues, the slots that serve them, and workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from clusters.models import Node
from clusters.policy import ClusterPolicy
from jobs.dialects.forge.wire.words import time_to_wire
from jobs.engine.limits import rate_limited_until
from jobs.fleet import Fleet, Held
from jobs.models import Queue
from jobs.queue_counts import QueueCounts
from jobs.states import State

DAY = 86_400
# The least time for which a queue keeps its ended jobs: what "0 days" becomes.
SHORTEST_SECONDS = 60.0
NOTHING = QueueCounts()


def counts_to_wire(counts: QueueCounts) -> dict[str, int]:
    """What waits for other jobs is not due, so it is with what is deferred."""
    deferred = counts.of(State.SCHEDULED, State.BLOCKED) - counts.retrying
    return {
        "pending": counts.of(State.READY),
        "scheduled": deferred,
        "in_progress": counts.of(State.RUNNING, State.WAITING),
        "done": counts.of(State.SUCCEEDED),
        "failed": counts.retrying,
        "dead": counts.of(State.FAILED, State.CANCELLED, State.SKIPPED),
    }


def queue_to_wire(
    queue: Queue,
    counts: QueueCounts,
    oldest: datetime | None,
    processes: Sequence[dict[str, Any]],
    fleet: Fleet,
    policy: ClusterPolicy,
) -> dict[str, Any]:
    succeeded_for, failed_for = queue.retain_succeeded_seconds, queue.retain_failed_seconds
    base, cap = queue.retry_base_seconds, queue.retry_cap_seconds
    return {
        "name": queue.name,
        "paused": queue.is_paused_by_people,
        "max_workers": max_workers(queue, fleet),
        "counts": counts_to_wire(counts),
        "processes": processes,
        "retain_done_days": _days(
            policy.retain_succeeded_seconds if succeeded_for is None else succeeded_for
        ),
        "retain_dead_days": _days(
            policy.retain_failed_seconds if failed_for is None else failed_for
        ),
        "backoff_enabled": queue.is_backoff_enabled,
        "backoff_base_seconds": round(policy.retry_base_seconds if base is None else base),
        "backoff_max_seconds": round(policy.retry_cap_seconds if cap is None else cap),
        "throttled_until": time_to_wire(rate_limited_until(queue, fleet.now)),
        "oldest_pending_age_seconds": age_seconds(oldest, fleet.now),
    }


def max_workers(queue: Queue, fleet: Fleet) -> int:
    """How many may work on it, all in all; where nobody has set that, the places there are."""
    return 0 if queue.has_no_workers else fleet.places(queue)


def _days(seconds: float) -> int:
    return int(seconds // DAY)


def seconds_of_days(days: int) -> float:
    return float(max(days * DAY, SHORTEST_SECONDS))


def age_seconds(moment: datetime | None, now: datetime) -> int:
    return 0 if moment is None else max(int((now - moment).total_seconds()), 0)


# -- Slots -----------------------------------------------------------------------------------------


def process_id(queue: str, node_id: Any, job_id: Any = None) -> str:
    """A slot of a node that serves a queue: one for each job that it holds, else the one that is free."""
    return f"{queue}-{str(job_id)[-12:] if job_id else 0}-{node_id}"


def processes_to_wire(
    nodes: Iterable[Node], queues: Iterable[str], held: Iterable[Held]
) -> dict[str, list[dict[str, Any]]]:
    """The slots by queue: of each node those with its jobs, or a free one where it has none."""
    jobs: dict[tuple[str, Any], list[Any]] = {}
    for one in held:
        jobs.setdefault((one.queue, one.node_id), []).append(one.job_id)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in queues}
    for node in nodes:
        key, served = node.pk, None if node.queues is None else frozenset(node.queues)
        about = {
            "host_id": str(key),
            "started_at": time_to_wire(node.started_at),
            "heartbeat_at": time_to_wire(node.heartbeat_at),
        }
        for name, slots in found.items():
            has = jobs.get((name, key))
            if has is None and (served is None or name in served):
                has = [None]
            for job_id in has or ():
                current = None if job_id is None else str(job_id)
                slots.append(
                    {
                        "process_id": process_id(name, key, current),
                        "queue_name": name,
                        **about,
                        "current_job_id": current,
                    }
                )
    return found


# -- Workers ---------------------------------------------------------------------------------------


def workers_to_wire(fleet: Fleet, queues: Sequence[Queue]) -> dict[str, Any]:
    by_name = {queue.name: queue for queue in queues}
    workers = [
        _worker_to_wire(node, fleet, by_name) for node in fleet.nodes if fleet.is_heard_of(node)
    ]
    return {"workers": workers, "unassigned_queues": fleet.unserved(queues)}


def _worker_to_wire(node: Node, fleet: Fleet, queues: Mapping[str, Queue]) -> dict[str, Any]:
    taken = [queue for queue in queues.values() if fleet.takes_from(node, queue)]
    return {
        "host_id": str(node.pk),
        "worker_name": str(node),
        "queues": list(queues) if node.queues is None else node.queues,
        "slots": [{"queue_name": queue.name, "slots": _slots(node, queue)} for queue in taken],
        "workers_live": node.concurrency,
        "in_flight": node.running_jobs,
        "heartbeat_at": time_to_wire(node.heartbeat_at),
        "heartbeat_age_seconds": age_seconds(node.heartbeat_at, fleet.now),
    }


def _slots(node: Node, queue: Queue) -> int:
    most = queue.max_concurrency
    return node.concurrency if most is None else min(node.concurrency, most)
