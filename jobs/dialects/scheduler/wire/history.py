"""Histories of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.dialects.scheduler.wire.naming import words_to_wire
from jobs.dialects.scheduler.wire.words import time_to_wire
from jobs.schedule_history import Deed

ACTIONS = {
    "created": "Created",
    "imported": "Imported",
    "changed": "Updated",
    "rescheduled": "Rescheduled",
    "restored": "Restored",
    "resumed": "Resumed",
    "paused": "Paused",
    "deleted": "Deleted",
    "triggered": "Triggered",
    "retried": "Retried",
    "skipped": "Skipped",
    "missed": "Missed",
}
_NAMES = {
    "job_id": "executionId",
    "copy_of": "retryParentId",
    "due_at": "scheduledFor",
    "last_due_at": "lastScheduledFor",
    "is_for_all": "isGlobal",
}


def deed_to_wire(job_id: UUID, deed: Deed) -> dict[str, Any]:
    about = {_NAMES.get(name, name): _plain(value) for name, value in deed.about.items()}
    if deed.about.get("detail") is not None:
        about["detail"] = words_to_wire(deed.about["detail"])
    return {
        "id": str(deed.id),
        "jobId": str(job_id),
        "action": ACTIONS[deed.action],
        "changes": {name: value for name, value in about.items() if value is not None},
        "performedBy": deed.by,
        "performedAt": time_to_wire(deed.at),
        "ipAddress": deed.address or None,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_to_wire(value)
    return str(value) if isinstance(value, UUID) else value
