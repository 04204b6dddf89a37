"""Alerts: what fires now, the rules, what happened to each, and what its webhook answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connections
from django.db.models import OuterRef, QuerySet, Subquery, UUIDField
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.binding import current_cluster
from jobs.engine import alert_rules
from jobs.engine.alert_rules import FIELDS
from jobs.engine.clock import database_now
from jobs.errors import AlertNotFound, InvalidAlert, JobError
from jobs.models import AlertEvent, AlertHappened, AlertKind, AlertRule, AlertStatus, Job
from ui.alert_forms import KINDS, AlertForm, written
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import may, require
from ui.forms import MuteForm, ReasonForm
from ui.fragments import show

SHOWN_EVENTS = 50
# What wants somebody first.
ORDER = (
    *(AlertStatus.FIRING, AlertStatus.ACKNOWLEDGED, AlertStatus.PENDING),
    *(AlertStatus.MUTED, AlertStatus.OK, AlertStatus.DISABLED),
)


# -- Seen ------------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "alerts.read")
    now = database_now(connections[current_cluster().alias])
    rules = [*_with_last_delivery(AlertRule.objects.order_by("name"))[: alert_rules.MAX_RULES]]
    rows = [_row(request, rule, now) for rule in rules]
    rows.sort(key=lambda row: ORDER.index(row["stands"]))
    context = {
        "rows": rows,
        "kinds": [(kind, *words) for kind, words in KINDS.items()],
        "may_create": may(request, "alerts.create"),
        "has_public_address": bool(settings.PUBLIC_URL),
    }
    return show(site, request, "alerts", context, title="Alerts")


def _with_last_delivery(rules: QuerySet[AlertRule]) -> QuerySet[AlertRule]:
    """Each with the id and the state of its last delivery: what was sent need not have come."""
    told = AlertEvent.objects.filter(rule_id=OuterRef("pk"), what=AlertHappened.TOLD)
    delivery = Subquery(told.order_by("-id").values("job_id")[:1], output_field=UUIDField())
    job = Job.objects.filter(pk=OuterRef("delivery"))
    return rules.annotate(delivery=delivery, delivered=Subquery(job.values("state")[:1]))


def _row(request: HttpRequest, rule: AlertRule, now: datetime) -> dict[str, Any]:
    cause = f"{address(request, 'index')}{rule.page}" if rule.page else ""
    title = KINDS[rule.kind][0]
    return {"rule": rule, "stands": rule.status(now), "kind": title, "cause": cause}


def one(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    require(request, "alerts.read")
    rule = _rule(alert_id)
    now = database_now(connections[current_cluster().alias])
    events = AlertEvent.objects.filter(rule_id=rule.pk).order_by("-id")
    context = {
        **_row(request, rule, now),
        "watches": _watches(rule),
        "events": _with_answers([*events[:SHOWN_EVENTS]]),
        "is_firing": rule.state == "firing",
        "is_muted": rule.is_muted(now),
        "may_change": may(request, "alerts.change"),
        "may_delete": may(request, "alerts.delete"),
        "may_mute": may(request, "alerts.mute"),
        "may_acknowledge": may(request, "alerts.acknowledge"),
        "may_test": may(request, "alerts.test") and bool(rule.webhook_url),
    }
    return show(site, request, "alert", context, title="Alert")


def _watches(rule: AlertRule) -> list[tuple[str, Any]]:
    """What the rule says, as its form says it."""
    names = {
        **{"queue": "Queue", "type": "Type", "schedule_id": "Schedule", "at_least": "At least"},
        **{"window_seconds": "Within the last", "limit_seconds": "Limit"},
        **{"for_seconds": "Fires when wrong for", "clear_after_seconds": "Recovers when right for"},
        "quiet_seconds": "Between two deliveries",
    }
    found: list[tuple[str, Any]] = []
    for name, title in names.items():
        value = getattr(rule, name)
        if value is not None:
            found.append((title, written(value) if name.endswith("_seconds") else value))
    if rule.ratio is not None:
        found.insert(0, ("Limit", f"{rule.ratio * 100:g} %"))
    return found


def _with_answers(events: list[AlertEvent]) -> list[dict[str, Any]]:
    """Events, each with its delivery as far as that is still there."""
    ids = [event.job_id for event in events if event.job_id is not None]
    rows = Job.objects.filter(pk__in=ids).only("id", "state", "result", "error", "attempts")
    jobs = {job.pk: job for job in rows} if ids else {}
    return [
        {"event": event, "job": jobs.get(event.job_id) if event.job_id else None}
        for event in events
    ]


def _rule(alert_id: UUID) -> AlertRule:
    try:
        return alert_rules.get(alert_id)
    except AlertNotFound:
        raise Http404 from None


# -- Made and changed ------------------------------------------------------------------------------


def new(site: Any, request: HttpRequest) -> HttpResponse:
    principal = require(request, "alerts.create")
    kind = request.GET.get("kind", AlertKind.FAILURE_RATE.value)
    if kind not in FIELDS:
        raise Http404

    def save(values: dict[str, Any]) -> AlertRule:
        return alert_rules.create(values, by=principal.actor)

    return _edit(site, request, AlertForm(kind, None, sent(request)), save, None)


def edit(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    principal = require(request, "alerts.change")
    rule = _rule(alert_id)

    def save(values: dict[str, Any]) -> AlertRule:
        return alert_rules.change(alert_id, values, by=principal.actor)

    return _edit(site, request, AlertForm(rule.kind, rule, sent(request)), save, rule)


def _edit(
    site: Any,
    request: HttpRequest,
    form: AlertForm,
    save: Callable[[dict[str, Any]], AlertRule],
    rule: AlertRule | None,
) -> HttpResponse:
    verdict = None
    if request.method == "POST" and form.is_valid():
        try:
            if "preview" not in request.POST:
                saved = save(form.values())
                return done(request, f"{saved.name} is saved.", _address(request, saved.pk))
            verdict = alert_rules.preview(form.values())
        except InvalidAlert as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        except JobError as error:
            form.add_error("name", str(error))
    context = {
        **site.each_context(request),
        "title": "Edit alert" if rule else "New alert",
        "subtitle": None,
        "form": form,
        "kind": form.kind,
        "about": KINDS[form.kind][1],
        "kinds": [] if rule else [(kind, words[0]) for kind, words in KINDS.items()],
        "verdict": verdict,
        "back": _address(request, rule.pk) if rule else address(request, "alerts"),
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/alert/edit.html", context, status=status)


def delete(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    """Ask first; then forget the rule with its history."""
    require(request, "alerts.delete")
    rule, form = _rule(alert_id), ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        try:
            alert_rules.delete(alert_id, reason=form.cleaned_data["reason"])
        except JobError as error:
            return refused(request, error, address(request, "alerts"))
        return done(request, f"{rule.name} is deleted.", address(request, "alerts"))
    return _ask(
        site,
        request,
        form,
        rule,
        title="Delete this alert?",
        button="Delete the alert",
        effect="Nobody is told of it any more, and its history is gone.",
    )


# -- Said ------------------------------------------------------------------------------------------


@post_only
def test(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    said = "A test is on its way. Its answer shows up below."
    return _say(request, "alerts.test", alert_id, alert_rules.test, said)


@post_only
def unmute(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    said = "People are told again."
    return _say(request, "alerts.mute", alert_id, alert_rules.unmute, said)


def acknowledge(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    require(request, "alerts.acknowledge")
    rule, form = _rule(alert_id), ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        words = {"reason": form.cleaned_data["reason"]}
        move = alert_rules.acknowledge
        return _say(request, "alerts.acknowledge", alert_id, move, "You have it.", **words)
    return _ask(
        site,
        request,
        form,
        rule,
        title="Do you have it?",
        button="I have it",
        effect="Others see that somebody is on it, until it recovers.",
    )


def mute(site: Any, request: HttpRequest, alert_id: UUID) -> HttpResponse:
    """Ask why and for how long; then tell nobody."""
    require(request, "alerts.mute")
    rule, form = _rule(alert_id), MuteForm(sent(request), needs_end=True)
    if request.method == "POST" and form.is_valid():
        words = {"until": form.moment(), "reason": form.cleaned_data["reason"]}
        return _say(request, "alerts.mute", alert_id, alert_rules.mute, "Muted.", **words)
    return _ask(
        site,
        request,
        form,
        rule,
        title="Mute this alert?",
        button="Mute it",
        effect="Nobody is told until then; then, if it stands otherwise than was told last.",
    )


def _say(
    request: HttpRequest,
    verb: str,
    alert_id: UUID,
    move: Callable[..., Any],
    said: str,
    **words: Any,
) -> HttpResponse:
    principal, back = require(request, verb), _address(request, alert_id)
    try:
        move(alert_id, by=principal.actor, **words)
    except AlertNotFound:
        raise Http404 from None
    except JobError as error:
        return refused(request, error, back)
    return done(request, said, back)


def _ask(site: Any, request: HttpRequest, form: Any, rule: AlertRule, **words: str) -> HttpResponse:
    back = _address(request, rule.pk)
    return confirm(site, request, form, **words, target=rule.name, back=back)


def _address(request: HttpRequest, alert_id: UUID) -> str:
    return address(request, "alert", alert_id=alert_id)


ROUTES = (
    ("alerts/", page, "alerts"),
    ("alerts/new/", new, "alert-new"),
    ("alerts/<uuid:alert_id>/", one, "alert"),
    ("alerts/<uuid:alert_id>/edit/", edit, "alert-edit"),
    ("alerts/<uuid:alert_id>/delete/", delete, "alert-delete"),
    ("alerts/<uuid:alert_id>/test/", test, "alert-test"),
    ("alerts/<uuid:alert_id>/acknowledge/", acknowledge, "alert-acknowledge"),
    ("alerts/<uuid:alert_id>/mute/", mute, "alert-mute"),
    ("alerts/<uuid:alert_id>/unmute/", unmute, "alert-unmute"),
)
