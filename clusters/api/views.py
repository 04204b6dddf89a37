"""Clusters the caller may see, and the nodes of one of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import parse_uuid
from clusters.api.paging import Order, read_page
from clusters.api.schema import NODE_ID, answers
from clusters.api.serializers import (
    ClusterItem,
    ClusterList,
    ExactCount,
    NodeFilter,
    NodeItem,
    NodeListQuery,
    NodePage,
    node_to_json,
)
from clusters.health import watch
from clusters.models import ALIVE, Node, NodeQuerySet
from clusters.registry import Cluster
from config.problems import NotPossible

NEWEST_START_FIRST = Order(("started_at", "id"), (datetime.fromisoformat, uuid.UUID))
# A list does not wait for a dead database; it says what was known last.
REACHABILITY_WAIT_SECONDS = 0.2


class ClusterViewSet(NativeViewSet):
    verbs = {"list": "clusters.list", "count": "clusters.list", "retrieve": "clusters.read"}
    uses_cluster_database = False

    @extend_schema(
        operation_id="clusters_list",
        summary="List the clusters you may see",
        responses=answers({200: ClusterList}),
    )
    def list(self, request: Request) -> HttpResponse:
        self.query()
        items = self._to_json(self.principal.clusters())
        return reply({"items": items, "next": None, "previous": None})

    @extend_schema(
        operation_id="clusters_count",
        summary="Count the clusters you may see",
        responses=answers({200: ExactCount}),
    )
    def count(self, request: Request) -> HttpResponse:
        self.query()
        return reply({"count": len(self.principal.clusters()), "is_exact": True})

    @extend_schema(
        operation_id="clusters_get",
        summary="Get a cluster",
        responses=answers({200: ClusterItem}),
    )
    def retrieve(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        chosen = [cluster for cluster in self.principal.clusters() if cluster.id == cluster_id]
        return reply(self._to_json(chosen)[0])

    def _to_json(self, clusters: Sequence[Cluster]) -> Sequence[dict[str, Any]]:
        reachable = watch.ask([c.alias for c in clusters], REACHABILITY_WAIT_SECONDS)
        return [
            {
                "id": cluster.id,
                "title": cluster.title or cluster.id,
                "role": self.principal.role_on(cluster.id),
                "is_reachable": reachable[cluster.alias],
                "awaits_confirmation": watch.awaits_confirmation(cluster.alias),
            }
            for cluster in clusters
        ]


class NodeViewSet(NativeViewSet):
    verbs = {
        "list": "nodes.read",
        "count": "nodes.read",
        "retrieve": "nodes.read",
        "drain": "nodes.drain",
        "undrain": "nodes.undrain",
    }

    @extend_schema(
        operation_id="nodes_list",
        summary="List nodes, newest first",
        parameters=[NodeListQuery],
        responses=answers({200: NodePage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(NodeListQuery)
        return reply(
            read_page(request, _filtered(asked), NEWEST_START_FIRST, asked).to_json(node_to_json)
        )

    @extend_schema(
        operation_id="nodes_count",
        summary="Count nodes",
        parameters=[NodeFilter],
        responses=answers({200: ExactCount}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        return reply({"count": _filtered(self.query(NodeFilter)).count(), "is_exact": True})

    @extend_schema(
        operation_id="nodes_get",
        summary="Get a node",
        parameters=[NODE_ID],
        responses=answers({200: NodeItem}),
    )
    def retrieve(self, request: Request, cluster_id: str, node_id: str) -> HttpResponse:
        self.query()
        return reply(node_to_json(_node(node_id)))

    @extend_schema(
        operation_id="nodes_drain",
        summary="Ask a node to take nothing new",
        description="It learns of it with its next heartbeat. Asking twice is no error.",
        parameters=[NODE_ID],
        request=None,
        responses=answers({200: NodeItem}, 409),
    )
    def drain(self, request: Request, cluster_id: str, node_id: str) -> HttpResponse:
        self.query()
        self.body()
        key = _node(node_id).pk
        _nodes().filter(pk=key).order_drain()
        node = _node(node_id)
        if node.status not in ALIVE:
            raise NotPossible(f"cannot drain a node that is {node.status}")
        return reply(node_to_json(node))

    @extend_schema(
        operation_id="nodes_undrain",
        summary="Let a node take work again that was asked to drain",
        description="It learns of it with its next heartbeat. A node that was told to stop goes on "
        "stopping. Asking where nobody wants it to drain is no error.",
        parameters=[NODE_ID],
        request=None,
        responses=answers({200: NodeItem}, 409),
    )
    def undrain(self, request: Request, cluster_id: str, node_id: str) -> HttpResponse:
        self.query()
        self.body()
        key = _node(node_id).pk
        _nodes().filter(pk=key).end_drain()
        node = _node(node_id)
        if node.status not in ALIVE:
            raise NotPossible(f"a node that is {node.status} takes no work any more")
        return reply(node_to_json(node))


def _nodes() -> NodeQuerySet:
    nodes: NodeQuerySet = Node.objects.all()
    return nodes


def _filtered(asked: dict[str, Any]) -> NodeQuerySet:
    return _nodes().filter(status=asked["status"]) if "status" in asked else _nodes()


def _node(node_id: str) -> Node:
    key = parse_uuid(node_id)
    node = _nodes().filter(pk=key).first() if key else None
    if node is None:
        raise NotFound
    return node
