"""Where everything is mounted."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from config.health import livez, readyz
from jobs.api.urls import unknown
from ui.sites import cluster_sites, fleet_site

BASE = settings.BASE_PATH.strip("/")

urlpatterns: list[Any] = [
    path("", RedirectView.as_view(url=f"{settings.BASE_PATH.rstrip('/')}/swagger"), name="home"),
    re_path(r"^livez/?\Z", livez, name="livez"),
    # Bare, it is the asyncjobs dialect that answers.
    re_path(rf"^{BASE}/readyz/?\Z", readyz, name="readyz"),
    # The clusters first: below /admin/ the fleet's site answers whatever is left.
    *(path(f"admin/{site.cluster.id}/", site.urls) for site in cluster_sites),
    *(
        [path("admin/sso/", include("authn.single_sign_on_urls"))]
        if settings.SINGLE_SIGN_ON
        else []
    ),
    path("admin/", fleet_site.urls),
    re_path(r"^admin\Z", RedirectView.as_view(url="/admin/"), name="fleet"),
    re_path(rf"^{BASE}\Z", unknown, name="unknown-base"),
    path(f"{BASE}/" if BASE else "", include("jobs.api.urls")),
    path("", include("jobs.dialects.urls")),
]

handler400 = "config.problems.bad_request"
handler403 = "config.problems.permission_denied"
handler404 = "config.problems.page_not_found"
handler500 = "config.problems.server_error"
