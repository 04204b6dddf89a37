"""The native API on one screen. Every address answers with and without a trailing slash."""

from __future__ import annotations

from django.conf import settings
from django.urls import re_path

from authn.api.views import WhoamiViewSet
from clusters.api.views import ClusterViewSet, NodeViewSet
from clusters.surfaces import UnknownAddress
from config.parsers import MAX_BULK_NODES
from config.routing import route
from jobs.api.bulk_operations import BulkOperationViewSet
from jobs.api.documentation import DocumentViewSet, SwaggerView
from jobs.api.failures import FailureViewSet
from jobs.api.queues import QueueViewSet
from jobs.api.stats import StatsViewSet
from jobs.api.views import JobViewSet
from jobs.api.waits import JobWaitsViewSet

unknown = UnknownAddress.as_view()
bulk_limits = {"max_body_bytes": settings.MAX_BULK_BODY_BYTES, "max_nodes": MAX_BULK_NODES}

job, queue, node = JobViewSet.as_view, QueueViewSet.as_view, NodeViewSet.as_view
job_waits = JobWaitsViewSet.as_view
stats, failure = StatsViewSet.as_view, FailureViewSet.as_view
operation = BulkOperationViewSet.as_view

urlpatterns = [
    route("openapi.json", DocumentViewSet.as_view({"get": "retrieve"}), "native-document"),
    route("swagger", SwaggerView.as_view(), "swagger"),
    route("whoami", WhoamiViewSet.as_view({"get": "retrieve"}), "whoami"),
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
    route("<str:cluster_id>/jobs/<str:job_id>/requeue", job({"post": "requeue"}), "job-requeue"),
    route("<str:cluster_id>/jobs/<str:job_id>/why", job_waits({"get": "why"}), "job-why"),
    route(
        "<str:cluster_id>/jobs/<str:job_id>/dependencies",
        job_waits({"get": "dependencies"}),
        "job-dependencies",
    ),
    route("<str:cluster_id>/jobs/<str:job_id>/attempts", job({"get": "attempts"}), "job-attempts"),
    route("<str:cluster_id>/jobs/<str:job_id>/logs", job({"get": "logs"}), "job-logs"),
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
    route("<str:cluster_id>/nodes", node({"get": "list"}), "nodes"),
    route("<str:cluster_id>/nodes/count", node({"get": "count"}), "nodes-count"),
    route("<str:cluster_id>/nodes/<str:node_id>", node({"get": "retrieve"}), "node"),
    route("<str:cluster_id>/nodes/<str:node_id>/drain", node({"post": "drain"}), "node-drain"),
    route("<str:cluster_id>/stats", stats({"get": "stats"}), "stats"),
    route("<str:cluster_id>/timeline", stats({"get": "timeline"}), "timeline"),
    route("<str:cluster_id>/failures", failure({"get": "list"}), "failures"),
    route("<str:cluster_id>/failures/count", failure({"get": "count"}), "failures-count"),
    route("<str:cluster_id>/failures/<str:fingerprint>", failure({"get": "retrieve"}), "failure"),
    re_path("", unknown, name="unknown"),
]
