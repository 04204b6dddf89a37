"""The queues of a cluster: what waits in each, who takes it, and the way to stop that."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from clusters.binding import current_cluster
from jobs.errors import JobError
from jobs.models import Queue
from jobs.models.queue import QueueQuerySet
from jobs.states import State
from ui import snapshot
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import may, require
from ui.deeds import deed
from ui.forms import PauseForm
from ui.fragments import show

OPEN = (State.READY, State.RUNNING, State.SCHEDULED, State.BLOCKED, State.WAITING)
# What a pause or its end changes; the trace keeps it.
PAUSE = ("is_paused", "paused_by", "pause_reason", "resume_at")


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "queues.read")
    seen = snapshot.read(current_cluster().alias, states=OPEN, is_brief=True)
    context = {
        "snapshot": seen,
        "may_pause": may(request, "queues.pause"),
        "may_change": may(request, "queues.change"),
        "may_create": may(request, "queues.create"),
    }
    return show(site, request, "queues", context, title="Queues")


def pause(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    """Ask why and for how long; then stop claims from the queue."""
    require(request, "queues.pause")
    queue = _one(name)
    form = PauseForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with deed(request, "queues.pause", "queue", name, reason=reason) as trace:
                trace.before = _pause_of(queue)
                _named(name).pause(by=trace.by.actor, reason=reason, **form.until_when())
                trace.after = _pause_of(_one(name))
        except JobError as error:
            form.add_error("until" if error.field == "resume_at" else "reason", str(error))
        else:
            return done(request, f"Queue {name} is paused.", address(request, "queues"))
    return confirm(
        site,
        request,
        form,
        title=f"Pause queue {name}?",
        button="Pause the queue",
        effect="Nodes take nothing more from it. Jobs stay ready, and what runs goes on.",
        target=name,
        back=address(request, "queues"),
    )


@post_only
def resume(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    require(request, "queues.resume")
    queue, back = _one(name), address(request, "queues")
    try:
        with deed(request, "queues.resume", "queue", name) as trace:
            trace.before = _pause_of(queue)
            _named(name).resume()
            trace.after = _pause_of(_one(name))
    except JobError as error:
        return refused(request, error, back)
    return done(request, f"Queue {name} goes on.", back)


def _named(name: str) -> QueueQuerySet:
    queues: QueueQuerySet = Queue.objects.all()
    return queues.named(name)


def _one(name: str) -> Queue:
    queue = _named(name).first()
    if queue is None:
        raise Http404
    return queue


def _pause_of(queue: Queue) -> dict[str, Any]:
    return {column: getattr(queue, column) for column in PAUSE}


ROUTES = (
    ("queues/", page, "queues"),
    ("queues/<str:name>/pause/", pause, "queue-pause"),
    ("queues/<str:name>/resume/", resume, "queue-resume"),
)
