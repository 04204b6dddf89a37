"""Where each dialect answers.

At the bare paths of the original it is the default cluster that answers. Under its own name a dialect is
there once more, for the default cluster and for any other, so that a client changes its base URL and
nothing else; what all its paths begin with may be left out there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path

from config.routing import Below
from jobs.dialects.asyncjobs import urls as asyncjobs
from jobs.dialects.forge import urls as forge
from jobs.dialects.scheduler import urls as scheduler
from jobs.dialects.tork import urls as tork


def mount(
    name: str, patterns: list[Any], unknown: Any, bare: Sequence[str], *, base: str = ""
) -> list[URLPattern | URLResolver]:
    """All addresses of a dialect: those that begin with one of ``bare``, and those under its name.

    ``patterns`` are below ``base``, which all of the original's paths begin with.
    """
    default = {"cluster_id": settings.DEFAULT_CLUSTER_ID}
    own, of_cluster = f"{name}/", f"clusters/<str:cluster_id>/{name}/"
    places: list[tuple[str, str, dict[str, str]]] = [
        ("short", own, default),
        ("cluster-short", of_cluster, {}),
    ]
    if base:
        places += [("named", f"{own}{base}", default), ("cluster", f"{of_cluster}{base}", {})]
    mounted: list[URLPattern | URLResolver] = [
        URLResolver(Below(base, bare), patterns, default, name, f"{name}-bare")
    ]
    # The longer ones first: below the shorter ones whatever is left has an answer.
    for place, prefix, arguments in reversed(places):
        namespace = f"{name}-{place}"
        mounted.append(path(prefix, include((patterns, name), namespace), arguments))
        mounted.append(path(prefix.removesuffix("/"), unknown, arguments))
    return mounted


urlpatterns = [
    *mount("asyncjobs", asyncjobs.urlpatterns, asyncjobs.unknown, asyncjobs.BARE),
    *mount("forge", forge.urlpatterns, forge.unknown, forge.BARE),
    # After forge, which has words of its own below `/jobs`.
    *mount("tork", tork.urlpatterns, tork.unknown, tork.BARE),
    *mount(
        "scheduler",
        scheduler.urlpatterns,
        scheduler.unknown,
        ["api/v1/scheduler"],
        base="api/v1/scheduler/",
    ),
]
