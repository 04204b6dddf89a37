"""What people do to a schedule: stop it, start it, run it, and decide about single instants."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse

from jobs.engine import fires, missed, schedules
from jobs.errors import InvalidSchedule, JobError
from jobs.models import Fire, Misfire, Overlap, Schedule
from jobs.models.schedule import MAX_MISFIRES
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import require
from ui.deeds import deed
from ui.forms import PauseForm, ReasonForm
from ui.pages.schedules import address_of, find, require_start_of
from ui.words import number, utc

PAUSE = ("is_paused", "paused_by", "pause_reason", "resume_at")
# What becomes of a gap: the title, the button, and what is said of it.
DECISIONS = {
    Misfire.ALL: ("Run what was missed?", "Run all"),
    Misfire.LATEST: ("Run the latest of what was missed?", "Run the latest"),
    Misfire.SKIP: ("Leave out what was missed?", "Leave it out"),
}


def pause(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    """Ask why and for how long; then let it make no more runs."""
    require(request, "schedules.pause")
    schedule, back = find(schedule_id), address_of(request, schedule_id)
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
    schedule, back = find(schedule_id), address_of(request, schedule_id)
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
    schedule, back = find(schedule_id), address_of(request, schedule_id)
    require_start_of(request, schedule)
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


def skip_next(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    """Ask why; then leave out the next run and no other."""
    principal = require(request, "schedules.skip_next")
    schedule, back = find(schedule_id), address_of(request, schedule_id)
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        try:
            missed.skip_next(schedule_id, by=principal.actor, reason=form.cleaned_data["reason"])
        except JobError as error:
            return refused(request, error, back)
        return done(request, f"The next run of {schedule.name} is left out.", back)
    due = schedule.next_due_at
    when = f"That of {utc(due)} is" if due else "It is"
    return confirm(
        site,
        request,
        form,
        title="Skip the next run?",
        button="Skip the next run",
        effect=f"{when} left out, and the one after it is the next. Nothing else changes.",
        target=schedule.name,
        back=back,
    )


def run_missed(
    site: Any, request: HttpRequest, schedule_id: UUID, fire_id: UUID, which: str
) -> HttpResponse:
    """Ask why; then run what a gap has left out, or leave it out for good."""
    principal = require(request, "schedules.run_missed")
    schedule, back = find(schedule_id), address_of(request, schedule_id)
    if which not in Misfire.values:
        raise Http404
    gap = Fire.objects.filter(pk=fire_id, schedule_id=schedule_id).first()
    if gap is None:
        raise Http404
    require_start_of(request, schedule)
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            dealt = missed.run_missed(
                schedule_id, fire_id, which, by=principal.actor, reason=reason
            )
        except JobError as error:
            return refused(request, error, back)
        return done(request, _came_of(dealt), back)
    title, button = DECISIONS[Misfire(which)]
    return confirm(
        site,
        request,
        form,
        title=title,
        button=button,
        effect=_effect(schedule, gap, Misfire(which)),
        target=schedule.name,
        back=back,
    )


def _effect(schedule: Schedule, gap: Fire, which: Misfire) -> str:
    count = min(gap.count, MAX_MISFIRES)
    since = f"since {utc(gap.due_at)}" if gap.count > 1 else f"of {utc(gap.due_at)}"
    if which == Misfire.SKIP:
        return f"{number(gap.count)} {_runs(gap.count)} {since} will not be made up for."
    if which == Misfire.LATEST or gap.count == 1:
        return f"One run is made, for the last instant of {number(gap.count)} {since}."
    first = "All of them run" if gap.count <= count else f"The newest {number(count)} run"
    how = "at once" if schedule.overlap == Overlap.ALLOW else "one after the other, oldest first"
    return f"{number(gap.count)} {_runs(gap.count)} {since} were missed. {first}, {how}."


def _came_of(dealt: missed.Dealt) -> str:
    left = f" {number(dealt.left)} are missed as before." if dealt.left else ""
    if not dealt.runs:
        return "What was missed stays left out."
    return f"{number(dealt.runs)} {_runs(dealt.runs)} of what was missed: made.{left}"


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"


def _pause_of(schedule: Schedule) -> dict[str, Any]:
    return {column: getattr(schedule, column) for column in PAUSE}


ROUTES = (
    ("schedules/<uuid:schedule_id>/pause/", pause, "schedule-pause"),
    ("schedules/<uuid:schedule_id>/resume/", resume, "schedule-resume"),
    ("schedules/<uuid:schedule_id>/trigger/", trigger, "schedule-trigger"),
    ("schedules/<uuid:schedule_id>/skip-next/", skip_next, "schedule-skip-next"),
    (
        "schedules/<uuid:schedule_id>/missed/<uuid:fire_id>/<str:which>/",
        run_missed,
        "schedule-run-missed",
    ),
)
