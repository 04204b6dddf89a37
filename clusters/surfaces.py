"""What the views of every surface have in common, whatever language they speak.

The order is fixed: who calls, then which cluster and whether the caller may see it, then the role, and
only then the query string and the body. A cluster is bound for the length of the handler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar, NoReturn

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import NotFound
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from authn.authentication import CredentialAuthentication, OpenDialect
from authn.principal import Principal
from clusters.binding import cluster_bound
from clusters.health import watch
from clusters.registry import alias_of
from config.problems import ClusterUnreachable, LengthRequired


class FirstRenderer(DefaultContentNegotiation):
    """Answer in our one format, whatever is preferred; a 406 would come before the 401."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


class SurfaceView(APIView):
    content_negotiation_class = FirstRenderer
    # `Allow` goes with a 405 and with nothing else: a 401 or 404 says nothing about an address.
    default_response_headers: ClassVar[dict[str, str]] = {}


class DialectView(SurfaceView):
    """A view of the API of another system, which the settings may open to callers without credentials."""

    authentication_classes = (CredentialAuthentication, OpenDialect)
    # The name under which it is mounted.
    dialect: ClassVar[str]


class UnknownAddress(SurfaceView):
    """What has no route: 401 without credentials, and with them what any missing thing gets."""

    http_method_names: list[str] = []
    schema = None

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotFound


class ClusterView(SurfaceView):
    """A view of the cluster in its address, or of none."""

    # False for views that only speak about a cluster.
    uses_cluster_database = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with ExitStack() as self.binding:
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "cluster_id" in kwargs and self.uses_cluster_database:
            if watch.is_down(alias_of(kwargs["cluster_id"])):
                raise ClusterUnreachable
            self.binding.enter_context(cluster_bound(kwargs["cluster_id"]))
        _find_chunked_body(request)

    @property
    def principal(self) -> Principal:
        principal: Principal = self.request.user  # type: ignore[assignment]
        return principal


def reply(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """JSON from plain dicts, lists, strings and numbers."""
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        # A lone surrogate that some Python code stored; escaped it is at least harmless.
        text = json.dumps(data, separators=(",", ":")).encode()
    return HttpResponse(text, status=status, content_type="application/json", headers=headers)


def _find_chunked_body(request: Request) -> None:
    """Django knows bodies with a Content-Length only; give the parser a chunked one itself."""
    meta = request.META
    if "chunked" not in meta.get("HTTP_TRANSFER_ENCODING", "").lower():
        return
    if "wsgi.input" not in meta:
        request._stream = request._request  # type: ignore[assignment]  # ASGI: it has been received
    elif meta.get("wsgi.input_terminated"):
        request._stream = meta["wsgi.input"]
    else:
        raise LengthRequired
