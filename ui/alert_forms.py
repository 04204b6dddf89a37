"""The form of an alert: only the words that its kind has, lengths of time as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from jobs.engine.alert_rules import FIELDS
from jobs.models import AlertKind, AlertRule, AlertSeverity
from jobs.models.alert import MAX_NAME_LENGTH, MAX_URL_LENGTH

KINDS: Mapping[str, tuple[str, str]] = {
    AlertKind.FAILURE_RATE: ("Failure rate", "Too large a share of jobs fails."),
    AlertKind.OLDEST_READY: (
        "Oldest ready job",
        "A job waits too long in a queue that is not paused.",
    ),
    AlertKind.DEAD_NODES: ("Dead nodes", "Nodes are not heard of any more."),
    AlertKind.LATE_SCHEDULES: ("Late schedules", "A schedule should have run, and has not."),
    AlertKind.HEARTBEAT: ("Missing success", "A job or schedule has not succeeded for too long."),
}
_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)\Z")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_INPUT = {"autocomplete": "off", "class": "ui-input", "spellcheck": "false"}


def _text() -> forms.TextInput:
    return forms.TextInput(attrs=dict(_INPUT))


class LengthField(forms.Field):
    """So many seconds, minutes, hours or days: `90`, `15m`, `2h`, `1d`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(widget=_text(), **kwargs)

    def to_python(self, value: Any) -> Any:
        text = (value or "").strip().lower()
        if not text:
            return None
        match = _LENGTH.match(text)
        if match is None:
            raise ValidationError("Write it such as 90s, 15m, 2h or 1d.")
        return float(match[1]) * _SECONDS[match[2]]

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) or value is None else written(value)


def written(seconds: float) -> str:
    """A length as the field reads it, in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


class AlertForm(forms.Form):
    name = forms.CharField(max_length=MAX_NAME_LENGTH, widget=_text())
    severity = forms.ChoiceField(
        choices=[(value, value) for value in AlertSeverity.values],
        widget=forms.Select(attrs={"class": "ui-input"}),
    )
    queue = forms.CharField(
        required=False, max_length=100, widget=_text(), help_text="Empty: every queue."
    )
    type = forms.CharField(
        required=False, max_length=200, widget=_text(), help_text="Of jobs; empty: every type."
    )
    schedule_id = forms.UUIDField(
        required=False, label="Schedule", widget=_text(), help_text="Its id, in place of a type."
    )
    ratio = forms.FloatField(
        label="Limit in percent",
        min_value=0,
        max_value=100,
        widget=forms.NumberInput(attrs={**_INPUT, "step": "any"}),
        help_text="Of the jobs that succeeded or failed.",
    )
    at_least = forms.IntegerField(
        widget=forms.NumberInput(attrs=dict(_INPUT)), help_text="Fewer tell nothing."
    )
    window_seconds = LengthField(label="Within the last", help_text="Such as 15m.")
    limit_seconds = LengthField(label="Limit", help_text="Such as 5m, 2h or 1d.")
    for_seconds = LengthField(label="Fires when wrong for")
    clear_after_seconds = LengthField(label="Recovers when right for")
    quiet_seconds = LengthField(label="At least between two deliveries")
    webhook_url = forms.CharField(
        required=False,
        label="Webhook",
        max_length=MAX_URL_LENGTH,
        widget=_text(),
        help_text="Where it is told; empty: on this screen only.",
    )
    is_enabled = forms.BooleanField(required=False, label="Watch it")

    def __init__(self, kind: str, rule: AlertRule | None, data: Any = None) -> None:
        super().__init__(data, initial=_initial(kind, rule))
        known = FIELDS[kind]
        every = {name for fields in FIELDS.values() for name in fields}
        for name in every - set(known):
            del self.fields[name]
        self.kind = kind

    def values(self) -> dict[str, Any]:
        """What was written, in the words of the rule."""
        found = {"kind": self.kind, **self.cleaned_data}
        for name in ("queue", "type", "schedule_id"):
            if name in found:
                found[name] = found[name] or None
        if "ratio" in found:
            found["ratio"] = found["ratio"] / 100
        if "window_seconds" in found:
            found["window_seconds"] = round(found["window_seconds"])
        return found


def _initial(kind: str, rule: AlertRule | None) -> dict[str, Any]:
    source = rule or AlertRule()
    names = (
        "name",
        "severity",
        "is_enabled",
        "for_seconds",
        "clear_after_seconds",
        "quiet_seconds",
    )
    initial = {name: getattr(source, name) for name in (*names, "webhook_url")}
    for name, limit in FIELDS[kind].items():
        given = getattr(source, name)
        initial[name] = limit.default if given is None and limit is not None else given
    if initial.get("ratio") is not None:
        initial["ratio"] = f"{initial['ratio'] * 100:g}"
    return initial
