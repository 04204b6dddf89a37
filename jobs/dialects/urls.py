"""Where each dialect answers.

At the bare paths of the original it is the default cluster that answers. Under its own name a dialect is
there once more, for the default cluster and for any other, so that a client changes its base URL and
nothing else; what all its paths begin with may be left out there.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path

from jobs.dialects.scheduler import urls as scheduler


def mount(
    name: str, base: str, patterns: list[Any], unknown: Any
) -> list[URLPattern | URLResolver]:
    """All addresses of a dialect, whose paths begin with ``base``."""
    default = {"cluster_id": settings.DEFAULT_CLUSTER_ID}
    own, of_cluster = f"{name}/", f"clusters/<str:cluster_id>/{name}/"
    mounted: list[URLPattern | URLResolver] = []
    for place, prefix, arguments in (
        ("bare", base, default),
        ("named", f"{own}{base}", default),
        ("short", own, default),
        ("cluster", f"{of_cluster}{base}", {}),
        ("cluster-short", of_cluster, {}),
    ):
        namespace = f"{name}-{place}"
        mounted.append(path(prefix, include((patterns, name), namespace), arguments))
        mounted.append(path(prefix.removesuffix("/"), unknown, arguments))
    return mounted


urlpatterns = [
    *mount("scheduler", "api/v1/scheduler/", scheduler.urlpatterns, scheduler.unknown),
]
