"""What people write on the screen, checked field by field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from clusters.registry import PRODUCTION, Cluster
from jobs.models.failure import MAX_OWNER_LENGTH, MAX_TICKET_LENGTH
from jobs.models.queue import LONGEST_PAUSE, MAX_REASON_LENGTH


class ReasonForm(forms.Form):
    """Why somebody does what cannot be taken back; kept in the audit."""

    reason = forms.CharField(
        max_length=MAX_REASON_LENGTH,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "class": "ui-input", "autofocus": True}
        ),
        help_text="Kept in the audit, with your name.",
    )


class DestroyForm(ReasonForm):
    """In production the id of the cluster must be typed as well."""

    def __init__(self, *args: Any, cluster: Cluster, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cluster = cluster
        if cluster.environment == PRODUCTION:
            self.fields["cluster"] = forms.CharField(
                max_length=25,
                label="Cluster",
                widget=forms.TextInput(attrs={"autocomplete": "off", "class": "ui-input"}),
                help_text=f"This is production: type {cluster.id}.",
            )

    def clean_cluster(self) -> str:
        typed: str = self.cleaned_data["cluster"]
        if typed != self.cluster.id:
            raise ValidationError(f"Type {self.cluster.id} to go on.")
        return typed


PAUSES = (
    ("", "until somebody resumes it"),
    ("900", "for 15 minutes"),
    ("3600", "for an hour"),
    ("14400", "for 4 hours"),
    ("86400", "for a day"),
    ("at", "until the time below"),
)


class PauseForm(forms.Form):
    reason = forms.CharField(
        max_length=MAX_REASON_LENGTH,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "class": "ui-input", "autofocus": True}
        ),
        help_text="Others read it beside the queue.",
    )
    lasts = forms.ChoiceField(
        choices=PAUSES,
        required=False,
        label="How long",
        widget=forms.Select(attrs={"class": "ui-input"}),
    )
    until = forms.DateTimeField(
        required=False,
        label="Until (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "class": "ui-input"}),
    )

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if values.get("lasts") == "at" and not values.get("until") and "until" not in self.errors:
            self.add_error("until", "Say until when.")
        until = values.get("until")
        if until and not timedelta() < until - datetime.now(UTC) < LONGEST_PAUSE:
            self.add_error("until", "Must lie ahead, at most ten years.")
        return values

    def until_when(self) -> dict[str, Any]:
        """The end of the pause in the words of the verb."""
        lasts: str = self.cleaned_data["lasts"]
        if lasts == "at":
            return {"resume_at": self.cleaned_data["until"]}
        return {"resume_in_seconds": float(lasts)} if lasts else {}

    def moment(self) -> datetime | None:
        """The end of the pause as a moment; None: never by itself."""
        lasts: str = self.cleaned_data["lasts"]
        if lasts == "at":
            until: datetime = self.cleaned_data["until"]
            return until
        return datetime.now(UTC) + timedelta(seconds=float(lasts)) if lasts else None


class MuteForm(PauseForm):
    """For how long a failure, or an alert, troubles nobody."""

    def __init__(self, *args: Any, needs_end: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = "Others read it; kept in the audit."
        without = [(value, words) for value, words in PAUSES if value]
        never = [] if needs_end else [("", "until somebody says otherwise")]
        lasts: Any = self.fields["lasts"]
        lasts.choices, lasts.required = [*never, *without], needs_end


class OwnForm(forms.Form):
    """Whose a failure is."""

    owner = forms.CharField(
        required=False,
        max_length=MAX_OWNER_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off", "class": "ui-input"}),
        help_text="A person or a team; empty for nobody.",
    )
    ticket = forms.CharField(
        required=False,
        max_length=MAX_TICKET_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off", "class": "ui-input"}),
        help_text="An address that begins with https:// or http://",
    )
