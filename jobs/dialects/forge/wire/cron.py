"""Cron schedules: expressions of six fields, the first for seconds, and ours of five."""

from __future__ import annotations

from typing import Any

from jobs.cron import MACROS
from jobs.dialects.forge.wire.reading import Body, refuse
from jobs.dialects.forge.wire.words import time_to_wire
from jobs.models import Overlap, Schedule, Timing
from jobs.secrets import shown_payload

FIELD = "cron_expr"
MAX_EXPRESSION = 200


def schedule_to_wire(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "kind": schedule.type,
        "payload": shown_payload(schedule.kind, schedule.payload),
        "queue_name": schedule.queue,
        "cron_expr": expression_to_wire(schedule),
        "enabled": schedule.is_enabled and not schedule.is_paused and schedule.error is None,
        "max_attempts": schedule.max_attempts,
        "dedupe_key": None if schedule.overlap == Overlap.ALLOW else schedule.name,
        "last_fired_at": time_to_wire(schedule.last_run_at),
        "next_fire_at": time_to_wire(schedule.next_run_at),
        "last_error": schedule.error,
        "created_at": time_to_wire(schedule.created_at),
        "updated_at": time_to_wire(schedule.updated_at),
    }


def expression_to_wire(schedule: Schedule) -> str:
    """With a field for seconds before ours; an interval as ``@every`` says it."""
    if schedule.timing == Timing.INTERVAL:
        return f"@every {schedule.interval_seconds or 0:.15g}s"
    expression = schedule.expression or ""
    expression = MACROS.get(expression.lower(), expression)
    return expression if expression.startswith("@") else f"0 {expression}"


def timing_from_wire(body: Body) -> dict[str, Any]:
    """The timing of a schedule; its seconds must be what five fields mean: the first of a minute."""
    body.need("expr")
    text = (body.text("expr") or "").strip()
    if len(text) > MAX_EXPRESSION:
        refuse(FIELD, f"May have {MAX_EXPRESSION} characters at most.")
    fields = text.split()
    if len(fields) == 6:
        if not fields[0].isascii() or not fields[0].isdigit() or int(fields[0]) != 0:
            refuse(FIELD, "The field for seconds must be 0: schedules are kept by the minute.")
        text = " ".join(fields[1:])
    return {"timing": Timing.CRON.value, "expression": text}
