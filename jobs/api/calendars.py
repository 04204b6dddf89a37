"""Calendars of one cluster: named dates on which schedules do not run."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Text, Texts, format_time, refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, IF_MATCH, answers
from jobs.api.job_wire import Count
from jobs.api.versions import asked_versions, etag
from jobs.engine import calendars
from jobs.engine.calendars import MAX_DESCRIPTION_LENGTH
from jobs.exclusions import MOST_DATES
from jobs.models import Calendar

BY_NAME = Order(("name",), (str,), is_descending=False)


@extend_schema_serializer(component_name="CalendarChange")
class CalendarChangeInput(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    description = Text(max_length=MAX_DESCRIPTION_LENGTH, allow_blank=True, required=False)
    dates = Texts(
        child=Text(max_length=40),
        max_length=MOST_DATES,
        required=False,
        help_text="Days such as `2030-12-25`.",
    )


@extend_schema_serializer(component_name="NewCalendar")
class NewCalendarInput(CalendarChangeInput):
    name = Text(max_length=100, help_text="Letters, digits and _ . : -")
    dates = Texts(child=Text(max_length=40), max_length=MOST_DATES)


class CalendarItem(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    dates = serializers.ListField(child=serializers.DateField())
    updated_by = serializers.CharField()
    updated_at = serializers.DateTimeField()
    version = serializers.IntegerField(help_text="Counts the edits; the ETag.")


class CalendarUser(serializers.Serializer[Any]):
    schedule_id = serializers.UUIDField()
    name = serializers.CharField()


class CalendarDetail(CalendarItem):
    """A calendar, and the schedules that name it."""

    schedules = CalendarUser(many=True)


class CalendarPage(serializers.Serializer[Any]):
    items = CalendarItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class CalendarViewSet(NativeViewSet):
    verbs = {
        "list": "calendars.read",
        "count": "calendars.read",
        "retrieve": "calendars.read",
        "create": "calendars.create",
        "partial_update": "calendars.change",
        "destroy": "calendars.delete",
    }

    @extend_schema(
        operation_id="calendars_list",
        summary="List calendars by name",
        parameters=[PageQuery],
        responses=answers({200: CalendarPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        page = read_page(request, Calendar.objects.all(), BY_NAME, self.query(PageQuery))
        return reply(page.to_json(calendar_to_json))

    @extend_schema(
        operation_id="calendars_count", summary="Count calendars", responses=answers({200: Count})
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        return reply({"count": Calendar.objects.count(), "is_exact": True})

    @extend_schema(
        operation_id="calendars_create",
        summary="Create a calendar",
        request=NewCalendarInput,
        responses=answers({201: CalendarItem}, 409, *BODY),
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        calendar = calendars.create(by=self.principal.actor, **self.body(NewCalendarInput))
        location = reverse("calendar", args=[cluster_id, calendar.name])
        return _reply(calendar_to_json(calendar), calendar, 201, Location=location)

    @extend_schema(
        operation_id="calendars_get",
        summary="Get a calendar",
        responses=answers({200: CalendarDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        calendar = calendars.get(name)
        users = calendars.users_of(Calendar.objects.db, name)
        named = [{"schedule_id": str(pk), "name": user} for pk, user in users]
        return _reply({**calendar_to_json(calendar), "schedules": named}, calendar)

    @extend_schema(
        operation_id="calendars_change",
        summary="Change a calendar",
        description="Other dates move the next runs of the schedules that name it, at once.",
        parameters=[IF_MATCH],
        request=CalendarChangeInput,
        responses=answers({200: CalendarItem}, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        values = self.body(CalendarChangeInput)
        if not values:
            refuse("body", "Names nothing to change.", "required")
        versions = asked_versions(request)
        calendar = calendars.change(name, by=self.principal.actor, versions=versions, **values)
        return _reply(calendar_to_json(calendar), calendar)

    @extend_schema(
        operation_id="calendars_delete",
        summary="Delete a calendar",
        description="Only one that no schedule names.",
        parameters=[IF_MATCH],
        request=None,
        responses=answers({204: None}, 409, 412),
    )
    def destroy(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        self.body()
        calendars.delete(name, versions=asked_versions(request))
        return HttpResponse(status=204)


def calendar_to_json(calendar: Calendar) -> dict[str, Any]:
    return {
        "name": calendar.name,
        "description": calendar.description,
        "dates": calendar.dates,
        "updated_by": calendar.updated_by,
        "updated_at": format_time(calendar.updated_at),
        "version": calendar.version,
    }


def _reply(
    body: dict[str, Any], calendar: Calendar, status: int = 200, **headers: str
) -> HttpResponse:
    return reply(body, status, {**etag(calendar.version), **headers})
