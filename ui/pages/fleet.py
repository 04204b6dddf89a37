"""All clusters: a card for each, the worst first.

Each card is a request of its own to its cluster's site, so one that is dead delays nobody. What was last
known of it is shown in grey.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from clusters.binding import current_cluster
from clusters.health import watch
from ui import snapshot
from ui.callers import caller
from ui.fragments import changed, fragment
from ui.navigation import site_name
from ui.pages.now import figures
from ui.troubles import Severity, troubles

# A card does not wait for a database until it times out.
PATIENCE_SECONDS = 1.0


def page(site: Any, request: HttpRequest) -> HttpResponse:
    principal = caller(request)
    assert principal is not None
    cards = [
        {
            "cluster": cluster,
            "url": reverse("admin:card", current_app=site_name(cluster.id)),
            "page": reverse("admin:index", current_app=site_name(cluster.id)),
        }
        for cluster in principal.clusters()
    ]
    context = {**site.each_context(request), "title": "Fleet", "subtitle": None, "cards": cards}
    return TemplateResponse(request, "ui/fleet/page.html", context)


def card(site: Any, request: HttpRequest) -> HttpResponse:
    """One cluster in a glance."""
    alias = current_cluster().alias
    if not watch.ask([alias], PATIENCE_SECONDS)[alias]:
        # The browser keeps what it has, in grey.
        return HttpResponse(status=503)
    seen = snapshot.read(alias)
    found = troubles(seen)
    context = {
        "snapshot": seen,
        "figures": figures(seen),
        "troubles": found,
        "severity": (found[0].severity if found else Severity.FINE).name.lower(),
        "is_idle": not found and not seen.hour.counts["enqueued"] and not seen.hour.finished,
        "cause": cause(found[0]) if found else None,
    }
    live, version = fragment(request, "ui/fleet/card.html", context)
    return changed(request, live, version)


def cause(trouble: Any) -> str:
    """The page that shows why."""
    here = site_name(current_cluster().id)
    query = f"?{trouble.query}" if trouble.query else ""
    return reverse(f"admin:{trouble.page}", current_app=here) + query


ROUTES = (("card/", card, "card"),)
