"""What the views of every surface have in common, whatever language they speak.

The order is fixed: who calls, then which cluster and whether the caller may see it, then the role, and
only then the query string and the body. A cluster is bound for the length of the handler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import NotFound
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from authn.acting import acting_of
from authn.authentication import CredentialAuthentication, OpenDialect
from authn.permissions import verb_of
from authn.principal import Principal
from clusters import refusals
from clusters.acting import NATIVE, Acting, acting_as
from clusters.binding import cluster_bound
from clusters.health import watch
from clusters.registry import alias_of
from clusters.statements import statements_limited
from config.limits import Limits
from config.parsers import CALLERS_LIMIT
from config.problems import ClusterUnreachable, LengthRequired, TooManyRequests
from config.rates import rates


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

    def perform_authentication(self, request: Request) -> None:
        """Find out who calls, and whether that caller may ask again already."""
        super().perform_authentication(request)
        caller = request.user
        if isinstance(caller, Principal):
            # For the log of requests, which must not ask for a session.
            request._request.caller = caller.actor  # type: ignore[attr-defined]
            _hold_to_rate(request, caller)

    def handle_exception(self, exc: Exception) -> Any:
        """Answer it in the words of the surface; that somebody may not do this is told in the audit."""
        # Not the property, which would look for credentials anew where that is what failed.
        if isinstance(getattr(self.request, "_user", None), Principal):
            self.tell_refusal(exc)
        return super().handle_exception(exc)

    def tell_refusal(self, exc: Exception) -> None:
        """Tell it in the audit, if it says that the caller may not do this, or not to all he meant."""
        refusals.tell(
            self.request,
            exc,
            self.acting(),
            cluster_id=self.kwargs.get("cluster_id"),
            verb=verb_of(self.request, self) or "",
        )

    def acting(self) -> Acting:
        """The caller, as the domain and the audit know him."""
        surface = getattr(self, "dialect", NATIVE)
        return acting_of(self.principal, surface, self.request, self.request.auth)

    @property
    def principal(self) -> Principal:
        principal: Principal = self.request.user  # type: ignore[assignment]
        return principal

    @property
    def limits(self) -> Limits:
        """What this caller may ask."""
        return limits_of(self.request.user)


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
            cluster = self.binding.enter_context(cluster_bound(kwargs["cluster_id"]))
            seconds = self.limits.statement_seconds
            self.binding.enter_context(statements_limited(cluster.alias, seconds))
        if isinstance(request.user, Principal):
            self.binding.enter_context(acting_as(self.acting()))
        _find_chunked_body(request)


def reply(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """JSON from plain dicts, lists, strings and numbers."""
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        # A lone surrogate that some Python code stored; escaped it is at least harmless.
        text = json.dumps(data, separators=(",", ":")).encode()
    return HttpResponse(text, status=status, content_type="application/json", headers=headers)


def limits_of(caller: Any) -> Limits:
    """What a caller may ask of this server."""
    of_callers: Mapping[str, Limits] = settings.LIMITS_OF_CALLERS
    return of_callers.get(getattr(caller, "actor", ""), settings.LIMITS)


def _hold_to_rate(request: Request, caller: Principal) -> None:
    limits = limits_of(caller)
    request.META[CALLERS_LIMIT] = limits.max_body_bytes
    if not limits.requests_per_second:
        return
    name = caller.actor
    if name.startswith(_SHARED_NAMES):
        # Many callers have this name; those of one address share what one has.
        name = f"{name} {request.META.get('REMOTE_ADDR', '')}"
    if wait := rates.wait(name, limits.requests_per_second, limits.at_once):
        raise TooManyRequests(wait)


_SHARED_NAMES = ("anonymous:", "certificate:")


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
