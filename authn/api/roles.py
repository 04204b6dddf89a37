"""Roles of users, groups and API keys on clusters, as far as the caller administers them."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from authn import roles
from authn.api.keys import granted_kinds
from authn.errors import InvalidAccess
from authn.models import Role
from authn.roles import HOLDERS, Given
from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Text
from clusters.api.paging import Order, PageQuery, Turning
from clusters.api.schema import BODY, answers
from clusters.api.serializers import ExactCount

# Those of users, then of groups, then of keys; in each the oldest first.
_ORDER = Order(("sort", "id"), (int, int), is_descending=False)
MAX_HOLDER = 150


class RoleFilter(serializers.Serializer[Any]):
    sort = Choice(choices=HOLDERS, required=False, help_text="Of users, of groups, or of keys.")
    name = Text(max_length=MAX_HOLDER, required=False, help_text="Whose; goes well with `sort`.")
    cluster = Text(max_length=25, required=False, help_text="`*`: those given for all.")
    role = Choice(choices=Role.values, required=False)


class RoleListQuery(PageQuery, RoleFilter):
    pass


@extend_schema_serializer(component_name="NewRole")
class RoleInput(serializers.Serializer[Any]):
    sort = Choice(choices=HOLDERS, help_text="Whether a user gets it, a group, or a key.")
    name = Text(max_length=MAX_HOLDER)
    cluster = Text(max_length=25, help_text="Where; `*`: on all clusters, also future ones.")
    role = Choice(choices=Role.values)
    granted_kinds = granted_kinds()


class GivenRole(serializers.Serializer[Any]):
    id = serializers.CharField()
    sort = serializers.ChoiceField(choices=HOLDERS)
    name = serializers.CharField()
    cluster = serializers.CharField(help_text="`*`: all.")
    role = serializers.ChoiceField(choices=Role.values)
    granted_kinds = serializers.ListField(child=serializers.CharField())


class GivenRolePage(serializers.Serializer[Any]):
    items = GivenRole(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class RoleViewSet(NativeViewSet):
    verbs = {
        "list": "roles.read",
        "count": "roles.read",
        "retrieve": "roles.read",
        "create": "roles.give",
        "destroy": "roles.take",
    }

    @extend_schema(
        operation_id="roles_list",
        summary="List who has which role",
        description="On clusters that the caller administers. A superuser is admin everywhere, which "
        "is no role of this list; nor are roles of the configuration.",
        parameters=[RoleListQuery],
        responses=answers({200: GivenRolePage}),
    )
    def list(self, request: Request) -> HttpResponse:
        asked = self.query(RoleListQuery)
        turning = Turning(request, _ORDER, asked)
        page = turning.page(_read(turning, asked), _key)
        return reply(page.to_json(role_to_json))

    @extend_schema(
        operation_id="roles_count",
        summary="Count roles that somebody has",
        parameters=[RoleFilter],
        responses=answers({200: ExactCount}),
    )
    def count(self, request: Request) -> HttpResponse:
        asked = self.query(RoleFilter)
        count = sum(_rows(sort, asked).count() for sort in _sorts(asked))
        return reply({"count": count, "is_exact": True})

    @extend_schema(
        operation_id="roles_give",
        summary="Give a role",
        description="It takes the place of the one he had there. Nobody gives what he has not: the "
        "caller administers the cluster, and has the grants himself or is a superuser.",
        request=RoleInput,
        responses=answers({200: GivenRole}, *BODY),
    )
    def create(self, request: Request) -> HttpResponse:
        self.query()
        asked = self.body(RoleInput)
        sort, cluster_id = asked["sort"], asked["cluster"]
        holder = roles.find(sort, asked["name"])
        if holder is None:
            raise InvalidAccess(f"there is no such {sort}", field="name")
        roles.give(holder, cluster_id, asked["role"], asked.get("granted_kinds", ()))
        row = holder.roles().get(cluster_id=cluster_id)
        return reply(role_to_json(roles.given(sort, row)))

    @extend_schema(
        operation_id="roles_get", summary="Get a role", responses=answers({200: GivenRole})
    )
    def retrieve(self, request: Request, role_id: str) -> HttpResponse:
        self.query()
        return reply(role_to_json(roles.find_given(role_id)))

    @extend_schema(
        operation_id="roles_take",
        summary="Take a role away",
        request=None,
        responses=answers({204: None}),
    )
    def destroy(self, request: Request, role_id: str) -> HttpResponse:
        self.query()
        self.body()
        given = roles.find_given(role_id)
        roles.take(given.holder, given.row.cluster_id)
        return HttpResponse(status=204)


def role_to_json(given: Given) -> dict[str, Any]:
    return {
        "id": given.id,
        "sort": given.holder.sort,
        "name": given.holder.name,
        "cluster": given.row.cluster_id,
        "role": given.row.role,
        "granted_kinds": given.row.granted_kinds,
    }


def _sorts(asked: dict[str, Any]) -> tuple[str, ...]:
    return (asked["sort"],) if "sort" in asked else HOLDERS


def _rows(sort: str, asked: dict[str, Any]) -> QuerySet[Any]:
    rows = roles.seen(sort)
    if "name" in asked:
        rows = rows.filter(roles.of_holders_named(sort, asked["name"]))
    if "cluster" in asked:
        rows = rows.filter(cluster_id=asked["cluster"])
    return rows.filter(role=asked["role"]) if "role" in asked else rows


def _read(turning: Turning, asked: dict[str, Any]) -> list[Given]:
    """What follows the position, in the direction asked for: one table after the other."""
    back, wanted = turning.is_backwards, turning.limit + 1
    first, after = turning.position or (None, None)
    found: list[Given] = []
    for sort in sorted(_sorts(asked), key=HOLDERS.index, reverse=back):
        place = HOLDERS.index(sort)
        rows = _rows(sort, asked).order_by("-pk" if back else "pk")
        if first is not None and place != first and (place > first) == back:
            continue
        if place == first:
            rows = rows.filter(**{"pk__lt" if back else "pk__gt": after})
        found += [roles.given(sort, row) for row in rows[: wanted - len(found)]]
        if len(found) == wanted:
            break
    return found


def _key(given: Given) -> tuple[int, int]:
    return HOLDERS.index(given.holder.sort), given.row.pk
