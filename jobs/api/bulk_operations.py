"""Bulk operations of one cluster: ask for one, follow it, stop it. The nodes do the work."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from authn.permissions import is_allowed
from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import parse_uuid, read_object, refuse
from clusters.api.paging import NEWEST_FIRST, read_page
from clusters.api.schema import BODY, IDEMPOTENCY_KEY, OPERATION_ID, answers
from clusters.errors import NotAllowed
from jobs.api import bulk_wire as wire
from jobs.api.filters import spelled_out
from jobs.api.job_wire import Count
from jobs.api.once import answer_once, idempotency_key
from jobs.engine import bulk
from jobs.errors import BulkOperationNotFound
from jobs.models import BulkOperation
from jobs.models.bulk_operation import BulkOperationQuerySet


class BulkOperationViewSet(NativeViewSet):
    verbs = {
        "list": "bulk_operations.read",
        "count": "bulk_operations.read",
        "retrieve": "bulk_operations.read",
        # and, when the body is read, the verb of its action
        "create": "bulk_operations.request",
        "cancel": "bulk_operations.stop",
    }

    @extend_schema(
        operation_id="bulk_operations_list",
        summary="List bulk operations, newest first",
        parameters=[wire.BulkOperationListQuery],
        responses=answers({200: wire.BulkOperationPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(wire.BulkOperationListQuery)
        page = read_page(request, _listed(asked), NEWEST_FIRST, asked)
        return reply(page.to_json(wire.operation_to_json))

    @extend_schema(
        operation_id="bulk_operations_count",
        summary="Count bulk operations",
        parameters=[wire.BulkOperationQuery],
        responses=answers({200: Count}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        count = _listed(self.query(wire.BulkOperationQuery)).count()
        return reply({"count": count, "is_exact": True})

    @extend_schema(
        operation_id="bulk_operations_request",
        summary="Act on all jobs that match a filter",
        description="The nodes carry it out in the background, on the jobs that were there when it "
        "was asked for, and with the rights its requester has when each batch runs. `delete` needs "
        "the role admin. With `dry_run` nothing is stored.",
        parameters=[IDEMPOTENCY_KEY],
        request=wire.BulkOperationInput,
        responses=answers({202: wire.BulkOperationItem, 200: wire.BulkDryRun}, 409, 422, *BODY),
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        values = self.body(wire.BulkOperationInput)
        action = values["action"]
        if not is_allowed(self.principal, f"bulk_operations.{action}", cluster_id):
            raise NotAllowed(f"bulk_operations.{action}")
        words = spelled_out(read_object(wire.BulkFilter, values["filter"], "filter"))
        arguments = read_object(wire.BulkArguments, values.get("arguments", {}), "arguments")
        if values.get("dry_run"):
            idempotency_key(request)
            return reply(wire.dry_run_to_json(bulk.dry_run(action, words, arguments)))
        if "reason" not in values:
            refuse("reason", "This field is required.", "required")

        def effect() -> tuple[int, Any]:
            operation = bulk.request(
                action,
                words,
                reason=values["reason"],
                by=self.principal.actor,
                arguments=arguments,
            )
            return 202, wire.operation_to_json(operation)

        response, body = answer_once(request, self.principal.actor, effect)
        response.headers["Location"] = f"{request.path.rstrip('/')}/{body['id']}"
        return response

    @extend_schema(
        operation_id="bulk_operations_get",
        summary="Get a bulk operation and its progress",
        parameters=[OPERATION_ID],
        responses=answers({200: wire.BulkOperationItem}),
    )
    def retrieve(self, request: Request, cluster_id: str, operation_id: str) -> HttpResponse:
        self.query()
        key = parse_uuid(operation_id)
        operation = _operations().filter(pk=key).first() if key else None
        if operation is None:
            raise BulkOperationNotFound
        return reply(wire.operation_to_json(operation))

    @extend_schema(
        operation_id="bulk_operations_cancel",
        summary="Stop a bulk operation",
        description="It stops before its next batch; what is done stays done. Twice is no error.",
        parameters=[OPERATION_ID],
        request=None,
        responses=answers({200: wire.BulkOperationItem}, 409),
    )
    def cancel(self, request: Request, cluster_id: str, operation_id: str) -> HttpResponse:
        self.query()
        self.body()
        key = parse_uuid(operation_id)
        if key is None:
            raise BulkOperationNotFound
        return reply(wire.operation_to_json(bulk.cancel(key, by=self.principal.actor)))


def _operations() -> BulkOperationQuerySet:
    operations: BulkOperationQuerySet = BulkOperation.objects.all()
    return operations


def _listed(asked: dict[str, Any]) -> BulkOperationQuerySet:
    operations = _operations()
    if "status" in asked:
        operations = operations.filter(status=asked["status"])
    if "action" in asked:
        operations = operations.filter(action=asked["action"])
    return operations
