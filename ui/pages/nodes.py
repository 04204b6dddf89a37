"""The nodes of a cluster: whether they live, what they hold, and the way to send one home."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from uuid import UUID

from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse

from clusters.binding import current_cluster
from clusters.models import ALIVE, Node, NodeQuerySet, NodeStatus
from jobs.engine.clock import database_now
from jobs.errors import InvalidTransition
from jobs.models import Job
from jobs.states import State
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import require
from ui.deeds import deed
from ui.forms import ReasonForm
from ui.fragments import show_shared

SHOWN_NODES, SHOWN_ENDED, SHOWN_RUNNING = 200, 10, 200
# Of one node, those that it has run longest.
SHOWN_OF_ONE = 5
# A clock that is farther off than this is told of.
SKEW_SECONDS = 2.0
RIGHTS = {"may_drain": "nodes.drain", "may_undrain": "nodes.undrain"}
_NOT_READ = ("types",)


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "nodes.read")
    return show_shared(site, request, "nodes", _read, title="Nodes", rights=RIGHTS)


def _read() -> dict[str, Any]:
    using = current_cluster().alias
    now = database_now(connections[using])
    alive = _nodes().alive().defer(*_NOT_READ).order_by("host", "pid")
    nodes = [*alive[:SHOWN_NODES]]
    ended = _nodes().exclude(status__in=ALIVE).defer(*_NOT_READ).order_by("-closed_at")
    running = Job.objects.only("id", "type", "node_id", "started_at").filter(
        state=State.RUNNING, node_id__in=[node.pk for node in nodes]
    )
    held = defaultdict(list)
    for job in running.order_by("started_at")[:SHOWN_RUNNING]:
        held[job.node_id].append(job)
    rows = [_row(node, held[node.pk], now) for node in nodes]
    return {
        "rows": rows,
        "ended": [*ended[:SHOWN_ENDED]],
        "slots": sum(node.places for node in nodes),
        "running": sum(node.running_jobs for node in nodes),
        "versions": sorted({node.version for node in nodes}),
        "silent": sum(row["is_silent"] for row in rows),
        "draining": sum(row["drains"] for row in rows),
    }


def _row(node: Node, held: list[Job], now: Any) -> dict[str, Any]:
    drains = node.drain_requested_at is not None or node.status == NodeStatus.DRAINING
    return {
        "node": node,
        "is_silent": node.lease_until < now,
        "is_skewed": abs(node.clock_skew_seconds or 0.0) > SKEW_SECONDS,
        "jobs": held[:SHOWN_OF_ONE],
        "more": max(node.running_jobs, len(held)) - len(held[:SHOWN_OF_ONE]),
        "drains": drains,
        "is_asked": node.drain_requested_at is not None,
        "is_safe": drains and not node.running_jobs and not held,
        "percent": min(100, round(100 * node.running_jobs / max(node.places, 1))),
    }


def drain(site: Any, request: HttpRequest, node_id: UUID) -> HttpResponse:
    """Ask first; then the node takes nothing new and finishes what it holds."""
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
                node = _alive(node_id, "cannot drain a node that is {}")
                trace.after = {"drain_requested_at": node.drain_requested_at}
        except InvalidTransition as error:
            return refused(request, error, back)
        return done(request, f"{node} takes nothing new.", back)
    count = node.running_jobs
    jobs = "job" if count == 1 else "jobs"
    holds = f"It goes on with the {count} {jobs} it holds." if count else "It holds no job."
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


@post_only
def undrain(site: Any, request: HttpRequest, node_id: UUID) -> HttpResponse:
    """Let it take work again."""
    require(request, "nodes.undrain")
    node, back = _one(node_id), address(request, "nodes")
    try:
        with deed(request, "nodes.undrain", "node", node_id) as trace:
            trace.before = {"drain_requested_at": node.drain_requested_at}
            _nodes().filter(pk=node_id).end_drain()
            node = _alive(node_id, "a node that is {} takes no work any more")
            trace.after = {"drain_requested_at": node.drain_requested_at}
    except InvalidTransition as error:
        return refused(request, error, back)
    return done(request, f"{node} takes work again with its next heartbeat.", back)


def _alive(node_id: UUID, why_not: str) -> Node:
    node = _one(node_id)
    if node.status not in ALIVE:
        raise InvalidTransition(why_not.format(node.status))
    return node


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
    ("nodes/<uuid:node_id>/undrain/", undrain, "node-undrain"),
)
