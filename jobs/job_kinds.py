"""Which types of jobs there are, without looking at each job."""

from __future__ import annotations

from datetime import timedelta

from django.db import connections
from django.db.models.functions import Now

from jobs.models import Rollup
from jobs.models.rollup import ALL, DAY

MOST = 1000
# So many of a queue's newest jobs are looked at beside what its roll-ups of so many days know.
_NEWEST, _DAYS = 5000, timedelta(days=400)

# From one type to the next along an index, a step for each type.
_TYPES = """
WITH RECURSIVE hop (type) AS (
  SELECT min(type) FROM job_listing
  UNION ALL
  SELECT (SELECT min(l.type) FROM job_listing l WHERE l.type > hop.type) FROM hop
   WHERE hop.type IS NOT NULL
)
SELECT type FROM hop WHERE type IS NOT NULL LIMIT %s
"""
_OF_QUEUE = """
SELECT DISTINCT type FROM (
  SELECT type FROM job_listing WHERE queue = %s ORDER BY created_at DESC, job_id DESC LIMIT %s) AS look
"""


def kinds(using: str, queue: str | None = None) -> list[str]:
    """The types of all jobs, or of those that a queue has or has had, in the order of the alphabet."""
    with connections[using].cursor() as cursor:
        cursor.execute(_TYPES, [MOST])
        known = {name for (name,) in cursor.fetchall()}
        if queue is None:
            return sorted(known)
        cursor.execute(_OF_QUEUE, [queue, _NEWEST])
        found = {name for (name,) in cursor.fetchall()}
    seen = Rollup.objects.using(using).filter(
        resolution_seconds=DAY, queue=queue, starts_at__gt=Now() - _DAYS
    )
    earlier = set(seen.exclude(type=ALL).values_list("type", flat=True).distinct())
    return sorted(found | (earlier & known))
