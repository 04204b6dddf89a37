"""What every endpoint of this API has in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from rest_framework.request import Request
from rest_framework.viewsets import ViewSetMixin

from clusters.deeds import Trace, traced
from clusters.surfaces import ClusterView, DialectView, UnknownAddress, reply
from jobs.dialects.scheduler.errors import exception_handler
from jobs.dialects.scheduler.wire.reading import Query, refuse
from jobs.dialects.scheduler.wire.words import page_to_wire
from jobs.engine.idempotency import once

VERSION_HEADER = "api-supported-versions"
VERSION = "1.0"
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 20, 200
# Pages have numbers in this API, so those before one are gone through: this far and no further.
MAX_COUNTED = 100_000
MAX_PAGE_NUMBER = 10**9
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,9})"\Z')
_KEY = re.compile(r"[\x20-\x7e]{1,255}\Z")


class _Versioned(DialectView):
    """Says in every answer which versions there are, and refuses in the words of this API."""

    schema = None
    dialect = "scheduler"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        response.headers[VERSION_HEADER] = VERSION
        return response

    def get_exception_handler(self) -> Callable[..., HttpResponse]:
        return exception_handler


class SchedulerView(ViewSetMixin, _Versioned, ClusterView):
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    # Which verb of authn.permissions each action needs, and what a refusal of it is called.
    verbs: ClassVar[Mapping[str, str]] = {}
    titles: ClassVar[Mapping[str, str]] = {}
    # Limits of the body, read by the parser; None: those of the settings.
    max_body_bytes: int | None = None
    max_nodes: int | None = None

    @property
    def title(self) -> str | None:
        return self.titles.get(getattr(self, "action", None) or "")

    def query(self) -> Query:
        return Query(self.request.query_params)

    def address(self, name: str, **arguments: Any) -> str:
        """Where something is, below the same prefix as the address that was asked."""
        match = self.request.resolver_match
        assert match is not None
        # In the address it is only where it is not the default.
        if "<str:cluster_id>" in match.route:
            arguments["cluster_id"] = self.kwargs["cluster_id"]
        return reverse(f"{match.namespace}:{name}", kwargs=arguments)

    def deed(
        self, target_type: str, target_id: Any = "", *, reason: str = ""
    ) -> AbstractContextManager[Trace]:
        """Do this action in one transaction with its trace."""
        verb = self.verbs[self.action]
        return traced(verb, target_type, target_id, reason=reason)

    def versions(self) -> list[int] | None:
        """The versions under which a change is wanted; None is any."""
        if_match = self.request.headers.get("If-Match")
        if if_match is None or if_match.strip() == "*":
            return None
        tags = [_ETAG.match(part.strip()) for part in if_match.split(",")[:10]]
        return [int(tag[1]) for tag in tags if tag]

    def once(self, effect: Callable[[], Any], status: int) -> tuple[Any, bool]:
        """The body of the reply: what the effect gives, or gave under the same Idempotency-Key."""
        request = self.request
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return effect(), False
        if not _KEY.match(key):
            refuse("Idempotency-Key", "Must be 1 to 255 printable ASCII characters.")
        body_hash = getattr(request, "body_hash", "")
        text = f"{request.method} {request.path.rstrip('/')}\n{body_hash}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        done = once(self.principal.actor, key, digest, lambda: (status, effect()))
        return done.body, done.is_repeat


class Unknown(_Versioned, UnknownAddress):
    """What has no route here."""


class PageAsked(NamedTuple):
    number: int
    size: int

    @classmethod
    def of(cls, query: Query) -> PageAsked:
        return cls(
            query.integer("pageNumber", 1, 1, MAX_PAGE_NUMBER),
            query.integer("pageSize", DEFAULT_PAGE_SIZE, 1, MAX_PAGE_SIZE),
        )

    def read(self, rows: Any, to_wire: Callable[[list[Any]], list[Any]]) -> HttpResponse:
        """One page of sorted rows; past the end there is an empty one."""
        total = min(rows.order_by()[: MAX_COUNTED + 1].count(), MAX_COUNTED)
        start = (self.number - 1) * self.size
        found = list(rows[start : min(start + self.size, total)]) if start < total else []
        return reply(page_to_wire(to_wire(found), total, self.number, self.size))

    def read_list(
        self, rows: Sequence[Any], to_wire: Callable[[list[Any]], list[Any]]
    ) -> HttpResponse:
        """One page of what is all there."""
        start = (self.number - 1) * self.size
        found = list(rows[start : start + self.size])
        return reply(page_to_wire(to_wire(found), len(rows), self.number, self.size))


def empty(status: int = 200) -> HttpResponse:
    """No body, and no type of one."""
    response = HttpResponse(status=status)
    del response.headers["Content-Type"]
    return response


def accepted(location: str, guid: str, *, is_repeat: bool = False) -> HttpResponse:
    """Where the thing is that was begun, and its bare id."""
    headers = {"Location": location}
    if is_repeat:
        headers["Idempotent-Replayed"] = "true"
    return reply(guid, 202, headers)


def body_of(request: Request) -> dict[str, Any]:
    """The body where one may be left out."""
    data = request.data
    if data is None:
        return {}
    if not isinstance(data, dict):
        refuse("body", "Must be an object.")
    return data
