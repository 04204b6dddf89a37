"""What is changed about a queue by a form: its limits, and that what waits in it is to be cancelled."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.binding import current_cluster
from jobs.engine import bulk, purge
from jobs.errors import JobError
from jobs.models import Overflow
from jobs.models.queue import MAX_REASON_LENGTH
from jobs.models.queue_policies import POLICIES
from ui.answers import address, done, refused, sent
from ui.callers import require
from ui.deeds import deed
from ui.forms import DestroyForm
from ui.pages.queues import named, one_queue
from ui.words import number

LIMITS = ("max_concurrency", "rate_limit", "rate_period_seconds", "max_entries", "overflow")
SHOWN_SAMPLES = 5


class LimitsForm(forms.Form):
    """The policies that hold work back; the verb has the last word."""

    max_concurrency = forms.IntegerField(required=False, label="Running at a time")
    rate_limit = forms.IntegerField(required=False, label="Starts within the period")
    rate_period_seconds = forms.FloatField(label="The period, in seconds")
    max_entries = forms.IntegerField(required=False, label="Waiting to be started")
    overflow = forms.ChoiceField(choices=Overflow.choices, label="A job too many")
    reason = forms.CharField(
        required=False,
        max_length=MAX_REASON_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Kept in the audit, with your name.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.widget.attrs["class"] = "ui-input"
            if name in POLICIES:
                about = POLICIES[name].about.replace("null:", "empty:").replace("`", "")
                about = about.replace("rate_period_seconds", "the period")
                field.help_text = about.replace("of rate_limit", "in which starts are counted")
                if isinstance(field.widget, forms.NumberInput):
                    field.widget.attrs["step"] = "any" if name == "rate_period_seconds" else "1"


class PurgeForm(DestroyForm):
    """With how many there were when it was asked."""

    # None: there were more than could be counted.
    seen = forms.IntegerField(
        widget=forms.HiddenInput, min_value=0, max_value=1 << 40, required=False
    )


def limits(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    require(request, "queues.change")
    queue, back = one_queue(name), address(request, "queue", name=name)
    form = LimitsForm(sent(request), initial={limit: getattr(queue, limit) for limit in LIMITS})
    if request.method == "POST" and form.is_valid():
        asked = {limit: form.cleaned_data[limit] for limit in LIMITS}
        changed = {limit: value for limit, value in asked.items() if value != getattr(queue, limit)}
        try:
            if changed:
                _change(request, name, changed, form.cleaned_data["reason"])
        except JobError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            return done(request, f"The limits of queue {name} are set.", back)
    context = {"form": form, "name": name, "back": back}
    return _form(site, request, "limits", context, f"Limits of queue {name}")


def _change(request: HttpRequest, name: str, changed: dict[str, Any], reason: str) -> None:
    with deed(request, "queues.change", "queue", name, reason=reason) as trace:
        queue = one_queue(name)
        trace.before = {limit: getattr(queue, limit) for limit in changed}
        trace.after = changed
        named(name).change(**changed)


def empty(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    """Show what would be cancelled; then have it done in the background."""
    require(request, "queues.purge")
    cluster, back = current_cluster(), address(request, "queue", name=name)
    one_queue(name)
    expected = purge.glance(name)
    form = PurgeForm(sent(request), cluster=cluster, initial={"seen": expected.told})
    has_grown = False
    if request.method == "POST" and form.is_valid():
        has_grown = expected.has_grown(form.cleaned_data["seen"])
        if not has_grown:
            try:
                actor = require(request, "queues.purge").actor
                made = purge.purge(name, by=actor, reason=form.cleaned_data["reason"])
            except JobError as error:
                return refused(request, error, back)
            said = f"What waits in queue {name} is being cancelled."
            return done(request, said, f"{address(request, 'index')}bulk-operations/{made.pk}/")
        form.data = {**form.data, "seen": expected.told}
    context = {
        "form": form,
        "name": name,
        "back": back,
        "count": _told(expected),
        "expected": expected,
        "states": [(state, number(n)) for state, n in expected.by_state.items()],
        "sample": expected.sample[:SHOWN_SAMPLES],
        "has_grown": has_grown,
    }
    return _form(site, request, "purge", context, f"Purge queue {name}?", is_refused=has_grown)


def _told(expected: bulk.DryRun) -> str:
    if expected.count is None:
        return "an unknown number of"
    return number(expected.count) + ("" if expected.is_exact else " or more")


def _form(
    site: Any,
    request: HttpRequest,
    template: str,
    context: dict[str, Any],
    title: str,
    *,
    is_refused: bool = False,
) -> HttpResponse:
    status = 400 if context["form"].errors else 409 if is_refused else 200
    everything = {**site.each_context(request), **context, "title": title, "subtitle": None}
    return TemplateResponse(request, f"ui/queue/{template}.html", everything, status=status)


ROUTES = (
    ("queues/<str:name>/limits/", limits, "queue-limits"),
    ("queues/<str:name>/purge/", empty, "queue-purge"),
)
