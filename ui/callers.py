"""Who looks at the screen, and what he may do on which cluster."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from authn.permissions import check_kinds, is_allowed
from authn.principal import Principal
from authn.users import principal_of
from clusters.binding import current_cluster
from jobs.errors import KindNotGranted


def caller(request: HttpRequest) -> Principal | None:
    """Who is signed in; his roles are read once a request."""
    known: Any = getattr(request, "_caller", ...)
    if known is ...:
        user: Any = request.user
        may_sign_in = user.is_authenticated and user.is_staff
        known = principal_of(user) if may_sign_in else None
        request._caller = known  # type: ignore[attr-defined]
    return known  # type: ignore[no-any-return]


def may(request: HttpRequest, verb: str) -> bool:
    """Whether the caller's role on the bound cluster covers the verb."""
    principal = caller(request)
    return principal is not None and is_allowed(principal, verb, current_cluster().id)


def require(request: HttpRequest, verb: str) -> Principal:
    """The caller, if he may do this on the bound cluster."""
    principal = caller(request)
    if principal is None or not is_allowed(principal, verb, current_cluster().id):
        raise PermissionDenied
    return principal


def may_start(request: HttpRequest, *kinds: str) -> bool:
    """Whether the caller may start work of these kinds on the bound cluster, where they need a grant."""
    principal = caller(request)
    if principal is None:
        return False
    try:
        check_kinds(principal, current_cluster().id, kinds)
    except KindNotGranted:
        return False
    return True
