"""What people watch: what they have said of groups of failures, and the alerts they set."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F

from jobs.demo.stage import Stage
from jobs.engine import alert_rules
from jobs.models import AlertEvent, AlertHappened, AlertRule, AlertState, Failure, Mark

# By the type of the error: the mark, who has it, and where that is written down.
SAID: dict[str, tuple[str, str, str, str]] = {
    "DeviceGone": (Mark.KNOWN, "mobile team", "M-214", "Tokens are cleaned up on Fridays"),
    "HttpError": (Mark.KNOWN, "partners", "P-77", ""),
    "TemplateMissing": (Mark.MUTED, "letters team", "", "The spring offers are gone on purpose"),
    "UnicodeDecodeError": (Mark.KNOWN, "wages team", "W-12", "One terminal speaks Latin-1"),
    "TimeoutError": (Mark.RETURNED, "wages team", "", ""),
}


def write(stage: Stage) -> None:
    _marks(stage)
    _alerts(stage)


def _marks(stage: Stage) -> None:
    rows = Failure.objects.using(stage.using)
    for error, (mark, owner, ticket, reason) in SAID.items():
        columns: dict[str, Any] = {
            "mark": mark,
            "marked_by": "user:oncall",
            "marked_at": stage.ago(hours=3),
            "mark_reason": reason,
            "owner": owner,
            "ticket": f"https://tickets.invalid/{ticket}" if ticket else "",
        }
        if mark == Mark.MUTED:
            columns["muted_until"] = stage.now + timedelta(hours=8)
        if mark == Mark.RETURNED:
            columns["returned_at"] = F("last_seen_at")
        rows.filter(error_type=error).update(**columns)


def _alerts(stage: Stage) -> None:
    """Rules of each kind: one fires, one that fires is acknowledged, the others are well."""
    line = stage.play.queues[0].name
    again = f" {stage.written}" if AlertRule.objects.using(stage.using).exists() else ""
    made = {
        name: alert_rules.create({"name": name + again, **values}, by="user:lead")
        for name, values in (
            ("Letters fail", {"kind": "failure_rate", "queue": line, "severity": "critical"}),
            ("Work waits", {"kind": "oldest_ready", "limit_seconds": 300}),
            ("Schedules are late", {"kind": "late_schedules", "limit_seconds": 600}),
            ("Nodes die", {"kind": "dead_nodes", "at_least": 2}),
        )
    }
    trouble = stage.play.troubles[0]
    told = f"{trouble.error} and others: more than a tenth of the jobs in {line} failed."
    _fires(stage, made["Letters fail"], told, f"failures/?queue={line}", 90)
    late = "A schedule is late: its run is overdue."
    _fires(stage, made["Schedules are late"], late, "schedules/", 14, by="user:oncall")


def _fires(
    stage: Stage, rule: AlertRule, sentence: str, page: str, minutes: float, by: str = ""
) -> None:
    at = stage.ago(minutes=minutes)
    columns: dict[str, Any] = {
        "state": AlertState.FIRING,
        "state_since": at,
        "wrong_since": None,
        "sentence": sentence,
        "page": page,
        "told_state": AlertState.FIRING,
        "told_at": at,
    }
    events = [AlertEvent(rule=rule, at=at, what=AlertHappened.FIRED, sentence=sentence)]
    if by:
        seen = at + timedelta(minutes=3)
        why = "A node is missing; it is on its way"
        columns |= {"acknowledged_by": by, "acknowledged_at": seen, "acknowledge_reason": why}
        events.append(
            AlertEvent(rule=rule, at=seen, what=AlertHappened.ACKNOWLEDGED, sentence=why, by=by)
        )
    AlertRule.objects.using(stage.using).filter(pk=rule.pk).update(**columns)
    AlertEvent.objects.using(stage.using).bulk_create(events)
