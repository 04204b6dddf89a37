"""The palette: jobs by id, queues, schedules and nodes by name, pages by title, and what can be done.

Asked anew each time, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from django.http import HttpRequest
from django.urls import reverse

from clusters.api.fields import parse_uuid
from clusters.binding import bound_cluster_id
from clusters.models import Node
from jobs.models import Job, Queue, Schedule, Workflow
from ui.callers import caller, may
from ui.navigation import CLUSTER_PAGES, site_name

MAX_RESULTS = 10
# Of one kind of thing, so that another one is found too.
MAX_OF_A_KIND = 5
MAX_LENGTH = 100
# What can be done to nothing in particular: the words, the verb that it needs, its address.
DEEDS = (
    ("New queue", "add", "queues.create", "jobs_queue_add"),
    ("New schedule", "add", "schedules.create", "schedule-new"),
)

Result = dict[str, str]


def find(request: HttpRequest) -> list[Result]:
    """What the words in ``s`` may mean, on the site that answers."""
    text = request.GET.get("s", "").strip()[:MAX_LENGTH].replace("\0", "")
    if not text:
        return []
    if bound_cluster_id() is None:
        return [*islice(_clusters(request, text), MAX_RESULTS)]
    found = [result for of in _KINDS for result in islice(of(request, text), MAX_OF_A_KIND)]
    return found[:MAX_RESULTS]


def _address(name: str, /, **kwargs: object) -> str:
    cluster_id = bound_cluster_id()
    assert cluster_id is not None
    return reverse(f"admin:{name}", kwargs=kwargs, current_app=site_name(cluster_id))


def _result(icon: str, title: str, description: str, link: str) -> Result:
    return {"icon": icon, "title": title, "description": description, "link": link}


def _jobs(request: HttpRequest, text: str) -> Iterator[Result]:
    key = parse_uuid(text)
    job = Job.objects.only("id", "type", "state").filter(pk=key).first() if key else None
    if job is not None:
        yield _result("list_alt", job.type, f"job, {job.state}", _address("job", job_id=job.pk))


def _queues(request: HttpRequest, text: str) -> Iterator[Result]:
    for queue in _named_queues(text):
        yield _result("stacks", queue.name, "queue", _address("queue", name=queue.name))


def _deeds(request: HttpRequest, text: str) -> Iterator[Result]:
    """``pause mail``: what can be done to what the other words name."""
    verb, _, rest = text.lower().partition(" ")
    for title, icon, needed, name in DEEDS:
        if title.lower().startswith(text.lower()) and may(request, needed):
            yield _result(icon, title, "action", _address(name))
    if "pause".startswith(verb) and may(request, "queues.pause"):
        for queue in _named_queues(rest):
            if not queue.is_paused:
                link = _address("queue-pause", name=queue.name)
                yield _result("pause", f"Pause {queue.name}", "action", link)
    if "resume".startswith(verb) and may(request, "queues.resume"):
        for queue in _named_queues(rest):
            if queue.is_paused:
                link = _address("queue", name=queue.name)
                yield _result("play_arrow", f"Resume {queue.name}", "action", link)
    if "drain".startswith(verb) and may(request, "nodes.drain"):
        for node in _named_nodes(rest):
            if node.drain_requested_at is None:
                link = _address("node-drain", node_id=node.pk)
                yield _result("logout", f"Drain {node}", "action", link)


def _named_queues(text: str) -> list[Queue]:
    return [*Queue.objects.filter(name__icontains=text).order_by("name")[:MAX_OF_A_KIND]]


def _nodes(request: HttpRequest, text: str) -> Iterator[Result]:
    for node in _named_nodes(text):
        link = f"{_address('nodes')}#node-{node.pk}"
        yield _result("dns", str(node), f"node, {node.status}", link)


def _named_nodes(text: str) -> list[Node]:
    """Those that live, by their host, or by host and process as pages call them."""
    host, _, pid = text.rpartition(":")
    alive = Node.objects.all().alive().defer("types")
    named = alive.filter(host__icontains=text)
    if host and pid.isascii() and pid.isdigit() and len(pid) < 10:
        named |= alive.filter(host__icontains=host, pid=int(pid))
    return [*named.order_by("host", "pid")[:MAX_OF_A_KIND]]


def _schedules(request: HttpRequest, text: str) -> Iterator[Result]:
    rows = Schedule.objects.all().kept().filter(name__icontains=text).order_by("name")
    for pk, name in rows.values_list("pk", "name")[:MAX_OF_A_KIND]:
        yield _result("schedule", name, "schedule", _address("schedule", schedule_id=pk))


def _workflows(request: HttpRequest, text: str) -> Iterator[Result]:
    rows = Workflow.objects.filter(deleted_at=None, name__icontains=text).order_by("name")
    for pk, name in rows.values_list("pk", "name")[:MAX_OF_A_KIND]:
        yield _result("account_tree", name, "workflow", _address("workflow", workflow_id=pk))


def _pages(request: HttpRequest, text: str) -> Iterator[Result]:
    for title, icon, name in CLUSTER_PAGES:
        if text.lower() in title.lower():
            yield _result(icon, title, "page", _address(name))


def _clusters(request: HttpRequest, text: str) -> Iterator[Result]:
    principal = caller(request)
    for cluster in principal.clusters() if principal else []:
        if text.lower() in f"{cluster.id} {cluster.title}".lower():
            link = reverse("admin:index", current_app=site_name(cluster.id))
            yield _result("hub", cluster.title or cluster.id, "cluster", link)


_KINDS: tuple[Callable[[HttpRequest, str], Iterator[Result]], ...] = (
    *(_jobs, _pages, _queues, _nodes, _schedules, _workflows, _deeds),
)
