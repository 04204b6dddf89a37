"""Schedules of one cluster: make, change, stop and start them, and run one now."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db.models.functions import Lower
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from authn.permissions import is_allowed
from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import parse_uuid, refuse
from clusters.api.paging import NEWEST_FIRST, Order, read_page
from clusters.api.schema import BODY, IDEMPOTENCY_KEY, IF_MATCH, SCHEDULE_ID, answers
from clusters.errors import NotAllowed
from jobs.api import schedule_forms as forms
from jobs.api import schedule_wire as wire
from jobs.api.examples import SCHEDULE_EXAMPLES
from jobs.api.grants import refuse_words_of_dialects
from jobs.api.job_wire import Count
from jobs.api.once import answer_once
from jobs.api.versions import asked_versions, etag
from jobs.api.words import in_words_of_the_body
from jobs.engine import fires, prerequisites, schedules
from jobs.engine.edit import UNCHANGED
from jobs.errors import ScheduleNotFound
from jobs.models import Schedule
from jobs.models.schedule_queryset import ScheduleQuerySet
from jobs.secrets import meant_payload

ORDERS = {
    "created_at": NEWEST_FIRST,
    "name": Order(("name_key", "id"), (str, uuid.UUID), is_descending=False),
    "next_run_at": Order(
        ("next_run_at", "id"), (datetime.fromisoformat, uuid.UUID), is_descending=False
    ),
}
# Columns that lists leave out, and that may be long.
_LONG = ("payload", "payload_bytes", "exclusions", "metadata", "pending")


class ScheduleViewSet(NativeViewSet):
    verbs = {
        "list": "schedules.read",
        "count": "schedules.read",
        "retrieve": "schedules.read",
        "create": "schedules.create",
        "partial_update": "schedules.change",
        "reschedule": "schedules.reschedule",
        # and, where it is for good, the verb for that
        "destroy": "schedules.delete",
        "restore": "schedules.restore",
        "pause": "schedules.pause",
        "resume": "schedules.resume",
        "trigger": "schedules.trigger",
        "pause_all": "schedules.pause_all",
        "resume_all": "schedules.resume_all",
    }

    @extend_schema(
        operation_id="schedules_list",
        summary="List schedules",
        description="Items leave out what only the schedule itself shows: payload, metadata, "
        "exclusions and the policies. Its runs are jobs: `jobs?schedule=` lists them.",
        parameters=[forms.ScheduleListQuery],
        responses=answers({200: wire.SchedulePage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(forms.ScheduleListQuery)
        order = asked.get("order", "created_at")
        rows = listed(asked).defer(*_LONG)
        if order == "name":
            rows = rows.annotate(name_key=Lower("name"))
        elif order == "next_run_at":
            rows = rows.filter(next_run_at__isnull=False)
        page = read_page(request, rows, ORDERS[order], asked)
        return reply(page.to_json(wire.schedule_to_json))

    @extend_schema(
        operation_id="schedules_count",
        summary="Count schedules",
        parameters=[forms.ScheduleFilter],
        responses=answers({200: Count}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        count = listed(self.query(forms.ScheduleFilter)).count()
        return reply({"count": count, "is_exact": True})

    @extend_schema(
        operation_id="schedules_create",
        summary="Create a schedule",
        description="With a timing that has no run ahead it is refused: a moment that has passed, a "
        "wall time that the clock jumps over, exclusions that leave nothing. Kinds that need a grant "
        "need it here too.",
        request=forms.NewScheduleInput,
        responses=answers({201: wire.ScheduleDetail}, 409, *BODY),
        examples=SCHEDULE_EXAMPLES,
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        values = self.body(forms.NewScheduleInput)
        forms.refuse_other_timings(values, values["timing"])
        wanted = forms.definition(values)
        with in_words_of_the_body():
            refuse_words_of_dialects(wanted.get("kind"), wanted.get("payload"))
            schedule = schedules.create(
                wanted, by=self.principal.actor, depends_on=values.get("depends_on", ())
            )
        location = reverse("schedule", args=[cluster_id, schedule.pk])
        return detail(schedule, 201, {"Location": location})

    @extend_schema(
        operation_id="schedules_get",
        summary="Get a schedule",
        description="One that was deleted, too, until it is deleted for good.",
        parameters=[SCHEDULE_ID],
        responses=answers({200: wire.ScheduleDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        return detail(schedules.get(key_of(schedule_id), with_deleted=True))

    @extend_schema(
        operation_id="schedules_change",
        summary="Change a schedule",
        description="What is due from now on follows the change, and nothing is run for it. A change "
        "that leaves the timing alone does not move the next run.",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=forms.ScheduleChangeInput,
        responses=answers({200: wire.ScheduleDetail}, 409, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        schedule = schedules.get(key_of(schedule_id))
        values = self.body(forms.ScheduleChangeInput)
        if not values:
            refuse("body", "Names nothing to change.", "required")
        forms.refuse_other_timings(values, values.get("timing", schedule.timing))
        wanted = forms.definition(values)
        if "payload" in wanted:
            wanted["payload"] = meant_payload(schedule.kind, wanted["payload"], schedule.payload)
        kind = wanted.get("kind") or schedule.kind
        with in_words_of_the_body():
            if schedule.dialect_notes is None:
                refuse_words_of_dialects(kind, wanted.get("payload"))
            schedule = schedules.change(
                schedule.pk,
                wanted,
                by=self.principal.actor,
                versions=asked_versions(request),
                depends_on=values.get("depends_on"),
            )
        return detail(schedule)

    @extend_schema(
        operation_id="schedules_reschedule",
        summary="Change the timing of a schedule",
        description="At once, or from `effective_from` on: until then the timing before holds. An "
        "interval counts from that moment. A timing that waits is replaced.",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=forms.RescheduleInput,
        responses=answers({200: wire.ScheduleDetail}, 412, *BODY),
    )
    def reschedule(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        schedule = schedules.get(key_of(schedule_id))
        values = self.body(forms.RescheduleInput)
        forms.refuse_other_timings(values, values["timing"])
        effective_from = values.pop("effective_from", None)
        return detail(
            schedules.reschedule(
                schedule.pk,
                values,
                by=self.principal.actor,
                effective_from=effective_from,
                versions=asked_versions(request),
            )
        )

    @extend_schema(
        operation_id="schedules_delete",
        summary="Delete a schedule",
        description="Its runs and fires stay, and it can be restored. Where schedules or workflows "
        "need it, the answer is 200 and tells which: they wait in vain. With `hard` it goes for good, "
        "with its fires and its runs; those that go on are asked to stop. That needs the role admin, "
        "and is refused while others need it.",
        parameters=[SCHEDULE_ID, forms.DeleteQuery, IF_MATCH],
        request=None,
        responses=answers({200: wire.DeletedSchedule, 204: None}, 409, 412),
    )
    def destroy(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        is_hard = self.query(forms.DeleteQuery).get("hard", False)
        self.body()
        if is_hard:
            if not is_allowed(self.principal, "schedules.delete_for_good", cluster_id):
                raise NotAllowed("schedules.delete_for_good")
            schedules.delete_for_good(
                key_of(schedule_id), by=self.principal.actor, versions=asked_versions(request)
            )
            return HttpResponse(status=204)
        needed = schedules.delete(
            key_of(schedule_id), by=self.principal.actor, versions=asked_versions(request)
        )
        if warnings := wire.warnings_of(needed):
            return reply({"warnings": warnings})
        return HttpResponse(status=204)

    @extend_schema(
        operation_id="schedules_restore",
        summary="Restore a deleted schedule",
        description="It goes on from now; what it missed is not caught up.",
        parameters=[SCHEDULE_ID],
        request=None,
        responses=answers({200: wire.ScheduleDetail}, 409),
    )
    def restore(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        self.body()
        schedule = schedules.get(key_of(schedule_id), with_deleted=True)
        return detail(schedules.restore(schedule.pk, by=self.principal.actor))

    @extend_schema(
        operation_id="schedules_pause",
        summary="Pause a schedule",
        description="What is due from now on is left out and is not caught up later; what runs goes "
        "on. One that is paused already is 409 `already_paused`.",
        parameters=[SCHEDULE_ID],
        request=forms.PauseInput,
        responses=answers({200: wire.ScheduleDetail}, 409, *BODY),
    )
    def pause(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        asked = self.body(forms.PauseInput)
        return detail(schedules.pause(key_of(schedule_id), by=self.principal.actor, **asked))

    @extend_schema(
        operation_id="schedules_resume",
        summary="Resume a paused schedule",
        description="One that is not paused is 409 `not_paused`.",
        parameters=[SCHEDULE_ID],
        request=None,
        responses=answers({200: wire.ScheduleDetail}, 409),
    )
    def resume(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        self.body()
        return detail(schedules.resume(key_of(schedule_id), by=self.principal.actor))

    @extend_schema(
        operation_id="schedules_trigger",
        summary="Run a schedule now",
        description="Whatever its timing, its exclusions and what it depends on say, also while it is "
        "paused; one that is disabled is 409 `disabled`. The next run stays where it is. Its `overlap` "
        "holds: unless it is `allow` the run waits for the one before, which under `replace` is asked to "
        "stop at once.",
        parameters=[SCHEDULE_ID, IDEMPOTENCY_KEY],
        request=forms.TriggerInput,
        responses=answers({202: wire.Triggered}, 409, 422, 429, *BODY),
    )
    def trigger(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        schedule = schedules.get(key_of(schedule_id))
        asked = self.body(forms.TriggerInput)

        def effect() -> tuple[int, Any]:
            payload = asked.get("payload", UNCHANGED)
            made = fires.trigger(schedule.pk, by=self.principal.actor, payload=payload)
            run_id = made.workflow_run_id
            return 202, {
                "job_id": str(made.job_id) if made.job_id else None,
                "workflow_run_id": str(run_id) if run_id else None,
            }

        response, body = answer_once(request, self.principal.actor, effect)
        if body["job_id"]:
            location = reverse("job", args=[cluster_id, body["job_id"]])
        else:
            names = [cluster_id, str(schedule.workflow_id), body["workflow_run_id"]]
            location = reverse("workflow-run", args=names)
        response.headers["Location"] = location
        return response

    @extend_schema(
        operation_id="schedules_pause_all",
        summary="Pause all schedules",
        description="Those that are paused already stay so when all are resumed.",
        request=forms.PauseAllInput,
        responses=answers({200: Count}, *BODY),
    )
    def pause_all(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        asked = self.body(forms.PauseAllInput)
        count = schedules.pause_all(by=self.principal.actor, **asked)
        return reply({"count": count, "is_exact": True})

    @extend_schema(
        operation_id="schedules_resume_all",
        summary="Resume the schedules that were paused with all others",
        request=None,
        responses=answers({200: Count}),
    )
    def resume_all(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        self.body()
        count = schedules.resume_all(by=self.principal.actor)
        return reply({"count": count, "is_exact": True})


def listed(asked: dict[str, Any]) -> ScheduleQuerySet:
    """The schedules that meet all conditions."""
    rows: ScheduleQuerySet = Schedule.objects.all()
    rows = rows.of_status(asked["state"]) if "state" in asked else rows.kept()
    for word in ("kind", "type", "queue", "timing", "source", "created_by"):
        if word in asked:
            rows = rows.listed_as(**{word: asked[word]})
    if "tag" in asked:
        rows = rows.tagged(asked["tag"])
    if "failing" in asked:
        rows = rows.failing(asked["failing"])
    if "late" in asked:
        rows = rows.late(asked["late"])
    if "missed" in asked:
        rows = rows.with_gaps(asked["missed"])
    if "search" in asked:
        rows = rows.search(asked["search"])
    return rows


def key_of(schedule_id: str) -> uuid.UUID:
    key = parse_uuid(schedule_id)
    if key is None:
        raise ScheduleNotFound
    return key


def detail(
    schedule: Schedule, status: int = 200, headers: dict[str, str] | None = None
) -> HttpResponse:
    body = wire.schedule_detail_to_json(schedule, prerequisites.of(schedule))
    return reply(body, status, {**etag(schedule.version), **(headers or {})})
