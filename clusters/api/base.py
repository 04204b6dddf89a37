"""What all views of the native API have in common, beside what every surface has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.viewsets import ViewSetMixin

from clusters.api.fields import Nothing, read_object, read_query
from clusters.surfaces import ClusterView, reply
from config.problems import problem
from config.streams import LongAnswer

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

    def streamed(self, pieces: Iterator[bytes], content_type: str) -> LongAnswer:
        """A long answer in pieces, as far as the limits of the caller and of the server go."""
        full = problem(
            self.request,
            429,
            "too_many_streams",
            "Too many answers are being streamed.",
            headers={"Retry-After": "5"},
        )
        return LongAnswer(
            pieces,
            content_type=content_type,
            when_full=full,
            caller=self.principal.actor,
            of_a_caller=self.limits.streams,
        )

    def body(self, form: type[serializers.Serializer[Any]] = Nothing) -> dict[str, Any]:
        """The checked fields of the body."""
        return read_object(form, self.request.data)
