"""Deeds and their traces: what somebody does to a cluster is done with its trace, or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from clusters.binding import current_cluster
from clusters.models import AuditEntry


@dataclass(slots=True)
class Trace:
    """What will be told; ``before`` and ``after`` hold what differs."""

    target_id: str = ""
    # Who does it, as its surface knows him.
    by: Any = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@contextmanager
def traced(
    request: Any, actor: str, verb: str, target_type: str, target_id: Any = "", *, reason: str = ""
) -> Iterator[Trace]:
    """Do something to a thing of the bound cluster, in one transaction with its trace."""
    with transaction.atomic(using=current_cluster().alias):
        trace = Trace(str(target_id))
        yield trace
        AuditEntry.objects.create(
            actor=actor,
            address=request.META.get("REMOTE_ADDR", "")[:45],
            verb=verb,
            target_type=target_type,
            target_id=trace.target_id[:200],
            reason=reason[:500],
            before=_plain(trace.before),
            after=_plain(trace.after),
            request_id=getattr(request, "request_id", None) or "",
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
