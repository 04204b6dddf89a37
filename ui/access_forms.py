"""What people write about roles and keys, settings and secrets, checked field by field."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from authn.models import ALL_CLUSTERS, Role
from authn.roles import HOLDERS
from clusters.policy import FIELDS
from jobs.executors import GRANTED_KINDS
from jobs.models.secret import MAX_DESCRIPTION, MAX_NAME, MAX_VALUE_BYTES
from ui.forms import ReasonForm

_INPUT = {"autocomplete": "off", "class": "ui-input", "spellcheck": "false"}
GRACES = (
    ("86400", "for a day"),
    ("3600", "for an hour"),
    ("604800", "for a week"),
    ("0", "not at all: from now on it is refused"),
)
ENDS = (
    ("", "never"),
    ("30", "in 30 days"),
    ("90", "in 90 days"),
    ("365", "in a year"),
)


def _text(**more: Any) -> forms.TextInput:
    return forms.TextInput(attrs={**_INPUT, **more})


def _choice() -> forms.Select:
    return forms.Select(attrs={"class": "ui-input"})


def _places(clusters: Sequence[str], with_all: bool) -> list[tuple[str, str]]:
    return [
        *([(ALL_CLUSTERS, "all clusters")] if with_all else []),
        *((id_, id_) for id_ in clusters),
    ]


class _GivesRights(forms.Form):
    """Of clusters and grants only those that whoever fills it in may hand out."""

    granted_kinds = forms.MultipleChoiceField(
        required=False,
        label="Grants",
        widget=forms.CheckboxSelectMultiple,
        help_text="Kinds of work that run foreign programs; no role covers them.",
    )

    def __init__(self, *args: Any, clusters: Sequence[str], with_all: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kinds = [(kind, kind) for kind in GRANTED_KINDS]
        self.fields["granted_kinds"].choices = kinds  # type: ignore[attr-defined]
        self.places = _places(clusters, with_all)


class RoleForm(_GivesRights, ReasonForm):
    sort = forms.ChoiceField(
        choices=[(sort, sort) for sort in HOLDERS], label="Whose", widget=_choice()
    )
    name = forms.CharField(max_length=150, widget=_text())
    cluster = forms.ChoiceField(label="Where", widget=_choice())
    role = forms.ChoiceField(choices=Role.choices, widget=_choice())
    field_order = ("sort", "name", "cluster", "role", "granted_kinds", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["cluster"].choices = self.places  # type: ignore[attr-defined]


class KeyForm(_GivesRights):
    name = forms.CharField(
        max_length=100, widget=_text(), help_text="Who will use it; the audit names it so."
    )
    owner = forms.CharField(
        max_length=100, required=False, widget=_text(), help_text="Who answers for it."
    )
    role = forms.ChoiceField(choices=Role.choices, widget=_choice())
    clusters = forms.MultipleChoiceField(
        label="Where", widget=forms.CheckboxSelectMultiple, help_text="On these it has that role."
    )
    ends = forms.ChoiceField(choices=ENDS, required=False, widget=_choice())
    addresses = forms.CharField(
        required=False,
        label="From",
        widget=_text(placeholder="10.0.0.0/8 192.0.2.17"),
        help_text="Networks its callers must come from, with spaces between; none: any.",
    )
    field_order = ("name", "owner", "role", "clusters", "ends", "addresses", "granted_kinds")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["clusters"].choices = self.places  # type: ignore[attr-defined]

    def expires(self) -> datetime | None:
        days: str = self.cleaned_data["ends"]
        return timezone.now() + timedelta(days=int(days)) if days else None


class RotateForm(forms.Form):
    grace = forms.ChoiceField(choices=GRACES, label="The text before is good", widget=_choice())

    def keep_old(self) -> timedelta:
        return timedelta(seconds=int(self.cleaned_data["grace"]))


class SettingForm(ReasonForm):
    """One setting of a cluster; an empty value takes it back to its default."""

    value = forms.CharField(required=False, label="New value")
    version = forms.IntegerField(widget=forms.HiddenInput)
    field_order = ("value", "reason", "version")

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.setting = FIELDS[name]
        limits = self.setting.metadata
        field = self.fields["value"]
        if "choices" in limits:
            words = [(word, word) for word in limits["choices"]]
            field.widget = forms.Select(
                attrs={"class": "ui-input"}, choices=[("", "the default"), *words]
            )
        else:
            field.widget = _text(inputmode="decimal" if "minimum" in limits else "text")
        field.help_text = f"{limits['about'].capitalize()}. Empty: the default."
        if "minimum" in limits:
            field.help_text += f" From {limits['minimum']:g} to {limits['maximum']:g}."

    def clean_value(self) -> Any:
        """The value in its type; whether it is sound is the domain's to say."""
        text: str = self.cleaned_data["value"].strip()
        if not text:
            return None
        if "minimum" not in self.setting.metadata:
            return text
        try:
            return int(text) if self.setting.type == "int" else float(text)
        except ValueError:
            whole = "a whole number" if self.setting.type == "int" else "a number"
            raise forms.ValidationError(f"Must be {whole}.") from None


class SecretForm(forms.Form):
    """The value goes in and never comes out, neither here after an error."""

    value = forms.CharField(
        max_length=MAX_VALUE_BYTES,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "class": "ui-input"}),
        help_text="Encrypted at once; nobody can read it again.",
    )
    description = forms.CharField(max_length=MAX_DESCRIPTION, required=False, widget=_text())


class NewSecretForm(SecretForm):
    name = forms.CharField(
        max_length=MAX_NAME, widget=_text(), help_text="Jobs write secret:NAME for it."
    )
    field_order = ("name", "value", "description")
