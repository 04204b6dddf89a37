"""Schedules: what makes tasks, as this API shows and takes them."""

from __future__ import annotations

import re
from typing import Any

from jobs.dialects.asyncjobs.errors import refuse
from jobs.dialects.asyncjobs.wire.payloads import payload_data, to_base64
from jobs.dialects.asyncjobs.wire.policies import DEFAULT_CURVE
from jobs.dialects.asyncjobs.wire.reading import NAME, Body
from jobs.dialects.asyncjobs.wire.tasks import DEFAULT_TRIES
from jobs.dialects.asyncjobs.wire.times import (
    SECOND_NS,
    moment_to_wire,
    parse_duration,
    seconds_to_ns,
)
from jobs.engine.new_job import FARTHEST
from jobs.models import Misfire, Overlap, Schedule, Timing

FIELDS = frozenset(
    {
        "name", "schedule", "queue", "task_type", "payload", "payload_base64", "deadline_offset",
        "max_tries",
    }
)  # fmt: skip
INVALID = "schedule_invalid"
SHORTEST_OFFSET = 30
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S*)\s+(.*)\Z", re.DOTALL)
_EVERY = "@every "
# Lengths that all surfaces can read.
_PLAIN = re.compile(r"@every +(?:[0-9]{1,9}(?:\.[0-9]{1,9})?[smh])+")


def new_schedule(body: Body) -> dict[str, Any]:
    """The definition that a request asks for."""
    payload, data = body.payload()
    offset = body.duration("deadline_offset")
    task_type, name = body.text("task_type"), body.text("name")
    if not NAME.match(task_type):
        refuse("task_type_invalid", "a type has letters, digits and _ : - only", "task_type")
    if not NAME.match(name):
        refuse(INVALID, "a name has letters, digits and _ : - only", "name")
    if not body.text("schedule").strip():
        refuse(INVALID, "a schedule needs a cron expression", "schedule")
    queue = body.text("queue").strip()
    if not queue:
        refuse("queue_name_required", "a schedule needs a queue", "queue")
    values = {
        "name": name,
        "type": task_type,
        "queue": queue,
        "payload": payload,
        "payload_bytes": data,
        "max_attempts": body.integer("max_tries", "task_invalid", 1) or DEFAULT_TRIES,
        "retry_curve": DEFAULT_CURVE,
        # The original knows neither, and starts whatever is due.
        "overlap": Overlap.ALLOW,
        "misfire": Misfire.SKIP,
        **_timing(body.text("schedule")),
    }
    if offset is not None:
        # To the nearest second, as the original does.
        seconds = (abs(offset) + SECOND_NS // 2) // SECOND_NS
        if offset < 0 or not SHORTEST_OFFSET <= seconds <= FARTHEST.total_seconds():
            message = f"deadline_offset must be at least {SHORTEST_OFFSET}s, and at most ten years"
            refuse(INVALID, message, "deadline_offset")
        values["expires_in_seconds"] = float(seconds)
    return values


def _timing(text: str) -> dict[str, Any]:
    """A cron expression, perhaps with a zone before it; intervals are of whole seconds."""
    zone = "UTC"
    if found := _ZONE.match(text.strip()):
        zone, text = found[1], found[2]
    elif text.strip().startswith(("TZ=", "CRON_TZ=")):
        refuse(INVALID, "after the time zone comes a cron expression", "schedule")
    expression = text.strip()
    if expression.startswith(_EVERY):
        length = parse_duration(expression.removeprefix(_EVERY).strip())
        if length is None or length < 0:
            refuse(INVALID, "after @every comes a duration such as 1h30m", "schedule")
        if length % SECOND_NS or not length or not _PLAIN.fullmatch(expression):
            expression = f"{_EVERY}{max(length // SECOND_NS, 1)}s"
    return {"timing": Timing.CRON, "expression": expression, "timezone": zone}


def schedule_to_wire(schedule: Schedule) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": schedule.name,
        "schedule": _expression(schedule),
        "queue": schedule.queue,
        "task_type": schedule.type,
        "created_at": moment_to_wire(schedule.created_at),
    }
    if data := payload_data(schedule.kind, schedule.payload, schedule.payload_bytes):
        shown["payload"] = to_base64(data)
    if schedule.expires_in_seconds:
        shown["deadline"] = seconds_to_ns(schedule.expires_in_seconds)
    if schedule.max_attempts:
        shown["max_tries"] = schedule.max_attempts
    return shown


def _expression(schedule: Schedule) -> str:
    """When, as near as this API's words come to what other surfaces can say."""
    if schedule.timing == Timing.INTERVAL:
        return f"{_EVERY}{schedule.interval_seconds:g}s"
    if schedule.timing == Timing.ONCE and schedule.run_at is not None:
        return f"@at {moment_to_wire(schedule.run_at)}"
    zone = "" if schedule.timezone == "UTC" else f"CRON_TZ={schedule.timezone} "
    return f"{zone}{schedule.expression}"
