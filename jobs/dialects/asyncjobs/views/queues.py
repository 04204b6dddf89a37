"""Queues: create, list, get, delete and purge."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request

from clusters.models import current_policy
from jobs.dialects.asyncjobs.views.base import AsyncjobsView, empty, reply
from jobs.dialects.asyncjobs.wire.queues import FIELDS, new_queue, queue_to_wire
from jobs.engine import purge
from jobs.errors import QueueNotFound
from jobs.models import Queue
from jobs.models.queue import QueueQuerySet

# Tasks that a queue may take with it when it is deleted.
MOST_WAITING = 1000
PURGED = "purged through the asyncjobs API"


class QueueView(AsyncjobsView):
    noun = "queue"
    verbs = {
        "list": "queues.read",
        "create": "queues.create",
        "retrieve": "queues.read",
        "destroy": "queues.delete",
        "purge": "queues.purge",
    }

    def list(self, request: Request, **_: Any) -> HttpResponse:
        policy, now = current_policy(), timezone.now()
        queues = _queues().order_by("name")
        return reply({"queues": [queue_to_wire(queue, policy, now) for queue in queues]})

    def create(self, request: Request, **_: Any) -> HttpResponse:
        may = settings.ASYNCJOBS_ALLOW_DEFAULT
        name, policies = new_queue(self.body(FIELDS), may_be_implicit=may)
        with self.deed("queue", name) as trace:
            queue = _queues().create_queue(name, **policies)
            trace.after = queue.policies()
        return reply(queue_to_wire(queue, current_policy(), timezone.now()), 201)

    def retrieve(self, request: Request, name: str, **_: Any) -> HttpResponse:
        return reply(queue_to_wire(_one(name), current_policy(), timezone.now()))

    def destroy(self, request: Request, name: str, **_: Any) -> HttpResponse:
        with self.deed("queue", name) as trace:
            trace.before = _one(name).policies()
            if not _queues().named(name).delete_with_waiting(MOST_WAITING):
                raise QueueNotFound
        return empty(204)

    def purge(self, request: Request, name: str, **_: Any) -> HttpResponse:
        with self.deed("queue", name) as trace:
            operation = purge.purge(name, reason=PURGED, by=self.principal.actor)
            trace.after = {"bulk_operation": str(operation.pk)}
        return empty(202)


def _queues() -> QueueQuerySet:
    queues: QueueQuerySet = Queue.objects.all()
    return queues


def _one(name: str) -> Queue:
    queue = _queues().named(name).first()
    if queue is None:
        raise QueueNotFound(f"there is no queue {name[:100]!r}")
    return queue
