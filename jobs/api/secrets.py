"""Named secrets of one cluster: written, replaced, deleted and named; never read back."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Text, format_time, refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, IF_MATCH, answers
from clusters.api.serializers import ExactCount
from clusters.deeds import traced
from config.problems import PreconditionFailed
from jobs.api.versions import asked_versions, etag
from jobs.errors import SecretNotFound
from jobs.models import Secret
from jobs.models.secret import MAX_DESCRIPTION, MAX_NAME, MAX_VALUE_BYTES
from jobs.redaction import MIN_LENGTH
from jobs.sealing import first_key, key_of

BY_NAME = Order(("name",), (str,), is_descending=False)
_VALUE: dict[str, Any] = {
    "min_length": MIN_LENGTH,
    "max_length": MAX_VALUE_BYTES,
    "write_only": True,
    "help_text": "Encrypted at once; nobody can read it again.",
}


@extend_schema_serializer(component_name="NewSecret")
class NewSecretInput(serializers.Serializer[Any]):
    name = Text(max_length=MAX_NAME, help_text="Jobs write `secret:NAME` for it.")
    value = Text(**_VALUE)
    description = Text(max_length=MAX_DESCRIPTION, required=False, allow_blank=True)


@extend_schema_serializer(component_name="SecretChange")
class SecretChangeInput(serializers.Serializer[Any]):
    value = Text(**_VALUE, required=False)
    description = Text(max_length=MAX_DESCRIPTION, required=False, allow_blank=True)


class SecretItem(serializers.Serializer[Any]):
    """A secret, without its value."""

    name = serializers.CharField()
    description = serializers.CharField()
    reference = serializers.CharField(help_text="What jobs write for it.")
    is_under_first_key = serializers.BooleanField(
        help_text="False: it is encrypted with an earlier key; `manage.py secrets reseal` renews it."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    updated_by = serializers.CharField()
    version = serializers.IntegerField()


class SecretPage(serializers.Serializer[Any]):
    items = SecretItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class SecretViewSet(NativeViewSet):
    verbs = {
        "list": "secrets.read",
        "count": "secrets.read",
        "retrieve": "secrets.read",
        "create": "secrets.write",
        "partial_update": "secrets.write",
        "destroy": "secrets.write",
    }

    @extend_schema(
        operation_id="secrets_list",
        summary="List secrets by name, without their values",
        parameters=[PageQuery],
        responses=answers({200: SecretPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        page = read_page(request, _secrets(), BY_NAME, self.query(PageQuery))
        return reply(page.to_json(secret_to_json))

    @extend_schema(
        operation_id="secrets_count",
        summary="Count secrets",
        responses=answers({200: ExactCount}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        return reply({"count": _secrets().count(), "is_exact": True})

    @extend_schema(
        operation_id="secrets_create",
        summary="Keep a secret",
        request=NewSecretInput,
        responses=answers({201: SecretItem}, 409, *BODY),
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        asked = self.body(NewSecretInput)
        name, actor = asked["name"], self.principal.actor
        with traced("secrets.write", "secret", name) as trace:
            _secrets().create_secret(by=actor, **asked)
            secret = _one(name)
            trace.after = _told(secret)
        location = reverse("secret", args=[cluster_id, name])
        return _reply(secret, 201, Location=location)

    @extend_schema(
        operation_id="secrets_get",
        summary="Get what is known of a secret, without its value",
        responses=answers({200: SecretItem}),
    )
    def retrieve(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        return _reply(_one(name))

    @extend_schema(
        operation_id="secrets_change",
        summary="Replace a secret",
        description="Jobs that start from now on get the new value; those that run keep theirs.",
        parameters=[IF_MATCH],
        request=SecretChangeInput,
        responses=answers({200: SecretItem}, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        asked = self.body(SecretChangeInput)
        if not asked:
            refuse("body", "Names nothing to change.", "required")
        before, actor = _one(name), self.principal.actor
        with traced("secrets.write", "secret", name) as trace:
            versions = asked_versions(request)
            if not _secrets().change(name, by=actor, versions=versions, **asked):
                raise PreconditionFailed
            secret = _one(name)
            trace.before, trace.after = _told(before), _told(secret)
            trace.after["has_new_value"] = "value" in asked
        return _reply(secret)

    @extend_schema(
        operation_id="secrets_delete",
        summary="Delete a secret",
        description="Jobs that name it fail from now on, with the reason `bad_definition`.",
        request=None,
        responses=answers({204: None}),
    )
    def destroy(self, request: Request, cluster_id: str, name: str) -> HttpResponse:
        self.query()
        self.body()
        secret = _one(name)
        with traced("secrets.write", "secret", name) as trace:
            _secrets().delete_secret(name)
            trace.before = _told(secret)
        return HttpResponse(status=204)


def _secrets() -> Any:
    return Secret.objects.all()


def _one(name: str) -> Secret:
    secret: Secret | None = _secrets().filter(name=name).first()
    if secret is None:
        raise SecretNotFound
    return secret


def _told(secret: Secret) -> dict[str, Any]:
    return {"description": secret.description, "version": secret.version}


def secret_to_json(secret: Secret) -> dict[str, Any]:
    return {
        "name": secret.name,
        "description": secret.description,
        "reference": f"secret:{secret.name}",
        "is_under_first_key": key_of(secret.sealed) == first_key(),
        "created_at": format_time(secret.created_at),
        "updated_at": format_time(secret.updated_at),
        "updated_by": secret.updated_by,
        "version": secret.version,
    }


def _reply(secret: Secret, status: int = 200, **headers: str) -> HttpResponse:
    return reply(secret_to_json(secret), status, {**etag(secret.version), **headers})
