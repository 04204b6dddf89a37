"""What is said of the server itself."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from clusters.binding import cluster_bound
from clusters.health import watch
from clusters.registry import alias_of
from clusters.routers import CONTROL
from jobs import listing
from jobs.dialects.asyncjobs.openapi import document
from jobs.dialects.asyncjobs.views.base import AsyncjobsView, reply
from jobs.dialects.asyncjobs.wire.policies import policies_to_wire
from jobs.dialects.asyncjobs.wire.times import moment_to_wire
from jobs.models import Queue

# A database that has not answered by then is down, for whoever asks.
WAIT_SECONDS = 2.0


class HealthView(AsyncjobsView):
    """Open to load balancers. Of clusters with a name in the address only those who may see one hear."""

    uses_cluster_database = False
    verbs = {"readyz": "clusters.read"}

    @property
    def is_open(self) -> bool:
        match = self.request.resolver_match
        is_named = match is not None and "<str:cluster_id>" in match.route
        return "healthz" in (self.action_map or {}).values() or not is_named

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [] if self.is_open else super().get_authenticators()

    def get_permissions(self) -> list[Any]:
        return [] if self.is_open else [*super().get_permissions()]

    def healthz(self, request: Request, **_: Any) -> HttpResponse:
        return reply({"status": "ok", "time": moment_to_wire(timezone.now())})

    def readyz(self, request: Request, cluster_id: str) -> HttpResponse:
        alias = alias_of(cluster_id)
        answers = watch.ask([CONTROL, alias], WAIT_SECONDS)
        late = watch.overdue([CONTROL, alias])
        checks: dict[str, dict[str, Any]] = {}
        for name, database, error in (
            ("config", CONTROL, "configuration storage unreachable"),
            ("tasks", alias, "tasks storage unreachable"),
        ):
            is_up = bool(answers[database]) and database not in late
            checks[name] = {"ok": True} if is_up else {"ok": False, "error": error}
        is_ready = all(check["ok"] for check in checks.values())
        return reply({"ready": is_ready, "checks": checks}, 200 if is_ready else 503)


class MetaView(AsyncjobsView):
    # What is said of a cluster that is down is still true without it.
    uses_cluster_database = False
    verbs = {"info": "clusters.read", "policies": "clusters.read", "openapi": "clusters.read"}

    def info(self, request: Request, cluster_id: str) -> HttpResponse:
        said: dict[str, Any] = {"version": f"v{settings.VERSION}", "auth": self._auth()}
        return reply({**said, **_counts(cluster_id)})

    def policies(self, request: Request, **_: Any) -> HttpResponse:
        return reply({"policies": policies_to_wire()})

    def openapi(self, request: Request, **_: Any) -> HttpResponse:
        base = request.path.rstrip("/").removesuffix("/v1/openapi.json")
        return reply({**json.loads(document()), "servers": [{"url": base or "/"}]})

    def _auth(self) -> str:
        if settings.CLIENT_CERTIFICATES:
            return "mtls"
        return "none" if self.dialect in settings.ANONYMOUS_ROLES else "api_key"


def _counts(cluster_id: str) -> dict[str, int]:
    """Queues and tasks; nothing where the storage does not answer."""
    alias = alias_of(cluster_id)
    if watch.is_down(alias):
        return {}
    try:
        with cluster_bound(cluster_id):
            counted = listing.count(alias, {})
            if not counted["is_exact"]:
                counted = listing.estimate(alias, {})
            return {"queue_count": Queue.objects.count(), "task_count": counted["count"]}
    except (DatabaseError, InterfaceError):
        watch.report_down(alias)
        return {}
