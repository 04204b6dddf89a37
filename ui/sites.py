"""The sites: one for the fleet, with what the control database holds, and one for each cluster.

``{% url 'admin:…' %}`` and ``reverse(…, current_app=…)`` lead to the site that answers. Without it they
lead to the fleet's, which has no model of any cluster: a link never slips into another one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import Resolver404, URLPattern, path, resolve, reverse

from authn.acting import acting_of
from clusters.acting import ADMIN, Acting, acting_as
from clusters.binding import cluster_bound
from clusters.health import watch
from clusters.registry import Cluster
from ui import look, navigation, search, theme
from ui.callers import caller, tell_refusal
from ui.pages import FLEET_ROUTES, ROUTES, fleet

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]
RETRY_AFTER_SECONDS = 5


class Site(theme.UnfoldAdminSite):  # type: ignore[misc]
    """What the fleet's site and those of the clusters share."""

    enable_nav_sidebar = True
    login_template = "ui/login.html"

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        """The form, with a link to the provider of single sign-on where there is one."""
        context = {**(extra_context or {}), "single_sign_on": settings.SINGLE_SIGN_ON}
        page: HttpResponseBase = super().login(request, context)
        return page

    def extra_urls(self) -> list[URLPattern]:
        """The pages of our own; each is wrapped in ``admin_view``."""
        return []

    def search(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        # The theme's own keeps what it found under user and term: one cluster's for another's.
        begun = time.perf_counter()
        found = Paginator(search.find(request), search.MAX_RESULTS)
        context = {
            "page_obj": found,
            "results": found.page(1),
            "page_counter": 0,
            "execution_time": time.perf_counter() - begun,
            "command_show_history": False,
        }
        return TemplateResponse(request, theme.COMMAND_RESULTS, context)

    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponseBase:
        if request.method in ("GET", "HEAD") and not request.path.endswith("/"):
            try:
                match = resolve(f"{request.path_info}/")
            except Resolver404:
                raise Http404 from None
            if match.func.__name__ != self.catch_all_view.__name__:
                return HttpResponseRedirect(f"{request.path}/")
        raise Http404


class ClusterSite(Site):
    """The pages of one cluster. Whatever answers below it does so with that cluster bound."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.settings_name = look.settings_name(cluster.id)
        super().__init__(navigation.site_name(cluster.id))

    def has_permission(self, request: HttpRequest) -> bool:
        principal = caller(request)
        return principal is not None and principal.may_see(self.cluster.id)

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        inner = super().admin_view(view, cacheable)
        # Such as the card of the fleet's page, which has something to say of a dead cluster.
        stands_alone = getattr(view, "stands_alone", False)

        def bound(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            request.current_app = self.name
            if caller(request) is None:
                return _to_login(request)
            if not self.has_permission(request):
                # What one may not see does not exist.
                raise Http404
            request.cluster_of_site = self.cluster.id  # type: ignore[attr-defined]
            with cluster_bound(self.cluster.id), acting_as(_acting(request)):
                if not stands_alone and watch.is_down(self.cluster.alias):
                    return self._unreachable(request)
                try:
                    response: Any = inner(request, *args, **kwargs)
                    # Within the binding: templates read rows, too.
                    rendered: HttpResponseBase = (
                        response.render() if hasattr(response, "render") else response
                    )
                    return rendered
                except PermissionDenied as refusal:
                    tell_refusal(request, refusal)
                    raise
                except (OperationalError, InterfaceError):
                    logger.warning("cluster %s does not answer", self.cluster.id, exc_info=True)
                    watch.report_down(self.cluster.alias)
                    return self._unreachable(request)

        return update_wrapper(bound, inner)

    def extra_urls(self) -> list[URLPattern]:
        return [
            path(route, self.admin_view(_of_site(self, view)), name=name)
            for route, view, name in ROUTES
        ]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "cluster": self.cluster, "has_permission": True}

    # Signing in and out is the fleet's: from here it would tell which clusters there are.

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        return HttpResponseRedirect(reverse("admin:login"))

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        return HttpResponseRedirect(reverse("admin:password_change"))

    def password_change_done(
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponseBase:
        return HttpResponseRedirect(reverse("admin:password_change_done"))

    def _unreachable(self, request: HttpRequest) -> HttpResponse:
        context = {**self.each_context(request), "title": "Unreachable"}
        response: Any = TemplateResponse(
            request,
            "ui/unreachable.html",
            context,
            status=503,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
        answer: HttpResponse = response.render()
        return answer


class FleetSite(Site):
    """All clusters at once, and what belongs to none: users and API keys."""

    settings_name = look.FLEET
    index_title = "Fleet"

    def has_permission(self, request: HttpRequest) -> bool:
        principal = caller(request)
        return principal is not None and bool(principal.clusters())

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        inner = super().admin_view(view, cacheable)

        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            request.current_app = self.name
            if caller(request) is None:
                return _to_login(request)
            with acting_as(_acting(request)):
                try:
                    response: HttpResponseBase = inner(request, *args, **kwargs)
                except PermissionDenied as refusal:
                    tell_refusal(request, refusal)
                    raise
                return response

        return update_wrapper(checked, inner)

    def index(self, request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        return fleet.page(self, request)

    def extra_urls(self) -> list[URLPattern]:
        return [
            path(route, self.admin_view(_of_site(self, view)), name=name)
            for route, view, name in FLEET_ROUTES
        ]


def _of_site(site: Site, view: View) -> View:
    def answer(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        return view(site, request, **kwargs)

    return update_wrapper(answer, view)


def _acting(request: HttpRequest) -> Acting | None:
    principal = caller(request)
    return None if principal is None else acting_of(principal, ADMIN, request, "session")


def _to_login(request: HttpRequest) -> HttpResponseBase:
    if request.headers.get("HX-Request") == "true":
        # A redirect would put the form into the middle of the page.
        return HttpResponse(status=401, headers={"HX-Redirect": settings.LOGIN_URL})
    return redirect_to_login(request.get_full_path(), settings.LOGIN_URL)


def _made() -> tuple[FleetSite, list[ClusterSite]]:
    from authn import admin as authn_admin
    from jobs import admin as jobs_admin

    fleet_site = FleetSite()
    authn_admin.register(fleet_site)
    cluster_sites = [ClusterSite(cluster) for cluster in settings.CLUSTERS.values()]
    for site in cluster_sites:
        jobs_admin.register(site)
    return fleet_site, cluster_sites


fleet_site, cluster_sites = _made()
