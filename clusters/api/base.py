"""What all views of the native API have in common, beside what every surface has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.viewsets import ViewSetMixin

from clusters.api.fields import Nothing, read_object, read_query
from clusters.surfaces import ClusterView, reply

__all__ = ["NativeViewSet", "reply"]


class NativeViewSet(ViewSetMixin, ClusterView):
    # Which verb of authn.permissions each action needs.
    verbs: ClassVar[Mapping[str, str]] = {}
    http_method_names = ["get", "head", "post", "patch", "delete"]
    # Limits of the body, read by the parser; None: those of the settings.
    max_body_bytes: int | None = None
    max_nodes: int | None = None

    def query(self, form: type[serializers.Serializer[Any]] = Nothing) -> dict[str, Any]:
        """The checked parameters of the query string."""
        return read_query(form, self.request.query_params)

    def body(self, form: type[serializers.Serializer[Any]] = Nothing) -> dict[str, Any]:
        """The checked fields of the body."""
        return read_object(form, self.request.data)
