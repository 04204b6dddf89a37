"""What the templates of the screen write in one way everywhere."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from jobs import fingerprints
from ui import words

register = template.Library()

register.filter("span", words.span)
register.filter("number", words.number)
register.filter("size", words.size)
register.filter("a_minute", words.a_minute)
register.filter("roughly", words.roughly)
register.filter("short", words.short)

# A page stays small, whatever a payload or a trace holds.
SHOWN_LENGTH = 20_000
# What terminals take for orders: colours, cursor moves, titles.
_TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]"
)


@register.simple_tag
def moment(value: datetime | None, form: str = "ago") -> SafeString | str:
    """A time; the browser writes it as an age (`ago`, `age`) or in the zone chosen (`full`, `clock`)."""
    if value is None:
        return words.DASH
    text = words.utc(value)
    machine = value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return format_html(
        '<time datetime="{}" title="{}" data-form="{}">{}</time>', machine, text, form, text
    )


@register.filter
def pretty(value: Any) -> str:
    """JSON with line breaks."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False)


@register.filter
def plain(text: str) -> str:
    """Text without the codes that terminals obey."""
    return _TERMINAL.sub("", text)


@register.filter
def hour(value: datetime) -> str:
    """What a clock on the wall shows, in the zone that the time has."""
    return f"{value:%H:%M}"


@register.filter
def shortened(text: str) -> str:
    """As much of a text as a page shows; all of it is in the API."""
    if len(text) <= SHOWN_LENGTH:
        return text
    return f"{text[:SHOWN_LENGTH]}\n… {len(text) - SHOWN_LENGTH} more characters, in the API."


@register.filter
def last_line(text: str) -> str:
    """Of a trace, what happened: its last line that is not empty."""
    lines = [line for line in plain(text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


@register.filter
def under(values: Any, key: Any) -> Any:
    """What a mapping has under a key."""
    return values.get(key, "")


@register.filter
def own_frame(trace: str) -> str:
    """Where in the user's own code it happened, as far as a trace says."""
    return fingerprints.own_frame(trace)


@register.filter
def place(name: str) -> str:
    """The full name of a page's address."""
    return f"admin:{name}"


@register.simple_tag
def took(attempt: Any) -> str:
    """How long an attempt took."""
    return words.span(max((attempt.finished_at - attempt.started_at).total_seconds(), 0.0))


@register.simple_tag
def state(value: str) -> SafeString:
    """The state of a job: a word, a shape and a colour."""
    return format_html('<span class="ui-state ui-state-{}">{}</span>', value, value)
