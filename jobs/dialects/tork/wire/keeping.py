"""What is kept of a submitted definition beside the native one, and how both are read again.

This is the one place in this API that knows how secrets are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.dialects.tork.wire.definition import seconds_of
from jobs.dialects.tork.wire.redaction import values_in
from jobs.models import Job, Schedule
from jobs.sealing import Sealed, SealError, opened, seal
from jobs.step_words import AUDIENCE, DELETE_AFTER

DIALECT = "tork"


def notes_of(document: Mapping[str, Any], audience: Sequence[str] | None) -> dict[str, Any]:
    """What is kept with the job or the schedule; sealed where there are secrets in it."""
    masks = values_in(document)
    notes: dict[str, Any] = {DIALECT: seal(document, masks) if masks else dict(document)}
    if audience is not None:
        notes[AUDIENCE] = [*audience]
    if after := seconds_of((document.get("autoDelete") or {}).get("after")):
        notes[DELETE_AFTER] = after
    return notes


def audience_of(document: Mapping[str, Any]) -> list[str] | None:
    """Whom lists show the job to; None is everybody."""
    permissions = document.get("permissions")
    if not permissions:
        return None
    return [
        f"user:{one['user']}" if one.get("user") else f"role:{one['role']}" for one in permissions
    ]


def document_of(thing: Job | Schedule) -> dict[str, Any] | None:
    """The definition as it was submitted; None where it came by another way."""
    document = _opened((thing.dialect_notes or {}).get(DIALECT)).payload
    return document if isinstance(document, dict) else None


def payload_of(thing: Job | Schedule) -> dict[str, Any]:
    """The native definition, or the work of a step."""
    payload = _opened(thing.payload).payload
    return payload if isinstance(payload, dict) else {}


def masks_of(thing: Job | Schedule) -> set[str]:
    """The values that must not be seen of what is told of it."""
    document = _opened((thing.dialect_notes or {}).get(DIALECT))
    return {*_opened(thing.payload).masks, *document.masks} | values_in(payload_of(thing))


def _opened(stored: Any) -> Sealed:
    """What this process has no key for is as good as not there."""
    if isinstance(stored, Sealed):
        return stored
    try:
        return opened(stored)
    except SealError:
        return Sealed(None)
