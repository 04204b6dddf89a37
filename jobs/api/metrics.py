"""Metrics of all clusters that the caller may see, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from authn.permissions import is_allowed
from clusters.api.base import NativeViewSet
from config import request_metrics
from config.problems import refusal_of
from jobs.prometheus.exposition import CONTENT_TYPE, expose

PLAIN = "text/plain; charset=utf-8"


class MetricsViewSet(NativeViewSet):
    # Whoever calls gets what is his; of each cluster it takes a viewer.
    verbs = {"list": "metrics.list"}

    @extend_schema(exclude=True)
    def list(self, request: Request) -> HttpResponse:
        self.query()
        caller = self.principal
        mine = [one.id for one in caller.clusters() if is_allowed(caller, "metrics.read", one.id)]
        return HttpResponse(expose(mine) + request_metrics.expose(), content_type=CONTENT_TYPE)

    def get_exception_handler(self) -> Any:
        return plain_refusal


def plain_refusal(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Refusals in plain text: who scrapes reads no JSON."""
    refusal = refusal_of(context["request"], exc)
    if refusal is None:
        return None
    said = [refusal.detail or HTTPStatus(refusal.status).phrase]
    said += [f"{error.field}: {error.message}" for error in refusal.errors]
    text = "\n".join(said) + "\n"
    return HttpResponse(text, status=refusal.status, content_type=PLAIN, headers=refusal.headers)
