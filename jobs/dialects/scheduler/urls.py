"""The table of contents of the jobs API: its endpoints in the order of its reference, then ours."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import re_path, register_converter

from config.parsers import MAX_BULK_NODES
from config.routing import route
from jobs.dialects.scheduler.views.admin import AdminView
from jobs.dialects.scheduler.views.base import Unknown
from jobs.dialects.scheduler.views.executions import ExecutionView
from jobs.dialects.scheduler.views.jobs import JobView
from jobs.dialects.scheduler.views.monitoring import MonitoringView
from jobs.dialects.scheduler.views.rules import RuleView
from jobs.dialects.scheduler.views.workflows import WorkflowView


class GuidConverter:
    """A GUID in either case; whatever else stands in its place matches no route."""

    regex = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

    def to_python(self, value: str) -> UUID:
        return UUID(value)

    def to_url(self, value: UUID | str) -> str:
        return str(value)


register_converter(GuidConverter, "guid")

job, execution, workflow = JobView.as_view, ExecutionView.as_view, WorkflowView.as_view
rule, monitoring, admin = RuleView.as_view, MonitoringView.as_view, AdminView.as_view
unknown = Unknown.as_view()
# An export of everything must find its way back.
import_limits = {"max_body_bytes": settings.MAX_BULK_BODY_BYTES, "max_nodes": MAX_BULK_NODES}

urlpatterns: list[Any] = [
    route("jobs", job({"post": "create", "get": "list"}), "jobs"),
    route(
        "jobs/<guid:job_id>",
        job({"get": "retrieve", "put": "update", "delete": "destroy"}),
        "job",
    ),
    route("jobs/<guid:job_id>/reschedule", job({"patch": "reschedule"}), "job-reschedule"),
    route("jobs/<guid:job_id>/pause", job({"post": "pause"}), "job-pause"),
    route("jobs/<guid:job_id>/resume", job({"post": "resume"}), "job-resume"),
    route("jobs/<guid:job_id>/trigger", job({"post": "trigger"}), "job-trigger"),
    route(
        "jobs/<guid:job_id>/exclusions",
        rule(
            {
                "post": "add_exclusions",
                "get": "exclusions",
                "put": "set_exclusions",
                "delete": "clear_exclusions",
            }
        ),
        "job-exclusions",
    ),
    route(
        "jobs/<guid:job_id>/dependencies",
        rule(
            {
                "post": "set_dependencies",
                "get": "dependencies",
                "put": "set_dependencies",
                "delete": "clear_dependencies",
            }
        ),
        "job-dependencies",
    ),
    route("jobs/<guid:job_id>/executions", execution({"get": "of_job"}), "job-executions"),
    route("executions/<guid:execution_id>", execution({"get": "retrieve"}), "execution"),
    route(
        "executions/<guid:execution_id>/cancel", execution({"post": "cancel"}), "execution-cancel"
    ),
    route("executions/<guid:execution_id>/retry", execution({"post": "retry"}), "execution-retry"),
    route("workflows", workflow({"post": "create", "get": "list"}), "workflows"),
    route("dashboard/stats", monitoring({"get": "stats"}), "dashboard-stats"),
    route("jobs/failed", job({"get": "failed"}), "jobs-failed"),
    route("executions/timeline", monitoring({"get": "timeline"}), "executions-timeline"),
    route("admin/pause-all", admin({"post": "pause_all"}), "pause-all"),
    route("admin/resume-all", admin({"post": "resume_all"}), "resume-all"),
    route("admin/clear-logs", admin({"delete": "clear_logs"}), "clear-logs"),
    route("admin/export", admin({"get": "export"}), "export"),
    route("admin/import", admin({"post": "import_jobs"}, **import_limits), "import"),
    # What the original lacks.
    route("jobs/<guid:job_id>/history", monitoring({"get": "history"}), "job-history"),
    route("jobs/<guid:job_id>/next-runs", job({"get": "next_runs"}), "job-next-runs"),
    route("jobs/<guid:job_id>/restore", job({"post": "restore"}), "job-restore"),
    route("schedules/preview", job({"post": "preview"}), "schedule-preview"),
    route("executions", execution({"get": "list"}), "executions"),
    route("executions/upcoming", monitoring({"get": "upcoming"}), "executions-upcoming"),
    route("executions/<guid:execution_id>/logs", execution({"get": "logs"}), "execution-logs"),
    route(
        "workflows/<guid:workflow_id>",
        workflow({"get": "retrieve", "put": "update", "delete": "destroy"}),
        "workflow",
    ),
    route(
        "workflows/<guid:workflow_id>/trigger", workflow({"post": "trigger"}), "workflow-trigger"
    ),
    route("workflows/<guid:workflow_id>/runs", workflow({"get": "runs"}), "workflow-runs"),
    route("tags", job({"get": "tags"}), "tags"),
    re_path("", unknown, name="unknown"),
]
