"""The words of this API that stand for one of ours, and how times and durations are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.models import Misfire, Needs, OnNodeFailure, Overlap, RunState, Status, Timing
from jobs.states import State, Trigger, WaitsFor

JOB_TYPES: Mapping[str, str] = {
    "HttpCall": "http",
    "StoredProcedure": "procedure",
    "CodeExecution": "python",
    "FileOperation": "files",
}
JOB_TYPE_NUMBERS = dict(enumerate(JOB_TYPES, 1))
TYPE_OF_KIND = {kind: word for word, kind in JOB_TYPES.items()}
# Kinds of work that have a word here; others are not shown.
KINDS = (*TYPE_OF_KIND,)

SCHEDULE_TYPES = {"Cron": Timing.CRON, "Interval": Timing.INTERVAL, "OneTime": Timing.ONCE}
TYPE_OF_TIMING = {timing: word for word, timing in SCHEDULE_TYPES.items()}
SCHEDULE_TYPE_NUMBERS = dict(enumerate(SCHEDULE_TYPES, 1))

# What is broken is wanted still; ``scheduleError`` says that it stands.
_ENABLED = (Status.ENABLED, Status.BROKEN)
STATUSES: Mapping[str, tuple[Status, ...]] = {
    "Enabled": _ENABLED,
    "Paused": (Status.PAUSED,),
    "Disabled": (Status.DISABLED,),
    "Completed": (Status.COMPLETED,),
    "Deleted": (Status.DELETED,),
}
WORD_OF_STATUS: Mapping[str, str] = {
    ours: word for word, group in STATUSES.items() for ours in group
}
# Words that lists may be asked for; the last one is of jobs whose last run failed.
FAILED = "Failed"
STATUS_FILTERS: Mapping[str, tuple[Status, ...]] = {**STATUSES, "Active": _ENABLED, FAILED: ()}

CURVES = {"Fixed": "fixed", "Linear": "linear", "Exponential": "exponential"}
CURVE_NUMBERS = dict(enumerate(CURVES, 1))
MISFIRES = {"Relaxed": Misfire.LATEST, "Strict": Misfire.ALL, "Ignorable": Misfire.SKIP}
OVERLAPS = {"Skip": Overlap.SKIP, "Queue": Overlap.QUEUE_ONE, "Allow": Overlap.ALLOW}
WORD_OF_MISFIRE: Mapping[str, str] = {ours: word for word, ours in MISFIRES.items()}
# What only the native API can ask for.
WORD_OF_OVERLAP: Mapping[str, str] = {
    **{ours: word for word, ours in OVERLAPS.items()},
    Overlap.REPLACE: "Replace",
}
CONDITIONS = {"AllSucceeded": Needs.ALL, "AnySucceeded": Needs.ANY}
WORD_OF_NEEDS: Mapping[str, str] = {ours: word for word, ours in CONDITIONS.items()}
ON_FAILURE = {"Stop": OnNodeFailure.STOP, "Continue": OnNodeFailure.CONTINUE}
WORD_OF_ON_FAILURE: Mapping[str, str] = {ours: word for word, ours in ON_FAILURE.items()}
# As .NET counts them.
DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

EXECUTION_STATUSES: Mapping[str, str] = {
    State.BLOCKED: "Pending",
    State.SCHEDULED: "Pending",
    State.READY: "Pending",
    State.RUNNING: "Running",
    State.WAITING: "Running",
    State.SUCCEEDED: "Succeeded",
    State.FAILED: "Failed",
    State.CANCELLED: "Cancelled",
    State.SKIPPED: "Cancelled",
}
TRIGGERS: Mapping[str, str] = {
    Trigger.SCHEDULE: "Schedule",
    Trigger.MANUAL: "Manual",
    Trigger.RETRY: "Retry",
    Trigger.WORKFLOW: "Workflow",
}
RUN_STATUSES: Mapping[str, str] = {
    RunState.RUNNING: "Running",
    RunState.SUCCEEDED: "Succeeded",
    RunState.FAILED: "Failed",
    RunState.CANCELLED: "Cancelled",
}
# A run that was held back until other schedules had succeeded.
DEPENDENCY = "Dependency"
HELD_BY_SCHEDULES = WaitsFor.SCHEDULES


def time_to_wire(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def duration_to_wire(duration: timedelta | None) -> str | None:
    """As .NET writes a TimeSpan: ``[d.]hh:mm:ss[.fffffff]``."""
    if duration is None:
        return None
    whole = max(duration, timedelta())
    hours, rest = divmod(whole.seconds, 3600)
    days = f"{whole.days}." if whole.days else ""
    fraction = f".{whole.microseconds * 10:07d}" if whole.microseconds else ""
    return f"{days}{hours:02d}:{rest // 60:02d}:{rest % 60:02d}{fraction}"


def number_to_wire(value: float | None) -> int | float | None:
    """Whole numbers without a point, as clients in typed languages expect them."""
    return int(value) if value is not None and float(value).is_integer() else value


def page_to_wire(items: list[Any], total: int, number: int, size: int) -> dict[str, Any]:
    pages = -(-total // size)
    return {
        "items": items,
        "totalCount": total,
        "pageNumber": number,
        "pageSize": size,
        "totalPages": pages,
        "hasPreviousPage": number > 1 and total > 0,
        "hasNextPage": number < pages,
    }
