"""System checks of the screen's addresses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core import checks

from clusters.checks import TAG

# First path segments below /admin/ that are, or will be, no cluster.
TAKEN_SEGMENTS = frozenset(
    {
        "auth",
        "authn",
        "autocomplete",
        "cards",
        "governance",
        "jsi18n",
        "login",
        "logout",
        "password_change",
        "r",
        "search",
        "static",
        "toggle-sidebar",
        "views",
    }
)


@checks.register(TAG)
def cluster_addresses(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse clusters whose pages would hide pages of the fleet, or be hidden by them."""
    return hidden_clusters(settings.CLUSTERS)


def hidden_clusters(cluster_ids: Iterable[str]) -> list[checks.CheckMessage]:
    return [
        checks.Error(
            f"A cluster cannot be called {cluster_id!r}: /admin/{cluster_id}/ is a page of the fleet.",
            hint="Give the cluster another id; its data stays where it is.",
            id="ui.E001",
        )
        for cluster_id in cluster_ids
        if cluster_id in TAKEN_SEGMENTS
    ]
