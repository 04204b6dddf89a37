"""What running jobs say: log lines and progress, written in batches and only for the holder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import DataError, IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.engine.clock import countdown, sqlite_time
from jobs.raw import fetch

logger = logging.getLogger(__name__)

_POSTGRES_LOGS = """
INSERT INTO job_log (job_id, fence, stream, level, message, logged_at)
SELECT d.id, d.fence, d.stream, d.level, d.message,
       clock_timestamp() - d.age * interval '1 second'
  FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::float8[])
       WITH ORDINALITY AS d(id, fence, stream, level, message, age, place)
  JOIN job ON job.id = d.id AND job.fence = d.fence AND job.node_id = %s AND job.state = 'running'
 ORDER BY d.place
"""
_SQLITE_LOGS = """
INSERT INTO job_log (job_id, fence, stream, level, message, logged_at)
SELECT job.id, job.fence, value ->> 2, value ->> 3, value ->> 4, value ->> 5
  FROM json_each(%s) AS d CROSS JOIN job
 WHERE job.id = value ->> 0 AND job.fence = value ->> 1
   AND job.node_id = %s AND job.state = 'running'
 ORDER BY d.key
"""
_POSTGRES_PROGRESS = """
UPDATE job SET progress_percent = d.percent, progress_note = d.note
  FROM unnest(%s::uuid[], %s::bigint[], %s::float8[], %s::text[]) AS d(id, fence, percent, note)
 WHERE job.id = d.id AND job.fence = d.fence AND job.node_id = %s AND job.state = 'running'
"""
_SQLITE_PROGRESS = """
WITH d AS (SELECT value ->> 0 AS id, value ->> 1 AS fence, value ->> 2 AS percent,
                  value ->> 3 AS note FROM json_each(%s))
UPDATE job SET progress_percent = d.percent, progress_note = d.note
  FROM d
 WHERE job.id = d.id AND job.fence = d.fence AND job.node_id = %s AND job.state = 'running'
"""


@dataclass(frozen=True, slots=True)
class Line:
    job: str
    fence: int
    written_at: float  # of ``clock.countdown``
    stream: str
    level: str | None
    message: str


def write_lines(connection: BaseDatabaseWrapper, node: str, lines: Sequence[Line]) -> None:
    """Add lines to the logs of jobs that this node still holds; one that cannot be stored is left out."""
    try:
        _write_lines(connection, node, lines)
    except (DataError, IntegrityError):
        if len(lines) == 1:
            logger.exception("job %s: a log line cannot be stored", lines[0].job)
            return
        half = len(lines) // 2
        write_lines(connection, node, lines[:half])
        write_lines(connection, node, lines[half:])


def _write_lines(connection: BaseDatabaseWrapper, node: str, lines: Sequence[Line]) -> None:
    now = countdown()
    if connection.vendor != "postgresql":
        rows = [
            [
                line.job.replace("-", ""),
                line.fence,
                line.stream,
                line.level,
                line.message,
                sqlite_time(line.written_at - now),
            ]
            for line in lines
        ]
        _sqlite(connection, _SQLITE_LOGS, rows, node)
        return
    fetch(
        connection,
        _POSTGRES_LOGS,
        [
            [line.job for line in lines],
            [line.fence for line in lines],
            [line.stream for line in lines],
            [line.level for line in lines],
            [line.message for line in lines],
            [now - line.written_at for line in lines],
            node,
        ],
    )


def write_progress(
    connection: BaseDatabaseWrapper,
    node: str,
    progress: Mapping[tuple[str, int], tuple[float, str]],
) -> None:
    """Show the latest progress of jobs that this node still holds."""
    rows = [[job, fence, percent, note] for (job, fence), (percent, note) in progress.items()]
    if connection.vendor != "postgresql":
        _sqlite(
            connection,
            _SQLITE_PROGRESS,
            [[str(row[0]).replace("-", ""), *row[1:]] for row in rows],
            node,
        )
        return
    fetch(connection, _POSTGRES_PROGRESS, [*map(list, zip(*rows, strict=True)), node])


def _sqlite(
    connection: BaseDatabaseWrapper, statement: str, rows: Sequence[object], node: str
) -> None:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(statement, [json.dumps(rows), node.replace("-", "")])
