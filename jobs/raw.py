"""Values as a database gives them to a statement of ours, which no model has read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID


def read_moment(value: Any) -> datetime:
    """A time; SQLite gives text, which is UTC without saying so."""
    moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def read_id(value: Any) -> UUID:
    """An id; SQLite gives text."""
    return value if isinstance(value, UUID) else UUID(value)
