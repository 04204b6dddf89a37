"""The producer's side, in a process of its own: `python -m benchmarks.producer VERB NUMBERS…`.

The verbs and the answers, JSON on the last line, are those of the peers' adapters.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import django

CLUSTER, ACTOR = "main", "bench"


def enqueue(count: float, seconds: float) -> tuple[int, float]:
    """Enqueue one job a call, up to a count or a time."""
    from jobs.engine.enqueue import enqueue as enqueue_one

    enqueue_one(_new(), by=ACTOR)  # connects, and reads the policy
    done, begun = 0, time.perf_counter()
    while done < count and time.perf_counter() - begun < seconds:
        enqueue_one(_new(), by=ACTOR)
        done += 1
    return done, time.perf_counter() - begun


def bulk(count: float, size: float) -> tuple[int, float]:
    """Enqueue jobs many a call."""
    from jobs.engine.enqueue import enqueue_many

    begun = time.perf_counter()
    for _ in range(int(count // size)):
        enqueue_many([_new() for _ in range(int(size))], by=ACTOR)
    return int(count), time.perf_counter() - begun


def latency(count: float, gap: float) -> list[tuple[float, float]]:
    """Enqueue one numbered job after the other; the times before and after each call."""
    from jobs.engine.enqueue import enqueue as enqueue_one

    times = []
    for sequence in range(int(count)):
        before = time.time()
        enqueue_one(_new(sequence), by=ACTOR)
        times.append((before, time.time()))
        time.sleep(gap)
    return times


def kept() -> dict[str, Any]:
    """What is in the database after a drain, and how fast it was by what stands there."""
    from django.db.models import Count, Max, Min

    from jobs.models import Attempt, Job
    from jobs.states import State

    jobs = Job.objects.aggregate(rows=Count("pk"), last=Max("finished_at"))
    attempts = Attempt.objects.aggregate(
        rows=Count("fence"), first=Min("started_at"), last=Max("started_at")
    )
    answer = {
        "job rows": jobs["rows"],
        "succeeded": Job.objects.filter(state=State.SUCCEEDED).count(),
        "attempt rows": attempts["rows"],
    }
    if attempts["rows"] > 1:
        for name, end in (("started_per_s", attempts["last"]), ("finished_per_s", jobs["last"])):
            elapsed = (end - attempts["first"]).total_seconds()
            answer[name] = round((attempts["rows"] - 1) / elapsed, 1)
    return answer


def _new(sequence: int | None = None) -> Any:
    from benchmarks.payload import PAYLOAD, TYPE
    from jobs.engine.enqueue import NewJob

    numbered = PAYLOAD if sequence is None else {**PAYLOAD, "seq": sequence}
    return NewJob(type=TYPE, payload=numbered)


VERBS = {"enqueue": enqueue, "bulk": bulk, "latency": latency, "kept": kept}


def main() -> None:
    django.setup()
    from clusters.binding import cluster_bound

    verb, *numbers = sys.argv[1:]
    with cluster_bound(CLUSTER):
        answer = VERBS[verb](*map(float, numbers))  # type: ignore[operator]
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
