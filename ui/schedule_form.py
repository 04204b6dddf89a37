"""The form of a schedule: what people fill in, in the native API's words and checked by its own forms.

Of a schedule that is there only what differs from what was shown is asked for: a field that is left alone
does not move the next run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clusters.api.fields import check_object
from jobs.api import schedule_forms
from jobs.engine.definition import COMPANION, local_time
from jobs.models import Misfire, Overlap, Schedule, Source, Timing
from jobs.secrets import meant_payload, shown_payload

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RULES = ("dates", "days_of_week", "time_ranges", "calendars", "countries")


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in the API, and how it is filled in."""

    name: str
    label: str
    help: str = ""
    # text, area, json, number, whole, choice, flag, list, moment, wall, days, ranges
    kind: str = "text"
    choices: tuple[tuple[str, str], ...] = ()
    # The list of suggestions of the page.
    suggests: str = ""
    # The word of ``timing``, or of ``makes``, that it goes with.
    only_for: str = ""
    default: Any = ""


GROUPS: tuple[tuple[str, tuple[Field, ...]], ...] = (
    (
        "",
        (
            Field("name", "Name"),
            Field("description", "What it is for", kind="area"),
            Field("is_enabled", "Enabled", kind="flag", default=True),
        ),
    ),
    (
        "What it runs",
        (
            Field("workflow_id", "Makes", kind="choice"),
            Field("kind", "Kind", kind="choice", only_for="job", default="python"),
            Field(
                "type",
                "Type",
                "The handler's name; for kinds other than python a label.",
                only_for="job",
                suggests="types",
            ),
            Field("queue", "Queue", only_for="job", suggests="queues", default="default"),
            Field("payload", "Payload", "Any JSON value.", "json", only_for="job"),
            Field("tags", "Tags", "With commas between them.", "list", only_for="job"),
        ),
    ),
    (
        "When",
        (
            Field(
                "timing",
                "Timing",
                kind="choice",
                choices=(
                    ("cron", "by a calendar (cron)"),
                    ("interval", "at an interval"),
                    ("once", "once"),
                ),
                default="cron",
            ),
            Field(
                "expression",
                "Cron expression",
                "Minute, hour, day of month, month, day of week: 30 6 * * 1-5, or @daily.",
                only_for="cron",
            ),
            Field("interval_seconds", "Seconds between runs", "", "number", only_for="interval"),
            Field(
                "run_at", "At", "As a clock in the zone below shows it.", "wall", only_for="once"
            ),
            Field(
                "timezone", "Time zone", "Such as Europe/Berlin.", suggests="zones", default="UTC"
            ),
            Field(
                "gap",
                "When the clock jumps over it",
                kind="choice",
                choices=(("fire", "run after the jump"), ("skip", "leave it out")),
                only_for="cron",
                default="fire",
            ),
            Field("starts_at", "Not before (UTC)", kind="moment"),
            Field("ends_at", "Not at or after (UTC)", kind="moment"),
            Field("spread_seconds", "Spread over seconds", "", "number", default="0"),
        ),
    ),
    (
        "When not",
        (
            Field("exclusions.days_of_week", "Days of the week", kind="days"),
            Field("exclusions.dates", "Dates", "2030-12-25, 2030-12-26", "list"),
            Field("exclusions.time_ranges", "Times of day", "22:00-06:00, 12:00-13:00", "ranges"),
            Field("exclusions.calendars", "Calendars", "By name.", "list", suggests="calendars"),
            Field(
                "exclusions.countries", "Public holidays of", "DE, or a part of it: DE-BY", "list"
            ),
        ),
    ),
    (
        "How",
        (
            Field(
                "misfire",
                "Runs that nobody was there for",
                kind="choice",
                choices=(
                    ("latest", "run the latest"),
                    ("all", "run all"),
                    ("skip", "leave them out"),
                ),
                default=Misfire.LATEST.value,
            ),
            Field("misfire_grace_seconds", "Are those later than (s)", "", "number", default="60"),
            Field(
                "overlap",
                "When the run before goes on",
                kind="choice",
                choices=(
                    ("skip", "leave this one out"),
                    ("allow", "run beside it"),
                    ("queue_one", "wait for it"),
                    ("replace", "stop it"),
                ),
                default=Overlap.SKIP.value,
            ),
            Field("priority", "Priority", "The lower number runs first.", "whole", only_for="job"),
            Field("timeout_seconds", "Timeout (s)", "", "number", only_for="job"),
            Field("max_attempts", "Attempts at most", "", "whole", only_for="job"),
        ),
    ),
)
FIELDS = {one.name: one for _, group in GROUPS for one in group}
# What of one that stands in code people may change.
OF_CODE = frozenset({"is_enabled"})


@dataclass(slots=True)
class Control:
    """A field as the page shows it."""

    field: Field
    value: Any
    choices: tuple[tuple[str, str], ...]
    errors: list[str]

    @property
    def days(self) -> tuple[str, ...]:
        return WEEKDAYS

    @property
    def id(self) -> str:
        return self.field.name.replace(".", "-").replace("_", "-")


class ScheduleForm:
    """What was filled in, or what is to be changed; then what is wrong with it."""

    def __init__(
        self,
        given: Any = None,
        schedule: Schedule | None = None,
        choices: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
    ) -> None:
        self.schedule = schedule
        self.choices = choices or {}
        self.shown = _new() if schedule is None else _shown(schedule)
        self.given = None if given is None else _given(given, self.shown)
        self.errors: dict[str, list[str]] = {}
        # While somebody still writes: what is not filled in yet is no mistake.
        self.is_draft = False
        self.missing: list[str] = []
        # Of what was filled in, all that could be read.
        self.values: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        is_code = self.schedule is not None and self.schedule.source == Source.CODE
        return [name for name in FIELDS if not is_code or name in OF_CODE]

    @property
    def groups(self) -> list[tuple[str, list[Control]]]:
        values = self.shown if self.given is None else self.given
        names = self.names
        made = [
            (
                title,
                [
                    Control(
                        one,
                        values[one.name],
                        self.choices.get(one.name, one.choices),
                        self.errors.get(one.name, []),
                    )
                    for one in group
                    if one.name in names
                ],
            )
            for title, group in GROUPS
        ]
        return [(title, controls) for title, controls in made if controls]

    @property
    def controls(self) -> list[Control]:
        return [control for _, controls in self.groups for control in controls]

    @property
    def general(self) -> list[str]:
        """What is wrong with no field of the page."""
        return self.errors.get("", [])

    def refuse(self, name: str | None, message: str) -> None:
        """Put what is wrong beside its field, whatever part of it is meant."""
        whole = (name or "").partition("[")[0]
        rest = "exclusions.dates" if whole.startswith("exclusions") else ""
        places = (whole, whole.partition(".")[0], rest)
        known = next((one for one in places if one in self.names), "")
        self.errors.setdefault(known, []).append(f"{message[:1].upper()}{message[1:]}")

    def definition(self) -> dict[str, Any]:
        """What is asked for, in the words of the verbs; empty where something is wrong, or nothing is."""
        body = self._body()
        form = (
            schedule_forms.NewScheduleInput
            if self.schedule is None
            else schedule_forms.ScheduleChangeInput
        )
        if self.errors:
            return {}
        values, errors = check_object(form, body)
        for error in errors:
            if self.is_draft and error.code == "required":
                self.missing.append(FIELDS[error.field].label.lower())
            else:
                self.refuse(error.field, error.message)
        wanted = self.values = schedule_forms.definition(values)
        if self.errors or self.missing:
            return {}
        if self.schedule is not None and "payload" in wanted:
            kind, stored = self.schedule.kind, self.schedule.payload
            wanted["payload"] = meant_payload(kind, wanted["payload"], stored)
        return wanted

    def _body(self) -> dict[str, Any]:
        assert self.given is not None
        body: dict[str, Any] = {}
        names = self.names
        for name in self._asked(names):
            if name.startswith("exclusions."):
                continue
            try:
                body[name] = _read(FIELDS[name], self.given[name])
            except ValueError as error:
                self.refuse(name, str(error))
        rules = [f"exclusions.{rule}" for rule in RULES]
        if any(self._differs(name) for name in rules if name in names):
            body["exclusions"] = self._exclusions()
        return body

    def _asked(self, names: list[str]) -> list[str]:
        """The fields that say something: of a new schedule the filled, else those that differ."""
        assert self.given is not None
        timing = self.given["timing"]
        other = {one for word, one in COMPANION.items() if word != timing}
        is_of_workflow = bool(self.given["workflow_id"])
        asked = []
        for name in names:
            is_filled = self.given[name] not in ("", [], None)
            if name in other or (is_of_workflow and FIELDS[name].only_for == "job"):
                continue
            if is_filled if self.schedule is None else self._differs(name):
                asked.append(name)
        if self.schedule is not None and "timing" in asked and COMPANION.get(timing) not in asked:
            asked.append(COMPANION[Timing(timing)])
        return asked

    def _differs(self, name: str) -> bool:
        assert self.given is not None
        return bool(self.given[name] != self.shown[name])

    def _exclusions(self) -> dict[str, Any]:
        assert self.given is not None
        document = {}
        for rule in RULES:
            name = f"exclusions.{rule}"
            try:
                document[rule] = _read(FIELDS[name], self.given[name])
            except ValueError as error:
                self.refuse(name, str(error))
        return {rule: entries for rule, entries in document.items() if entries}


# -- What is shown, and what is read ---------------------------------------------------------------


def _new() -> dict[str, Any]:
    return {name: [] if one.kind == "days" else one.default for name, one in FIELDS.items()}


def _shown(schedule: Schedule) -> dict[str, Any]:
    values = {name: _written(one, schedule) for name, one in FIELDS.items()}
    for rule in RULES:
        entries = schedule.exclusions.get(rule, [])
        if rule == "days_of_week":
            values["exclusions.days_of_week"] = [*entries]
        elif rule == "time_ranges":
            told = ", ".join(f"{one['start']}-{one['end']}" for one in entries)
            values["exclusions.time_ranges"] = told
        else:
            values[f"exclusions.{rule}"] = ", ".join(entries)
    return values


def _written(one: Field, schedule: Schedule) -> Any:
    if one.name.startswith("exclusions."):
        return ""
    value = getattr(schedule, one.name)
    if one.name == "payload":
        shown = shown_payload(schedule.kind, value)
        return "" if shown is None else json.dumps(shown, ensure_ascii=False, indent=2)
    if value is None:
        return ""
    if one.kind == "flag":
        return bool(value)
    if one.kind == "list":
        return ", ".join(value)
    if one.kind == "number":
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if one.kind == "wall":
        return _minutes(local_time(value, schedule.timezone) or value)
    if one.kind == "moment":
        return _minutes(value.astimezone(UTC))
    return str(value)


def _minutes(moment: datetime) -> str:
    plain = moment.replace(tzinfo=None)
    return plain.isoformat(timespec="minutes" if not plain.second else "seconds")


def _given(post: Any, shown: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, one in FIELDS.items():
        if one.kind == "days":
            given[name] = [day for day in WEEKDAYS if day in post.getlist(name)]
        elif one.kind == "flag":
            given[name] = bool(post.get(name))
        else:
            text = post.get(name, shown[name] or "").replace("\r\n", "\n")
            given[name] = text if one.kind in ("area", "json") else text.strip()
    return given


def _read(one: Field, text: Any) -> Any:
    """The JSON value that a text stands for; what is no such value is refused by the API's own form."""
    if one.kind in ("flag", "days"):
        return text
    if one.kind == "list":
        return [part.strip() for part in text.split(",") if part.strip()]
    if one.kind == "ranges":
        return [_range(part.strip()) for part in text.split(",") if part.strip()]
    if text == "":
        return "" if one.name == "description" else None
    if one.kind == "json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON: {error}") from None
    if one.kind in ("number", "whole"):
        return _number(text)
    if one.kind == "moment":
        # As the browser's own field gives it, without an offset.
        return f"{text}:00Z" if len(text) == len("2030-01-01T00:00") else f"{text}Z"
    return text


def _number(text: str) -> Any:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _range(text: str) -> dict[str, str]:
    start, _, end = text.partition("-")
    return {"start": start.strip(), "end": end.strip()}
