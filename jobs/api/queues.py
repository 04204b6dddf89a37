"""Queues of one cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, IDEMPOTENCY_KEY, IF_MATCH, answers
from config.problems import PreconditionFailed
from jobs.api import bulk_wire, queue_wire
from jobs.api import job_wire as wire
from jobs.api.once import answer_once, idempotency_key
from jobs.api.versions import asked_versions, etag
from jobs.engine import purge
from jobs.errors import QueueNotFound
from jobs.models import Queue
from jobs.models.queue import QueueQuerySet
from jobs.queue_load import load_of

BY_NAME = Order(("name",), (str,), is_descending=False)


class QueueViewSet(NativeViewSet):
    verbs = {
        "list": "queues.read",
        "count": "queues.read",
        "retrieve": "queues.read",
        "create": "queues.create",
        "partial_update": "queues.change",
        "destroy": "queues.delete",
        "pause": "queues.pause",
        "resume": "queues.resume",
        "purge": "queues.purge",
    }

    @extend_schema(
        operation_id="queues_list",
        summary="List queues by name",
        parameters=[PageQuery],
        responses=answers({200: queue_wire.QueuePage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        page = read_page(request, _queues(), BY_NAME, self.query(PageQuery))
        return reply(page.to_json(queue_wire.queue_to_json))

    @extend_schema(
        operation_id="queues_count", summary="Count queues", responses=answers({200: wire.Count})
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        return reply({"count": _queues().count(), "is_exact": True})

    @extend_schema(
        operation_id="queues_create",
        summary="Create a queue",
        request=queue_wire.NewQueueInput,
        responses=answers({201: queue_wire.QueueItem}, 409, *BODY),
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        values = self.body(queue_wire.NewQueueInput)
        queue = _queues().create_queue(values.pop("name"), **values)
        location = f"{request.path.rstrip('/')}/{queue.name}"
        return _reply(queue, 201, {"Location": location})

    @extend_schema(
        operation_id="queues_get",
        summary="Get a queue",
        description="With what is going on in it at this moment.",
        responses=answers({200: queue_wire.QueueDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        queue = _one(name)
        return reply(queue_wire.queue_detail_to_json(queue, load_of(queue)), 200, _etag(queue))

    @extend_schema(
        operation_id="queues_change",
        summary="Change a queue",
        parameters=[IF_MATCH],
        request=queue_wire.QueueChangeInput,
        responses=answers({200: queue_wire.QueueItem}, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        values = self.body(queue_wire.QueueChangeInput)
        if not values:
            refuse("body", "Names nothing to change.", "required")
        queue = _queues().named(name)
        # The version is part of the UPDATE itself: nobody can come between a look and the write.
        if not _of_version(queue, request).change(**values):
            _say_why_not(queue)
        return _reply(_one(name))

    @extend_schema(
        operation_id="queues_delete",
        summary="Delete a queue",
        description="Only one whose jobs have all ended, and never `default`. Those jobs stay.",
        parameters=[IF_MATCH],
        request=None,
        responses=answers({204: None}, 409, 412),
    )
    def destroy(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        self.body()
        queue = _queues().named(name)
        wanted = _of_version(queue, request)
        if not wanted.delete_unused():
            if wanted.exists():
                raise _one(name).in_use()
            _say_why_not(queue)
        return HttpResponse(status=204)

    @extend_schema(
        operation_id="queues_pause",
        summary="Pause a queue",
        description="Nodes take nothing more from it; what runs goes on. Pausing it again is no "
        "error: the new reason and end count. Without an end it lasts until somebody resumes it.",
        request=queue_wire.PauseInput,
        responses=answers({200: queue_wire.QueueItem}, *BODY),
    )
    def pause(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        asked = {"reason": "", **self.body(queue_wire.PauseInput)}
        _queues().named(name).pause(by=self.principal.actor, **asked)
        return _reply(_one(name))

    @extend_schema(
        operation_id="queues_resume",
        summary="Resume a paused queue",
        request=None,
        responses=answers({200: queue_wire.QueueItem}),
    )
    def resume(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        self.body()
        _queues().named(name).resume()
        return _reply(_one(name))

    @extend_schema(
        operation_id="queues_purge",
        summary="Cancel all jobs that wait in a queue",
        description="A bulk operation does it in the background, on the jobs that wait now; what "
        "runs goes on. With `dry_run` nothing is stored.",
        parameters=[IDEMPOTENCY_KEY],
        request=queue_wire.PurgeInput,
        responses=answers(
            {202: bulk_wire.BulkOperationItem, 200: bulk_wire.BulkDryRun}, 409, 422, *BODY
        ),
    )
    def purge(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        asked = self.body(queue_wire.PurgeInput)
        states = asked.get("states")
        if asked.get("dry_run"):
            idempotency_key(request)
            return reply(bulk_wire.dry_run_to_json(purge.dry_run(name, states=states)))
        if "reason" not in asked:
            refuse("reason", "This field is required.", "required")

        def effect() -> tuple[int, Any]:
            operation = purge.purge(
                name, states=states, reason=asked["reason"], by=self.principal.actor
            )
            return 202, bulk_wire.operation_to_json(operation)

        response, body = answer_once(request, self.principal.actor, effect)
        response.headers["Location"] = reverse("bulk-operation", args=[cluster_id, body["id"]])
        return response


def _queues() -> QueueQuerySet:
    queues: QueueQuerySet = Queue.objects.all()
    return queues


def _one(name: str) -> Queue:
    queue = _queues().named(name).first()
    if queue is None:
        raise QueueNotFound
    return queue


def _reply(
    queue: Queue, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    return reply(queue_wire.queue_to_json(queue), status, {**_etag(queue), **(headers or {})})


def _etag(queue: Queue) -> dict[str, str]:
    return etag(queue.version)


def _of_version(queues: QueueQuerySet, request: Request) -> QueueQuerySet:
    """The queue, if it is still as its reader saw it."""
    versions = asked_versions(request)
    return queues if versions is None else queues.filter(version__in=versions)


def _say_why_not(queue: QueueQuerySet) -> NoReturn:
    raise PreconditionFailed if queue.exists() else QueueNotFound
