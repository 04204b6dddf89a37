"""The table of contents of this API, in the order of its reference."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from config.routing import route
from jobs.dialects.tork.views.base import Unknown
from jobs.dialects.tork.views.jobs import JobView
from jobs.dialects.tork.views.schedules import ScheduledJobView
from jobs.dialects.tork.views.system import MetricsView, NodeView, QueueView, UserView, health
from jobs.dialects.tork.views.tasks import TaskView

job, task, scheduled = JobView.as_view, TaskView.as_view, ScheduledJobView.as_view
queue = QueueView.as_view
unknown = Unknown.as_view()
# Where it answers for the default cluster; below `/jobs` another dialect has words of its own.
BARE = ("jobs", "nodes", "queues", "scheduled-jobs", "tasks", "health")

urlpatterns: list[Any] = [
    route("health", health, "health"),
    route("jobs", job({"get": "list", "post": "create"}), "jobs"),
    route("jobs/<str:job_id>", job({"get": "retrieve"}), "job"),
    route("jobs/<str:job_id>/log", job({"get": "log"}), "job-log"),
    route("jobs/<str:job_id>/cancel", job({"put": "cancel"}), "job-cancel"),
    route("jobs/<str:job_id>/restart", job({"put": "restart"}), "job-restart"),
    route("scheduled-jobs", scheduled({"get": "list", "post": "create"}), "scheduled-jobs"),
    route(
        "scheduled-jobs/<str:schedule_id>",
        scheduled({"get": "retrieve", "delete": "destroy"}),
        "scheduled-job",
    ),
    route("scheduled-jobs/<str:schedule_id>/pause", scheduled({"put": "pause"}), "pause"),
    route("scheduled-jobs/<str:schedule_id>/resume", scheduled({"put": "resume"}), "resume"),
    route("tasks/<str:task_id>", task({"get": "retrieve"}), "task"),
    route("tasks/<str:task_id>/log", task({"get": "log"}), "task-log"),
    route("nodes", NodeView.as_view({"get": "list"}), "nodes"),
    route("queues", queue({"get": "list"}), "queues"),
    route("queues/<str:name>", queue({"get": "retrieve", "delete": "destroy"}), "queue"),
    # At the bare paths these belong to others.
    route("metrics", MetricsView.as_view({"get": "metrics"}), "metrics"),
    route("users", UserView.as_view({"post": "create"}), "users"),
    re_path("", unknown, name="unknown"),
]
