"""Every address and method that has an answer, and the least role that may have it.

The addresses are read from the URL configuration. The roles are not read from the program but from a file
of their own, which says what SECURITY.md promises; an endpoint that is not in it fails the matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, resolve

from tests.matrix.things import NOBODYS

ROLES = Path(__file__).parent.parent / "corpora" / "roles.txt"
NATIVE = "native"
# What the paths of a dialect begin with where a cluster is named, and at the paths of the original.
OF_CLUSTER = "/clusters/<str:cluster_id>/"
OPEN_AT_BARE_PATHS = {"bare asyncjobs GET readyz"}
BASES = {"scheduler": "api/v1/scheduler/"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    surface: str
    method: str
    # As it is written in the URL configuration, from the root.
    route: str
    # Below where the surface is mounted.
    path: str
    verb: str | None

    @property
    def key(self) -> str:
        return f"{self.surface} {self.method} {self.path}"

    @property
    def role_key(self) -> str:
        """In the table. What only the original's own address leaves open has an entry of its own."""
        own = f"bare {self.key}"
        return own if self.is_bare and own in OPEN_AT_BARE_PATHS else self.key

    @property
    def is_bare(self) -> bool:
        """It answers for the default cluster, at the address of the original."""
        return "<str:cluster_id>" not in self.route


def endpoints() -> list[Endpoint]:
    """All of the native API, and every dialect twice: bare, and below a named cluster."""
    found: dict[tuple[str, str], Endpoint] = {}
    for route, pattern in _patterns(get_resolver().url_patterns, "/"):
        actions = getattr(pattern.callback, "actions", None)
        if not actions:
            continue
        view: Any = pattern.callback.cls  # type: ignore[attr-defined]
        surface = getattr(view, "dialect", NATIVE)
        path = _below_the_mount(surface, route)
        if path is None:
            continue
        for method, action in actions.items():
            verb = getattr(view, "verbs", {}).get(action)
            one = Endpoint(surface, method.upper(), route, path, verb)
            # The first pattern that matches is the one that answers.
            if one.is_bare and not _answers(route, pattern):
                continue  # the word belongs to somebody else there
            found.setdefault((one.method, route), one)
    return list(found.values())


def roles() -> dict[str, str]:
    """The least role of each endpoint: viewer, operator, admin, or `any` caller with good credentials."""
    found: dict[str, str] = {}
    for line in ROLES.read_text().splitlines():
        if line and not line.startswith("#"):
            role, _, key = line.partition(" ")
            assert key not in found, key
            found[key] = role
    return found


def _patterns(patterns: Any, prefix: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern), pattern


def _answers(route: str, pattern: URLPattern) -> bool:
    """A name in the address may be any word, but none of those that have a meaning."""
    try:
        return resolve(re.sub(r"<[^>]*>", NOBODYS, route)).func is pattern.callback
    except Resolver404:
        return False


def _below_the_mount(surface: str, route: str) -> str | None:
    if surface == NATIVE:
        return route.removeprefix("/jm-api/")
    base = BASES.get(surface, "")
    named = f"{OF_CLUSTER}{surface}/{base}"
    if route.startswith(named):
        return route.removeprefix(named)
    if route.startswith(("/clusters/", f"/{surface}/")):
        return None  # the same once more
    return route.removeprefix(f"/{base}")
