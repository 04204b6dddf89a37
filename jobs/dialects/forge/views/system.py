"""The system itself: whether it answers, its figures for scrapers, and where it keeps its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rest_framework.request import Request

from authn.authentication import OpenDialect
from clusters.models import current_policy
from clusters.storage import facts
from clusters.surfaces import reply
from config import request_metrics
from jobs.dialects.forge import gauges
from jobs.dialects.forge.errors import plain_exception_handler
from jobs.dialects.forge.views.base import ForgeView
from jobs.prometheus.exposition import expose


@csrf_exempt
@require_safe
def health(request: HttpRequest, **_: Any) -> HttpResponse:
    """This process answers; it asks nobody else, and tells nothing else."""
    return HttpResponse("ok", content_type="text/plain; charset=utf-8")


class MetricsView(ForgeView):
    verbs = {"metrics": "stats.read"}

    def get_exception_handler(self) -> Callable[..., HttpResponse]:
        return plain_exception_handler

    def metrics(self, request: Request, **_: Any) -> HttpResponse:
        text = gauges.text(self.using, current_policy())
        ours = b""
        # Who does not say who he is learns of this cluster's queues, and nothing of the server.
        if not isinstance(request.successful_authenticator, OpenDialect):
            seen = [cluster.id for cluster in self.principal.clusters()]
            ours = expose(seen) + request_metrics.expose()
        return HttpResponse(text + ours, content_type=gauges.CONTENT_TYPE)


class StorageView(ForgeView):
    verbs = {"info": "stats.read"}

    def info(self, request: Request, **_: Any) -> HttpResponse:
        vendor = connections[self.using].vendor
        backend = "postgres" if vendor == "postgresql" else vendor
        return reply({"backend": backend, "fields": [list(pair) for pair in facts(self.using)]})
