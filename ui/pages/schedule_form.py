"""A new schedule, or another definition of one: previewed while it is written, then stored."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.binding import current_cluster
from jobs.api.grants import refuse_words_of_dialects
from jobs.api.schedule_forms import JOB_KINDS
from jobs.api.words import in_words_of_the_body
from jobs.engine import schedules, workflows
from jobs.engine.definition import describe
from jobs.engine.started_kinds import check_kinds
from jobs.errors import InvalidSchedule, JobError, OutdatedSchedule
from jobs.executors import kinds_started
from jobs.models import Calendar, Queue, Schedule, Workflow
from ui.answers import address, done, post_only, refused
from ui.callers import may_start, require, tell_refusal
from ui.pages.schedules import address_of, find, require_start_of, runs_told
from ui.schedule_form import ScheduleForm

SHOWN_RUNS = 5
# Names that the page suggests of each sort.
SUGGESTED = 200


def new(site: Any, request: HttpRequest) -> HttpResponse:
    principal = require(request, "schedules.create")
    form = ScheduleForm(request.POST if request.method == "POST" else None, None, _choices(request))
    if request.method == "POST":
        wanted = _wanted(request, form)
        if not form.errors:
            try:
                with in_words_of_the_body():
                    made = schedules.create(wanted, by=principal.actor)
            except JobError as error:
                tell_refusal(request, error)
                form.refuse(error.field, str(error))
            else:
                said = f"Schedule {made.name} is made."
                return done(request, said, address_of(request, made.pk))
    back = address(request, "schedules")
    return _page(site, request, form, title="New schedule", back=back)


def edit(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    principal = require(request, "schedules.change")
    schedule, back = _changeable(request, schedule_id), address_of(request, schedule_id)
    given = request.POST if request.method == "POST" else None
    form = ScheduleForm(given, schedule, _choices(request))
    if given is not None:
        wanted = _wanted(request, form)
        if not form.errors and not wanted:
            return done(request, "Nothing was changed.", back)
        if not form.errors:
            try:
                with in_words_of_the_body():
                    changed = schedules.change(
                        schedule_id, wanted, by=principal.actor, versions=_version(request)
                    )
            except OutdatedSchedule as error:
                return refused(
                    request, error, address(request, "schedule-edit", schedule_id=schedule_id)
                )
            except JobError as error:
                tell_refusal(request, error)
                form.refuse(error.field, str(error))
            else:
                return done(request, f"Schedule {changed.name} is changed. Nothing was run.", back)
    return _page(site, request, form, title="Edit a schedule", back=back)


@post_only
def preview(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "schedules.create")
    form = ScheduleForm(request.POST, None, _choices(request))
    return _previewed(request, form)


@post_only
def preview_edit(site: Any, request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    require(request, "schedules.change")
    form = ScheduleForm(request.POST, _changeable(request, schedule_id), _choices(request))
    return _previewed(request, form)


def _changeable(request: HttpRequest, schedule_id: UUID) -> Schedule:
    schedule = find(schedule_id)
    # Whoever writes a schedule says what is started; its kind may need a grant.
    require_start_of(request, schedule)
    return schedule


def _version(request: HttpRequest) -> list[int] | None:
    """The version that the form was filled in from; what is no number is nobody's."""
    given = request.POST.get("version")
    if given is None:
        return None
    return [int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0]


def _wanted(request: HttpRequest, form: ScheduleForm) -> dict[str, Any]:
    """The definition asked for, if he may start what it starts."""
    wanted = form.definition()
    if form.errors or not wanted:
        return wanted
    stored = form.schedule
    kind = wanted.get("kind") or (stored.kind if stored else "python")
    payload = wanted.get("payload", stored.payload if stored else None)
    workflow_id = wanted.get("workflow_id", stored.workflow_id if stored else None)
    started = [*kinds_started(kind, payload), *workflows.kinds_of(workflow_id)]
    require(request, "schedules.read")
    try:
        check_kinds(current_cluster().alias, started)
        if stored is None or stored.dialect_notes is None:
            refuse_words_of_dialects(kind, wanted.get("payload"))
    except JobError as error:
        if not form.is_draft:
            tell_refusal(request, error)
        inside = error.field == "kind" and kind not in (
            name for name in JOB_KINDS if may_start(request, name)
        )
        form.refuse("kind" if inside else "payload", str(error))
    return wanted


def _choices(request: HttpRequest) -> dict[str, tuple[tuple[str, str], ...]]:
    rows = Workflow.objects.all().kept().order_by("name").values_list("pk", "name")[:SUGGESTED]
    granted = [name for name in JOB_KINDS if may_start(request, name)]
    return {
        "kind": tuple((name, name) for name in granted),
        "workflow_id": (
            ("", "jobs"),
            *((str(pk), f"runs of the workflow {name}") for pk, name in rows),
        ),
    }


def _page(
    site: Any, request: HttpRequest, form: ScheduleForm, *, title: str, back: str
) -> HttpResponse:
    kept = form.schedule
    names = {} if kept is None else {"schedule_id": kept.pk}
    context = {
        **site.each_context(request),
        **_foreseen(form),
        "title": title,
        "subtitle": None,
        "form": form,
        "schedule": kept,
        "back": back,
        "preview_url": address(
            request, "schedule-preview" if kept is None else "schedule-edit-preview", **names
        ),
        "queues": Queue.objects.order_by("name").values_list("name", flat=True)[:SUGGESTED],
        "calendars": Calendar.objects.order_by("name").values_list("name", flat=True)[:SUGGESTED],
        "zones": _zones(),
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/schedule_form/page.html", context, status=status)


def _previewed(request: HttpRequest, form: ScheduleForm) -> HttpResponse:
    form.is_draft = True
    wanted = _wanted(request, form)
    context = {**_foreseen(form, wanted), "form": form, "schedule": form.schedule}
    return TemplateResponse(request, "ui/schedule_form/preview.html", context)


def _foreseen(form: ScheduleForm, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What will come if this is stored, beside what comes as it is."""
    kept = form.schedule
    before = [] if kept is None else _runs(kept)
    after, sentence = before, None if kept is None else describe(kept)
    if wanted is not None:
        after, sentence = _after(form, wanted)
    return {
        "sentence": sentence,
        "is_same": [run["at"] for run in before] == [run["at"] for run in after],
        "lines": [*zip_longest(before, after)],
    }


def _after(form: ScheduleForm, wanted: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    """The runs of what is written so far, and the sentence that tells of them."""
    kept = form.schedule
    try:
        with in_words_of_the_body():
            if not form.errors and not form.missing:
                schedule = schedules.foreseen(wanted, of=kept)
                return _runs(schedule), describe(schedule)
            if kept is None and "timing" in form.values:
                schedule, runs = schedules.preview(form.values, SHOWN_RUNS, is_draft=True)
                return runs_told(runs, schedule.timezone), describe(schedule)
    except JobError as error:
        if not form.errors:
            form.refuse(error.field, str(error))
    return [], None


def _runs(schedule: Schedule) -> list[dict[str, Any]]:
    try:
        return runs_told(schedules.next_runs(schedule, SHOWN_RUNS), schedule.timezone)
    except InvalidSchedule:
        return []


@lru_cache(maxsize=1)
def _zones() -> list[str]:
    return sorted(name for name in zoneinfo.available_timezones() if "/" in name or name == "UTC")


ROUTES = (
    ("schedules/new/", new, "schedule-new"),
    ("schedules/preview/", preview, "schedule-preview"),
    ("schedules/<uuid:schedule_id>/edit/", edit, "schedule-edit"),
    ("schedules/<uuid:schedule_id>/preview/", preview_edit, "schedule-edit-preview"),
)
