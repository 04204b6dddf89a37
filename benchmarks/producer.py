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


def ticks(schedules: float, count: float) -> list[float]:
    """Look so often for what is due among so many schedules of which none is; the seconds of each."""
    from clusters.policy import ClusterPolicy
    from jobs.engine import fires

    using = _make_schedules(int(schedules), seconds_ahead=86400)
    fires.fire_due(using, ClusterPolicy())  # connects
    times = []
    for _ in range(int(count)):
        begun = time.perf_counter()
        if fires.fire_due(using, ClusterPolicy()):
            raise RuntimeError("something was due")
        times.append(time.perf_counter() - begun)
    return times


def fire(schedules: float) -> tuple[int, float]:
    """Fire so many schedules that are due at the same moment."""
    from clusters.policy import ClusterPolicy
    from jobs.engine import fires

    using = _make_schedules(int(schedules), seconds_ahead=-1)
    done, begun = 0, time.perf_counter()
    while fired := fires.fire_due(using, ClusterPolicy()):
        done += fired
    return done, time.perf_counter() - begun


def _make_schedules(count: int, *, seconds_ahead: float) -> str:
    from datetime import timedelta

    from django.db import connections
    from django.utils import timezone

    from benchmarks.payload import PAYLOAD, TYPE
    from clusters.binding import current_cluster
    from jobs.models import Schedule

    using, now = current_cluster().alias, timezone.now()
    due = [now + timedelta(seconds=seconds_ahead, microseconds=n % 1000) for n in range(count)]
    Schedule.objects.bulk_create(
        (
            Schedule(
                name=f"schedule {number}",
                type=TYPE,
                payload=PAYLOAD,
                timing="cron",
                expression=f"{number % 60} {number // 60 % 24} * * *",
                timezone="Europe/Berlin",
                next_due_at=at,
                next_run_at=at,
                accounted_until=now,
                created_by=ACTOR,
                updated_by=ACTOR,
            )
            for number, at in enumerate(due)
        ),
        batch_size=500,
    )
    with connections[using].cursor() as cursor:
        cursor.execute("ANALYZE")
    return using


def busy(rows: float, ready: float, queues: float) -> int:
    """Fill a cluster with so many jobs, so many of them ready, in so many queues."""
    from benchmarks.busy import fill
    from clusters.binding import current_cluster

    fill(current_cluster().alias, int(rows), int(ready), int(queues))
    return int(rows)


def steps(jobs: float, each: float) -> None:
    """Enqueue jobs made of so many steps, one after the other."""
    from jobs.engine.enqueue import enqueue_many

    news = [_made_of(int(each)) for _ in range(int(jobs))]
    for start in range(0, len(news), 200):
        enqueue_many(news[start : start + 200], by=ACTOR)


def one_of_steps(count: float, each: float) -> list[float]:
    """Enqueue jobs made of so many steps, each when the one before has ended; the seconds each took."""
    from jobs.engine.enqueue import enqueue as enqueue_one
    from jobs.models import Job

    took = []
    for _ in range(int(count)):
        begun = time.perf_counter()
        job = enqueue_one(_made_of(int(each)), by=ACTOR).job
        while not Job.objects.filter(pk=job.pk, state="succeeded").exists():
            if time.perf_counter() - begun > 60:
                raise RuntimeError(f"a job of {each:.0f} steps does not end")
            time.sleep(0.002)
        took.append(time.perf_counter() - begun)
    return took


def steps_done() -> dict[str, Any]:
    """How many jobs made of steps have ended, how many steps, and in which time."""
    from django.db.models import Count, Max, Min

    from jobs.models import Job, Step, StepsRun

    ended = Job.objects.filter(kind="steps", state="succeeded")
    seen = ended.aggregate(jobs=Count("pk"), first=Min("started_at"), last=Max("finished_at"))
    took = (seen["last"] - seen["first"]).total_seconds() if seen["jobs"] else 0.0
    return {
        "jobs": seen["jobs"],
        "of": StepsRun.objects.count(),
        "steps": Step.objects.count(),
        "seconds": took,
    }


def _made_of(steps: int) -> Any:
    from benchmarks.payload import PAYLOAD, TYPE
    from jobs.engine.enqueue import NewJob

    step = {"kind": "python", "type": TYPE, "payload": PAYLOAD}
    made = [{"name": f"step {number}", **step} for number in range(steps)]
    return NewJob(kind="steps", payload={"steps": made})


VERBS = {
    **{"steps": steps, "one_of_steps": one_of_steps, "steps_done": steps_done},
    **{"enqueue": enqueue, "bulk": bulk, "latency": latency, "kept": kept},
    **{"ticks": ticks, "fire": fire, "busy": busy},
}


def main() -> None:
    django.setup()
    from clusters.binding import cluster_bound

    verb, *numbers = sys.argv[1:]
    with cluster_bound(CLUSTER):
        answer = VERBS[verb](*map(float, numbers))  # type: ignore[operator]
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
