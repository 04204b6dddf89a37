"""Submitting a job and waiting for its end, in one request."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from clusters.acting import Acting, acting_as, who_acts
from clusters.binding import cluster_bound
from config.streams import LateAnswer, may_hand_over
from jobs.dialects.tork.errors import envelope, exception_handler
from jobs.dialects.tork.views.base import reply
from jobs.dialects.tork.views.jobs_read import full_job
from jobs.dialects.tork.views.submitting import Submitted
from jobs.engine.enqueue import enqueue
from jobs.models import Job
from jobs.states import FINAL

logger = logging.getLogger(__name__)

# Looked at more and more rarely; a question is one row by its key.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
# Nobody holds a connection for longer.
LONGEST_WAIT = 3600.0
RETRY_AFTER_SECONDS = 5
TOO_LATE = "timeout waiting for job to complete"


def wait_for(
    request: Request, submitted: Submitted, cluster_id: str, actor: str
) -> HttpResponseBase:
    """The answer, which comes when the job has ended or the time is over."""
    answers = _answers(request, submitted, cluster_id, actor, who_acts())
    if not may_hand_over(request.META):
        return next(answer for answer in answers if answer is not None)
    return LateAnswer(
        answers,
        when_full=envelope(
            429, "too many requests are waiting", {"Retry-After": str(RETRY_AFTER_SECONDS)}
        ),
        when_stopped=envelope(500, "server shutting down"),
        # Whoever waits is not counted among those who read along.
        caller=f"waiting {actor}",
    )


def _answers(
    request: Request, submitted: Submitted, cluster_id: str, actor: str, somebody: Acting | None
) -> Iterator[HttpResponse | None]:
    """Nothing, until there is an answer. It may run in another process, so it does all of the work."""
    try:
        with cluster_bound(cluster_id) as cluster:
            with acting_as(somebody):
                job_id = enqueue(submitted.new_job(), by=actor).job_id
            # A duration of nothing is over at once.
            ends_at = time.monotonic() + min(submitted.wait_seconds or 0.0, LONGEST_WAIT)
            jobs = Job.objects.using(cluster.alias).filter(pk=job_id)
            pause = SHORTEST_PAUSE
            while True:
                state = jobs.values_list("state", flat=True).first()
                if state is None or state in FINAL:
                    yield reply(full_job(cluster.alias, job_id))
                    return
                left = ends_at - time.monotonic()
                if left <= 0:
                    yield envelope(408, TOO_LATE)
                    return
                yield None
                time.sleep(min(pause, left))
                pause = min(pause * 1.3, LONGEST_PAUSE)
    except Exception as error:
        yield exception_handler(error, _context(request))


def _context(request: Request) -> dict[str, Any]:
    return {"request": request}
