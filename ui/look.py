"""How each site looks: the settings that the theme reads, one dictionary per site.

Imported by the settings, so it knows nothing of the theme itself. Text that comes from data goes in as a
function: a plain string would first be tried as the path of an import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clusters.registry import Cluster

FLEET = "UNFOLD"
TITLE = "Yardmaster"
_BLUE = {
    "50": "oklch(97% .014 254.6)",
    "100": "oklch(93.2% .032 255.6)",
    "200": "oklch(88.2% .059 254.1)",
    "300": "oklch(80.9% .105 251.8)",
    "400": "oklch(70.7% .165 254.6)",
    "500": "oklch(62.3% .214 259.8)",
    "600": "oklch(54.6% .245 262.9)",
    "700": "oklch(48.8% .243 264.4)",
    "800": "oklch(42.4% .199 265.6)",
    "900": "oklch(37.9% .146 265.5)",
    "950": "oklch(28.2% .091 267.9)",
}
# Colours of the label in the header.
_LABELS = {"production": "danger", "staging": "warning"}


def settings_name(cluster_id: str) -> str:
    """The name of the setting that holds the look of a cluster's site."""
    return f"UNFOLD_{cluster_id.upper().replace('-', '_')}"


def looks(clusters: Mapping[str, Cluster]) -> dict[str, Any]:
    """All settings of the theme, by name."""
    return {FLEET: _look(None)} | {
        settings_name(cluster.id): _look(cluster) for cluster in clusters.values()
    }


def _look(cluster: Cluster | None) -> dict[str, Any]:
    title = TITLE if cluster is None else f"{cluster.title or cluster.id} · {TITLE}"
    return {
        "SITE_TITLE": title,
        "SITE_HEADER": _said(TITLE if cluster is None else cluster.title or cluster.id),
        "SITE_SUBHEADER": _said("All clusters" if cluster is None else cluster.id),
        "SITE_SYMBOL": "alt_route",
        "SITE_URL": None,
        "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _static("ui/icon.svg")}],
        "SITE_DROPDOWN": _switcher,
        "SHOW_HISTORY": True,
        "SHOW_VIEW_ON_SITE": False,
        "SHOW_BACK_BUTTON": False,
        "COLORS": {"primary": _BLUE},
        "ENVIRONMENT": _said_label(cluster),
        "STYLES": [_static("ui/ui.css")],
        "SCRIPTS": [_static("ui/menus.js"), _static("ui/ui.js")],
        "COMMAND": {"search_models": False, "search_callback": None, "show_history": False},
        "SIDEBAR": {
            "show_search": True,
            "command_search": True,
            "show_all_applications": False,
            "navigation": _navigation,
        },
    }


def _said(text: str) -> Callable[[Any], str]:
    return lambda request: text


def _said_label(cluster: Cluster | None) -> Callable[[Any], list[str]] | None:
    if cluster is None or not cluster.environment:
        return None
    label = [cluster.environment, _LABELS.get(cluster.environment, "info")]
    return lambda request: label


def _static(path: str) -> Callable[[Any], str]:
    def address(request: Any) -> str:
        from django.templatetags.static import static

        return static(path)

    return address


def _switcher(request: Any) -> list[dict[str, Any]]:
    from ui.navigation import switcher

    return switcher(request)


def _navigation(request: Any) -> list[dict[str, Any]]:
    from ui.navigation import navigation

    return navigation(request)
