"""Administration: endpoints 20 to 24, for admins only."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.surfaces import reply
from config.parsers import MAX_BULK_NODES, parse_json
from config.problems import InvalidInput
from jobs.dialects.scheduler.views.base import SchedulerView, body_of, empty
from jobs.dialects.scheduler.views.jobs import TARGET, jobs_to_wire, shown
from jobs.dialects.scheduler.wire.importing import MODES, Names, Report, read_item, resolved
from jobs.dialects.scheduler.wire.jobs import change_from_wire
from jobs.dialects.scheduler.wire.naming import field_to_wire, words_to_wire
from jobs.dialects.scheduler.wire.reading import Reader, refuse
from jobs.engine import schedule_runs, schedules
from jobs.errors import JobError
from jobs.models import Schedule

MAX_DAYS = 36_500
MAX_ITEMS = 5000
EXPORT_NAME = "scheduler-jobs-export.json"


class AdminView(SchedulerView):
    verbs = {
        "pause_all": "schedules.pause_all",
        "resume_all": "schedules.resume_all",
        "clear_logs": "jobs.delete",
        "export": "schedules.export",
        "import_jobs": "schedules.import",
    }
    titles = {
        "pause_all": "Pause all jobs failed",
        "resume_all": "Resume all jobs failed",
        "clear_logs": "Clear logs failed",
        "import_jobs": "Import jobs failed",
    }

    def pause_all(self, request: Request, **_: Any) -> HttpResponse:
        body_of(request)
        schedules.pause_all(by=self.principal.actor)
        return empty()

    def resume_all(self, request: Request, **_: Any) -> HttpResponse:
        body_of(request)
        schedules.resume_all(by=self.principal.actor)
        return empty()

    def clear_logs(self, request: Request, **_: Any) -> HttpResponse:
        reader = Reader(body_of(request))
        days = reader.integer("olderThanDays", 1, MAX_DAYS)
        if "olderThanDays" not in reader:
            # The original's generated client loses the body.
            query = self.query()
            days = query.integer("olderThanDays", 0, 1, MAX_DAYS) or None
            query.done()
            if days is None:
                reader.need("olderThanDays")
        reader.done()
        assert days is not None
        return reply(schedule_runs.clear(timedelta(days=days)))

    def export(self, request: Request, **_: Any) -> HttpResponse:
        rows = shown().kept().order_by("created_at", "pk")
        text = json.dumps(jobs_to_wire(rows, with_names=True), indent=2, ensure_ascii=False)
        disposition = f'attachment; filename="{EXPORT_NAME}"'
        return HttpResponse(
            text.encode("utf-8", "replace"),
            content_type="application/json",
            headers={"Content-Disposition": disposition},
        )

    def import_jobs(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        is_detailed = query.boolean("detailed")
        mode = query.choice("mode", MODES) or "skip"
        query.done()
        items = _items(request.data)
        report = Report()
        names = Names(Schedule.objects.all(), items)
        done: dict[int, Schedule] = {}
        for index, item in enumerate(items):
            try:
                # Of a job that is refused nothing stays.
                with self.deed(TARGET) as trace:
                    schedule = self._import(index, item, mode, report, names)
                    trace.is_done = schedule is not None
                    trace.target_id, trace.after = str(schedule and schedule.pk), {"mode": mode}
                if schedule is not None:
                    done[index] = schedule
                    names.add(schedule)
            except (InvalidInput, JobError) as error:
                report.refuse(index, item, _told(error))
        self._connect(items, done, report)
        return reply(report.to_wire() if is_detailed else report.created)

    def _import(
        self, index: int, item: Any, mode: str, report: Report, names: Names
    ) -> Schedule | None:
        found = read_item(item)
        actor = self.principal.actor
        known = names.find(found.name)
        if known is None or mode == "rename":
            if known is not None:
                found.values["name"] = names.free(found.name)
            if found.masked:
                # Without its secret it cannot do its work; somebody has to give it first.
                found.values["is_enabled"] = False
            made = schedules.create(found.values, by=actor, created_by=found.created_by)
            report.created += 1
            if found.masked:
                report.warn(index, item, f"disabled: give {', '.join(found.masked)}")
            return made
        if mode == "skip":
            report.skipped += 1
            return None
        same = shown().kept().filter(pk=known).first()
        if same is None:
            refuse("name", "Something else has this name.", "duplicate_name")
        values = change_from_wire(item, same) | found.rules
        changed = schedules.change(same.pk, values, by=actor)
        report.updated += 1
        return changed

    def _connect(self, items: list[Any], done: dict[int, Schedule], report: Report) -> None:
        """Dependencies come last, when all jobs are there that they name."""
        rows = shown().kept()
        for index, schedule in done.items():
            try:
                found = resolved(items[index], rows)
                if found is not None:
                    ids, needs = found
                    schedules.set_dependencies(
                        schedule.pk, ids, needs=needs, by=self.principal.actor
                    )
            except (InvalidInput, JobError) as error:
                report.refuse(index, items[index], _told(error))


def _items(data: Any) -> list[Any]:
    """The jobs to import: a list, or text that holds one."""
    field = "body"
    if isinstance(data, dict):
        field = "jsonPayload"
        reader = Reader(data)
        reader.need(field)
        text = reader.text(field, most=16 << 20)
        reader.done()
        try:
            data = parse_json((text or "").encode(), MAX_BULK_NODES)
        except InvalidInput as error:
            refuse(field, error.errors[0].message)
        except UnicodeEncodeError:
            refuse(field, "Is no text.")
    if not isinstance(data, list) or not data:
        refuse(field, "Must be a list of jobs, and not an empty one.")
    if len(data) > MAX_ITEMS:
        refuse(field, f"May hold {MAX_ITEMS} jobs at most.")
    return data


def _told(error: InvalidInput | JobError) -> dict[str, list[str]]:
    if isinstance(error, JobError):
        return {field_to_wire(error.field or "body"): [words_to_wire(str(error))]}
    texts: dict[str, list[str]] = {}
    for one in error.errors:
        texts.setdefault(field_to_wire(one.field), []).append(one.message)
    return texts
