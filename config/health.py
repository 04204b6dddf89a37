"""Health, for load balancers: open to all, so it tells nothing but up, down and the time."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from clusters.health import watch
from clusters.routers import CONTROL

# A database that has not answered by then is down, for whoever asks.
WAIT_SECONDS = 2.0


@csrf_exempt
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """This process answers; it asks nobody else."""
    return JsonResponse({"status": "up", "time": _now()})


@csrf_exempt
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Ready as long as the control database answers: a dead cluster is no reason to send nobody here."""
    clusters = [cluster.alias for cluster in settings.CLUSTERS.values()]
    answers = watch.ask([CONTROL, *clusters], WAIT_SECONDS)
    late = watch.overdue([CONTROL, *clusters])
    up = {alias for alias, is_up in answers.items() if is_up and alias not in late}
    is_ready = CONTROL in up
    return JsonResponse(
        {
            "status": "up" if is_ready else "down",
            "time": _now(),
            "checks": {"control_database": "up" if is_ready else "down"},
            "clusters": {"up": len(up - {CONTROL}), "down": len(set(clusters) - up)},
        },
        status=200 if is_ready else 503,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
