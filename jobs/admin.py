"""Queues and schedules on a cluster's site: what people set.

Jobs, attempts and logs have pages of their own and are not registered here: a changelist counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.db import router, transaction
from django.http import HttpRequest

from jobs.engine import calendars, schedules
from jobs.engine.prerequisites import who_needs
from jobs.engine.workflows import kinds_of
from jobs.errors import JobError
from jobs.executors import KINDS, kinds_started
from jobs.models import Calendar, Queue, Schedule, Source
from jobs.models.queue import DEFAULT_QUEUE
from jobs.models.queue_policies import POLICIES, check_policies, check_together
from jobs.secrets import meant_payload, shown_payload
from ui import theme
from ui.admin import ClusterAdmin
from ui.callers import may_start, require

# Of a schedule, what its form has.
SCHEDULE_FIELDS = (
    *("name", "description", "is_enabled", "kind", "type", "queue", "payload", "tags"),
    *("timing", "expression", "interval_seconds", "run_at", "timezone", "misfire", "overlap"),
)
SCHEDULE_HELP = {
    "type": "The handler's name; for kinds other than python a label.",
    "payload": "Any JSON value.",
    "tags": "A JSON list of texts.",
    "expression": "Of a cron timing: five fields, names, L, # or @daily.",
    "interval_seconds": "Of an interval.",
    "run_at": "Of a single run, in UTC.",
    "timezone": "In which a cron expression is meant, such as Europe/Berlin.",
    "misfire": "What becomes of instants that nobody was there for.",
    "overlap": "What happens when a run is due and the one before has not ended.",
}


# Schedules that a calendar's form names.
SHOWN_USERS = 20
# What is to be known of schedules whose definition is kept elsewhere.
WHERE_KEPT: Mapping[str, str] = {
    Source.CODE: "Declared in code, beside its handler. Change it there; here it is enabled or disabled.",
    Source.FILE: "From a file of definitions. The next apply of it overwrites what is changed here.",
}


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


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    """What most schedules say; all the rest is in the API and stays as it is."""

    class Meta:
        model = Schedule
        fields = SCHEDULE_FIELDS

    # Set by the admin for the request: who asks, and kinds that need a grant he does not have.
    actor = ""
    barred: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("expression", "interval_seconds", "run_at", "payload", "type", "tags"):
            if name in self.fields:
                self.fields[name].required = False
        for name, text in SCHEDULE_HELP.items():
            if name in self.fields:
                self.fields[name].help_text = text
        if "payload" in self.fields and not self.instance._state.adding:
            stored = self.instance
            self.initial["payload"] = shown_payload(stored.kind, stored.payload)

    def clean_payload(self) -> Any:
        """What was shown as a mask and comes back as one is what is stored."""
        kind = self.cleaned_data.get("kind", self.instance.kind)
        return meant_payload(kind, self.cleaned_data["payload"], self.instance.payload)

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if "tags" in values:
            tags = values["tags"] = values["tags"] or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                self.add_error("tags", "Must be a list of texts.")
        if "payload" in values:
            kind = values.get("kind", self.instance.kind)
            for name in sorted(self.barred.intersection(kinds_started(kind, values["payload"]))):
                self.add_error("payload", f"Jobs of kind {name!r} need a grant of their own.")
        if not self.errors:
            self._try(values)
        return values

    def _try(self, values: dict[str, Any]) -> None:
        """Do what saving will do, and take it back: what the verb refuses is said at its field."""
        try:
            with transaction.atomic(using=router.db_for_write(Schedule)):
                write_schedule(self.instance, values, by=self.actor)
                transaction.set_rollback(True, using=router.db_for_write(Schedule))
        except JobError as error:
            self.add_error(error.field if error.field in self.fields else None, str(error))

    def _post_clean(self) -> None:
        # The row is written by the verb: nothing is put on the instance here.
        pass


def write_schedule(instance: Schedule, values: dict[str, Any], *, by: str) -> Schedule:
    """Make or change a schedule by what a form says."""
    named = {name: values[name] for name in SCHEDULE_FIELDS if name in values}
    # Only what differs: a field that is left alone does not move the next run.
    if instance._state.adding:
        return schedules.create(named, by=by)
    changed = {name: value for name, value in named.items() if getattr(instance, name) != value}
    return schedules.change(instance.pk, changed, by=by)


class ScheduleAdmin(ClusterAdmin):
    form = ScheduleForm
    verbs = {
        "view": "schedules.read",
        "add": "schedules.create",
        "change": "schedules.change",
        "delete": "schedules.delete",
    }
    audit_type = "schedule"
    deletion_effect = (
        "It runs no more and leaves the lists; its runs and fires stay, and the API can restore it."
    )
    list_display = ("name", "type", "timing", "next_run_at", "is_paused", "is_enabled")
    search_fields = ("name",)
    ordering = ("-created_at", "-id")
    actions = None
    # Of one that starts a workflow the latter says what is done.
    readonly_fields = ("starts", "masked_payload")
    fieldsets = (
        (None, {"fields": ("name", "description", "is_enabled")}),
        ("What", {"fields": ("kind", "type", "queue", "payload", "tags")}),
        ("When", {"fields": ("timing", "expression", "interval_seconds", "run_at", "timezone")}),
        ("How", {"fields": ("misfire", "overlap")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(deleted_at=None)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        (_, first), (title, what), *rest = self.fieldsets
        about: dict[str, Any] = {**first}
        work: tuple[str, ...] = what["fields"]
        if obj is not None and obj.source in WHERE_KEPT:
            about["description"] = WHERE_KEPT[obj.source]
        if obj is not None and obj.workflow_id is not None:
            work = ("starts",)
        elif obj is not None and not self._is_written(request, obj):
            work = tuple("masked_payload" if name == "payload" else name for name in work)
        return [(None, about), (title, {"fields": work}), *rest]

    def _is_written(self, request: HttpRequest, obj: Any) -> bool:
        """Whether its definition may be changed here, not only read."""
        return obj.source != Source.CODE and self.has_change_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None or obj.source != Source.CODE:
            return self.readonly_fields
        # Nodes would put everything else back.
        kept = (name for name in SCHEDULE_FIELDS if name != "is_enabled")
        return (*self.readonly_fields, *kept)

    @admin.display(description="Workflow")
    def starts(self, obj: Any) -> str:
        return str(obj.workflow)

    @admin.display(description="Payload")
    def masked_payload(self, obj: Any) -> str:
        return json.dumps(shown_payload(obj.kind, obj.payload), ensure_ascii=False)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        form = super().get_form(request, *args, **kwargs)
        form.actor = require(request, self.verbs["view"]).actor
        form.barred = frozenset(name for name in KINDS if not may_start(request, name))
        return form

    def formfield_for_dbfield(self, field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        made = super().formfield_for_dbfield(field, request, **kwargs)
        if field.name == "kind":
            granted = [name for name in sorted(KINDS) if may_start(request, name)]
            made = forms.ChoiceField(
                choices=[(name, name) for name in granted],
                initial="python",
                widget=theme.UnfoldAdminSelectWidget,
            )
        return made

    def audited(self, obj: Any) -> dict[str, Any]:
        shown = {name: getattr(obj, name) for name in SCHEDULE_FIELDS}
        shown["payload"] = shown_payload(obj.kind, obj.payload)
        return shown | {"run_at": obj.run_at and obj.run_at.isoformat()}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Whoever writes a schedule says what is started; its kind may need a grant.
        started = [] if obj is None else kinds_started(obj.kind, obj.payload)
        is_granted = obj is None or may_start(request, *started, *kinds_of(obj.workflow_id))
        return is_granted and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            obj.audited_before = self.audited(obj)
        made = write_schedule(obj, form.cleaned_data, by=form.actor)
        obj.pk, obj._state.adding, obj._state.db = made.pk, False, made._state.db
        obj.refresh_from_db()

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
