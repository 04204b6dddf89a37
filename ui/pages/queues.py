"""The queues of a cluster: what waits in each, who takes it, and the way to stop that."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from clusters.binding import current_cluster
from clusters.models import AuditEntry, current_policy
from jobs import capacity
from jobs.capacity import Flow
from jobs.errors import JobError
from jobs.models import Queue
from jobs.models.queue import QueueQuerySet
from jobs.states import State
from ui import snapshot
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import require
from ui.deeds import deed
from ui.forms import PauseForm
from ui.fragments import show_shared
from ui.pages.series import asked_range, ranges
from ui.snapshot import QueueNow, Snapshot

OPEN = (State.READY, State.RUNNING, State.SCHEDULED, State.BLOCKED, State.WAITING)
# What a pause or its end changes; the trace keeps it.
PAUSE = ("is_paused", "paused_by", "pause_reason", "resume_at")
RIGHTS = {
    "may_pause": "queues.pause",
    "may_change": "queues.change",
    "may_create": "queues.create",
    "may_purge": "queues.purge",
    "may_read_audit": "audit.read",
}
SHOWN_DEEDS = 10


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "queues.read")
    return show_shared(site, request, "queues", _read_all, title="Queues", rights=RIGHTS)


def one(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    """One queue with its figures and what it did of late."""
    require(request, "queues.read")
    one_queue(name)
    return show_shared(
        site,
        request,
        "queue",
        lambda: _read_one(name),
        title=f"Queue {name}",
        about=(name,),
        rights=RIGHTS,
        beside={"name": name, "ranges": ranges(request), "span": asked_range(request)},
    )


def _read_all() -> dict[str, Any]:
    rows, seen = _rows()
    return {"rows": rows, "snapshot": seen}


def _read_one(name: str) -> dict[str, Any]:
    rows, _ = _rows()
    row = next((row for row in rows if row["one"].queue.name == name), None)
    if row is None:
        raise Http404
    deeds: Any = AuditEntry.objects.all()
    return {"row": row, **row, "deeds": [*deeds.about("queue", name)[:SHOWN_DEEDS]]}


def _rows() -> tuple[list[dict[str, Any]], Snapshot]:
    using = current_cluster().alias
    seen = snapshot.read(using, states=OPEN, is_brief=True)
    flows = capacity.flows(using, current_policy(), seen.taken_at)
    unknown = capacity.unknown_types(using, seen.live_nodes)
    rows = [
        _row(one, flows.get(one.queue.name, Flow()), unknown.get(one.queue.name, []), seen)
        for one in seen.queues
    ]
    return rows, seen


def _row(one: QueueNow, flow: Flow, unknown: list[str], seen: Snapshot) -> dict[str, Any]:
    counts = {state: depth.count for state, depth in one.depths.items()}
    limits = [
        {"what": what, "used": used, "most": most, "percent": min(100, round(100 * used / most))}
        for what, used, most in capacity.share_of_limits(one.queue, counts, seen.taken_at)
    ]
    return {
        "one": one,
        "flow": flow,
        "empties_in": flow.seconds_to_empty(one.ready.count),
        "unknown": unknown,
        "limits": limits,
        "has_remarks": one.queue.is_paused or unknown or (one.ready.count and not one.nodes),
    }


def pause(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    """Ask why and for how long; then stop claims from the queue."""
    require(request, "queues.pause")
    queue = one_queue(name)
    form = PauseForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with deed(request, "queues.pause", "queue", name, reason=reason) as trace:
                trace.before = _pause_of(queue)
                named(name).pause(by=trace.by.actor, reason=reason, **form.until_when())
                trace.after = _pause_of(one_queue(name))
        except JobError as error:
            form.add_error("until" if error.field == "resume_at" else "reason", str(error))
        else:
            return done(request, f"Queue {name} is paused.", _back(request, name))
    return confirm(
        site,
        request,
        form,
        title=f"Pause queue {name}?",
        button="Pause the queue",
        effect="Nodes take nothing more from it. Jobs stay ready, and what runs goes on.",
        target=name,
        back=_back(request, name),
    )


@post_only
def resume(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    require(request, "queues.resume")
    queue, back = one_queue(name), _back(request, name)
    try:
        with deed(request, "queues.resume", "queue", name) as trace:
            trace.before = _pause_of(queue)
            named(name).resume()
            trace.after = _pause_of(one_queue(name))
    except JobError as error:
        return refused(request, error, back)
    return done(request, f"Queue {name} goes on.", back)


def named(name: str) -> QueueQuerySet:
    queues: QueueQuerySet = Queue.objects.all()
    return queues.named(name)


def one_queue(name: str) -> Queue:
    queue = named(name).first()
    if queue is None:
        raise Http404
    return queue


def _back(request: HttpRequest, name: str) -> str:
    """To the queue's own page where it was asked there, else to all of them."""
    if request.GET.get("from") == "queue":
        return address(request, "queue", name=name)
    return address(request, "queues")


def _pause_of(queue: Queue) -> dict[str, Any]:
    return {column: getattr(queue, column) for column in PAUSE}


ROUTES = (
    ("queues/", page, "queues"),
    ("queues/<str:name>/", one, "queue"),
    ("queues/<str:name>/pause/", pause, "queue-pause"),
    ("queues/<str:name>/resume/", resume, "queue-resume"),
)
