"""What every endpoint of this API has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from django.http import HttpResponse
from rest_framework.viewsets import ViewSetMixin

from clusters.deeds import Trace, traced
from clusters.registry import alias_of
from clusters.surfaces import ClusterView, DialectView, UnknownAddress
from jobs.dialects.forge.errors import exception_handler
from jobs.dialects.forge.wire.reading import Body, Query
from jobs.errors import QueueNotFound
from jobs.models import Queue
from jobs.models.queue import QueueQuerySet


class _Spoken(DialectView):
    """Refuses in the words of this API."""

    schema = None
    dialect = "forge"

    def get_exception_handler(self) -> Callable[..., HttpResponse]:
        return exception_handler


class ForgeView(ViewSetMixin, _Spoken, ClusterView):
    http_method_names = ["get", "head", "post"]
    # Which verb of authn.permissions each action needs.
    verbs: ClassVar[Mapping[str, str]] = {}

    @property
    def using(self) -> str:
        return alias_of(self.kwargs["cluster_id"])

    def query(self) -> Query:
        return Query(self.request.query_params)

    def body(self) -> Body:
        return Body(self.request.data)

    def deed(
        self, target_type: str, target_id: Any = "", *, verb: str | None = None
    ) -> AbstractContextManager[Trace]:
        """Do this action in one transaction with its trace."""
        verb = verb or self.verbs[self.action]
        return traced(verb, target_type, target_id)


class Unknown(_Spoken, UnknownAddress):
    """What has no route here."""


def empty() -> HttpResponse:
    """The answer to a change of configuration."""
    answer = HttpResponse(status=200)
    # Of nothing there is no type.
    del answer.headers["Content-Type"]
    return answer


def queues() -> QueueQuerySet:
    rows: QueueQuerySet = Queue.objects.all()
    return rows


def find_queue(name: str) -> Queue:
    queue = queues().named(name).first()
    if queue is None:
        raise QueueNotFound(f"there is no queue {name[:100]!r}")
    return queue
