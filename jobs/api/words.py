"""Errors of the domain in the words of the request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import JobError


@contextmanager
def in_words_of_the_body(inside: str | None = None) -> Iterator[None]:
    """Call a field as the request calls it; ``inside``: the body is the value of this field."""
    try:
        yield
    except JobError as error:
        if error.field == "payload_bytes":
            error.field = "payload_base64"
        elif inside and error.field:
            error.field = error.field.removeprefix(f"{inside}.")
        raise
