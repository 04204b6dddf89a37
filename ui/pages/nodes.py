"""The nodes of a cluster: whether they live, what they hold, and the way to send one home."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from uuid import UUID

from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse

from clusters.binding import current_cluster
from clusters.models import ALIVE, Node, NodeQuerySet
from jobs.engine.clock import database_now
from jobs.errors import InvalidTransition
from jobs.models import Job
from jobs.states import State
from ui.answers import address, confirm, done, refused, sent
from ui.callers import may, require
from ui.deeds import deed
from ui.forms import ReasonForm
from ui.fragments import show

SHOWN_NODES, SHOWN_ENDED, SHOWN_RUNNING = 200, 10, 200
# A clock that is farther off than this is told of.
SKEW_SECONDS = 2.0


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "nodes.read")
    using = current_cluster().alias
    now = database_now(connections[using])
    nodes = [*_nodes().alive().order_by("host", "pid")[:SHOWN_NODES]]
    ended = [*_nodes().exclude(status__in=ALIVE).order_by("-closed_at")[:SHOWN_ENDED]]
    running = Job.objects.only("id", "type", "node_id", "started_at").filter(
        state=State.RUNNING, node_id__in=[node.pk for node in nodes]
    )
    held = defaultdict(list)
    for job in running.order_by("started_at")[:SHOWN_RUNNING]:
        held[job.node_id].append(job)
    context = {
        "rows": [
            {
                "node": node,
                "is_silent": node.lease_until < now,
                "is_skewed": abs(node.clock_skew_seconds or 0.0) > SKEW_SECONDS,
                "jobs": held[node.pk],
                "drains": node.drain_requested_at is not None,
                "is_safe": node.drain_requested_at is not None and not node.running_jobs,
                "percent": min(100, round(100 * node.running_jobs / max(node.concurrency, 1))),
            }
            for node in nodes
        ],
        "ended": ended,
        "may_drain": may(request, "nodes.drain"),
        "title": "Nodes",
    }
    return show(site, request, "nodes", context, title="Nodes")


def drain(site: Any, request: HttpRequest, node_id: UUID) -> HttpResponse:
    """Ask first; then the node takes nothing new, finishes what it holds and ends."""
    require(request, "nodes.drain")
    node = _one(node_id)
    back = address(request, "nodes")
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with deed(request, "nodes.drain", "node", node_id, reason=reason) as trace:
                trace.before = {"drain_requested_at": node.drain_requested_at}
                _nodes().filter(pk=node_id).order_drain()
                node = _one(node_id)
                if node.status not in ALIVE:
                    raise InvalidTransition(f"cannot drain a node that is {node.status}")
                trace.after = {"drain_requested_at": node.drain_requested_at}
        except InvalidTransition as error:
            return refused(request, error, back)
        return done(request, f"{node} takes nothing new.", back)
    count = node.running_jobs
    holds = "It holds no job." if not count else f"It goes on with the {count} job(s) it holds."
    return confirm(
        site,
        request,
        form,
        title=f"Drain {node}?",
        button="Drain the node",
        effect=f"It takes nothing new with its next heartbeat. {holds}",
        target=str(node),
        back=back,
    )


def _nodes() -> NodeQuerySet:
    nodes: NodeQuerySet = Node.objects.all()
    return nodes


def _one(node_id: UUID) -> Node:
    node = _nodes().filter(pk=node_id).first()
    if node is None:
        raise Http404
    return node


ROUTES = (
    ("nodes/", page, "nodes"),
    ("nodes/<uuid:node_id>/drain/", drain, "node-drain"),
)
