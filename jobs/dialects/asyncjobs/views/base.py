"""What every endpoint of this API has in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.viewsets import ViewSetMixin

from clusters.deeds import Trace, traced
from clusters.registry import alias_of
from clusters.surfaces import ClusterView, DialectView, UnknownAddress
from config.parsers import read_body
from config.problems import BodyTooLarge
from jobs.dialects.asyncjobs.errors import JSON, exception_handler
from jobs.dialects.asyncjobs.wire.reading import Body, Query


class _Enveloped(DialectView):
    """Refuses in the words of this API."""

    dialect = "asyncjobs"
    schema = None

    def get_exception_handler(self) -> Callable[..., HttpResponse]:
        return exception_handler


class AsyncjobsView(ViewSetMixin, _Enveloped, ClusterView):
    http_method_names = ["get", "head", "post", "delete"]
    # Which verb of authn.permissions each action needs, and what its addresses name.
    verbs: ClassVar[Mapping[str, str]] = {}
    noun: ClassVar[str | None] = None
    type_field: ClassVar[str] = "type"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        # Also where no body is read.
        length = str(request.META.get("CONTENT_LENGTH") or "")
        if length.isascii() and length.isdigit() and int(length[:18]) > settings.MAX_BODY_BYTES:
            raise BodyTooLarge(settings.MAX_BODY_BYTES)

    @property
    def using(self) -> str:
        return alias_of(self.kwargs["cluster_id"])

    def body(self, names: Collection[str]) -> Body:
        """The body, whatever its type is said to be."""
        stream = self.request.stream
        limit = settings.MAX_BODY_BYTES
        raw = b"" if stream is None else read_body(stream, self.request.META, limit)
        return Body.read(raw, names)

    def query(self) -> Query:
        return Query(self.request.META.get("QUERY_STRING", ""), self.request.query_params)

    def deed(self, target_type: str, target_id: Any = "") -> AbstractContextManager[Trace]:
        """Do this action in one transaction with its trace."""
        verb = self.verbs[self.action]
        return traced(verb, target_type, target_id)


class Unknown(_Enveloped, UnknownAddress):
    """What has no route here."""


def json_bytes(data: Any) -> bytes:
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        # A lone surrogate that some Python code stored; escaped it is at least harmless.
        return json.dumps(data, separators=(",", ":")).encode()


def reply(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(json_bytes(data), status=status, content_type=JSON, headers=headers)


def reply_raw(text: bytes) -> HttpResponse:
    """JSON that is text already."""
    return HttpResponse(text, content_type=JSON)


def empty(status: int) -> HttpResponse:
    return HttpResponse(status=status)
