"""The table of contents of this API, in the order of its document."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from config.routing import route
from jobs.dialects.asyncjobs.views.base import Unknown
from jobs.dialects.asyncjobs.views.meta import HealthView, MetaView
from jobs.dialects.asyncjobs.views.queues import QueueView
from jobs.dialects.asyncjobs.views.schedules import ScheduleView
from jobs.dialects.asyncjobs.views.tasks import TaskView

health, meta, task = HealthView.as_view, MetaView.as_view, TaskView.as_view
queue, schedule = QueueView.as_view, ScheduleView.as_view
unknown = Unknown.as_view()
# Where it answers for the default cluster.
BARE = ("v1", "healthz", "readyz")

_one_task: dict[str, Any] = {"get": "retrieve", "delete": "destroy"}

urlpatterns: list[Any] = [
    route("healthz", health({"get": "healthz"}), "healthz"),
    route("readyz", health({"get": "readyz"}), "readyz"),
    route("v1/info", meta({"get": "info"}), "info"),
    route("v1/openapi.json", meta({"get": "openapi"}), "openapi"),
    route("v1/retry-policies", meta({"get": "policies"}), "retry-policies"),
    route("v1/tasks", task({"get": "list", "post": "create"}), "tasks"),
    # Read or deleted, this is the task of that id, and there is none.
    route(
        "v1/tasks/retry",
        task({**_one_task, "post": "retry_many"}),
        "tasks-retry",
        {"task_id": "retry"},
    ),
    route("v1/tasks/<str:task_id>", task(_one_task), "task"),
    route("v1/tasks/<str:task_id>/retry", task({"post": "retry"}), "task-retry"),
    route("v1/queues", queue({"get": "list", "post": "create"}), "queues"),
    route("v1/queues/<str:name>", queue({"get": "retrieve", "delete": "destroy"}), "queue"),
    route("v1/queues/<str:name>/purge", queue({"post": "purge"}), "queue-purge"),
    route("v1/schedules", schedule({"get": "list", "post": "create"}), "schedules"),
    route(
        "v1/schedules/<str:name>",
        schedule({"get": "retrieve", "delete": "destroy"}),
        "schedule",
    ),
    re_path("", unknown, name="unknown"),
]
