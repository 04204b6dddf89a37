"""Payloads as people see and change them: JSON with masks, and what one says otherwise than another."""

from __future__ import annotations

import difflib
import json
from typing import Any, NamedTuple

from django import forms
from django.core.exceptions import ValidationError

from config.parsers import parse_json
from config.problems import InvalidInput

MAX_CHARACTERS = 500_000
# To compare longer ones would take too long for a page.
MAX_LINES = 2000


class Line(NamedTuple):
    # `+`, `-`, or a space.
    sign: str
    text: str


def pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def difference(before: Any, after: Any) -> list[Line]:
    """The lines that are not the same, with some around them; none where they are equal."""
    if before == after:
        return []
    old, new = pretty(before).splitlines(), pretty(after).splitlines()
    if max(len(old), len(new)) > MAX_LINES:
        return [Line(" ", "They differ, and are too long to be compared here.")]
    found = [*difflib.unified_diff(old, new, n=2, lineterm="")][2:]
    return [Line(" ", "…") if line.startswith("@@") else Line(line[0], line[1:]) for line in found]


class JsonField(forms.CharField):
    """Text that is JSON; empty is null."""

    def __init__(self, **kwargs: Any) -> None:
        attributes = {"class": "ui-input ui-json", "rows": 12, "spellcheck": "false"}
        kwargs = {"required": False, "max_length": MAX_CHARACTERS, **kwargs}
        super().__init__(strip=False, widget=forms.Textarea(attrs=attributes), **kwargs)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text.strip():
            return None
        try:
            return parse_json(text.encode())
        except UnicodeEncodeError:
            raise ValidationError("Holds half a surrogate pair.") from None
        except InvalidInput as error:
            message = error.errors[0].message
            raise ValidationError(message.replace("The body", "The payload")) from None
