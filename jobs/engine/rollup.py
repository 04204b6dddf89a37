"""Roll-ups: tallies become counts and histograms, and what is too old is deleted.

Folding is one transaction: rows are taken and what they say is added, or neither. A node that is killed
in between has done nothing, and two nodes that fold at once take different rows and wait for each other
where they add to the same group; groups are locked in the order of their keys.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import connections, models, transaction
from django.db.models import Q

from clusters.policy import ClusterPolicy
from jobs.engine.clock import database_now
from jobs.models import Failure, FailureHour, FailureMinute, Mark, Rollup, Tally
from jobs.models.rollup import DAY, HOUR, MINUTE, TOTAL, Event
from jobs.models.total import ADD

# So many tallies and old rows a transaction: half a second at most, and on SQLite, where
# everybody else waits to write, a fifth of one.
FOLD_TALLIES = {"postgresql": 10_000, "sqlite": 2000}
DELETE_ROWS, DELETE_GROUPS = 2000, 1000
# Two days by the minute are promised; an hour more, so that a question about them finds all of them.
MINUTES_KEPT = timedelta(hours=49)
# A day of failures by the minute, for alerts that look so far back.
FAILURE_MINUTES_KEPT = timedelta(hours=25)
# At least; longer where hours are kept longer.
DAYS_KEPT = timedelta(days=401)

# -- Tallies ---------------------------------------------------------------------------------------

_EVENTS = [event.value for event in Event]
_COUNTS = ", ".join(_EVENTS)
_BOTH = [(by_queue, by_type) for by_queue in (1, 0) for by_type in (1, 0)]
# For each length of time, whether queues and types are told apart.
_LEVELS = [(length, *by) for length in (MINUTE, HOUR, DAY) for by in _BOTH] + [(TOTAL, 1, 0)]


def _grouped(source: str, starts_at: str) -> str:
    """The tallies of ``source``, added up for each row of each level and for each bucket."""
    counts = ", ".join(
        f"sum(CASE event WHEN '{event}' THEN count ELSE 0 END) AS {event}" for event in _EVENTS
    )
    return f"""
cell AS (
  SELECT minute, queue, type, bucket, event = 'started' AS is_wait, sum(count) AS n, {counts}
    FROM {source} GROUP BY minute, queue, type, bucket, event = 'started'
), level (seconds, by_queue, by_type) AS (
  VALUES {", ".join(map(str, _LEVELS))}
), grouped AS (
  SELECT seconds, {starts_at} AS starts_at, CASE by_queue WHEN 1 THEN queue ELSE '' END AS queue,
         CASE by_type WHEN 1 THEN type ELSE '' END AS type, bucket, is_wait, sum(n) AS n,
         {", ".join(f"sum({event}) AS {event}" for event in _EVENTS)}
    FROM cell CROSS JOIN level GROUP BY 1, 2, 3, 4, 5, 6
)"""


def _add(histogram: str, merged: str) -> str:
    """The INSERT that adds ``grouped`` to the roll-ups."""
    changes = [f"{event} = rollup.{event} + excluded.{event}" for event in _EVENTS]
    for column in ("wait_histogram", "run_histogram"):
        both = merged.format(column=column)
        changes.append(
            f"{column} = CASE WHEN excluded.{column} = '{{}}' THEN rollup.{column} ELSE {both} END"
        )
    return f"""
INSERT INTO rollup (resolution_seconds, starts_at, queue, type, {_COUNTS},
                    wait_histogram, run_histogram)
SELECT seconds, starts_at, queue, type, {", ".join(f"sum({event})" for event in _EVENTS)},
       {histogram.format(condition="is_wait AND bucket IS NOT NULL")},
       {histogram.format(condition="NOT is_wait AND bucket IS NOT NULL")}
  FROM grouped WHERE true GROUP BY seconds, starts_at, queue, type ORDER BY 1, 2, 3, 4
ON CONFLICT (resolution_seconds, starts_at, queue, type) DO UPDATE SET {", ".join(changes)}
"""


def _words(source: str) -> str:
    """The INSERT that adds what tallies say in words to the running totals."""
    return f"""
INSERT INTO total (name, queue, word, count)
SELECT name, queue, word, sum(count) FROM (
   SELECT 'failed' AS name, queue, reason AS word, count FROM {source} WHERE reason IS NOT NULL
    UNION ALL
   SELECT 'ended', queue, outcome, count FROM {source} WHERE outcome IS NOT NULL) AS said
 GROUP BY name, queue, word ORDER BY 1, 2, 3
{ADD}
"""


_POSTGRES_STARTS = """
CASE seconds WHEN 0 THEN to_timestamp(0)
  ELSE date_bin(seconds * interval '1 second', minute, to_timestamp(0)) END"""
_POSTGRES_HISTOGRAM = """
COALESCE(jsonb_object_agg(bucket, n) FILTER (WHERE {condition}), '{{}}')"""
_POSTGRES_MERGED = """
(SELECT jsonb_object_agg(key, n) FROM (SELECT key, sum(value::bigint) AS n FROM (
   SELECT * FROM jsonb_each_text(rollup.{column}) UNION ALL
   SELECT * FROM jsonb_each_text(excluded.{column})) AS bucket GROUP BY key) AS merged)"""
_POSTGRES_FOLD = f"""
WITH taken AS MATERIALIZED (
  SELECT id FROM tally ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM tally USING taken WHERE tally.id = taken.id RETURNING tally.*
), {_grouped("gone", _POSTGRES_STARTS)},
added AS ({_add(_POSTGRES_HISTOGRAM, _POSTGRES_MERGED)}),
told AS ({_words("gone")})
SELECT count(*) FROM gone
"""

# Times as Django stores them: a whole second has no fraction.
_SQLITE_STARTS = """
CASE seconds WHEN 0 THEN '1970-01-01 00:00:00'
  ELSE datetime(CAST(strftime('%%s', minute) AS INTEGER) / seconds * seconds, 'unixepoch') END"""
_SQLITE_HISTOGRAM = "json_group_object(bucket, n) FILTER (WHERE {condition})"
_SQLITE_MERGED = """
(SELECT json_group_object(key, n) FROM (SELECT key, sum(value) AS n FROM (
   SELECT key, value FROM json_each(rollup.{column}) UNION ALL
   SELECT key, value FROM json_each(excluded.{column})) GROUP BY key))"""
_SQLITE_FOLD = f"""
WITH {_grouped("(SELECT * FROM tally WHERE id <= %s)", _SQLITE_STARTS)}
{_add(_SQLITE_HISTOGRAM, _SQLITE_MERGED)}
"""

_SQLITE_WORDS = _words("(SELECT * FROM tally WHERE id <= %s)")


def fold_tallies(using: str, policy: ClusterPolicy) -> int:
    """Add some tallies to the roll-ups, each exactly once; returns how many."""
    connection = connections[using]
    # The look outside the transaction keeps idle nodes from taking SQLite's write lock.
    if not Tally.objects.using(using).exists():
        return 0
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(_POSTGRES_FOLD, [FOLD_TALLIES[connection.vendor]])
            folded: int = cursor.fetchone()[0]
            return folded
    with transaction.atomic(using=using), connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(id), count(*) FROM (SELECT id FROM tally ORDER BY id LIMIT %s)",
            [FOLD_TALLIES[connection.vendor]],
        )
        last, folded = cursor.fetchone()
        cursor.execute(_SQLITE_FOLD, [last])
        cursor.execute(_SQLITE_WORDS, [last, last])
        cursor.execute("DELETE FROM tally WHERE id <= %s", [last])
        return folded


# -- What is too old -------------------------------------------------------------------------------


def compact(using: str, policy: ClusterPolicy) -> int:
    """Delete some roll-ups and groups of failures that are kept no longer; returns how many.

    What minutes say is in hours and days already: they were counted together.
    """
    now = database_now(connections[using])
    hours_kept = timedelta(seconds=policy.retain_rollup_seconds)
    deleted = 0
    for length, kept in (
        (MINUTE, MINUTES_KEPT),
        (HOUR, max(hours_kept, MINUTES_KEPT)),
        (DAY, max(hours_kept, DAYS_KEPT)),
    ):
        old = {
            "resolution_seconds": length,
            "starts_at__lt": now - kept - timedelta(seconds=length),
        }
        deleted += _delete_some(using, Rollup, **old)
    unseen_since = now - timedelta(seconds=policy.retain_failed_seconds)
    deleted += _forget_failures(using, unseen_since, now - DAYS_KEPT)
    deleted += _delete_some(using, FailureMinute, starts_at__lt=now - FAILURE_MINUTES_KEPT)
    deleted += _delete_some(using, FailureHour, starts_at__lt=now - max(hours_kept, DAYS_KEPT))
    return deleted


def _delete_some(using: str, model: type[models.Model], **conditions: Any) -> int:
    rows = model._default_manager.using(using).filter(**conditions)
    # The look outside the transaction keeps idle nodes from taking SQLite's write lock.
    if not rows.exists():
        return 0
    with transaction.atomic(using=using):
        skips = connections[using].features.has_select_for_update_skip_locked
        some = rows.order_by("pk").select_for_update(skip_locked=skips)
        keys = list(some.values_list("pk", flat=True)[:DELETE_ROWS])
        return rows.filter(pk__in=keys)._raw_delete(using) or 0


def _forget_failures(using: str, unseen_since: datetime, people_since: datetime) -> int:
    """Delete some groups that have not been seen since, with their hours.

    One of which people said something is kept for longer: it comes back as what they said it is.
    """
    untouched = Q(mark=Mark.NEW, owner="", ticket="")
    old = Failure.objects.using(using).filter(
        untouched | Q(last_seen_at__lt=people_since), last_seen_at__lt=unseen_since
    )
    if not old.exists():
        return 0
    with transaction.atomic(using=using):
        skips = connections[using].features.has_select_for_update_skip_locked
        # Oldest first, by the index; locked, so that none is seen again before its hours are gone.
        some = old.order_by("last_seen_at", "fingerprint")
        locked = some.select_for_update(skip_locked=skips)
        keys = list(locked.values_list("pk", flat=True)[:DELETE_GROUPS])
        hours = FailureHour.objects.using(using).filter(fingerprint__in=keys)
        hours._raw_delete(using)
        return Failure.objects.using(using).filter(pk__in=keys)._raw_delete(using) or 0
