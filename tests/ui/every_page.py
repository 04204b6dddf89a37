"""Every page there is: found by the addresses of the sites, so that a new one cannot be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from authn.models import ApiKey, UserRole
from clusters.binding import cluster_bound
from clusters.models import Node
from jobs import demo
from jobs.demo import people
from jobs.demo.letters import LETTERS
from jobs.engine import calendars
from jobs.models import (
    AlertRule,
    BulkOperation,
    Calendar,
    Failure,
    Fire,
    Job,
    Queue,
    Schedule,
    Secret,
    Workflow,
    WorkflowRun,
)
from ui.models import SavedView
from ui.navigation import site_name
from ui.sites import cluster_sites, fleet_site

CLUSTER = "alpha"
JOBS, SEED = 500, 11
# What is no page: it leads on, signs out, or answers scripts.
NO_PAGES = frozenset({"logout", "autocomplete", "jsi18n", "view_on_site", "app_list", "search"})

# Keys are made on a page of ours and stay in the records; schedules are deleted by their own verb.
NOBODYS = frozenset({"authn_apikey_add", "authn_apikey_delete", "jobs_schedule_add"})
# Of these a browser is shown all that there are, for they differ; of the others the first.
MANY = frozenset({"job", "queue", "schedule", "workflow-run"})


class Found(NamedTuple):
    """A page, and what answers there."""

    name: str
    path: str

    @property
    def kind(self) -> tuple[str, bool]:
        """The fleet has a start page and an audit of its own under the names of a cluster's."""
        return self.name, self.path.startswith(f"/admin/{CLUSTER}/")


def fill() -> None:
    """A day of the demo in one cluster, and what it leaves out."""
    demo.fill(CLUSTER, LETTERS, JOBS, SEED, lambda *_: None)
    people.write([CLUSTER, "beta"], SEED)
    with cluster_bound(CLUSTER):
        calendars.create("closed", ["2034-12-25"], by="test")


def found() -> list[Found]:
    """Every address of the fleet's site and of a cluster's, each with things that are there."""
    things = _things()
    pages = []
    site = next(one for one in cluster_sites if one.cluster.id == CLUSTER)
    for where, prefix in ((fleet_site, "/admin/"), (site, f"/admin/{CLUSTER}/")):
        for pattern in _patterns(where.get_urls()):
            if pattern.name is None or pattern.name in NO_PAGES:
                continue
            for arguments in _arguments(pattern, things):
                path = reverse(f"admin:{pattern.name}", kwargs=arguments, current_app=where.name)
                if path.startswith(prefix):
                    pages.append(Found(pattern.name, path))
    return [*dict.fromkeys([*pages, *_asked_for(things)])]


def shown(client: Client, pages: list[Found]) -> list[Found]:
    """Those of them that a browser shows: not what only takes a POST, leads on, or is a file."""
    kept: list[Found] = []
    answered, faults = set(), []
    for page in pages:
        response = client.get(page.path)
        if page.name in NOBODYS and response.status_code == 403:
            answered.add(page.name)
            continue
        # What is not allowed in the state of a thing may be missing; not for each thing, though.
        if response.status_code not in (200, 204, 302, 404, 405):
            faults.append((page, response.status_code))
        if response.status_code != 404:
            answered.add(page.name)
        is_page = response.headers.get("Content-Type", "").startswith("text/html")
        is_new = (
            page.name in MANY or "?" in page.path or page.kind not in {one.kind for one in kept}
        )
        if is_new and response.status_code == 200 and is_page and b"<html" in response.content:
            kept.append(page)
    assert not faults
    assert not {page.name for page in pages} - answered
    return kept


def _patterns(patterns: list[Any]) -> Iterator[URLPattern]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns)
        else:
            yield pattern


def _arguments(pattern: URLPattern, things: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """What fits into an address; of jobs one in each state."""
    names = [*pattern.pattern.converters, *pattern.pattern.regex.groupindex]
    wanted = dict.fromkeys(names)
    if not wanted:
        yield {}
        return
    lists = [(name, _of(pattern.name or "", name, things)) for name in wanted]
    for number in range(max(len(values) for _, values in lists)):
        yield {name: values[number % len(values)] for name, values in lists}


def _of(page: str, name: str, things: dict[str, list[Any]]) -> list[Any]:
    for key in (
        f"{page}.{name}",
        f"{page.rpartition('_')[0]}.{name}",
        f"{page.split('-')[0]}.{name}",
        name,
    ):
        if key in things:
            return things[key]
    raise AssertionError(f"{page}: say in tests/ui/every_page.py what {name!r} is there")


def _things() -> dict[str, list[Any]]:
    with cluster_bound(CLUSTER):
        jobs = [
            Job.objects.filter(state=state).order_by("pk")[0].pk
            for state in ("failed", "running", "ready", "blocked", "scheduled", "succeeded")
        ]
        jobs += [Job.objects.filter(kind="steps", state="waiting").order_by("pk")[0].pk]
        jobs.append(Job.objects.filter(is_held=True)[0].pk)
        schedules = [*Schedule.objects.filter(workflow=None).order_by("name")[:2]]
        paused = Schedule.objects.get(is_paused=True)
        runs = WorkflowRun.objects.order_by("-created_at")
        workflow = Workflow.objects.get()
        alerts = AlertRule.objects.order_by("name")
        missed = Fire.objects.get(state="missed")
        things = {
            "job_id": jobs,
            "fingerprint": [Failure.objects.order_by("-count")[0].fingerprint],
            "queue.name": ["mail", "media"],
            "name": ["mail"],
            "node_id": [Node.objects.filter(status="draining")[0].pk],
            "schedule_id": [*(one.pk for one in schedules), paused.pk],
            "workflow_id": [workflow.pk],
            "run_id": [runs[0].pk, runs.filter(state="failed")[0].pk],
            "alert_id": [one.pk for one in alerts.filter(state="firing")],
            "fire_id": [missed.pk],
            "schedule-run-missed.schedule_id": [missed.schedule_id],
            "which": ["all"],
            "of_workflow": [Schedule.objects.exclude(workflow=None)[0].pk],
            "operation_id": [one.pk for one in BulkOperation.objects.order_by("created_at")[:2]],
            "setting.name": ["max_crashes", "mode"],
            "secret.name": [Secret.objects.order_by("name")[0].name],
            "jobs_queue.object_id": [Queue.objects.get(name="media").pk],
            "jobs_schedule.object_id": [schedules[0].pk],
            "jobs_calendar.object_id": [Calendar.objects.get().pk],
        }
    users: Any = get_user_model()._default_manager
    user, group = users.get(username="support"), Group.objects.order_by("name")[0]
    key = ApiKey.objects.get(name="shop")
    return things | {
        "role_id": [f"user-{UserRole.objects.get(user=user).pk}"],
        "key_id": [key.public_id],
        "view_id": [SavedView.objects.order_by("name")[0].pk],
        "id": [user.pk],
        "auth_user.object_id": [user.pk],
        "auth_group.object_id": [group.pk],
        "authn_apikey.object_id": [key.pk],
    }


def _asked_for(things: dict[str, list[Any]]) -> Iterator[Found]:
    """Pages that show more where the address says more."""
    fingerprint = things["fingerprint"][0]
    more: dict[str, str] = {
        "jobs": "?q=error:Error&columns=state&columns=error&columns=by",
        "alert-new": "?kind=failure_rate",
        "index": "?range=6h",
        "governance": "?actor=user:oncall&since=2020-01-01T00:00:00Z",
        "bulk-operation-new": f"?action=retry&state=failed&failure={fingerprint}",
    }
    for name, query in more.items():
        yield Found(name, reverse(f"admin:{name}", current_app=site_name(CLUSTER)) + query)
    site = site_name(CLUSTER)
    failed = reverse("admin:job", kwargs={"job_id": things["job_id"][0]}, current_app=site)
    yield Found("job", f"{failed}?find=e#log")
    flow = {"schedule_id": things["of_workflow"][0]}
    yield Found("schedule", reverse("admin:schedule", kwargs=flow, current_app=site) + "?runs=20")
    # Its form asks for other things, which the question only makes an address of its own.
    yield Found(
        "schedule-edit", reverse("admin:schedule-edit", kwargs=flow, current_app=site) + "?"
    )
    yield Found("jobs", reverse("admin:jobs", current_app=site) + "?state=failed&queue=mail")
    yield Found("keys", "/admin/governance/keys/?state=revoked")
    yield Found("governance", "/admin/governance/?sort=key")
    yield Found("role-give", "/admin/governance/roles/give/?sort=user&name=oncall&cluster=*")
