"""The schedules of a cluster: what runs when, what came of it, and the way to stop or start it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse

from clusters.api.fields import Text
from clusters.api.paging import NEWEST_FIRST, PageQuery
from jobs.engine import fires, prerequisites, schedules, workflows
from jobs.errors import InvalidSchedule, JobError
from jobs.executors import kinds_started
from jobs.models import Fire, Schedule, Workflow
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.asking import Asked
from ui.callers import may, may_start, require
from ui.deeds import deed
from ui.forms import PauseForm
from ui.fragments import show

PAGE_SIZE = 50
SHOWN_RUNS, SHOWN_FIRES, SHOWN_NEEDED = 5, 20, 20
PAUSE = ("is_paused", "paused_by", "pause_reason", "resume_at")


class Query(PageQuery):
    name = Text(max_length=200, required=False, help_text="Of the schedule; its beginning.")


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "schedules.read")
    asked = Asked(request, Query)
    context = {
        **asked.page(request, _found, NEWEST_FIRST, PAGE_SIZE),
        "name": asked.given.get("name", ""),
        "is_filtered": "name" in asked.words,
        "may_create": may(request, "schedules.create"),
    }
    return show(site, request, "schedules", context, title="Schedules", status=asked.status)


def _found(words: Mapping[str, Any]) -> Any:
    kept = Schedule.objects.all().kept()
    return kept.filter(name__istartswith=words["name"]) if "name" in words else kept


def one(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    require(request, "schedules.read")
    schedule = _schedule(schedule_id)
    runs: list[Any] = []
    if schedule.error is None:
        try:
            runs = schedules.next_runs(schedule, SHOWN_RUNS)
        except InvalidSchedule:
            # Such as a zone that newer rules do not know any more; its row will say so soon.
            runs = []
    workflow = None
    if schedule.workflow_id is not None:
        workflow = Workflow.objects.filter(pk=schedule.workflow_id).first()
    context = {
        "schedule": schedule,
        "runs": runs,
        "workflow": workflow,
        "prerequisites": prerequisites.of(schedule)[:SHOWN_NEEDED],
        "needed": prerequisites.who_needs(str(schedule._state.db), schedule.pk),
        "fires": [*Fire.objects.filter(schedule_id=schedule.pk).order_by("-due_at")[:SHOWN_FIRES]],
        "may_pause": may(request, "schedules.pause"),
        "may_change": may(request, "schedules.change"),
        "may_trigger": may(request, "schedules.trigger") and _may_start(request, schedule),
    }
    return show(site, request, "schedule", context, title="Schedule")


def pause(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    """Ask why and for how long; then let it make no more runs."""
    require(request, "schedules.pause")
    schedule, back = _schedule(schedule_id), address(request, "schedule", schedule_id=schedule_id)
    form = PauseForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with deed(request, "schedules.pause", "schedule", schedule_id, reason=reason) as trace:
                trace.before = _pause_of(schedule)
                until = form.moment()
                paused = schedules.pause(schedule_id, by=trace.by.actor, reason=reason, until=until)
                trace.after = _pause_of(paused)
        except InvalidSchedule as error:
            form.add_error("until" if error.field == "until" else "reason", str(error))
        except JobError as error:
            return refused(request, error, back)
        else:
            return done(request, f"Schedule {schedule.name} is paused.", back)
    return confirm(
        site,
        request,
        form,
        title="Pause this schedule?",
        button="Pause the schedule",
        effect="It makes no more runs. What runs goes on; what comes due meanwhile is left out.",
        target=schedule.name,
        back=back,
    )


@post_only
def resume(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    require(request, "schedules.resume")
    schedule, back = _schedule(schedule_id), address(request, "schedule", schedule_id=schedule_id)
    try:
        with deed(request, "schedules.resume", "schedule", schedule_id) as trace:
            trace.before = _pause_of(schedule)
            trace.after = _pause_of(schedules.resume(schedule_id, by=trace.by.actor))
    except JobError as error:
        return refused(request, error, back)
    return done(request, f"Schedule {schedule.name} goes on.", back)


@post_only
def trigger(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    require(request, "schedules.trigger")
    schedule, back = _schedule(schedule_id), address(request, "schedule", schedule_id=schedule_id)
    if not _may_start(request, schedule):
        raise PermissionDenied
    try:
        with deed(request, "schedules.trigger", "schedule", schedule_id) as trace:
            made = fires.trigger(schedule_id, by=trace.by.actor)
            trace.after = {"job_id": made.job_id, "workflow_run_id": made.workflow_run_id}
    except JobError as error:
        return refused(request, error, back)
    to = back
    if made.job_id is not None:
        to = address(request, "job", job_id=made.job_id)
    elif made.workflow_run_id is not None:
        names = {"workflow_id": schedule.workflow_id, "run_id": made.workflow_run_id}
        to = address(request, "workflow-run", **names)
    return done(request, f"{schedule.name} runs now; its next run stays where it is.", to)


def _may_start(request: HttpRequest, schedule: Schedule) -> bool:
    started = kinds_started(schedule.kind, schedule.payload)
    return may_start(request, *started, *workflows.kinds_of(schedule.workflow_id))


def _schedule(schedule_id: UUID) -> Schedule:
    found = Schedule.objects.all().kept().filter(pk=schedule_id).first()
    if found is None:
        raise Http404
    return found


def _pause_of(schedule: Schedule) -> dict[str, Any]:
    return {column: getattr(schedule, column) for column in PAUSE}


ROUTES = (
    ("schedules/", page, "schedules"),
    ("schedules/<uuid:schedule_id>/", one, "schedule"),
    ("schedules/<uuid:schedule_id>/pause/", pause, "schedule-pause"),
    ("schedules/<uuid:schedule_id>/resume/", resume, "schedule-resume"),
    ("schedules/<uuid:schedule_id>/trigger/", trigger, "schedule-trigger"),
)
