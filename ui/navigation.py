"""What leads from page to page: the sidebar, and the way to other clusters."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from clusters.binding import bound_cluster_id
from ui.callers import caller, may_anywhere

# Title, icon, name of the address.
CLUSTER_PAGES = (
    ("Now", "speed", "index"),
    ("Jobs", "list_alt", "jobs"),
    ("Bulk operations", "checklist", "bulk-operations"),
    ("Failures", "error", "failures"),
    ("Alerts", "notifications", "alerts"),
    ("Queues", "stacks", "queues"),
    ("Nodes", "dns", "nodes"),
    ("Schedules", "schedule", "schedules"),
    ("Workflows", "account_tree", "workflows"),
    ("Calendars", "event_busy", "jobs_calendar_changelist"),
    ("Governance", "policy", "governance"),
)


def switcher(request: Any) -> list[dict[str, Any]]:
    """All clusters that the caller may see, and the fleet."""
    principal = caller(request)
    clusters = principal.clusters() if principal else []
    fleet = {"icon": "grid_view", "title": "All clusters", "link": reverse("admin:index")}
    return [
        fleet,
        *(
            {
                "icon": "hub",
                "title": cluster.title or cluster.id,
                "link": reverse("admin:index", current_app=site_name(cluster.id)),
            }
            for cluster in clusters
        ),
    ]


def navigation(request: Any) -> list[dict[str, Any]]:
    """The sidebar of the site that answers."""
    cluster_id = bound_cluster_id()
    if cluster_id is not None:
        here = site_name(cluster_id)
        pages = [
            (title, icon, reverse(f"admin:{name}", current_app=here))
            for title, icon, name in CLUSTER_PAGES
        ]
    else:
        pages = [("Fleet", "grid_view", reverse("admin:index"))]
        if may_anywhere(request, "roles.read"):
            pages.append(("Governance", "policy", reverse("admin:governance")))
        if getattr(request.user, "is_superuser", False):
            pages += [
                ("Users", "person", reverse("admin:auth_user_changelist")),
                ("Groups", "group", reverse("admin:auth_group_changelist")),
            ]
    shown = _shown(request.path, [link for _, _, link in pages])
    items = [
        {"title": title, "icon": icon, "link": link, "active": link == shown}
        for title, icon, link in pages
    ]
    return [{"items": items}]


def _shown(path: str, links: list[str]) -> str:
    """The page in whose part of the site an address lies."""
    # The policies of queues are the admin's own pages.
    path = path.replace("/jobs/queue/", "/queues/", 1).replace("/jobs/schedule/", "/schedules/", 1)
    return max((link for link in links if path.startswith(link)), key=len, default="")


def site_name(cluster_id: str) -> str:
    """The name of a cluster's site, for `reverse()`; the fleet's is `admin`."""
    return f"cluster-{cluster_id}"
