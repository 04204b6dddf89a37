"""Alerts of one cluster: rules, how they stand, and what was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from authn.permissions import is_allowed
from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import (
    Boolean,
    Choice,
    Id,
    Number,
    Text,
    Time,
    WholeNumber,
    format_time,
    parse_uuid,
    refuse,
)
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, IF_MATCH, answers
from jobs.api.job_wire import Count
from jobs.api.versions import asked_versions, etag
from jobs.engine import alert_notices, alert_rules
from jobs.engine.clock import database_now
from jobs.errors import AlertNotFound
from jobs.models import (
    AlertEvent,
    AlertHappened,
    AlertKind,
    AlertRule,
    AlertSeverity,
    AlertState,
    AlertStatus,
)
from jobs.models.alert import MAX_NAME_LENGTH, MAX_URL_LENGTH

BY_NAME = Order(("name",), (str,), is_descending=False)
NEWEST_EVENT = Order(("id",), (int,))
ALERT_ID = OpenApiParameter("alert_id", OpenApiTypes.UUID, OpenApiParameter.PATH)

# -- In and out ------------------------------------------------------------------------------------


@extend_schema_serializer(component_name="AlertChange")
class AlertChangeInput(serializers.Serializer[Any]):
    """What is left out stays as it is. Which words a kind has is in the description of the list."""

    name = Text(max_length=MAX_NAME_LENGTH, required=False)
    kind = Choice(choices=AlertKind.values, required=False)
    severity = Choice(choices=AlertSeverity.values, required=False)
    is_enabled = Boolean(required=False)
    queue = Text(max_length=100, required=False, allow_null=True)
    type = Text(max_length=200, required=False, allow_null=True)
    schedule_id = Id(required=False, allow_null=True)
    ratio = Number(required=False, help_text="The share of failed jobs, above which it is wrong.")
    at_least = WholeNumber(required=False, help_text="So many failed jobs, or dead nodes.")
    window_seconds = WholeNumber(required=False, help_text="Of the past; whole minutes.")
    limit_seconds = Number(
        required=False, help_text="An age, a delay or a silence up to this is fine."
    )
    for_seconds = Number(required=False, help_text="Wrong for so long before it fires.")
    clear_after_seconds = Number(required=False, help_text="Right for so long before it recovers.")
    quiet_seconds = Number(required=False, help_text="Between two deliveries, at least.")
    webhook_url = Text(
        max_length=MAX_URL_LENGTH,
        required=False,
        allow_blank=True,
        help_text="Empty: nobody is told.",
    )


@extend_schema_serializer(component_name="NewAlert")
class NewAlertInput(AlertChangeInput):
    name = Text(max_length=MAX_NAME_LENGTH)
    kind = Choice(choices=AlertKind.values)


@extend_schema_serializer(component_name="AlertPreviewInput")
class AlertPreviewInput(AlertChangeInput):
    kind = Choice(choices=AlertKind.values)


class AcknowledgeInput(serializers.Serializer[Any]):
    reason = Text(max_length=alert_rules.MAX_REASON_LENGTH, required=False, allow_blank=True)


class AlertMuteInput(AcknowledgeInput):
    """Until a moment, or for so long."""

    until = Time(required=False)
    seconds = Number(required=False)


class AlertItem(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    kind = serializers.ChoiceField(choices=AlertKind.values)
    severity = serializers.ChoiceField(choices=AlertSeverity.values)
    is_enabled = serializers.BooleanField()
    queue = serializers.CharField(allow_null=True)
    type = serializers.CharField(allow_null=True)
    schedule_id = serializers.UUIDField(allow_null=True)
    ratio = serializers.FloatField(allow_null=True)
    at_least = serializers.IntegerField(allow_null=True)
    window_seconds = serializers.IntegerField(allow_null=True)
    limit_seconds = serializers.FloatField(allow_null=True)
    for_seconds = serializers.FloatField()
    clear_after_seconds = serializers.FloatField()
    quiet_seconds = serializers.FloatField()
    webhook_url = serializers.CharField(
        allow_null=True, help_text="Null to those who may not change alerts: it may hold a key."
    )
    status = serializers.ChoiceField(
        choices=AlertStatus.values, help_text="How it stands for people."
    )
    state = serializers.ChoiceField(choices=AlertState.values)
    state_since = serializers.DateTimeField()
    message = serializers.CharField(help_text="Why it fires, or fired last.")
    link = serializers.CharField(help_text="The page that shows the cause.")
    acknowledged_by = serializers.CharField()
    acknowledged_at = serializers.DateTimeField(allow_null=True)
    acknowledge_reason = serializers.CharField()
    muted_by = serializers.CharField()
    muted_until = serializers.DateTimeField(allow_null=True)
    mute_reason = serializers.CharField()
    told_at = serializers.DateTimeField(allow_null=True, help_text="When it was last told of.")
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_by = serializers.CharField()
    updated_at = serializers.DateTimeField()
    version = serializers.IntegerField(help_text="Counts the edits; the ETag.")


class AlertPage(serializers.Serializer[Any]):
    items = AlertItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class AlertVerdict(serializers.Serializer[Any]):
    would_fire = serializers.BooleanField()
    message = serializers.CharField()
    link = serializers.CharField(allow_null=True)


class AlertEventItem(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    what = serializers.ChoiceField(choices=AlertHappened.values)
    message = serializers.CharField()
    by = serializers.CharField()
    job_id = serializers.UUIDField(
        allow_null=True, help_text="The delivery: a job of kind `webhook`."
    )


class AlertEventPage(serializers.Serializer[Any]):
    items = AlertEventItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


_PLAIN = (
    *("name", "kind", "severity", "is_enabled", "queue", "type", "ratio", "at_least"),
    *("window_seconds", "limit_seconds", "for_seconds", "clear_after_seconds", "quiet_seconds"),
    *("state", "acknowledged_by", "acknowledge_reason", "muted_by", "mute_reason"),
    *("created_by", "updated_by", "version"),
)
_TIMES = (
    *("state_since", "acknowledged_at", "muted_until", "told_at", "created_at", "updated_at"),
)


def alert_to_json(rule: AlertRule, now: datetime, *, with_address: bool) -> dict[str, Any]:
    found = {
        "id": str(rule.pk),
        "schedule_id": None if rule.schedule_id is None else str(rule.schedule_id),
        "webhook_url": rule.webhook_url if with_address else None,
        "status": rule.status(now).value,
        "message": rule.sentence,
        "link": alert_notices.link_to(rule.page or f"alerts/{rule.pk}/"),
        **{name: getattr(rule, name) for name in _PLAIN},
        **{name: format_time(getattr(rule, name)) for name in _TIMES},
    }
    return {str(name): found[str(name)] for name in AlertItem().fields}


def event_to_json(event: AlertEvent) -> dict[str, Any]:
    return {
        "at": format_time(event.at),
        "what": event.what,
        "message": event.sentence,
        "by": event.by,
        "job_id": None if event.job_id is None else str(event.job_id),
    }


# -- Views -----------------------------------------------------------------------------------------


class AlertViewSet(NativeViewSet):
    verbs = {
        "list": "alerts.read",
        "count": "alerts.read",
        "retrieve": "alerts.read",
        "events": "alerts.read",
        "preview": "alerts.read",
        "create": "alerts.create",
        "partial_update": "alerts.change",
        "destroy": "alerts.delete",
        "test": "alerts.test",
        "acknowledge": "alerts.acknowledge",
        "mute": "alerts.mute",
        "unmute": "alerts.mute",
    }

    @extend_schema(
        operation_id="alerts_list",
        summary="List alerts by name",
        description="`failure_rate` has `ratio`, `at_least`, `window_seconds` and may have `queue` and "
        "`type`; `oldest_ready` has `limit_seconds` and may have `queue`; `dead_nodes` has `at_least` "
        "and `window_seconds`; `late_schedules` has `limit_seconds`; `heartbeat` has `limit_seconds` and "
        "either `type`, with `queue` or without, or `schedule_id`.",
        parameters=[PageQuery],
        responses=answers({200: AlertPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        page = read_page(request, AlertRule.objects.all(), BY_NAME, self.query(PageQuery))
        # Asked once for all rows.
        shown = self._shown(cluster_id)
        return reply(page.to_json(shown))

    @extend_schema(
        operation_id="alerts_count", summary="Count alerts", responses=answers({200: Count})
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        return reply({"count": AlertRule.objects.count(), "is_exact": True})

    @extend_schema(
        operation_id="alerts_create",
        summary="Make an alert",
        request=NewAlertInput,
        responses=answers({201: AlertItem}, 409, *BODY),
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        rule = alert_rules.create(self.body(NewAlertInput), by=self.principal.actor)
        location = reverse("alert", args=[cluster_id, rule.pk])
        return self._reply(rule, cluster_id, 201, {"Location": location})

    @extend_schema(
        operation_id="alerts_preview",
        summary="Would such an alert fire now?",
        description="Nothing is kept and nobody is told.",
        request=AlertPreviewInput,
        responses=answers({200: AlertVerdict}, *BODY),
    )
    def preview(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        verdict = alert_rules.preview(self.body(AlertPreviewInput))
        link = alert_notices.link_to(verdict.page) if verdict.page else None
        told = {"would_fire": verdict.is_wrong, "message": verdict.sentence, "link": link}
        return reply(told)

    @extend_schema(
        operation_id="alerts_get",
        summary="Get an alert",
        parameters=[ALERT_ID],
        responses=answers({200: AlertItem}),
    )
    def retrieve(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        return self._reply(alert_rules.get(_key(alert_id)), cluster_id)

    @extend_schema(
        operation_id="alerts_change",
        summary="Change an alert",
        description="One that watches something else begins anew: it has not fired.",
        parameters=[ALERT_ID, IF_MATCH],
        request=AlertChangeInput,
        responses=answers({200: AlertItem}, 409, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        values = self.body(AlertChangeInput)
        if not values:
            refuse("body", "Names nothing to change.", "required")
        by, versions = self.principal.actor, asked_versions(request)
        rule = alert_rules.change(_key(alert_id), values, by=by, versions=versions)
        return self._reply(rule, cluster_id)

    @extend_schema(
        operation_id="alerts_delete",
        summary="Delete an alert with its history",
        parameters=[ALERT_ID, IF_MATCH],
        request=None,
        responses=answers({204: None}, 412),
    )
    def destroy(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        self.body()
        alert_rules.delete(_key(alert_id), versions=asked_versions(request))
        return HttpResponse(status=204)

    @extend_schema(
        operation_id="alerts_test",
        summary="Send a test of an alert",
        description="A delivery that says `is_test`; its answer is in the job that is named.",
        parameters=[ALERT_ID],
        request=None,
        responses=answers({202: AlertEventItem}),
    )
    def test(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        self.body()
        event = alert_rules.test(_key(alert_id), by=self.principal.actor)
        event.refresh_from_db()
        return reply(event_to_json(event), 202)

    @extend_schema(
        operation_id="alerts_acknowledge",
        summary="Say that somebody has it",
        description="Until it recovers.",
        parameters=[ALERT_ID],
        request=AcknowledgeInput,
        responses=answers({200: AlertItem}, 409, *BODY),
    )
    def acknowledge(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        asked, by = self.body(AcknowledgeInput), self.principal.actor
        return self._reply(alert_rules.acknowledge(_key(alert_id), by=by, **asked), cluster_id)

    @extend_schema(
        operation_id="alerts_mute",
        summary="Mute an alert",
        description="Nobody is told until then; then, if it stands otherwise than was told last.",
        parameters=[ALERT_ID],
        request=AlertMuteInput,
        responses=answers({200: AlertItem}, *BODY),
    )
    def mute(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        asked, by = self.body(AlertMuteInput), self.principal.actor
        return self._reply(alert_rules.mute(_key(alert_id), by=by, **asked), cluster_id)

    @extend_schema(
        operation_id="alerts_unmute",
        summary="Unmute an alert",
        parameters=[ALERT_ID],
        request=None,
        responses=answers({200: AlertItem}),
    )
    def unmute(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        self.query()
        self.body()
        rule = alert_rules.unmute(_key(alert_id), by=self.principal.actor)
        return self._reply(rule, cluster_id)

    @extend_schema(
        operation_id="alerts_events",
        summary="What happened to an alert, newest first",
        parameters=[ALERT_ID, PageQuery],
        responses=answers({200: AlertEventPage}),
    )
    def events(self, request: Request, cluster_id: str, alert_id: str) -> HttpResponse:
        asked = self.query(PageQuery)
        rule = alert_rules.get(_key(alert_id))
        rows = AlertEvent.objects.filter(rule_id=rule.pk)
        return reply(read_page(request, rows, NEWEST_EVENT, asked).to_json(event_to_json))

    def _shown(self, cluster_id: str) -> Callable[[AlertRule], dict[str, Any]]:
        """How the caller sees rules at this moment."""
        may_see = is_allowed(self.principal, "alerts.change", cluster_id)
        now = database_now(connections[AlertRule.objects.all().db])
        return partial(alert_to_json, now=now, with_address=may_see)

    def _reply(
        self,
        rule: AlertRule,
        cluster_id: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        headers = {**etag(rule.version), **(headers or {})}
        return reply(self._shown(cluster_id)(rule), status, headers)


def _key(text: str) -> UUID:
    key = parse_uuid(text)
    if key is None:
        raise AlertNotFound
    return key
