"""Handlers with schedules beside them; named in YARDMASTER_HANDLERS by a test."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobs.registry import Context, job


@job("declared:big").every("0 4 * * *", payload="x" * 200_000)
def big(context: Context, payload: Any) -> None:
    """More than a message between the processes of a node may hold."""


@job("declared:small").every(timedelta(hours=1), name="declared:small, hourly")
def small(context: Context, payload: Any) -> None:
    pass
