"""The schedules of a cluster: what runs when, and what did not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Exists, OuterRef
from django.db.models.functions import Lower
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import serializers

from clusters.api.fields import QueryNumber, Text
from clusters.api.paging import Order
from clusters.binding import current_cluster
from clusters.models import AuditEntry
from jobs import timing
from jobs.api.schedule_forms import ScheduleListQuery
from jobs.api.schedules import ORDERS, listed
from jobs.engine import prerequisites, schedules, workflows
from jobs.engine.clock import database_now
from jobs.engine.definition import describe
from jobs.errors import InvalidSchedule
from jobs.executors import kinds_started
from jobs.models import Fire, FireState, Schedule, Status, Workflow
from jobs.models.schedule import LATE_AFTER
from jobs.states import State
from jobs.timing import Occurrence
from ui import charts, words
from ui.answers import address
from ui.asking import Asked
from ui.callers import may, may_start, require, require_start
from ui.fragments import show

PAGE_SIZE = 50
SHOWN_RUNS, MOST_RUNS = 5, 20
SHOWN_FIRES, SHOWN_GAPS, SHOWN_NEEDED, SHOWN_DEEDS = 20, 10, 20, 10
# The word in the list of marks for the state of what a fire made.
_MARKED = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.RUNNING: "running",
    State.CANCELLED: "left out",
    State.SKIPPED: "left out",
}
LEGEND = [(word, charts.marks([word], 1)) for word in charts.MARKS]
# What the form above the list asks for.
FIELDS = ("search", "queue", "type", "tag", "order")
TABS = (
    ("all", ""),
    ("late", "late=true"),
    ("missed runs", "missed=true"),
    ("failing", "failing=true"),
    ("paused", "state=paused"),
    ("broken", "state=broken"),
    ("disabled", "state=disabled"),
)


class Query(ScheduleListQuery):
    name = Text(max_length=200, required=False, help_text="Of the schedule; its beginning.")


class RunsQuery(serializers.Serializer[Any]):
    runs = QueryNumber(
        min_value=1, max_value=MOST_RUNS, required=False, help_text="Of those to come."
    )


# -- The list --------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "schedules.read")
    asked = Asked(request, Query)
    order = asked.words.get("order", "name")
    turned = asked.page(request, _found, _order(order), PAGE_SIZE)
    context = {
        **turned,
        "rows": _told(turned["rows"]),
        "fields": {name: asked.given.get(name, "") for name in FIELDS},
        "others": [pair for pair in asked.given.items() if pair[0] not in (*FIELDS, "cursor")],
        "legend": LEGEND,
        "order": order,
        "tabs": _tabs(request, asked),
        "is_filtered": bool(asked.words.keys() - {"order", "limit", "cursor"}),
        "may_create": may(request, "schedules.create"),
        "pager": ("Newer", "Older") if order == "created_at" else ("Before", "After"),
    }
    return show(site, request, "schedules", context, title="Schedules", status=asked.status)


def _order(name: str) -> Order:
    return ORDERS[name]


def _found(asked: Mapping[str, Any]) -> Any:
    rows = listed(dict(asked))
    order = asked.get("order", "name")
    if "name" in asked:
        rows = rows.filter(name__istartswith=asked["name"])
    if order == "name":
        rows = rows.annotate(name_key=Lower("name"))
    elif order == "next_run_at":
        rows = rows.filter(next_run_at__isnull=False)
    gaps = Fire.objects.all().missed().filter(schedule_id=OuterRef("pk"))
    return rows.annotate(has_gaps=Exists(gaps)).defer("payload", "payload_bytes", "metadata")


def _told(rows: Iterable[Schedule]) -> list[dict[str, Any]]:
    """What a line of the list tells of each."""
    shown = [*rows]
    using = current_cluster().alias
    fires = Fire.objects.using(using).all().latest_of([one.pk for one in shown], SHOWN_FIRES)
    on_time = database_now(connections[using]) - LATE_AFTER
    return [
        {
            "one": one,
            "sentence": describe(one),
            "marks": charts.marks([_mark(fire) for fire in fires[one.pk]], SHOWN_FIRES),
            "is_late": one.next_run_at is not None and one.next_run_at < on_time,
        }
        for one in shown
    ]


def _mark(fire: Fire) -> str:
    if fire.state != FireState.FIRED:
        return "missed" if fire.state == FireState.MISSED else "left out"
    outcome: str | None = fire.outcome  # type: ignore[attr-defined]  # read with it
    return "ran" if outcome is None else _MARKED.get(State(outcome), "waiting")


def _tabs(request: HttpRequest, asked: Asked) -> list[dict[str, Any]]:
    given = {
        name: value for name, value in asked.given.items() if name in ("late", "missed", "failing")
    }
    if "state" in asked.given:
        given["state"] = asked.given["state"]
    active = "&".join(f"{name}={value}" for name, value in given.items())
    return [
        {
            "name": name,
            "url": f"{request.path}?{query}" if query else request.path,
            "is_active": query == active,
        }
        for name, query in TABS
    ]


# -- One of them -----------------------------------------------------------------------------------


def one(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    require(request, "schedules.read")
    schedule = find(schedule_id)
    asked = Asked(request, RunsQuery)
    using = str(schedule._state.db)
    workflow = None
    if schedule.workflow_id is not None:
        workflow = Workflow.objects.filter(pk=schedule.workflow_id).first()
    runs = _next_runs(schedule, asked.words.get("runs", SHOWN_RUNS))
    fires = Fire.objects.all().latest_of([schedule.pk], SHOWN_FIRES)[schedule.pk]
    gaps = Fire.objects.all().missed().filter(schedule_id=schedule.pk).order_by("-due_at")
    # Asked once: it reads the schedules of a workflow.
    may_start_it = may_start(request, *_started_by(schedule))
    may_run = may(request, "schedules.trigger") and may_start_it
    is_enabled = schedule.status == Status.ENABLED
    context = {
        "schedule": schedule,
        "sentence": describe(schedule),
        "errors": asked.errors,
        "runs": runs,
        "next_run": next((run["at"] for run in runs if not run["excluded"]), None),
        "most_runs": MOST_RUNS,
        "late_since": _late_since(schedule, using),
        "workflow": workflow,
        "prerequisites": prerequisites.of(schedule)[:SHOWN_NEEDED],
        "needed": prerequisites.who_needs(using, schedule.pk),
        "fires": [_fire_told(fire) for fire in reversed(fires)],
        "marks": charts.marks([_mark(fire) for fire in fires], SHOWN_FIRES),
        "gaps": [*gaps[:SHOWN_GAPS]],
        "deeds": _deeds(request, schedule),
        "may_pause": may(request, "schedules.pause"),
        "may_change": may(request, "schedules.change") and may_start_it,
        "may_delete": may(request, "schedules.delete"),
        "may_skip": is_enabled and may(request, "schedules.skip_next"),
        "may_trigger": may_run,
        "may_run_missed": may_run and may(request, "schedules.run_missed"),
    }
    return show(site, request, "schedule", context, title="Schedule", status=asked.status)


def _next_runs(schedule: Schedule, count: int) -> list[dict[str, Any]]:
    if schedule.error is not None:
        return []
    try:
        return runs_told(schedules.next_runs(schedule, count), schedule.timezone)
    except InvalidSchedule:
        # Such as a zone that newer rules do not know any more; its row will say so soon.
        return []


def runs_told(runs: Iterable[Occurrence], zone: str) -> list[dict[str, Any]]:
    """Runs to come as a page shows them."""
    return [
        {
            "at": run.instant,
            "local": run.local,
            "excluded": run.excluded,
            "change": _clock_change(run, zone),
        }
        for run in runs
    ]


def _clock_change(run: Occurrence, zone: str) -> str | None:
    change = timing.clock_change(run.instant, zone) if run.is_on_clock_change else None
    return None if change is None else words.clock_change(change)


def _late_since(schedule: Schedule, using: str) -> Any:
    """When the run was due that nobody has started in time."""
    due = schedule.next_run_at
    if due is None or due >= database_now(connections[using]) - LATE_AFTER:
        return None
    return due


def _fire_told(fire: Fire) -> dict[str, Any]:
    late = (fire.fired_at - fire.due_at).total_seconds()
    is_late = fire.state == FireState.FIRED and late > LATE_AFTER.total_seconds()
    return {
        "fire": fire,
        "state": fire.outcome or fire.state,  # type: ignore[attr-defined]  # read with it
        "late_seconds": late if is_late else None,
    }


def _deeds(request: HttpRequest, schedule: Schedule) -> list[AuditEntry]:
    if not may(request, "audit.read"):
        return []
    return [*AuditEntry.objects.all().about("schedule", str(schedule.pk))[:SHOWN_DEEDS]]


# -- What the other pages of schedules share -------------------------------------------------------


def require_start_of(request: HttpRequest, schedule: Schedule) -> None:
    """Refuse the caller, if he may not start what it starts."""
    require_start(request, *_started_by(schedule))


def _started_by(schedule: Schedule) -> list[str]:
    started = kinds_started(schedule.kind, schedule.payload)
    return [*started, *workflows.kinds_of(schedule.workflow_id)]


def find(schedule_id: UUID) -> Schedule:
    found = Schedule.objects.all().kept().filter(pk=schedule_id).first()
    if found is None:
        raise Http404
    return found


def address_of(request: HttpRequest, schedule_id: UUID) -> str:
    return address(request, "schedule", schedule_id=schedule_id)


ROUTES = (
    ("schedules/", page, "schedules"),
    ("schedules/<uuid:schedule_id>/", one, "schedule"),
)
