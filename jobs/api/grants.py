"""What a request may say of what it starts: words that are not for everybody."""

from __future__ import annotations

from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.steps_definition import definitions_in
from jobs.step_words import STEPS

# What only dialects say of definitions of steps.
_OF_DIALECTS = ("create_queues", "dialect")


def refuse_words_of_dialects(kind: str | None, payload: Any) -> None:
    """These give more than a caller of our own API has: queues that are made on their first use."""
    if kind != STEPS:
        return
    for definition in definitions_in(payload):
        for key in _OF_DIALECTS:
            if key in definition:
                raise InvalidJob("only dialects say so", field=f"payload.{key}")
