"""API keys: made, changed, rotated and revoked by those who administer all of their clusters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Prefetch
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from authn.errors import KeyEnded, KeyNotFound
from authn.keys import MAX_GRACE, MAX_NAME, change_key, create_key, rotate_key
from authn.models import ApiKey, ApiKeyQuerySet, KeyState, Role, RoleBinding
from authn.reach import keys_seen, roles_seen
from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Text, Texts, Time, WholeNumber, format_time, refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, answers
from clusters.api.serializers import ExactCount
from jobs.executors import GRANTED_KINDS

BY_NAME = Order(("name",), (str,), is_descending=False)
# The text of a key is in an answer once, and in no cache.
NO_STORE = {"Cache-Control": "no-store"}
DEFAULT_GRACE_SECONDS = 86_400
MAX_CLUSTERS = 100
_OWNER: dict[str, Any] = {
    "max_length": MAX_NAME,
    "required": False,
    "allow_blank": True,
    "help_text": "Who answers for it.",
}
_EXPIRES_AT = "When it ends; null: never."


def networks() -> Texts:
    about = "Networks and addresses its callers must come from; none: any."
    return Texts(child=Text(max_length=50), required=False, help_text=about)


def granted_kinds() -> Texts:
    about = "Kinds of work that no role covers; those that the caller may start."
    return Texts(child=Choice(choices=GRANTED_KINDS), required=False, help_text=about)


@extend_schema_serializer(component_name="NewKey")
class NewKeyInput(serializers.Serializer[Any]):
    name = Text(max_length=MAX_NAME, help_text="Who will use it; the audit names it so.")
    role = Choice(choices=Role.values)
    clusters = Texts(
        child=Text(max_length=25),
        min_length=1,
        max_length=MAX_CLUSTERS,
        help_text="Where it has that role; `*`: on all, also those of the future.",
    )
    granted_kinds = granted_kinds()
    owner = Text(**_OWNER)
    expires_at = Time(required=False, allow_null=True, help_text=_EXPIRES_AT)
    addresses = networks()


@extend_schema_serializer(component_name="KeyChange")
class KeyChangeInput(serializers.Serializer[Any]):
    name = Text(
        max_length=MAX_NAME,
        required=False,
        help_text="What it did under the name before is told under that one.",
    )
    owner = Text(**_OWNER)
    expires_at = Time(required=False, allow_null=True, help_text=_EXPIRES_AT)
    addresses = networks()


@extend_schema_serializer(component_name="KeyRotation")
class RotationInput(serializers.Serializer[Any]):
    grace_seconds = WholeNumber(
        min_value=0,
        max_value=int(MAX_GRACE.total_seconds()),
        required=False,
        help_text=f"How long the text before is good too, {DEFAULT_GRACE_SECONDS} unless told.",
    )


@extend_schema_serializer(component_name="KeyRevocation")
class RevocationInput(serializers.Serializer[Any]):
    reason = Text(max_length=500, required=False, allow_blank=True)


class KeyFilter(serializers.Serializer[Any]):
    name = Text(max_length=MAX_NAME, required=False)
    cluster = Text(max_length=25, required=False, help_text="With a role given for it, or for `*`.")
    state = Choice(choices=KeyState.values, required=False)


class KeyListQuery(PageQuery, KeyFilter):
    pass


class KeyRole(serializers.Serializer[Any]):
    cluster = serializers.CharField(help_text="`*`: all.")
    role = serializers.ChoiceField(choices=Role.values)
    granted_kinds = serializers.ListField(child=serializers.CharField())


class KeyItem(serializers.Serializer[Any]):
    """A key, without its text. Roles on clusters that the caller does not administer are left out."""

    id = serializers.CharField(help_text="The part of its text that is no secret.")
    name = serializers.CharField()
    owner = serializers.CharField()
    state = serializers.ChoiceField(choices=KeyState.values)
    roles = KeyRole(many=True)
    addresses = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    rotated_at = serializers.DateTimeField(allow_null=True)
    previous_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when the text from before the rotation is good."
    )
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="To the minute.")
    expires_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class KeyWithText(KeyItem):
    """The only answer that has the text of the key: keep it."""

    key = serializers.CharField()


class KeyPage(serializers.Serializer[Any]):
    items = KeyItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class KeyViewSet(NativeViewSet):
    verbs = {
        "list": "keys.read",
        "count": "keys.read",
        "retrieve": "keys.read",
        "create": "keys.create",
        "partial_update": "keys.change",
        "rotate": "keys.change",
        "revoke": "keys.revoke",
    }

    @extend_schema(
        operation_id="keys_list",
        summary="List API keys by name, without their texts",
        description="Those with a role on a cluster that the caller administers. Keys of the "
        "configuration are not among them.",
        parameters=[KeyListQuery],
        responses=answers({200: KeyPage}),
    )
    def list(self, request: Request) -> HttpResponse:
        asked = self.query(KeyListQuery)
        return reply(read_page(request, filtered_keys(asked), BY_NAME, asked).to_json(key_to_json))

    @extend_schema(
        operation_id="keys_count",
        summary="Count API keys",
        parameters=[KeyFilter],
        responses=answers({200: ExactCount}),
    )
    def count(self, request: Request) -> HttpResponse:
        return reply({"count": filtered_keys(self.query(KeyFilter)).count(), "is_exact": True})

    @extend_schema(
        operation_id="keys_create",
        summary="Make an API key",
        description="Its text is in this answer and in no other. Nobody gives what he has not: the "
        "caller administers all of the clusters, and has the grants himself or is a superuser.",
        request=NewKeyInput,
        responses=answers({201: KeyWithText}, 409, *BODY),
    )
    def create(self, request: Request) -> HttpResponse:
        self.query()
        asked = self.body(NewKeyInput)
        key, text = create_key(
            asked["name"],
            asked["role"],
            asked["clusters"],
            asked.get("granted_kinds", ()),
            asked.get("expires_at"),
            owner=asked.get("owner", ""),
            addresses=asked.get("addresses", ()),
        )
        location = reverse("key", args=[key.public_id])
        return _with_text(key, text, 201, Location=location)

    @extend_schema(
        operation_id="keys_get", summary="Get an API key", responses=answers({200: KeyItem})
    )
    def retrieve(self, request: Request, key_id: str) -> HttpResponse:
        self.query()
        return reply(key_to_json(one_key(key_id)))

    @extend_schema(
        operation_id="keys_change",
        summary="Change the name, the owner, the end or the addresses of an API key",
        request=KeyChangeInput,
        responses=answers({200: KeyItem}, 409, *BODY),
    )
    def partial_update(self, request: Request, key_id: str) -> HttpResponse:
        self.query()
        key, asked = one_key(key_id), self.body(KeyChangeInput)
        if not asked:
            refuse("body", "Names nothing to change.", "required")
        change_key(key, asked)
        return reply(key_to_json(one_key(key_id)))

    @extend_schema(
        operation_id="keys_rotate",
        summary="Give an API key a new text",
        description="It is in this answer and in no other. The one before is good for a while yet, so "
        "that nobody is turned away meanwhile.",
        request=RotationInput,
        responses=answers({200: KeyWithText}, 409, *BODY),
    )
    def rotate(self, request: Request, key_id: str) -> HttpResponse:
        self.query()
        key = one_key(key_id)
        grace = self.body(RotationInput).get("grace_seconds", DEFAULT_GRACE_SECONDS)
        text = rotate_key(key, timedelta(seconds=grace))
        if text is None:
            raise KeyEnded
        return _with_text(key, text, 200)

    @extend_schema(
        operation_id="keys_revoke",
        summary="Revoke an API key, for ever",
        request=RevocationInput,
        responses=answers({200: KeyItem}, 409, *BODY),
    )
    def revoke(self, request: Request, key_id: str) -> HttpResponse:
        self.query()
        key, asked = one_key(key_id), self.body(RevocationInput)
        if not ApiKey.objects.filter(pk=key.pk).revoke(**asked):
            raise KeyEnded("the key was revoked before")
        return reply(key_to_json(one_key(key_id)))


def _with_text(key: ApiKey, text: str, status: int, **headers: str) -> HttpResponse:
    body = {**key_to_json(one_key(key.public_id)), "key": text}
    return reply(body, status, {**NO_STORE, **headers})


def seen_keys() -> ApiKeyQuerySet:
    """Keys the caller may know of, with those of their roles that are his business."""
    roles = RoleBinding.objects.filter(roles_seen("keys.read")).order_by("cluster_id")
    keys: ApiKeyQuerySet = keys_seen("keys.read").defer("digest", "previous_digest")
    return keys.prefetch_related(Prefetch("role_bindings", queryset=roles))


def filtered_keys(asked: dict[str, Any]) -> ApiKeyQuerySet:
    keys = seen_keys()
    if "name" in asked:
        keys = keys.filter(name=asked["name"])
    if "cluster" in asked:
        on = RoleBinding.objects.filter(roles_seen("keys.read"))
        on = on.filter(cluster_id__in=[asked["cluster"], "*"])
        keys = keys.filter(pk__in=on.values("api_key"))
    if "state" in asked:
        keys = keys.in_state(asked["state"])
    return keys


def one_key(key_id: str) -> ApiKey:
    key = None if "\0" in key_id else seen_keys().filter(public_id=key_id).first()
    if key is None:
        raise KeyNotFound
    return key


def key_to_json(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "name": key.name,
        "owner": key.owner,
        "state": key.state,
        "roles": [
            {
                "cluster": binding.cluster_id,
                "role": binding.role,
                "granted_kinds": binding.granted_kinds,
            }
            for binding in key.role_bindings.all()
        ],
        "addresses": key.addresses,
        "created_at": format_time(key.created_at),
        "rotated_at": format_time(key.rotated_at),
        "previous_until": format_time(key.previous_until),
        "last_used_at": format_time(key.last_used_at),
        "expires_at": format_time(key.expires_at),
        "revoked_at": format_time(key.revoked_at),
    }
