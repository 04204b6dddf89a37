"""Queues of one cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, IF_MATCH, answers
from config.problems import PreconditionFailed
from jobs.api import serializers as wire
from jobs.errors import DuplicateQueue, QueueNotFound
from jobs.models import Queue
from jobs.models.queue import QUEUE_NAME, QueueQuerySet

BY_NAME = Order(("name",), (str,), is_descending=False)
# `queues/count` is the number of queues.
RESERVED_NAMES = frozenset({"count"})
_NAME = re.compile(QUEUE_NAME.regex)
_ETAG = re.compile(r'"([0-9]{1,9})"\Z')


class QueueViewSet(NativeViewSet):
    verbs = {
        "list": "queues.read",
        "count": "queues.read",
        "retrieve": "queues.read",
        "create": "queues.create",
        "partial_update": "queues.change",
        "pause": "queues.pause",
        "resume": "queues.resume",
    }

    @extend_schema(
        operation_id="queues_list",
        summary="List queues by name",
        parameters=[PageQuery],
        responses=answers({200: wire.QueuePage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        page = read_page(request, _queues(), BY_NAME, self.query(PageQuery))
        return reply(page.to_json(wire.queue_to_json))

    @extend_schema(
        operation_id="queues_count", summary="Count queues", responses=answers({200: wire.Count})
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        return reply({"count": _queues().count(), "is_exact": True})

    @extend_schema(
        operation_id="queues_create",
        summary="Create a queue",
        request=wire.NewQueueInput,
        responses=answers({201: wire.QueueItem}, 409, *BODY),
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        values = self.body(wire.NewQueueInput)
        name = values["name"]
        if not _NAME.match(name):
            refuse("name", f"A name has {QUEUE_NAME.message}.")
        if name in RESERVED_NAMES:
            refuse("name", "This name is part of an address of the API.")
        try:
            with transaction.atomic(using=_queues().db):
                queue = _queues().create(**values)
        except IntegrityError:
            raise DuplicateQueue(field="name") from None
        location = f"{request.path.rstrip('/')}/{queue.name}"
        return _one(queue.name, 201, {"Location": location})

    @extend_schema(
        operation_id="queues_get",
        summary="Get a queue",
        responses=answers({200: wire.QueueItem}),
    )
    def retrieve(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        return _one(name)

    @extend_schema(
        operation_id="queues_change",
        summary="Change a queue",
        parameters=[IF_MATCH],
        request=wire.QueueChangeInput,
        responses=answers({200: wire.QueueItem}, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        values = self.body(wire.QueueChangeInput)
        if not values:
            refuse("body", "Names nothing to change.", "required")
        versions = _versions(request.headers.get("If-Match"))
        queue = _named(name)
        # The version is part of the UPDATE itself: nobody can come between a look and the write.
        if not any(queue.change(version, **values) for version in versions):
            if not queue.exists():
                raise QueueNotFound
            raise PreconditionFailed
        return _one(name)

    @extend_schema(
        operation_id="queues_pause",
        summary="Pause a queue",
        description="Nodes take nothing more from it; what runs goes on. Pausing twice is no error.",
        request=wire.PauseInput,
        responses=answers({200: wire.QueueItem}, *BODY),
    )
    def pause(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        reason = self.body(wire.PauseInput).get("reason", "")
        _named(name).pause(by=self.principal.actor[:200], reason=reason)
        return _one(name)

    @extend_schema(
        operation_id="queues_resume",
        summary="Resume a paused queue",
        request=None,
        responses=answers({200: wire.QueueItem}),
    )
    def resume(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        self.body()
        _named(name).resume()
        return _one(name)


def _queues() -> QueueQuerySet:
    queues: QueueQuerySet = Queue.objects.all()
    return queues


def _named(name: str) -> QueueQuerySet:
    # A name that no queue can have is not asked for: some databases refuse the very question.
    return _queues().filter(name=name) if _NAME.match(name) else _queues().none()


def _one(name: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    queue = _named(name).first()
    if queue is None:
        raise QueueNotFound
    etag = {"ETag": f'"{queue.version}"'}
    return reply(wire.queue_to_json(queue), status, {**etag, **(headers or {})})


def _versions(if_match: str | None) -> list[Any]:
    """The versions under which a change is wanted; None is any."""
    if if_match is None or if_match.strip() == "*":
        return [None]
    tags = [_ETAG.match(part.strip()) for part in if_match.split(",")[:10]]
    return [int(tag[1]) for tag in tags if tag]
