"""Nodes as this API shows them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from clusters.models import ALIVE, Node
from jobs.dialects.tork.wire.documents import lean
from jobs.dialects.tork.wire.ids import node_id
from jobs.dialects.tork.wire.times import moment_to_wire

# Silent for longer it is away.
SILENT = timedelta(seconds=60)
ONLINE, OFFLINE = "UP", "OFFLINE"


def status_of(node: Node, now: datetime) -> str:
    is_there = node.status in ALIVE and node.heartbeat_at >= now - SILENT
    return ONLINE if is_there else OFFLINE


def node_to_wire(node: Node, now: datetime) -> dict[str, Any]:
    name = node_id(node.pk)
    said = {
        "id": name,
        "name": f"{node.host}:{node.pid}",
        "cpuPercent": round(node.cpu_percent or 0.0, 2),
        # A name only: what is told to one node, it reads in the database.
        "queue": f"x-{name}",
        "status": status_of(node, now),
        "hostname": node.host,
        "taskCount": node.running_jobs,
    }
    return dict(lean(said)) | {
        "startedAt": moment_to_wire(node.started_at),
        "lastHeartbeatAt": moment_to_wire(node.heartbeat_at),
        "version": node.version,
    }
