"""What is kept of a submitted definition beside the native one, and how both are read again.

This is the one place in this API that knows how secrets are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.models import Job, Schedule
from jobs.sealing import SealError, opened
from jobs.step_words import AUDIENCE

DIALECT = "tork"


def notes_of(document: Mapping[str, Any], audience: Sequence[str] | None) -> dict[str, Any]:
    """What is kept with the job or the schedule."""
    notes: dict[str, Any] = {DIALECT: dict(document)}
    if audience is not None:
        notes[AUDIENCE] = [*audience]
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
    document = _opened((thing.dialect_notes or {}).get(DIALECT))
    return document if isinstance(document, dict) else None


def payload_of(thing: Job | Schedule) -> dict[str, Any]:
    """The native definition, or the work of a step."""
    payload = _opened(thing.payload)
    return payload if isinstance(payload, dict) else {}


def _opened(stored: Any) -> Any:
    """What nobody can open any more is as if it were not there."""
    try:
        return opened(stored).payload
    except SealError:
        return None
