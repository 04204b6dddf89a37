"""How long requests take, by surface, over all processes of this server.

Under `manage.py serve` each worker counts in a file of its own, see ``config.metrics_directory``, and
whichever worker is asked adds them up. Elsewhere a process tells of itself alone.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.urls import ResolverMatch
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config import metrics_directory
from config.mistakes import DIALECTS

GetResponse = Callable[[HttpRequest], HttpResponseBase]

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SURFACES = ("native", *DIALECTS, "admin", "other")

# Several processes have no such thing, so one has none either.
disable_created_metrics()
_own = CollectorRegistry(auto_describe=False)
_seconds = Histogram(
    "yardmaster_http_request_seconds",
    "From the arrival of a request to the head of its answer, by the API that it spoke.",
    ["surface"],
    buckets=BOUNDS,
    registry=_own,
)
# Looked up once; and a surface nobody has asked for yet is told of too.
_observe = {surface: _seconds.labels(surface).observe for surface in SURFACES}
_native = settings.BASE_PATH.strip("/")


class RequestMetricsMiddleware:
    """Measure every request; the first of all middleware, for what it is to include."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        # By route: as many as there are, however many paths are asked for.
        self.surfaces: dict[str, str] = {}

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        begun = time.perf_counter()
        try:
            return self.get_response(request)
        finally:
            _observe[self._surface(request.resolver_match)](time.perf_counter() - begun)

    def _surface(self, match: ResolverMatch | None) -> str:
        if match is None:
            return "other"
        surface = self.surfaces.get(match.route)
        if surface is None:
            surface = self.surfaces[match.route] = surface_of(match)
        return surface


def surface_of(match: ResolverMatch) -> str:
    """Whose address it is that was asked for."""
    app = match.app_names[0] if match.app_names else None
    if app in DIALECTS:
        return str(app)
    if app == "admin":
        return "admin"
    is_native = app is None and (match.route.partition("/")[0] == _native)
    return "native" if is_native else "other"


# -- Told ------------------------------------------------------------------------------------------


class _Build(Collector):
    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "yardmaster_build_info",
            "Which version answers; always 1.",
            labels=["version", "python"],
        )
        build.add_metric([settings.VERSION, platform.python_version()], 1)
        yield build


def expose() -> bytes:
    """The metrics of this server, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Build())
    directory = metrics_directory.current()
    if directory is None:
        return generate_latest(registry) + generate_latest(_own)
    with metrics_directory.locked(directory, is_reader=True):
        MultiProcessCollector(registry, path=str(directory))
        return generate_latest(registry)
