"""The native API on one screen. Every address answers with and without a trailing slash."""

from __future__ import annotations

from django.conf import settings
from django.urls import re_path

from authn.api.access_audit import AccessAuditViewSet
from authn.api.keys import KeyViewSet
from authn.api.roles import RoleViewSet
from authn.api.tokens import TokenViewSet
from authn.api.views import WhoamiViewSet
from clusters.api.audit import AuditViewSet
from clusters.api.logs import LogViewSet
from clusters.api.views import ClusterViewSet, NodeViewSet
from clusters.surfaces import UnknownAddress
from config.parsers import MAX_BULK_NODES
from config.routing import route
from jobs.api.alerts import AlertViewSet
from jobs.api.bulk_operations import BulkOperationViewSet
from jobs.api.calendars import CalendarViewSet
from jobs.api.documentation import DocumentViewSet, SwaggerView
from jobs.api.failures import FailureViewSet
from jobs.api.metrics import MetricsViewSet
from jobs.api.queues import QueueViewSet
from jobs.api.schedule_rules import ScheduleRulesViewSet
from jobs.api.schedules import ScheduleViewSet
from jobs.api.secrets import SecretViewSet
from jobs.api.settings import SettingsViewSet
from jobs.api.stats import StatsViewSet
from jobs.api.steps import JobStepsViewSet
from jobs.api.views import JobViewSet
from jobs.api.waits import JobWaitsViewSet
from jobs.api.workflows import WorkflowRunViewSet, WorkflowViewSet

unknown = UnknownAddress.as_view()
bulk_limits = {"max_body_bytes": settings.MAX_BULK_BODY_BYTES, "max_nodes": MAX_BULK_NODES}

job, queue, node = JobViewSet.as_view, QueueViewSet.as_view, NodeViewSet.as_view
job_waits = JobWaitsViewSet.as_view
steps = JobStepsViewSet.as_view
stats, failure = StatsViewSet.as_view, FailureViewSet.as_view
operation = BulkOperationViewSet.as_view
schedule, schedule_rules = ScheduleViewSet.as_view, ScheduleRulesViewSet.as_view
calendar, log = CalendarViewSet.as_view, LogViewSet.as_view
settings_view = SettingsViewSet.as_view
secret = SecretViewSet.as_view
alert = AlertViewSet.as_view
audit, access_audit = AuditViewSet.as_view, AccessAuditViewSet.as_view
api_key, role = KeyViewSet.as_view, RoleViewSet.as_view
workflow, workflow_run = WorkflowViewSet.as_view, WorkflowRunViewSet.as_view

schedule_routes = [
    route("<str:cluster_id>/schedules", schedule({"get": "list", "post": "create"}), "schedules"),
    route("<str:cluster_id>/schedules/count", schedule({"get": "count"}), "schedules-count"),
    route(
        "<str:cluster_id>/schedules/preview",
        schedule_rules({"post": "preview"}),
        "schedules-preview",
    ),
    route(
        "<str:cluster_id>/schedules/pause-all",
        schedule({"post": "pause_all"}),
        "schedules-pause-all",
    ),
    route(
        "<str:cluster_id>/schedules/resume-all",
        schedule({"post": "resume_all"}),
        "schedules-resume-all",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>",
        schedule({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "schedule",
    ),
    *(
        route(
            f"<str:cluster_id>/schedules/<str:schedule_id>/{verb}",
            schedule({"post": verb}),
            f"schedule-{verb}",
        )
        for verb in ("reschedule", "restore", "pause", "resume", "trigger")
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/skip-next",
        schedule_rules({"post": "skip_next"}),
        "schedule-skip-next",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/run-missed",
        schedule_rules({"post": "run_missed"}),
        "schedule-run-missed",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/next-runs",
        schedule_rules({"get": "next_runs"}),
        "schedule-next-runs",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/exclusions",
        schedule_rules(
            {
                "get": "exclusions",
                "put": "set_exclusions",
                "post": "add_exclusions",
                "delete": "clear_exclusions",
            }
        ),
        "schedule-exclusions",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/dependencies",
        schedule_rules(
            {"get": "dependencies", "put": "set_dependencies", "delete": "clear_dependencies"}
        ),
        "schedule-dependencies",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/fires",
        schedule_rules({"get": "fires"}),
        "schedule-fires",
    ),
    route(
        "<str:cluster_id>/schedules/<str:schedule_id>/fires/count",
        schedule_rules({"get": "fires_count"}),
        "schedule-fires-count",
    ),
    route("<str:cluster_id>/calendars", calendar({"get": "list", "post": "create"}), "calendars"),
    route("<str:cluster_id>/calendars/count", calendar({"get": "count"}), "calendars-count"),
    route(
        "<str:cluster_id>/calendars/<str:name>",
        calendar({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "calendar",
    ),
]
workflow_routes = [
    route("<str:cluster_id>/workflows", workflow({"get": "list", "post": "create"}), "workflows"),
    route("<str:cluster_id>/workflows/count", workflow({"get": "count"}), "workflows-count"),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>",
        workflow({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "workflow",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/trigger",
        workflow({"post": "trigger"}),
        "workflow-trigger",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/runs",
        workflow_run({"get": "list"}),
        "workflow-runs",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/runs/count",
        workflow_run({"get": "count"}),
        "workflow-runs-count",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/runs/<str:run_id>",
        workflow_run({"get": "retrieve"}),
        "workflow-run",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/runs/<str:run_id>/cancel",
        workflow_run({"post": "cancel"}),
        "workflow-run-cancel",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/runs/<str:run_id>/rerun",
        workflow_run({"post": "rerun"}),
        "workflow-run-rerun",
    ),
    route(
        "<str:cluster_id>/workflows/<str:workflow_id>/runs/<str:run_id>/nodes/<str:schedule_id>/skip",
        workflow_run({"post": "skip"}),
        "workflow-run-skip",
    ),
]

# What belongs to no cluster.
access_routes = [
    route("keys", api_key({"get": "list", "post": "create"}), "keys"),
    route("keys/count", api_key({"get": "count"}), "keys-count"),
    route("keys/<str:key_id>", api_key({"get": "retrieve", "patch": "partial_update"}), "key"),
    route("keys/<str:key_id>/rotate", api_key({"post": "rotate"}), "key-rotate"),
    route("keys/<str:key_id>/revoke", api_key({"post": "revoke"}), "key-revoke"),
    route("roles", role({"get": "list", "post": "create"}), "roles"),
    route("roles/count", role({"get": "count"}), "roles-count"),
    route("roles/<str:role_id>", role({"get": "retrieve", "delete": "destroy"}), "role"),
    route("access-audit", access_audit({"get": "list"}), "access-audit"),
    route("access-audit/export", access_audit({"get": "export"}), "access-audit-export"),
]

urlpatterns = [
    route("openapi.json", DocumentViewSet.as_view({"get": "retrieve"}), "native-document"),
    route("swagger", SwaggerView.as_view(), "swagger"),
    route("metrics", MetricsViewSet.as_view({"get": "list"}), "metrics"),
    route("whoami", WhoamiViewSet.as_view({"get": "retrieve"}), "whoami"),
    route("token", TokenViewSet.as_view({"post": "create"}), "token"),
    *access_routes,
    route("clusters", ClusterViewSet.as_view({"get": "list"}), "clusters"),
    route("clusters/count", ClusterViewSet.as_view({"get": "count"}), "clusters-count"),
    route("clusters/<str:cluster_id>", ClusterViewSet.as_view({"get": "retrieve"}), "cluster"),
    route("<str:cluster_id>/jobs", job({"get": "list", "post": "create"}), "jobs"),
    route("<str:cluster_id>/jobs/count", job({"get": "count"}), "jobs-count"),
    route("<str:cluster_id>/jobs/bulk", job({"post": "bulk"}, **bulk_limits), "jobs-bulk"),
    route(
        "<str:cluster_id>/jobs/<str:job_id>",
        job({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "job",
    ),
    route("<str:cluster_id>/jobs/<str:job_id>/cancel", job({"post": "cancel"}), "job-cancel"),
    route("<str:cluster_id>/jobs/<str:job_id>/retry", job({"post": "retry"}), "job-retry"),
    route("<str:cluster_id>/jobs/<str:job_id>/run-now", job({"post": "run_now"}), "job-run-now"),
    route("<str:cluster_id>/jobs/<str:job_id>/close", job({"post": "close"}), "job-close"),
    route("<str:cluster_id>/jobs/<str:job_id>/requeue", job({"post": "requeue"}), "job-requeue"),
    route("<str:cluster_id>/jobs/<str:job_id>/why", job_waits({"get": "why"}), "job-why"),
    route(
        "<str:cluster_id>/jobs/<str:job_id>/dependencies",
        job_waits({"get": "dependencies"}),
        "job-dependencies",
    ),
    route("<str:cluster_id>/jobs/<str:job_id>/attempts", job({"get": "attempts"}), "job-attempts"),
    route("<str:cluster_id>/jobs/<str:job_id>/steps", steps({"get": "steps"}), "job-steps"),
    route("<str:cluster_id>/jobs/<str:job_id>/logs", steps({"get": "logs"}), "job-logs"),
    route(
        "<str:cluster_id>/jobs/<str:job_id>/logs/stream",
        steps({"get": "stream"}),
        "job-logs-stream",
    ),
    route(
        "<str:cluster_id>/bulk-operations",
        operation({"get": "list", "post": "create"}),
        "bulk-operations",
    ),
    route(
        "<str:cluster_id>/bulk-operations/count",
        operation({"get": "count"}),
        "bulk-operations-count",
    ),
    route(
        "<str:cluster_id>/bulk-operations/<str:operation_id>",
        operation({"get": "retrieve"}),
        "bulk-operation",
    ),
    route(
        "<str:cluster_id>/bulk-operations/<str:operation_id>/cancel",
        operation({"post": "cancel"}),
        "bulk-operation-cancel",
    ),
    route("<str:cluster_id>/queues", queue({"get": "list", "post": "create"}), "queues"),
    route("<str:cluster_id>/queues/count", queue({"get": "count"}), "queues-count"),
    route(
        "<str:cluster_id>/queues/<str:name>",
        queue({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "queue",
    ),
    route("<str:cluster_id>/queues/<str:name>/pause", queue({"post": "pause"}), "queue-pause"),
    route("<str:cluster_id>/queues/<str:name>/resume", queue({"post": "resume"}), "queue-resume"),
    route("<str:cluster_id>/queues/<str:name>/purge", queue({"post": "purge"}), "queue-purge"),
    *schedule_routes,
    *workflow_routes,
    route("<str:cluster_id>/nodes", node({"get": "list"}), "nodes"),
    route("<str:cluster_id>/nodes/count", node({"get": "count"}), "nodes-count"),
    route("<str:cluster_id>/nodes/<str:node_id>", node({"get": "retrieve"}), "node"),
    route("<str:cluster_id>/nodes/<str:node_id>/drain", node({"post": "drain"}), "node-drain"),
    route(
        "<str:cluster_id>/nodes/<str:node_id>/undrain", node({"post": "undrain"}), "node-undrain"
    ),
    route("<str:cluster_id>/logs", log({"get": "list"}), "logs"),
    route("<str:cluster_id>/logs/count", log({"get": "count"}), "logs-count"),
    route("<str:cluster_id>/logs/<str:line_id>", log({"get": "retrieve"}), "log-line"),
    route("<str:cluster_id>/audit", audit({"get": "list"}), "audit"),
    route("<str:cluster_id>/audit/export", audit({"get": "export"}), "audit-export"),
    route("<str:cluster_id>/stats", stats({"get": "stats"}), "stats"),
    route("<str:cluster_id>/timeline", stats({"get": "timeline"}), "timeline"),
    route("<str:cluster_id>/alerts", alert({"get": "list", "post": "create"}), "alerts"),
    route("<str:cluster_id>/alerts/count", alert({"get": "count"}), "alerts-count"),
    route("<str:cluster_id>/alerts/preview", alert({"post": "preview"}), "alerts-preview"),
    route(
        "<str:cluster_id>/alerts/<str:alert_id>",
        alert({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "alert",
    ),
    *(
        route(
            f"<str:cluster_id>/alerts/<str:alert_id>/{name}", alert({"post": name}), f"alert-{name}"
        )
        for name in ("test", "acknowledge", "mute", "unmute")
    ),
    route(
        "<str:cluster_id>/alerts/<str:alert_id>/events", alert({"get": "events"}), "alert-events"
    ),
    route("<str:cluster_id>/failures", failure({"get": "list"}), "failures"),
    route("<str:cluster_id>/failures/count", failure({"get": "count"}), "failures-count"),
    route(
        "<str:cluster_id>/failures/<str:fingerprint>",
        failure({"get": "retrieve", "patch": "partial_update"}),
        "failure",
    ),
    route(
        "<str:cluster_id>/settings",
        settings_view({"get": "list", "patch": "partial_update"}),
        "settings",
    ),
    route(
        "<str:cluster_id>/settings/changes", settings_view({"get": "changes"}), "settings-changes"
    ),
    route(
        "<str:cluster_id>/settings/changes/count",
        settings_view({"get": "changes_count"}),
        "settings-changes-count",
    ),
    route("<str:cluster_id>/secrets", secret({"get": "list", "post": "create"}), "secrets"),
    route("<str:cluster_id>/secrets/count", secret({"get": "count"}), "secrets-count"),
    route(
        "<str:cluster_id>/secrets/<str:name>",
        secret({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        "secret",
    ),
    re_path("", unknown, name="unknown"),
]
