"""Queues and schedules on a cluster's site: what people set.

Jobs, attempts and logs have pages of their own and are not registered here: a changelist counts.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import router, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from jobs.engine import calendars, schedules
from jobs.engine.prerequisites import who_needs
from jobs.errors import JobError
from jobs.models import Calendar, Queue, Schedule, Source
from jobs.models.queue import DEFAULT_QUEUE
from jobs.models.queue_policies import POLICIES, check_policies, check_together
from jobs.secrets import shown_payload
from ui import theme
from ui.admin import ClusterAdmin
from ui.answers import address
from ui.callers import require

# Of a schedule, what the trace of its deletion keeps.
AUDITED = (
    *("name", "description", "is_enabled", "kind", "type", "queue", "payload", "tags"),
    *("timing", "expression", "interval_seconds", "run_at", "timezone", "misfire", "overlap"),
)
# Schedules that a calendar's form names.
SHOWN_USERS = 20


class QueueForm(forms.ModelForm):  # type: ignore[type-arg]
    """The policies by the table that the API and the command have; the verb itself has the last word."""

    class Meta:
        model = Queue
        fields = ("name", *POLICIES)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, policy in POLICIES.items():
            if (field := self.fields.get(name)) is None:
                continue
            field.help_text = policy.about.replace("null:", "empty:").replace("`", "")
            field.required = not policy.is_nullable and policy.kind not in (bool, str)

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        self._check(values)
        return values

    def _check(self, values: dict[str, Any]) -> None:
        """What the verb would refuse, said at its field."""
        asked = {name: values[name] for name in POLICIES if name in values}
        try:
            check_policies(asked)
            if not self.errors:
                check_together(asked, {**self.instance.policies(), **asked})
        except JobError as error:
            self.add_error(error.field if error.field in self.fields else None, str(error))

    def _post_clean(self) -> None:
        # The row is written by the verb: nothing is put on the instance here.
        pass


class QueueAdmin(ClusterAdmin):
    form = QueueForm
    verbs = {
        "view": "queues.read",
        "add": "queues.create",
        "change": "queues.change",
        "delete": "queues.delete",
    }
    audit_type = "queue"
    audit_key = "name"
    list_display = (
        "name",
        "description",
        "is_paused",
        "max_concurrency",
        "rate_limit",
        "max_entries",
    )
    search_fields = ("name",)
    ordering = ("name",)
    actions = None
    fieldsets = (
        (None, {"fields": ("name", "description")}),
        (
            "How fast",
            {"fields": ("max_concurrency", "rate_limit", "rate_period_seconds")},
        ),
        (
            "How much",
            {"fields": ("max_entries", "overflow", "max_age_seconds")},
        ),
        (
            "For jobs that do not say",
            {
                "fields": (
                    "default_priority",
                    "default_timeout_seconds",
                    "default_max_attempts",
                    "is_backoff_enabled",
                    "retry_base_seconds",
                    "retry_cap_seconds",
                )
            },
        ),
        ("Kept for", {"fields": ("retain_succeeded_seconds", "retain_failed_seconds")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("name",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_kept = obj is not None and obj.name == DEFAULT_QUEUE
        return not is_kept and super().has_delete_permission(request, obj)

    def audited(self, obj: Any) -> dict[str, Any]:
        return {"name": obj.name, **obj.policies()}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        policies = {name: form.cleaned_data[name] for name in POLICIES if name in form.cleaned_data}
        queues: Any = Queue.objects.all()
        if change:
            obj.audited_before = self.audited(queues.get(pk=obj.pk))
            queues.filter(pk=obj.pk).change(**policies)
        else:
            made = queues.create_queue(form.cleaned_data["name"], **policies)
            obj.pk, obj._state.adding, obj._state.db = made.pk, False, made._state.db
        obj.refresh_from_db()

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        obj.delete_unused()


class ScheduleAdmin(ClusterAdmin):
    """Its history, and its deletion. Pages of our own show and write schedules."""

    verbs = {"view": "schedules.read", "delete": "schedules.delete"}
    audit_type = "schedule"
    deletion_effect = (
        "It runs no more and leaves the lists; its runs and fires stay, and the API can restore it."
    )
    actions = None

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(deleted_at=None)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(address(request, "schedules"))

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> Any:
        schedule = self.get_object(request, object_id)
        if schedule is None:
            raise Http404
        return HttpResponseRedirect(address(request, "schedule", schedule_id=schedule.pk))

    def audited(self, obj: Any) -> dict[str, Any]:
        shown = {name: getattr(obj, name) for name in AUDITED}
        shown["payload"] = shown_payload(obj.kind, obj.payload)
        return shown | {"run_at": obj.run_at and obj.run_at.isoformat()}

    def effect_of_deletion(self, obj: Any) -> str:
        needed = who_needs(obj._state.db, obj.pk)
        who = [f"schedule {name!r}" for name in needed.schedules]
        who += [f"workflow {name!r}" for name in needed.workflows]
        told = f" Needed by {', '.join(who)}, which will wait in vain." if who else ""
        if obj.source == Source.CODE:
            told += " It stands in code: a node that declares it brings it back."
        return f"{self.deletion_effect}{told}"

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        schedules.delete(obj.pk, by=require(request, self.verbs["delete"]).actor)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        # It is marked as deleted; its fires and jobs stay.
        return [str(obj) for obj in objs], {"schedule": len(objs)}, set(), []


class CalendarForm(forms.ModelForm):  # type: ignore[type-arg]
    """Dates as people write them, one in each line."""

    dates = forms.CharField(
        required=False,
        widget=theme.UnfoldAdminTextareaWidget,
        help_text="One in each line, such as 2026-12-25. Schedules that name it do not run then.",
    )

    class Meta:
        model = Calendar
        fields = ("name", "description", "dates")

    # Set by the admin for the request.
    actor = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["dates"] = "\n".join(self.instance.dates)

    def clean_dates(self) -> list[str]:
        return str(self.cleaned_data["dates"]).replace(",", " ").split()

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if not self.errors:
            self._try(values)
        return values

    def _try(self, values: dict[str, Any]) -> None:
        """Do what saving will do, and take it back: what the verb refuses is said at its field."""
        using = router.db_for_write(Calendar)
        try:
            with transaction.atomic(using=using):
                write_calendar(self.instance, values, by=self.actor)
                transaction.set_rollback(True, using=using)
        except JobError as error:
            field = (error.field or "").partition("[")[0]
            self.add_error(field if field in self.fields else None, str(error))

    def _post_clean(self) -> None:
        # The row is written by the verb: nothing is put on the instance here.
        pass


def write_calendar(instance: Calendar, values: dict[str, Any], *, by: str) -> Calendar:
    """Make or change a calendar by what a form says."""
    said = {name: values[name] for name in ("dates", "description")}
    if instance._state.adding:
        return calendars.create(values["name"], by=by, **said)
    return calendars.change(instance.name, by=by, **said)


class CalendarAdmin(ClusterAdmin):
    form = CalendarForm
    verbs = {
        "view": "calendars.read",
        "add": "calendars.create",
        "change": "calendars.change",
        "delete": "calendars.delete",
    }
    audit_type = "calendar"
    audit_key = "name"
    deletion_effect = "It is gone for good. One that schedules name is kept."
    list_display = ("name", "description", "how_many", "updated_by", "updated_at")
    search_fields = ("name",)
    ordering = ("name",)
    actions = None
    fieldsets = ((None, {"fields": ("name", "description", "dates", "used_by")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("used_by",) if obj is None else ("used_by", "name")

    @admin.display(description="Dates")
    def how_many(self, obj: Any) -> int:
        return len(obj.dates)

    @admin.display(description="Named by")
    def used_by(self, obj: Any) -> str:
        if obj is None or obj._state.adding:
            return "no schedule"
        users = [name for _, name in calendars.users_of(obj._state.db, obj.name)]
        more = f" and {len(users) - SHOWN_USERS} more" if len(users) > SHOWN_USERS else ""
        return ", ".join(users[:SHOWN_USERS]) + more or "no schedule"

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        form = super().get_form(request, *args, **kwargs)
        form.actor = require(request, self.verbs["view"]).actor
        return form

    def audited(self, obj: Any) -> dict[str, Any]:
        return {"name": obj.name, "description": obj.description, "dates": obj.dates}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            obj.audited_before = self.audited(obj)
        made = write_calendar(obj, form.cleaned_data, by=form.actor)
        obj.pk, obj._state.adding, obj._state.db = made.pk, False, made._state.db
        obj.refresh_from_db()

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        calendars.delete(obj.name)


def register(site: Any) -> None:
    """Put what a cluster's people configure on its site."""
    site.register(Queue, QueueAdmin)
    site.register(Schedule, ScheduleAdmin)
    site.register(Calendar, CalendarAdmin)
