"""Users and roles as this API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.dialects.tork.wire.ids import derived_id
from jobs.dialects.tork.wire.times import moment_to_wire

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
GUEST = "guest"


def user_to_wire(actor: str, made: Mapping[str, datetime]) -> dict[str, Any]:
    """Who asked for something; ``made`` says since when actors are known."""
    origin, _, name = actor.partition(":")
    is_guest = origin in ("anonymous", "certificate") or not name
    username = GUEST if is_guest else name
    shown: dict[str, Any] = {
        "id": derived_id(f"user:{username}"),
        "name": username.capitalize() if is_guest else username,
        "username": username,
        "createdAt": moment_to_wire(made.get(actor, LONG_AGO)),
    }
    return shown | ({"disabled": True} if is_guest else {})


def role_to_wire(slug: str) -> dict[str, Any]:
    return {
        "id": derived_id(f"role:{slug}"),
        "slug": slug,
        "name": slug.capitalize(),
        "createdAt": moment_to_wire(LONG_AGO),
    }
