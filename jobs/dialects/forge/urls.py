"""The table of contents of the API: its routes in the order of its manual."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from config.routing import route
from jobs.dialects.forge.views.base import Unknown
from jobs.dialects.forge.views.cron import CronView
from jobs.dialects.forge.views.jobs import JobView
from jobs.dialects.forge.views.moves import MoveView
from jobs.dialects.forge.views.queues import QueueView
from jobs.dialects.forge.views.series import SeriesView
from jobs.dialects.forge.views.system import MetricsView, StorageView, health

queue, series, cron = QueueView.as_view, SeriesView.as_view, CronView.as_view
job, move = JobView.as_view, MoveView.as_view
unknown = Unknown.as_view()

# What else is below `/jobs` at the bare paths belongs to another dialect, and so does `/health` there.
_JOB_WORDS = (
    *(
        "list",
        "failed",
        "kinds",
        "scheduled",
        "inspect",
        "enqueue",
        "enqueue-demo",
        "run-now",
        "retry",
    ),
    *("requeue", "retry-all-failed", "retry-all-by-status", "delete", "delete-done-older-than"),
    "delete-by-status",
)
BARE = ("queue", "cron", "storage", "metrics", *(f"jobs/{word}" for word in _JOB_WORDS))

urlpatterns: list[Any] = [
    route("health", health, "health"),
    route("metrics", MetricsView.as_view({"get": "metrics"}), "metrics"),
    route("storage/info", StorageView.as_view({"get": "info"}), "storage-info"),
    route("queue/overview", queue({"get": "overview"}), "overview"),
    route("queue/processes", queue({"get": "processes"}), "processes"),
    route("queue/workers", queue({"get": "workers"}), "workers"),
    route("queue/timeline", series({"get": "timeline"}), "timeline"),
    route("queue/metric-series", series({"get": "metric_series"}), "metric-series"),
    route("queue/resource-series", series({"get": "resource_series"}), "resource-series"),
    route("queue/db-series", series({"get": "db_series"}), "db-series"),
    route("queue/cleanup", queue({"post": "cleanup"}), "cleanup"),
    route("queue/<str:name>/max-workers", queue({"post": "max_workers"}), "max-workers"),
    route("queue/<str:name>/paused", queue({"post": "paused"}), "paused"),
    route("queue/<str:name>/retention", queue({"post": "retention"}), "retention"),
    route("queue/<str:name>/backoff", queue({"post": "backoff"}), "backoff"),
    route("jobs/list", job({"post": "list"}), "jobs"),
    route("jobs/failed", job({"get": "failed"}), "jobs-failed"),
    route("jobs/kinds", job({"get": "kinds"}), "jobs-kinds"),
    route("jobs/scheduled", job({"get": "scheduled"}), "jobs-scheduled"),
    route("jobs/inspect/<str:job_id>", job({"get": "inspect"}), "job"),
    route("jobs/enqueue", job({"post": "enqueue"}), "enqueue"),
    route("jobs/enqueue-demo", job({"post": "enqueue_demo"}), "enqueue-demo"),
    route("jobs/run-now/<str:job_id>", move({"post": "run_now"}), "run-now"),
    route("jobs/retry", move({"post": "retry"}), "retry"),
    route("jobs/requeue", move({"post": "retry"}), "requeue"),
    route("jobs/retry-all-failed", move({"post": "retry_all_failed"}), "retry-all-failed"),
    route("jobs/retry-all-by-status", move({"post": "retry_all_by_status"}), "retry-all"),
    route("jobs/delete", move({"post": "delete"}), "delete"),
    route("jobs/delete-done-older-than", move({"post": "delete_done_older_than"}), "delete-done"),
    route("jobs/delete-by-status", move({"post": "delete_by_status"}), "delete-all"),
    route("cron", cron({"get": "list"}), "cron"),
    # The name of a schedule may hold anything, a slash too.
    route("cron/<path:name>/enabled", cron({"post": "enabled"}), "cron-enabled"),
    route("cron/<path:name>/expr", cron({"post": "expr"}), "cron-expr"),
    route("cron/<path:name>/dedupe", cron({"post": "dedupe"}), "cron-dedupe"),
    route("cron/<path:name>/trigger", cron({"post": "trigger"}), "cron-trigger"),
    re_path("", unknown, name="unknown"),
]
