"""Queues on a cluster's site: their policies. Jobs, attempts and logs have pages of their own."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest

from jobs.errors import JobError
from jobs.models import Queue
from jobs.models.queue import DEFAULT_QUEUE
from jobs.models.queue_policies import POLICIES, check_policies, check_together
from ui.admin import ClusterAdmin


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


def register(site: Any) -> None:
    """Put what a cluster's people configure on its site."""
    site.register(Queue, QueueAdmin)
