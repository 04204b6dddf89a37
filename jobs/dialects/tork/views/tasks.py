"""Tasks: one of them, and its log."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from jobs.dialects.tork.views import logs
from jobs.dialects.tork.views.base import Page, TorkView, reply
from jobs.dialects.tork.views.rows import find_task, redactor_above
from jobs.dialects.tork.wire.tasks import task_to_wire, try_to_wire


class TaskView(TorkView):
    verbs = {"retrieve": "jobs.read", "log": "jobs.read"}

    def retrieve(self, request: Request, task_id: str, **_: Any) -> HttpResponse:
        row, attempt = find_task(self.using, task_id)
        told = task_to_wire(row) if attempt is None else try_to_wire(row, attempt)
        return reply(redactor_above(self.using, row.step).value(told))

    def log(self, request: Request, task_id: str, **_: Any) -> HttpResponse:
        page = Page.of(request.query_params, logs.PAGE_SIZE, logs.MAX_PAGE_SIZE)
        row, attempt = find_task(self.using, task_id)
        query = request.query_params.get("q") or ""
        found = logs.of_task(self.using, row.step.job, attempt, page, query)
        redactor = redactor_above(self.using, row.step)
        return page.reply([redactor.value(part) for part in found.parts], found.total)
