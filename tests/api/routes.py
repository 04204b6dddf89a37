"""Every address of the program, read from the URL configuration, with values filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MISSING_ID = "0190a1b2-0000-7000-8000-000000000000"


def all_routes(patterns: Any = None, prefix: str = "/") -> Iterator[str]:
    """The routes as they are written, from the root."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from all_routes(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern)


def filled(route: str, cluster: str = "alpha", identifier: str = MISSING_ID) -> str:
    """An address that matches a route."""
    route = re.sub(r"/\^(.*)\\Z", r"/\1", route).replace("/?", "")
    route = route.replace("<str:cluster_id>", cluster).replace("<str:name>", "no-such-queue")
    route = route.replace("<str:fingerprint>", "0123456789abcdef").replace("<str:line_id>", "1")
    identifiers = r"<str:(job|task|node|operation|schedule|workflow|run)_id>|<guid:\w+>"
    return re.sub(identifiers, identifier, route)


def native_routes() -> list[str]:
    return [r for r in all_routes() if r.startswith("/jm-api") and not r.endswith("/swagger")]
