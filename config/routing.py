"""Routes as all surfaces write them: every address answers with and without a trailing slash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.urls import URLPattern
from django.urls.resolvers import RoutePattern


class OptionalSlash(RoutePattern):
    """A route that matches with a slash at its end as well; no redirect, no second route."""

    def match(self, path: str) -> Any:
        return super().match(path.removesuffix("/"))


class Below(RoutePattern):
    """Paths that are one of these or lie below one; what begins all of them is taken off."""

    def __init__(self, base: str, paths: Sequence[str]) -> None:
        super().__init__(base)
        self.paths = tuple(paths)

    def match(self, path: str) -> Any:
        if not any(path == one or path.startswith(f"{one}/") for one in self.paths):
            return None
        return path.removeprefix(str(self)), (), {}


def route(
    pattern: str,
    view: Callable[..., Any],
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> URLPattern:
    return URLPattern(
        OptionalSlash(pattern, name=name, is_endpoint=True), view, dict(arguments or {}), name
    )
