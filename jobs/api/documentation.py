"""The OpenAPI document of the native API and the page that shows it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from authn.authentication import (
    AdminSessionAuthentication,
    CredentialAuthentication,
    OpenNative,
)
from clusters.api.base import NativeViewSet, reply
from clusters.surfaces import FirstRenderer, UnknownAddress


class DocumentViewSet(NativeViewSet):
    """The document, to callers with a key and to those signed in to the admin site."""

    authentication_classes = [CredentialAuthentication, AdminSessionAuthentication, OpenNative]
    verbs = {"retrieve": "documentation.read"}

    @extend_schema(exclude=True)
    def retrieve(self, request: Request) -> HttpResponse:
        self.query()
        if not settings.CLUSTERS_IN_OPENAPI:
            return reply(native_document())
        # At both places, because programs that look for clusters look at either.
        visible = [cluster.id for cluster in self.principal.clusters()]
        document = native_document()
        info = {**document["info"], "x-jobmaster-clusters": visible}
        return reply({**document, "info": info, "x-jobmaster-clusters": visible})


class SwaggerView(SpectacularSwaggerSplitView):
    """Swagger UI without inline scripts; every file of it comes from this server."""

    authentication_classes = [AdminSessionAuthentication]
    permission_classes = [AllowAny]  # who is not signed in is sent to the login
    content_negotiation_class = FirstRenderer
    http_method_names = ["get", "head"]
    url_name = "native-document"
    schema = None

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not settings.SWAGGER:
            return UnknownAddress.as_view()(request._request)
        if request.auth is None:
            return redirect_to_login(request.get_full_path(), settings.LOGIN_URL)
        response: HttpResponseBase = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response


@lru_cache(maxsize=1)
def native_document() -> dict[str, Any]:
    """The document of the native routes alone; made once a process, for it takes a while."""
    native = [path(settings.BASE_PATH.strip("/") + "/", include("jobs.api.urls"))]
    generator = SchemaGenerator(patterns=native)  # type: ignore[no-untyped-call]
    document: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return document


def native_document_text() -> str:
    """The same as the repository keeps it, without the clusters, which depend on who asks."""
    return json.dumps(native_document(), indent=1, ensure_ascii=False) + "\n"
