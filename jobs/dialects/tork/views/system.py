"""The system: whether it answers, its nodes and queues, how busy it is; and new users."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rest_framework.request import Request

from authn import accounts
from authn.errors import DuplicateUser, InvalidAccess
from clusters.health import watch
from clusters.models import Node, current_policy
from clusters.registry import alias_of
from clusters.routers import CONTROL
from jobs import fleet, queue_counts
from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.views.base import TorkView, reply
from jobs.dialects.tork.wire.from_json import read_json
from jobs.dialects.tork.wire.nodes import ONLINE, node_to_wire, status_of
from jobs.dialects.tork.wire.people import user_to_wire
from jobs.dialects.tork.wire.rules import is_task_queue
from jobs.dialects.tork.wire.structs import USER
from jobs.engine.clock import database_now
from jobs.models import Job, Queue, Step
from jobs.models.queue import QueueQuerySet
from jobs.states import State
from jobs.step_words import STEPS
from jobs.steps_search import MOST

HEARD_OF = timedelta(minutes=5)
MAX_NODES = 1000
MOST_WAITING = 10_000
WAIT_SECONDS = 2.0
# As the original's algorithm does.
MAX_PASSWORD_BYTES = 72


@csrf_exempt
@require_safe
def health(request: HttpRequest, cluster_id: str, **_: Any) -> HttpResponse:
    """Whether the databases answer, and nothing else: anybody may ask.

    Under the name of a cluster it tells of this server alone, for nobody is to learn which there are.
    """
    match = request.resolver_match
    is_named = match is not None and "<str:cluster_id>" in match.route
    asked = [CONTROL] if is_named else [CONTROL, alias_of(cluster_id)]
    answers, late = watch.ask(asked, WAIT_SECONDS), watch.overdue(asked)
    is_up = all(answers[alias] and alias not in late for alias in asked)
    answer = reply({"status": "UP" if is_up else "DOWN"})
    answer.status_code = 200 if is_up else 503
    return answer


class NodeView(TorkView):
    verbs = {"list": "nodes.read"}

    def list(self, request: Request, **_: Any) -> HttpResponse:
        now = database_now(connections[self.using])
        return reply([node_to_wire(node, now) for node in _nodes(self.using, now)])


def _nodes(using: str, now: Any) -> list[Node]:
    rows = Node.objects.using(using).filter(heartbeat_at__gte=now - HEARD_OF)
    return list(rows.order_by("host", "pid", "pk")[:MAX_NODES])


class QueueView(TorkView):
    verbs = {"list": "queues.read", "retrieve": "queues.read", "destroy": "queues.delete"}

    def list(self, request: Request, **_: Any) -> HttpResponse:
        return reply(self._shown())

    def retrieve(self, request: Request, name: str, **_: Any) -> HttpResponse:
        self._find(name)
        for shown in self._shown():
            if shown["name"] == name:
                return reply(shown)
        return _no_queue(name)

    def destroy(self, request: Request, name: str, **_: Any) -> HttpResponse:
        if not is_task_queue(name):
            refuse(f"queue {name[:100]} is not a task queue")
        with self.deed("queue", name[:200]) as trace:
            trace.before = self._find(name).policies()
            if not _queues(self.using).named(name).delete_with_waiting(MOST_WAITING):
                _no_queue(name)
        answer = HttpResponse()
        # Of nothing there is no type.
        del answer.headers["Content-Type"]
        return answer

    def _find(self, name: str) -> Queue:
        queue = _queues(self.using).named(name).first()
        if queue is None:
            _no_queue(name)
        return queue

    def _shown(self) -> Any:
        rows = list(_queues(self.using).order_by("name"))
        counted = queue_counts.counts(self.using, current_policy(), rows)
        there = fleet.Fleet.read(self.using)
        nodes = [node for node in there.nodes if there.is_heard_of(node)]
        nothing = queue_counts.QueueCounts()
        return [
            {
                "name": row.name,
                "size": counted.get(row.name, nothing).of(State.READY),
                "subscribers": sum(fleet.serves(node, row.name) for node in nodes),
                "unacked": counted.get(row.name, nothing).of(State.RUNNING),
            }
            for row in rows
        ]


def _queues(using: str) -> QueueQuerySet:
    rows: QueueQuerySet = Queue.objects.using(using).all()
    return rows


def _no_queue(name: str) -> NoReturn:
    refuse(f"queue {name[:100]} not found", 404)


class MetricsView(TorkView):
    verbs = {"metrics": "stats.read"}

    def metrics(self, request: Request, **_: Any) -> HttpResponse:
        using = self.using
        now = database_now(connections[using])
        jobs = Job.objects.using(using).filter(kind=STEPS, state=State.WAITING)
        steps = Step.objects.using(using).filter(job__state=State.RUNNING)
        nodes = [node for node in _nodes(using, now) if status_of(node, now) == ONLINE]
        load = [node.cpu_percent or 0.0 for node in nodes]
        return reply(
            {
                "jobs": {"running": jobs[:MOST].count()},
                "tasks": {"running": steps[:MOST].count()},
                "nodes": {
                    "online": len(nodes),
                    "cpuPercent": round(sum(load) / len(load), 2) if load else 0,
                },
            }
        )


class UserView(TorkView):
    verbs = {"create": "users.create"}

    def create(self, request: Request, **_: Any) -> HttpResponse:
        body = read_json(self.raw(), USER)
        username, password = ((body.get(key) or "").strip() for key in ("username", "password"))
        if not username:
            refuse("must provide username")
        if not password:
            refuse("must provide password")
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            refuse("invalid password")
        name = (body.get("name") or "").strip()
        try:
            # Whom to make is the cluster's to say; what he may do there is not.
            user = accounts.create(
                username,
                password,
                full_name=name,
                may_sign_in=False,
                on=[self.kwargs["cluster_id"]],
                may_be_weak=True,
            )
        except DuplicateUser:
            refuse("user already exists")
        except InvalidAccess as error:
            refuse(f"invalid {'name' if error.field == 'first_name' else error.field}")
        actor = f"user:{user.get_username()}"
        shown = user_to_wire(actor, {actor: user.date_joined}) | {"name": name}
        return reply({key: item for key, item in shown.items() if item})
