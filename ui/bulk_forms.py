"""What a bulk operation is asked for with, besides its filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from jobs.errors import JobError
from jobs.models import BulkAction
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from ui.forms import DestroyForm, ReasonForm
from ui.words import span

_INPUT = {"class": "ui-input", "autocomplete": "off"}
SPREADS = (60, 600, 3600, 21600, 86400)


class _BulkForm(ReasonForm):
    field_order = ("queue", "priority", "spread_seconds", "reason", "cluster")
    # How many jobs it was about when it was looked at; the page writes the newest number.
    size = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)

    def __init__(self, *args: Any, given: Mapping[str, Any], cluster: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def arguments(self) -> dict[str, Any]:
        """In the words of the verb."""
        return {}

    def refuse(self, error: JobError) -> None:
        """Say beside its field why the verb would not."""
        name = (error.field or "").rpartition(".")[2]
        text = str(error)
        self.add_error(name if name in self.fields else None, text[:1].upper() + text[1:])


class RetryForm(_BulkForm):
    spread_seconds = forms.ChoiceField(
        required=False,
        label="Spread over",
        widget=forms.Select(attrs={"class": "ui-input"}),
        help_text="Each at a moment of its own within this time, so that they are no flood.",
    )

    def __init__(self, *args: Any, given: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, given=given, **kwargs)
        chosen = given.get("spread_seconds")
        field: Any = self.fields["spread_seconds"]
        lengths = sorted({*SPREADS, *([chosen] if chosen else [])})
        field.choices = [("", "no time: all at once"), *((str(n), span(n)) for n in lengths)]
        field.initial = str(chosen) if chosen else ""

    def arguments(self) -> dict[str, Any]:
        chosen: str = self.cleaned_data["spread_seconds"]
        return {"spread_seconds": int(chosen)} if chosen else {}


class MoveForm(_BulkForm):
    queue = forms.CharField(
        max_length=100,
        label="To queue",
        widget=forms.TextInput(attrs={**_INPUT, "list": "queue-names", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, given: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, given=given, **kwargs)
        self.fields["queue"].initial = given.get("queue")

    def arguments(self) -> dict[str, Any]:
        return {"queue": self.cleaned_data["queue"]}


class PriorityForm(_BulkForm):
    priority = forms.IntegerField(
        min_value=HIGHEST_PRIORITY,
        max_value=LOWEST_PRIORITY,
        widget=forms.NumberInput(attrs=_INPUT),
        help_text=f"{HIGHEST_PRIORITY} runs first, {LOWEST_PRIORITY} last.",
    )

    def __init__(self, *args: Any, given: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, given=given, **kwargs)
        self.fields["priority"].initial = given.get("priority")

    def arguments(self) -> dict[str, Any]:
        return {"priority": self.cleaned_data["priority"]}


class DeleteForm(_BulkForm, DestroyForm):
    """In production with the id of the cluster."""

    def __init__(self, *args: Any, given: Mapping[str, Any], cluster: Any, **kwargs: Any) -> None:
        DestroyForm.__init__(self, *args, cluster=cluster, **kwargs)


FORMS: Mapping[str, type[_BulkForm]] = {
    BulkAction.RETRY: RetryForm,
    BulkAction.RUN_NOW: _BulkForm,
    BulkAction.CANCEL: _BulkForm,
    BulkAction.MOVE: MoveForm,
    BulkAction.SET_PRIORITY: PriorityForm,
    BulkAction.DELETE: DeleteForm,
}
