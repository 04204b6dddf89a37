"""The settings of one cluster: what holds, where each value comes from, and what was changed."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Object, Text, format_time, refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, IF_MATCH, answers
from clusters.api.serializers import ExactCount
from clusters.binding import current_cluster
from clusters.errors import OutdatedSettings, UnsoundSettings
from clusters.models import ClusterSetting, SettingChange, forget_policies, settings_version
from clusters.policy import FIELDS, OF_THE_CLUSTER, defaults_of, effective, overridden
from clusters.registry import Cluster
from config.problems import FieldError, InvalidInput, PreconditionFailed
from jobs.api.versions import asked_versions, etag

LOCAL, PERSISTED, DEFAULT = SOURCES = ("local", "persisted", "default")
# Their ids go up with the time.
NEWEST_CHANGE_FIRST = Order(("id",), (uuid.UUID,))


class SettingItem(serializers.Serializer[Any]):
    name = serializers.CharField()
    value = serializers.JSONField(help_text="What holds for the process that answers.")
    origin = serializers.ChoiceField(
        choices=SOURCES,
        help_text="`local`: the configuration of the process that answers; `persisted`: this cluster's "
        "database; `default`: nobody has said anything.",
    )
    default = serializers.JSONField()
    persisted = serializers.JSONField(allow_null=True, help_text="Null: not persisted.")
    local = serializers.JSONField(
        allow_null=True, help_text="Null: the process that answers does not set it."
    )
    is_overridden = serializers.BooleanField(
        help_text="True: what is persisted, or the default where nothing is, does not hold for the "
        "process that answers: its configuration says otherwise (`local`)."
    )
    may_be_local = serializers.BooleanField(
        help_text="False: the same for all processes, whatever they are configured with."
    )
    minimum = serializers.FloatField(allow_null=True)
    maximum = serializers.FloatField(allow_null=True)
    choices = serializers.ListField(child=serializers.CharField(), allow_null=True)
    description = serializers.CharField()
    changed_at = serializers.DateTimeField(allow_null=True)
    changed_by = serializers.CharField(allow_null=True)


class SettingList(serializers.Serializer[Any]):
    items = SettingItem(many=True)
    next = serializers.CharField(allow_null=True, help_text="Always null: there is one page.")
    previous = serializers.CharField(allow_null=True)


class SettingsChanged(SettingList):
    overridden = serializers.ListField(
        child=serializers.ChoiceField(choices=tuple(FIELDS)),
        help_text="Those of the request that were persisted and do not hold for the process that "
        "answers: its configuration file sets them, and wins there until it is changed.",
    )


class SettingsInput(serializers.Serializer[Any]):
    values = Object(help_text="Settings by name; null takes one back to its default.")
    reason = Text(max_length=500, required=False, allow_blank=True)


class ChangeFilter(serializers.Serializer[Any]):
    name = Choice(choices=tuple(FIELDS), required=False)


class ChangeListQuery(PageQuery, ChangeFilter):
    pass


class ChangeItem(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    at = serializers.DateTimeField()
    name = serializers.CharField()
    before = serializers.JSONField(allow_null=True, help_text="Null: it was not persisted.")
    after = serializers.JSONField(allow_null=True, help_text="Null: taken back to its default.")
    by = serializers.CharField()
    reason = serializers.CharField()


class ChangePage(serializers.Serializer[Any]):
    items = ChangeItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class SettingsViewSet(NativeViewSet):
    verbs = {
        "list": "settings.read",
        "partial_update": "settings.change",
        "changes": "settings.read",
        "changes_count": "settings.read",
    }

    @extend_schema(
        operation_id="settings_get",
        summary="Get the settings of the cluster",
        description="What holds, and where it comes from: a value that a process is configured with "
        "wins there, then the one in the cluster's database, then the default. The ETag is that of the "
        "persisted values.",
        responses=answers({200: SettingList}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        return _reply()

    @extend_schema(
        operation_id="settings_change",
        summary="Change settings of the cluster",
        description="All of them or, where one is refused, none. Every process follows within five "
        "seconds, but for what its own configuration says, which `overridden` names for the one that "
        "answers; nodes stop to start jobs at once when `mode` "
        "says so.",
        parameters=[IF_MATCH],
        request=SettingsInput,
        responses=answers({200: SettingsChanged}, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        asked = self.body(SettingsInput)
        values, reason = asked["values"], asked.get("reason", "")
        if not values:
            refuse("values", "Names nothing to change.", "required")
        actor, versions = self.principal.actor, asked_versions(request)
        _change(values, by=actor, reason=reason, versions=versions)
        forget_policies()
        return _reply(changed=values)

    @extend_schema(
        operation_id="settings_changes",
        summary="List what was changed in the settings, newest first",
        parameters=[ChangeListQuery],
        responses=answers({200: ChangePage}),
    )
    def changes(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(ChangeListQuery)
        page = read_page(request, _changes(asked), NEWEST_CHANGE_FIRST, asked)
        return reply(page.to_json(change_to_json))

    @extend_schema(
        operation_id="settings_changes_count",
        summary="Count the changes of the settings",
        parameters=[ChangeFilter],
        responses=answers({200: ExactCount}),
    )
    def changes_count(self, request: Request, cluster_id: str) -> HttpResponse:
        return reply({"count": _changes(self.query(ChangeFilter)).count(), "is_exact": True})


def _change(values: dict[str, Any], **more: Any) -> None:
    try:
        ClusterSetting.objects.all().change(values, **more)
    except OutdatedSettings:
        raise PreconditionFailed from None
    except UnsoundSettings as error:
        raise InvalidInput(
            FieldError(
                f"values.{name[:100]}", "invalid" if name in FIELDS else "unknown_field", problem
            )
            for name, problem in error.problems.items()
        ) from None


def _changes(asked: dict[str, Any]) -> Any:
    changes = SettingChange.objects.all()
    return changes.filter(name=asked["name"]) if "name" in asked else changes


def change_to_json(change: SettingChange) -> dict[str, Any]:
    return {
        "id": str(change.pk),
        "at": format_time(change.at),
        "name": change.name,
        "before": change.before,
        "after": change.after,
        "by": change.by,
        "reason": change.reason,
    }


def _reply(changed: Collection[str] | None = None) -> HttpResponse:
    rows = {row.name: row for row in ClusterSetting.objects.filter(name__in=FIELDS)}
    items = settings_to_json(current_cluster(), rows)
    answer: dict[str, Any] = {"items": items, "next": None, "previous": None}
    if changed is not None:
        answer["overridden"] = [
            item["name"] for item in items if item["is_overridden"] and item["name"] in changed
        ]
    version = settings_version({name: row.value for name, row in rows.items()})
    return reply(answer, 200, etag(version))


def settings_to_json(cluster: Cluster, rows: dict[str, ClusterSetting]) -> list[dict[str, Any]]:
    """Every setting as this process sees it."""
    persisted = {name: row.value for name, row in rows.items()}
    policy = effective(persisted, cluster.explicit_settings)
    defaults = defaults_of(policy.mode)
    of_no_effect = overridden(persisted, cluster.explicit_settings)
    return [
        {
            "name": name,
            "value": getattr(policy, name),
            "origin": LOCAL
            if name in cluster.explicit_settings
            else PERSISTED
            if name in persisted
            else DEFAULT,
            "default": defaults[name],
            "persisted": persisted.get(name),
            "local": cluster.explicit_settings.get(name),
            "is_overridden": name in of_no_effect,
            "may_be_local": name not in OF_THE_CLUSTER,
            "minimum": setting.metadata.get("minimum"),
            "maximum": setting.metadata.get("maximum"),
            "choices": setting.metadata.get("choices"),
            "description": setting.metadata["about"],
            "changed_at": format_time(rows[name].updated_at) if name in rows else None,
            "changed_by": rows[name].updated_by if name in rows else None,
        }
        for name, setting in FIELDS.items()
    ]
