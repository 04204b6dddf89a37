"""All clusters: a card for each, the worst first.

Each card is a request of its own to its cluster's site, so one that is dead delays nobody. What was last
known of it is shown in grey.
"""

from __future__ import annotations

from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from clusters.binding import current_cluster
from clusters.health import watch
from ui import snapshot
from ui.callers import caller
from ui.fragments import Part, made_for_all, shared
from ui.navigation import site_name
from ui.pages.now import figures
from ui.snapshot import Snapshot
from ui.troubles import Severity, cause, troubles

# A card does not wait for a database until it times out.
PATIENCE_SECONDS = 1.0
CARD = "ui/fleet/card.html"
# What each cluster was like when it last answered this process.
_last_seen: dict[str, Snapshot] = {}


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
    cluster = current_cluster()
    if watch.ask([cluster.alias], PATIENCE_SECONDS)[cluster.alias]:
        try:
            return shared.get((cluster.id, CARD), lambda: _living(site)).answer(request)
        except (OperationalError, InterfaceError):
            watch.report_down(cluster.alias)
    return _dead(site).answer(request)


card.stands_alone = True  # type: ignore[attr-defined]


def _living(site: Any) -> Part:
    cluster = current_cluster()
    seen = _last_seen[cluster.id] = snapshot.read(cluster.alias)
    found = troubles(seen)
    severity = found[0].severity if found else Severity.FINE
    return made_for_all(
        site,
        CARD,
        {
            **_known(seen),
            "troubles": found,
            "severity": severity.name.lower(),
            "is_idle": not found and not seen.hour.counts["enqueued"] and not seen.hour.finished,
            "cause": cause(found[0]) if found else None,
        },
    )


def _dead(site: Any) -> Part:
    """What is known of a cluster that does not answer."""
    cluster = current_cluster()
    seen = _last_seen.get(cluster.id)
    known = _known(seen) if seen is not None else {}
    told = {**known, "severity": "dead", "down_since": watch.down_since(cluster.alias)}
    return made_for_all(site, CARD, told)


def _known(seen: Snapshot) -> dict[str, Any]:
    return {"snapshot": seen, "figures": figures(seen)}


ROUTES = (("card/", card, "card"),)
