"""What people write about one job, checked field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms

from config.problems import InvalidInput
from jobs.errors import JobError
from jobs.models import Job
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.secrets import shown_payload
from ui.payloads import JsonField, pretty

_INPUT = {"class": "ui-input", "autocomplete": "off", "spellcheck": "false"}


class WorkForm(forms.Form):
    """The queue, the priority and the payload of a job, filled in as they are."""

    queue = forms.CharField(
        max_length=100, widget=forms.TextInput(attrs={**_INPUT, "list": "queue-names"})
    )
    priority = forms.IntegerField(
        min_value=HIGHEST_PRIORITY,
        max_value=LOWEST_PRIORITY,
        widget=forms.NumberInput(attrs=_INPUT),
        help_text=f"{HIGHEST_PRIORITY} runs first, {LOWEST_PRIORITY} last.",
    )
    payload = JsonField()

    def __init__(self, *args: Any, job: Job, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.job = job
        self.shown = shown_payload(job.kind, job.payload)
        self.fields["queue"].initial = job.queue
        self.fields["priority"].initial = job.priority
        if job.payload_bytes is not None:
            # Bytes are no text to be written in.
            del self.fields["payload"]
        else:
            self.fields["payload"].initial = pretty(self.shown)

    def changes(self) -> dict[str, Any]:
        """Only what is to be different."""
        was = {"queue": self.job.queue, "priority": self.job.priority, "payload": self.shown}
        return {
            name: self.cleaned_data[name]
            for name in was
            if name in self.fields and not _is_same(self.cleaned_data[name], was[name])
        }

    def refuse(self, error: JobError) -> None:
        """Say beside its field why the verb would not."""
        name = (error.field or "").partition(".")[0].partition("[")[0]
        text = str(error)
        said = text[:1].upper() + text[1:]
        if name in self.fields and error.field != name:
            said = f"{error.field}: {text}"
        self.add_error(name if name in self.fields else None, said)


class CopyForm(WorkForm):
    """Of a copy."""


class ChangeForm(WorkForm):
    """Of a job that has not started, as long as it is what was seen."""

    version = forms.CharField(max_length=64, widget=forms.HiddenInput)


def _is_same(one: Any, other: Any) -> bool:
    """Also in their types: 1 is not true."""
    return bool(one == other) and pretty(one) == pretty(other)


class NewJobForm(forms.Form):
    """A new job in the words of the API, whose own form checks what stands in them."""

    kind = forms.ChoiceField(widget=forms.Select(attrs={"class": "ui-input"}))
    type = forms.CharField(
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs={**_INPUT, "list": "type-names"}),
        help_text="The handler's name; of other kinds a label.",
    )
    queue = forms.CharField(
        max_length=100,
        required=False,
        initial="default",
        widget=forms.TextInput(attrs={**_INPUT, "list": "queue-names"}),
    )
    priority = forms.IntegerField(
        required=False,
        widget=forms.NumberInput(attrs=_INPUT),
        help_text=f"{HIGHEST_PRIORITY} runs first, {LOWEST_PRIORITY} last; empty: as the queue says.",
    )
    payload = JsonField(help_text="Any JSON value; empty is null.")
    run_at = forms.DateTimeField(
        required=False,
        label="Run at (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "class": "ui-input"}),
        help_text="Not before this moment; empty: at once.",
    )
    unique_key = forms.CharField(
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs=_INPUT),
        help_text="Of all jobs that have not ended only one has it.",
    )
    tags = forms.CharField(
        max_length=2000,
        required=False,
        widget=forms.TextInput(attrs=_INPUT),
        help_text="With commas between them.",
    )

    def __init__(self, *args: Any, kinds: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["kind"]
        field.choices = [(kind, kind) for kind in kinds]
        field.initial = "python"

    def words(self) -> dict[str, Any]:
        """What was filled in, as the body of a request."""
        values = {
            name: value for name, value in self.cleaned_data.items() if value not in ("", None)
        }
        if "run_at" in values:
            values["run_at"] = values["run_at"].isoformat()
        if "tags" in values:
            values["tags"] = [tag for tag in map(str.strip, values["tags"].split(",")) if tag]
        return values

    def refuse_all(self, error: InvalidInput) -> None:
        for one in error.errors:
            self._refuse(one.field, one.message)

    def refuse(self, error: JobError) -> None:
        """Say beside its field why the verb would not."""
        self._refuse(error.field or "", str(error))

    def _refuse(self, path: str, message: str) -> None:
        name = path.partition(".")[0].partition("[")[0]
        said = message[:1].upper() + message[1:]
        if name not in self.fields:
            self.add_error(None, f"{path}: {message}" if path else said)
        else:
            self.add_error(name, said if path == name else f"{path}: {message}")
