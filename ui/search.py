"""The palette: jobs by id, queues by name, pages by title. Asked anew each time, nothing is kept."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import reverse

from clusters.api.fields import parse_uuid
from clusters.binding import bound_cluster_id
from jobs.models import Job, Queue, Schedule, Workflow
from ui.callers import caller
from ui.navigation import CLUSTER_PAGES, site_name

MAX_RESULTS = 10
MAX_LENGTH = 100


def find(request: HttpRequest) -> list[dict[str, str]]:
    """What the words in ``s`` may mean, on the site that answers."""
    text = request.GET.get("s", "").strip()[:MAX_LENGTH].replace("\0", "")
    if not text:
        return []
    found = _clusters(request, text)
    if (cluster_id := bound_cluster_id()) is not None:
        found = [
            *_jobs(cluster_id, text),
            *_queues(cluster_id, text),
            *_schedules(cluster_id, text),
            *_workflows(cluster_id, text),
            *_pages(cluster_id, text),
        ]
    return found[:MAX_RESULTS]


def _result(icon: str, title: str, description: str, link: str) -> dict[str, str]:
    return {"icon": icon, "title": title, "description": description, "link": link}


def _jobs(cluster_id: str, text: str) -> list[dict[str, str]]:
    key = parse_uuid(text)
    job = Job.objects.only("id", "type", "state").filter(pk=key).first() if key else None
    if job is None:
        return []
    link = reverse("admin:job", kwargs={"job_id": job.pk}, current_app=site_name(cluster_id))
    return [_result("list_alt", job.type, f"job, {job.state}", link)]


def _queues(cluster_id: str, text: str) -> list[dict[str, str]]:
    names = Queue.objects.filter(name__icontains=text).order_by("name")
    jobs = reverse("admin:jobs", current_app=site_name(cluster_id))
    return [
        _result("stacks", name, "queue", f"{jobs}?queue={name}")
        for name in names.values_list("name", flat=True)[:MAX_RESULTS]
    ]


def _schedules(cluster_id: str, text: str) -> list[dict[str, str]]:
    rows = Schedule.objects.all().kept().filter(name__icontains=text).order_by("name")
    site = site_name(cluster_id)
    return [
        _result(
            "schedule",
            name,
            "schedule",
            reverse("admin:schedule", kwargs={"schedule_id": pk}, current_app=site),
        )
        for pk, name in rows.values_list("pk", "name")[:MAX_RESULTS]
    ]


def _workflows(cluster_id: str, text: str) -> list[dict[str, str]]:
    rows = Workflow.objects.filter(deleted_at=None, name__icontains=text).order_by("name")
    site = site_name(cluster_id)
    return [
        _result(
            "account_tree",
            name,
            "workflow",
            reverse("admin:workflow", kwargs={"workflow_id": pk}, current_app=site),
        )
        for pk, name in rows.values_list("pk", "name")[:MAX_RESULTS]
    ]


def _pages(cluster_id: str, text: str) -> list[dict[str, str]]:
    return [
        _result(icon, title, "page", reverse(f"admin:{name}", current_app=site_name(cluster_id)))
        for title, icon, name in CLUSTER_PAGES
        if text.lower() in title.lower()
    ]


def _clusters(request: HttpRequest, text: str) -> list[dict[str, str]]:
    principal = caller(request)
    return [
        _result(
            "hub",
            cluster.title or cluster.id,
            "cluster",
            reverse("admin:index", current_app=site_name(cluster.id)),
        )
        for cluster in (principal.clusters() if principal else [])
        if text.lower() in f"{cluster.id} {cluster.title}".lower()
    ]
