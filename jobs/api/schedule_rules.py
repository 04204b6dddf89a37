"""When schedules run and when not: previews, exclusions, what they depend on, and their fires."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.paging import Order, read_page
from clusters.api.schema import BODY, IF_MATCH, SCHEDULE_ID, answers
from jobs.api import schedule_forms as forms
from jobs.api import schedule_wire as wire
from jobs.api.grants import refuse_words_of_dialects
from jobs.api.job_wire import Count
from jobs.api.schedules import detail, key_of
from jobs.api.versions import asked_versions, etag
from jobs.api.words import in_words_of_the_body
from jobs.engine import missed, prerequisites, schedules
from jobs.models import Fire, Needs, Schedule

BY_INSTANT = Order(("due_at",), (datetime.fromisoformat,))


class ScheduleRulesViewSet(NativeViewSet):
    http_method_names = ["get", "head", "post", "put", "delete"]
    verbs = {
        "preview": "schedules.read",
        "next_runs": "schedules.read",
        "exclusions": "schedules.read",
        "set_exclusions": "schedules.change",
        "add_exclusions": "schedules.change",
        "clear_exclusions": "schedules.change",
        "dependencies": "schedules.read",
        "set_dependencies": "schedules.change",
        "clear_dependencies": "schedules.change",
        "skip_next": "schedules.skip_next",
        "run_missed": "schedules.run_missed",
        "fires": "schedules.read",
        "fires_count": "schedules.read",
    }

    # -- Previews ----------------------------------------------------------------------------------

    @extend_schema(
        operation_id="schedules_preview",
        summary="Preview the runs of a definition",
        description="Nothing is stored. The body is a timing alone, or that of a new schedule, of which "
        "all is checked: what could not be stored is refused in the same words. Whether the caller may "
        "store it, and start what it starts, is not asked. "
        f"`count` is {forms.DEFAULT_PREVIEW} unless told; excluded instants count.",
        request=forms.PreviewInput,
        responses=answers({200: wire.Preview}, *BODY),
    )
    def preview(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        values = self.body(forms.PreviewInput)
        forms.refuse_other_timings(values, values["timing"])
        count = values.pop("count", forms.DEFAULT_PREVIEW)
        after = values.pop("after", None)
        wanted = forms.definition(values)
        with in_words_of_the_body():
            refuse_words_of_dialects(wanted.get("kind"), wanted.get("payload"))
            found = schedules.preview(wanted, count, after, depends_on=values.get("depends_on", ()))
        return reply(wire.preview_to_json(*found))

    @extend_schema(
        operation_id="schedules_next_runs",
        summary="List the next runs of a schedule",
        description="As if nothing stopped it; a timing that waits is part of it. "
        f"{forms.DEFAULT_PREVIEW} unless told; excluded instants count.",
        parameters=[SCHEDULE_ID, forms.NextRunsQuery],
        responses=answers({200: wire.NextRuns}),
    )
    def next_runs(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        asked = {"count": forms.DEFAULT_PREVIEW, **self.query(forms.NextRunsQuery)}
        found = schedules.next_runs(_schedule(schedule_id), **asked)
        return reply({"items": [wire.occurrence_to_json(one) for one in found]})

    # -- Exclusions --------------------------------------------------------------------------------

    @extend_schema(
        operation_id="schedules_exclusions_get",
        summary="Get the exclusions of a schedule",
        parameters=[SCHEDULE_ID],
        responses=answers({200: forms.ExclusionsInput}),
    )
    def exclusions(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        return _exclusions(_schedule(schedule_id))

    @extend_schema(
        operation_id="schedules_exclusions_set",
        summary="Replace the exclusions of a schedule",
        description="Those that leave no run are refused.",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=forms.ExclusionsInput,
        responses=answers({200: forms.ExclusionsInput}, 412, *BODY),
    )
    def set_exclusions(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        schedule, document = self._asked(schedule_id)
        with in_words_of_the_body("exclusions"):
            return _exclusions(schedules.set_exclusions(schedule.pk, document, **self._by()))

    @extend_schema(
        operation_id="schedules_exclusions_add",
        summary="Add exclusions to those of a schedule",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=forms.ExclusionsInput,
        responses=answers({200: forms.ExclusionsInput}, 412, *BODY),
    )
    def add_exclusions(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        schedule, document = self._asked(schedule_id)
        with in_words_of_the_body("exclusions"):
            return _exclusions(schedules.add_exclusions(schedule.pk, document, **self._by()))

    @extend_schema(
        operation_id="schedules_exclusions_delete",
        summary="Remove all exclusions of a schedule",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=None,
        responses=answers({204: None}, 412),
    )
    def clear_exclusions(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        schedule = self._schedule(schedule_id)
        self.body()
        schedules.set_exclusions(schedule.pk, {}, **self._by())
        return HttpResponse(status=204)

    # -- What it depends on ------------------------------------------------------------------------

    @extend_schema(
        operation_id="schedules_dependencies_get",
        summary="List the schedules that one depends on",
        description="With those that are deleted, for which it waits in vain.",
        parameters=[SCHEDULE_ID],
        responses=answers({200: wire.Prerequisites}),
    )
    def dependencies(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        return _dependencies(_schedule(schedule_id))

    @extend_schema(
        operation_id="schedules_dependencies_set",
        summary="Let a schedule run only after others have succeeded",
        description="These take the place of those before. A circle is refused.",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=forms.PrerequisitesInput,
        responses=answers({200: wire.Prerequisites}, 412, *BODY),
    )
    def set_dependencies(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        schedule = self._schedule(schedule_id)
        asked = {"needs": Needs.ALL.value, **self.body(forms.PrerequisitesInput)}
        changed = schedules.set_dependencies(
            schedule.pk, asked["depends_on"], needs=asked["needs"], **self._by()
        )
        return _dependencies(changed)

    @extend_schema(
        operation_id="schedules_dependencies_delete",
        summary="Let a schedule depend on no other",
        parameters=[SCHEDULE_ID, IF_MATCH],
        request=None,
        responses=answers({204: None}, 412),
    )
    def clear_dependencies(
        self, request: Request, cluster_id: str, schedule_id: str
    ) -> HttpResponse:
        schedule = self._schedule(schedule_id)
        self.body()
        schedules.set_dependencies(schedule.pk, [], needs=schedule.needs, **self._by())
        return HttpResponse(status=204)

    # -- Fires -------------------------------------------------------------------------------------

    @extend_schema(
        operation_id="schedules_fires",
        summary="List the fires of a schedule, newest instant first",
        description="Also what was left out, and why: `skipped` and `missed`. Stretches of instants "
        "that made no job are one item with their `count`.",
        parameters=[SCHEDULE_ID, forms.FireListQuery],
        responses=answers({200: wire.FirePage}),
    )
    def fires(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        asked = self.query(forms.FireListQuery)
        page = read_page(request, _fires(schedule_id, asked), BY_INSTANT, asked)
        return reply(page.to_json(wire.fire_to_json))

    @extend_schema(
        operation_id="schedules_fires_count",
        summary="Count the fires of a schedule",
        parameters=[SCHEDULE_ID, forms.FireQuery],
        responses=answers({200: Count}),
    )
    def fires_count(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        asked = self.query(forms.FireQuery)
        found = _fires(schedule_id, asked)[: forms.MAX_COUNTED + 1].count()
        is_exact = found <= forms.MAX_COUNTED
        return reply({"count": min(found, forms.MAX_COUNTED), "is_exact": is_exact})

    # -- Single instants ---------------------------------------------------------------------------

    @extend_schema(
        operation_id="schedules_skip_next",
        summary="Skip the next run of a schedule",
        description="The run after it is the next then. It is told of as an exclusion. One that is due "
        "already is 409.",
        parameters=[SCHEDULE_ID],
        request=forms.SkipNextInput,
        responses=answers({200: wire.ScheduleDetail}, 409, *BODY),
    )
    def skip_next(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        self.query()
        asked = self.body(forms.SkipNextInput)
        key = key_of(schedule_id)
        return detail(missed.skip_next(key, by=self.principal.actor, **asked))

    @extend_schema(
        operation_id="schedules_run_missed",
        summary="Run what was missed, or leave it out for good",
        description="Of a fire that is `missed`. Of `all` the newest 100 run, and the rest stays missed; "
        "where no two runs may go on at a time each waits for the one before. A definition that says "
        "otherwise by now of when it was due is 409.",
        parameters=[SCHEDULE_ID],
        request=forms.RunMissedInput,
        responses=answers({202: wire.MissedRuns}, 409, 422, 429, *BODY),
    )
    def run_missed(self, request: Request, cluster_id: str, schedule_id: str) -> HttpResponse:
        schedule = self._schedule(schedule_id)
        asked = self.body(forms.RunMissedInput)
        dealt = missed.run_missed(schedule.pk, by=self.principal.actor, **asked)
        return reply(wire.missed_runs_to_json(dealt), 202)

    # -- What the requests share -------------------------------------------------------------------

    def _schedule(self, schedule_id: str) -> Schedule:
        """The schedule that is to be changed."""
        self.query()
        return schedules.get(key_of(schedule_id))

    def _asked(self, schedule_id: str) -> tuple[Schedule, dict[str, Any]]:
        return self._schedule(schedule_id), self.body(forms.ExclusionsInput)

    def _by(self) -> dict[str, Any]:
        return {"by": self.principal.actor, "versions": asked_versions(self.request)}


def _schedule(schedule_id: str) -> Schedule:
    return schedules.get(key_of(schedule_id), with_deleted=True)


def _exclusions(schedule: Schedule) -> HttpResponse:
    return reply(wire.exclusions_to_json(schedule), headers=etag(schedule.version))


def _dependencies(schedule: Schedule) -> HttpResponse:
    items = [wire.prerequisite_to_json(one) for one in prerequisites.of(schedule)]
    body = {"needs": str(schedule.needs), "items": items}
    return reply(body, headers=etag(schedule.version))


def _fires(schedule_id: str, asked: dict[str, Any]) -> Any:
    rows = Fire.objects.filter(schedule_id=_schedule(schedule_id).pk)
    return rows.filter(state=asked["state"]) if "state" in asked else rows
