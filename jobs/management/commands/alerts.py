"""Alerts of a cluster: what fires, and the rules."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any
from uuid import UUID

from django.db import connections

from clusters.api.fields import parse_uuid
from clusters.management.base import UsageError, Verb, duration, moment, operator
from jobs.api.alerts import alert_to_json, event_to_json
from jobs.engine import alert_notices, alert_rules
from jobs.engine.clock import database_now
from jobs.errors import AlertNotFound
from jobs.management.base import JobsCommand
from jobs.models import AlertEvent, AlertKind, AlertRule, AlertSeverity

SHOWN_EVENTS = 20
LENGTHS = ("window", "limit", "for", "clear_after", "quiet")


class Command(JobsCommand):
    help = "Look at the alerts of a cluster, make and change them, try, acknowledge and mute them."

    def add_verbs(self) -> None:
        self.verb("list", self.list_alerts, "all alerts, by name")
        self._about_one("show", self.show_alert, "one alert, and what happened to it of late")
        create = self.verb("create", self.create, "make an alert")
        create.add_argument("name")
        create.add_argument("--kind", choices=AlertKind.values, required=True)
        add_words(create)
        preview = self.verb("preview", self.preview, "would such an alert fire now?")
        preview.add_argument("--kind", choices=AlertKind.values, required=True)
        add_words(preview)
        change = self._about_one("change", self.change, "change an alert")
        change.add_argument("--name", help="another name")
        change.add_argument("--enabled", choices=("yes", "no"))
        add_words(change)
        delete = self._about_one("delete", self.delete, "forget an alert with its history")
        delete.add_argument("--yes", action="store_true", help="do not ask")
        self._about_one("test", self.test, "send a delivery that says it is a test")
        acknowledge = self._about_one("acknowledge", self.acknowledge, "say that somebody has it")
        acknowledge.add_argument("--reason", default="", help="kept in the audit")
        mute = self._about_one("mute", self.mute, "tell nobody for a while")
        mute.add_argument("--reason", default="", help="kept in the audit")
        end = mute.add_mutually_exclusive_group(required=True)
        end.add_argument("--until", type=moment, metavar="TIME")
        end.add_argument("--for", dest="seconds", type=duration, metavar="2h")
        self._about_one("unmute", self.unmute, "tell people again")

    def _about_one(self, name: str, run: Verb, help: str) -> ArgumentParser:  # noqa: A002
        parser = self.verb(name, run, help)
        parser.add_argument("alert", help="its name or id")
        return parser

    def list_alerts(self, asked: Namespace) -> None:
        rules = [*AlertRule.objects.order_by("name")[: alert_rules.MAX_RULES]]
        now = database_now(connections[AlertRule.objects.all().db])
        items = [alert_to_json(rule, now, with_address=True) for rule in rules]
        columns = ("name", "status", "severity", "kind", "state_since", "message", "link")
        self.show(
            {"items": items, "next": None, "previous": None},
            lambda: self.print_table(
                [column.replace("_", " ") for column in columns],
                ([item[column] for column in columns] for item in items),
            ),
        )

    def show_alert(self, asked: Namespace) -> None:
        self._show(find(asked.alert))

    def create(self, asked: Namespace) -> None:
        values = {"name": asked.name, "kind": asked.kind, **words(asked)}
        self._show(alert_rules.create(values, by=operator()))

    def preview(self, asked: Namespace) -> None:
        verdict = alert_rules.preview({"kind": asked.kind, **words(asked)})
        link = alert_notices.link_to(verdict.page) if verdict.page else None
        told = {"would_fire": verdict.is_wrong, "message": verdict.sentence, "link": link}
        self.show(told, lambda: self.print_record(told))

    def change(self, asked: Namespace) -> None:
        values = words(asked)
        if asked.name is not None:
            values["name"] = asked.name
        if asked.enabled is not None:
            values["is_enabled"] = asked.enabled == "yes"
        if not values:
            raise UsageError("change what? Give an option such as --limit 10m")
        self._show(alert_rules.change(find(asked.alert).pk, values, by=operator()))

    def delete(self, asked: Namespace) -> None:
        rule = find(asked.alert)
        self.confirm(f"Delete alert {rule.name}?", is_confirmed=asked.yes)
        alert_rules.delete(rule.pk)

    def test(self, asked: Namespace) -> None:
        event = alert_rules.test(find(asked.alert).pk, by=operator())
        event.refresh_from_db()
        told = event_to_json(event)
        self.show(told, lambda: self.print_record(told))
        self.say(f"Its answer: manage.py jobs show {event.job_id}")

    def acknowledge(self, asked: Namespace) -> None:
        rule = find(asked.alert)
        self._show(alert_rules.acknowledge(rule.pk, by=operator(), reason=asked.reason))

    def mute(self, asked: Namespace) -> None:
        end = {"until": asked.until, "seconds": asked.seconds}
        rule = find(asked.alert)
        self._show(alert_rules.mute(rule.pk, by=operator(), reason=asked.reason, **end))

    def unmute(self, asked: Namespace) -> None:
        self._show(alert_rules.unmute(find(asked.alert).pk, by=operator()))

    def _show(self, rule: AlertRule) -> None:
        now = database_now(connections[AlertRule.objects.all().db])
        record = alert_to_json(rule, now, with_address=True)
        events = AlertEvent.objects.filter(rule_id=rule.pk).order_by("-id")[:SHOWN_EVENTS]
        told = [event_to_json(event) for event in events]
        lines = "\n".join(" ".join(filter(None, (e["at"], e["what"], e["message"]))) for e in told)
        self.show(
            {**record, "events": told}, lambda: self.print_record({**record, "events": lines})
        )


def add_words(parser: ArgumentParser) -> None:
    parser.add_argument("--severity", choices=AlertSeverity.values)
    parser.add_argument("--queue")
    parser.add_argument("--type", help="of jobs")
    parser.add_argument("--schedule", metavar="ID", help="that should have succeeded")
    parser.add_argument("--ratio", type=float, help="share of failed jobs, such as 0.1")
    parser.add_argument("--at-least", type=int, metavar="N", help="failed jobs, or dead nodes")
    parser.add_argument("--window", type=duration, metavar="15m", help="of the past")
    parser.add_argument("--limit", type=duration, metavar="5m", help="age, delay or silence")
    parser.add_argument("--for", type=duration, metavar="1m", help="wrong for so long")
    parser.add_argument("--clear-after", type=duration, metavar="1m", help="right for so long")
    parser.add_argument("--quiet", type=duration, metavar="5m", help="between two deliveries")
    parser.add_argument("--webhook", metavar="URL", help="empty: nobody is told")


def words(asked: Namespace) -> dict[str, Any]:
    """What was said, in the words of the API."""
    given = vars(asked)
    plain = {name: given[name] for name in ("severity", "queue", "type", "ratio", "at_least")}
    values = {**plain, "webhook_url": given["webhook"]}
    values |= {f"{name}_seconds": given[name] for name in LENGTHS}
    if given["window"] is not None:
        values["window_seconds"] = round(given["window"])
    if given["schedule"] is not None:
        key = parse_uuid(given["schedule"])
        if key is None:
            raise UsageError("--schedule is the id of a schedule", field="schedule_id")
        values["schedule_id"] = key
    return {name: value for name, value in values.items() if value is not None}


def find(text: str) -> AlertRule:
    key: UUID | None = parse_uuid(text)
    found = AlertRule.objects.filter(pk=key).first() if key else None
    found = found or AlertRule.objects.filter(name=text[:101]).first()
    if found is None:
        raise AlertNotFound(f"there is no alert {text[:100]!r}")
    return found
