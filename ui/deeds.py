"""A deed on the screen: the right to it is checked again, and it leaves its trace in its transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.http import HttpRequest

from clusters.deeds import Trace, traced
from ui.callers import require


@contextmanager
def deed(
    request: HttpRequest, verb: str, target_type: str, target_id: Any, *, reason: str = ""
) -> Iterator[Trace]:
    """Do something to a thing of the bound cluster: with its trace, or not at all."""
    principal = require(request, verb)
    with traced(verb, target_type, target_id, reason=reason) as trace:
        trace.by = principal
        yield trace
