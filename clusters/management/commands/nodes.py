"""Look at the nodes of a cluster, and ask them to take nothing new."""

from __future__ import annotations

import socket
from argparse import ArgumentTypeError, Namespace
from uuid import UUID

from django.db.models.functions import Now

from clusters.api.serializers import node_to_json
from clusters.management.base import CommandFailed, Conflict, NotFound, OperatorCommand
from clusters.models import ALIVE, Node


class Command(OperatorCommand):
    help = "Look at the nodes of a cluster, and ask them to take nothing new."

    def add_verbs(self) -> None:
        parser = self.verb("list", self.list_nodes, "live and draining nodes")
        parser.add_argument("--all", action="store_true", help="also closed and dead ones")
        self.verb("show", self.show_node, "one node").add_argument("id", type=node_id)
        drain = self.verb("drain", self.drain, "let a node finish what it holds and take no more")
        drain.add_argument("id", type=node_id)
        undrain = self.verb("undrain", self.undrain, "let a node take work again")
        undrain.add_argument("id", type=node_id)
        check = self.verb("check", self.check_host, "0 if a live node runs on this host, else 1")
        check.add_argument("--host", default=socket.gethostname(), help="default: this one")

    def list_nodes(self, asked: Namespace) -> None:
        nodes = Node.objects.all() if asked.all else Node.objects.all().alive()
        found = [*nodes.order_by("-started_at", "-id")]
        self.show(
            {"items": [node_to_json(node) for node in found], "next": None, "previous": None},
            lambda: self.print_table(
                ("id", "status", "host", "pid", "version", "running", "slots", "heartbeat"),
                (
                    (
                        str(node.pk),
                        node.status,
                        node.host,
                        node.pid,
                        node.version,
                        node.running_jobs,
                        node.places,
                        node.heartbeat_at,
                    )
                    for node in found
                ),
            ),
        )

    def show_node(self, asked: Namespace) -> None:
        self._show(find(asked.id))

    def drain(self, asked: Namespace) -> None:
        node = find(asked.id)
        if not Node.objects.filter(pk=node.pk).order_drain():
            node = find(asked.id)
            if node.drain_requested_at is None:
                raise Conflict(f"the node is {node.status}", code="invalid_transition")
            self.say("It was asked to drain before; nothing has changed.")
        self._show(find(asked.id))

    def undrain(self, asked: Namespace) -> None:
        node = find(asked.id)
        if not Node.objects.filter(pk=node.pk).end_drain():
            node = find(asked.id)
            if node.status not in ALIVE:
                raise Conflict(f"the node is {node.status}", code="invalid_transition")
            self.say("Nobody had asked it to drain; nothing has changed.")
        self._show(find(asked.id))

    def check_host(self, asked: Namespace) -> None:
        """For health checks of containers: each has a host name of its own."""
        alive = Node.objects.all().alive()
        nodes = [*alive.filter(host=asked.host, lease_until__gt=Now()).order_by("id")]
        if not nodes:
            raise CommandFailed(f"no live node on host {asked.host}")
        self.show(
            {"items": [node_to_json(node) for node in nodes]},
            lambda: self.stdout.write("\n".join(str(node.pk) for node in nodes)),
        )

    def _show(self, node: Node) -> None:
        document = node_to_json(node)
        self.show(document, lambda: self.print_record(document))


def node_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text[:60]!r} is no node id") from None


def find(pk: UUID) -> Node:
    try:
        return Node.objects.get(pk=pk)
    except Node.DoesNotExist:
        raise NotFound(f"there is no node {pk}") from None
