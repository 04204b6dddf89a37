"""A cluster in the middle of its day: many jobs in many queues, some ready, and their roll-ups."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

TYPES, MINUTES = 50, 10
# How many buckets of a histogram one minute of one queue fills.
BUCKETS = 12

_POSTGRES_QUEUES = """
INSERT INTO queue (id, name, description, is_paused, created_at, version)
SELECT gen_random_uuid(), 'q' || g, '', false, now() + g * interval '1 ms', 1
  FROM generate_series(0, %s - 1) g
"""
_POSTGRES_JOBS = f"""
INSERT INTO job (id, kind, type, queue, state, is_held, priority, payload, tags, enqueued_by, on_lost,
                 timeout_seconds, max_attempts, attempts, crashes, fence, run_at, created_at,
                 started_at, finished_at)
SELECT gen_random_uuid(), 'python', 'type:' || (g %% {TYPES}), 'q' || (g %% %s), state, false, g %% 3,
       'null', '[]', 'bench', 'retry', 300, 3, 0, 0, 0, at, at, CASE state WHEN 'succeeded' THEN at END,
       CASE state WHEN 'succeeded' THEN at END
  FROM (SELECT g, clock_timestamp() - g * interval '60 ms' AS at,
               CASE WHEN g <= %s THEN 'ready' ELSE 'succeeded' END AS state
          FROM generate_series(1, %s) g) made
"""
_SQLITE_QUEUES = """
WITH RECURSIVE made (g) AS (SELECT 0 UNION ALL SELECT g + 1 FROM made WHERE g < %s - 1)
INSERT INTO queue (id, name, description, is_paused, created_at, version)
SELECT printf('%%032x', g), 'q' || g, '', 0, datetime('now'), 1 FROM made
"""
_SQLITE_JOBS = f"""
WITH RECURSIVE made (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM made WHERE g < %s)
INSERT INTO job (id, kind, type, queue, state, is_held, priority, payload, tags, metadata, enqueued_by,
                 on_lost, timeout_seconds, max_attempts, attempts, crashes, fence,
                 pending_dependencies, has_dependants, run_at, created_at, started_at, finished_at)
SELECT printf('%%032x', g), 'python', 'type:' || (g %% {TYPES}), 'q' || (g %% %s), state, 0, g %% 3,
       'null', '[]', '{{}}', 'bench', 'retry', 300, 3, 0, 0, 0, 0, 0, at, at,
       CASE state WHEN 'succeeded' THEN at END, CASE state WHEN 'succeeded' THEN at END
  FROM (SELECT g, CASE WHEN g <= %s THEN 'ready' ELSE 'succeeded' END AS state,
               strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', (-0.06 * g) || ' seconds') AS at FROM made)
"""


def fill(using: str, rows: int, ready: int, queues: int) -> None:
    """Put ``rows`` jobs into an empty cluster, ``ready`` of them ready, evenly over its queues."""
    from django.db import connections

    connection = connections[using]
    is_postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        if is_postgresql:
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("SET synchronous_commit = off")
            cursor.execute(_POSTGRES_QUEUES, [queues])
            cursor.execute(_POSTGRES_JOBS, [queues, ready, rows])
        else:
            cursor.execute(_SQLITE_QUEUES, [queues])
            cursor.execute(_SQLITE_JOBS, [rows, queues, ready])
    _roll_up(using, queues)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if is_postgresql else "ANALYZE")


def _roll_up(using: str, queues: int) -> None:
    from django.utils import timezone

    from clusters.policy import ClusterPolicy
    from jobs.engine.rollup import fold_tallies
    from jobs.models import Tally

    dice, now = random.Random(1), timezone.now().replace(second=0, microsecond=0)
    tallies: list[Any] = []
    for number in range(queues):
        for minute in range(MINUTES):
            same = {
                "minute": now - timedelta(minutes=minute),
                "queue": f"q{number}",
                "type": f"type:{number % TYPES}",
                "count": 7,
            }
            for event in ("started", "succeeded"):
                buckets = dice.sample(range(-10, 60), BUCKETS)
                tallies += [Tally(event=event, bucket=bucket, **same) for bucket in buckets]
            tallies.append(Tally(event="enqueued", **same))
            failed = {"event": "failed", "bucket": 5, "reason": "error", "outcome": "failed"}
            tallies.append(Tally(**failed, **same))
    Tally.objects.using(using).bulk_create(tallies, batch_size=4000)
    while fold_tallies(using, ClusterPolicy()):
        pass
    # And a few that nobody has folded yet.
    Tally.objects.using(using).bulk_create(
        [Tally(**{**_plain(t), "id": None}) for t in tallies[:2000]]
    )


def _plain(tally: Any) -> dict[str, Any]:
    names = ("minute", "queue", "type", "event", "bucket", "reason", "outcome", "count")
    return {name: getattr(tally, name) for name in names}
