"""Who am I, as far as this program knows."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from authn.api import schema  # noqa: F401  registers itself
from authn.models import Role
from clusters.api.base import NativeViewSet, reply
from clusters.api.schema import answers


class RoleItem(serializers.Serializer[Any]):
    cluster = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.values)
    granted_kinds = serializers.ListField(child=serializers.CharField())


class Whoami(serializers.Serializer[Any]):
    name = serializers.CharField()
    actor = serializers.CharField(help_text="How this caller is named in records of deeds.")
    roles = RoleItem(many=True)


class WhoamiViewSet(NativeViewSet):
    verbs = {"retrieve": "whoami.read"}

    @extend_schema(
        operation_id="whoami", summary="Say who is calling", responses=answers({200: Whoami})
    )
    def retrieve(self, request: Request) -> HttpResponse:
        self.query()
        caller = self.principal
        return reply(
            {
                "name": caller.name,
                "actor": caller.actor,
                "roles": [
                    {
                        "cluster": cluster.id,
                        "role": caller.role_on(cluster.id),
                        "granted_kinds": sorted(caller.kinds_granted_on(cluster.id)),
                    }
                    for cluster in caller.clusters()
                ],
            }
        )
