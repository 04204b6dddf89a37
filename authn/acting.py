"""Callers as they act: what the table of verbs lets them do, and what the audit says of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from authn.permissions import is_allowed
from authn.principal import Principal
from clusters.acting import Acting


def acting_of(principal: Principal, surface: str, request: Any, credential: Any = "") -> Acting:
    """A caller at a surface. ``request`` is Django's own, or has its attributes."""
    return Acting(
        actor=principal.actor,
        may=partial(is_allowed, principal),
        credential=credential if isinstance(credential, str) else "",
        surface=surface,
        address=request.META.get("REMOTE_ADDR", ""),
        request_id=getattr(request, "request_id", None) or "",
        kinds=principal.kinds_granted_on,
        is_superuser=principal.is_superuser,
    )
