"""Clusters and nodes in JSON. The classes make the OpenAPI document, the functions the answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from clusters.api.fields import Choice, format_time
from clusters.api.paging import PageQuery
from clusters.models import NodeStatus


class NodeFilter(serializers.Serializer[Any]):
    status = Choice(choices=NodeStatus.values, required=False)


class NodeListQuery(PageQuery, NodeFilter):
    pass


class ClusterItem(serializers.Serializer[Any]):
    id = serializers.CharField()
    title = serializers.CharField()
    role = serializers.CharField(help_text="The caller's role.")
    is_reachable = serializers.BooleanField(
        allow_null=True,
        help_text="Whether its database answered when last asked; null: not known yet.",
    )
    awaits_confirmation = serializers.BooleanField(
        allow_null=True,
        help_text="Whether it was restored from a backup and no job starts until an operator of the "
        "host confirms; null: not known.",
    )


class ClusterList(serializers.Serializer[Any]):
    items = ClusterItem(many=True)
    next = serializers.CharField(allow_null=True, help_text="Always null: there is one page.")
    previous = serializers.CharField(allow_null=True)


class NodeItem(serializers.Serializer[Any]):
    """One start of one worker process."""

    id = serializers.UUIDField()
    host = serializers.CharField()
    pid = serializers.IntegerField()
    version = serializers.CharField()
    status = serializers.ChoiceField(choices=NodeStatus.values)
    queues = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="Null: every queue."
    )
    kinds = serializers.ListField(child=serializers.CharField())
    types = serializers.ListField(child=serializers.CharField())
    concurrency = serializers.IntegerField(
        help_text="How many python and files jobs it runs at a time."
    )
    io_concurrency = serializers.IntegerField(help_text="How many jobs of other kinds.")
    running_jobs = serializers.IntegerField(help_text="Of all kinds, when it was heard of last.")
    running_io_jobs = serializers.IntegerField(help_text="Those of them that count as io.")
    cpu_percent = serializers.FloatField(allow_null=True)
    memory_bytes = serializers.IntegerField(allow_null=True)
    clock_skew_seconds = serializers.FloatField(allow_null=True)
    started_at = serializers.DateTimeField()
    heartbeat_at = serializers.DateTimeField()
    lease_until = serializers.DateTimeField()
    drain_requested_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)


class NodePage(serializers.Serializer[Any]):
    items = NodeItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class ExactCount(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    is_exact = serializers.BooleanField()


def node_to_json(node: Any) -> dict[str, Any]:
    return {
        "id": str(node.id),
        "host": node.host,
        "pid": node.pid,
        "version": node.version,
        "status": node.status,
        "queues": node.queues,
        "kinds": node.kinds,
        "types": node.types,
        "concurrency": node.concurrency,
        "io_concurrency": node.io_concurrency,
        "running_jobs": node.running_jobs,
        "running_io_jobs": node.running_io_jobs,
        "cpu_percent": node.cpu_percent,
        "memory_bytes": node.memory_bytes,
        "clock_skew_seconds": node.clock_skew_seconds,
        "started_at": format_time(node.started_at),
        "heartbeat_at": format_time(node.heartbeat_at),
        "lease_until": format_time(node.lease_until),
        "drain_requested_at": format_time(node.drain_requested_at),
        "closed_at": format_time(node.closed_at),
    }
