"""A deed on the screen: the right to it is checked again, and it leaves its trace in its transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.http import HttpRequest

from authn.principal import Principal
from clusters.binding import current_cluster
from clusters.models import AuditEntry
from ui.callers import require


@dataclass(slots=True)
class Deed:
    """What its trace will say; ``before`` and ``after`` hold what differs."""

    by: Principal
    target_id: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@contextmanager
def deed(
    request: HttpRequest, verb: str, target_type: str, target_id: Any, *, reason: str = ""
) -> Iterator[Deed]:
    """Do something to a thing of the bound cluster: with its trace, or not at all."""
    principal = require(request, verb)
    with transaction.atomic(using=current_cluster().alias):
        done = Deed(principal, str(target_id))
        yield done
        AuditEntry.objects.create(
            actor=principal.actor,
            address=request.META.get("REMOTE_ADDR", "")[:45],
            verb=verb,
            target_type=target_type,
            target_id=done.target_id[:200],
            reason=reason[:500],
            before=_plain(done.before),
            after=_plain(done.after),
            request_id=getattr(request, "request_id", ""),
        )


def differences(
    before: dict[str, Any], after: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of two states of a thing only what is not the same in both."""
    changed = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in changed}, {name: after[name] for name in changed}


def _plain(values: dict[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        name: value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, uuid.UUID)
        else value
        for name, value in values.items()
    }
