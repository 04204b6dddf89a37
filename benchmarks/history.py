"""Finished jobs by the million, made inside the database: a few queues, types, states and tags."""

from __future__ import annotations

import psycopg

QUEUES, TYPES = 20, 50

_QUEUES = """
INSERT INTO queue (id, name, description, is_paused, created_at, version)
SELECT gen_random_uuid(), 'q' || g, '', false, now(), 1 FROM generate_series(0, %(queues)s - 1) g
"""
# One job each 60 ms up to now, with ids that begin with their time, as the engine's do. One in 500
# failed, one in 1,000 was cancelled, one in 10 has two tags.
_JOBS = """
INSERT INTO job (id, kind, type, queue, state, reason, is_held, priority, payload, tags, enqueued_by,
                 on_lost, timeout_seconds, max_attempts, attempts, crashes, fence, result, error,
                 run_at, created_at, started_at, finished_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
        || substr(md5(g::text), 1, 20))::uuid,
       'python', 'type:' || g %% %(types)s, 'q' || g %% %(queues)s, state,
       CASE state WHEN 'failed' THEN 'error' END, false, 0,
       '{"template": "restart-service", "target": "node-0421.example", "args": [1, 2, 3]}',
       CASE WHEN g %% 10 = 0 THEN '["nightly", "billing"]'::jsonb ELSE '[]'::jsonb END,
       'key:bench', 'retry', 300, 3, 1, 0, 1, '{"pages": 12}',
       CASE state WHEN 'failed' THEN 'RuntimeError: the report has no pages' END, at, at, at, at
  FROM (SELECT g, clock_timestamp() - (%(rows)s - g) * interval '60 ms' AS at,
               CASE WHEN g %% 500 = 0 THEN 'failed' WHEN g %% 1000 = 1 THEN 'cancelled'
                    ELSE 'succeeded' END AS state
          FROM generate_series(1, %(rows)s) g) made
"""
_TAGS = """
INSERT INTO job_tag (tag, job_id, created_at)
SELECT jsonb_array_elements_text(tags), id, created_at FROM job WHERE tags <> '[]'
"""


def fill(url: str, rows: int, queues: int = QUEUES) -> None:
    """Put ``rows`` finished jobs into an empty cluster database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        numbers = {"rows": rows, "queues": queues, "types": TYPES}
        for statement in (_QUEUES, _JOBS, _TAGS):
            connection.execute(statement, numbers)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
