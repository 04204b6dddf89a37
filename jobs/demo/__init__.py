"""The demo: an empty cluster is filled with a day that might have been, so that every page has rows.

    plays.py      what the two clusters are for: their work, what goes wrong, their schedules
    stage.py      who fills it: the seed, the clock, the nodes, and what is counted on the way
    rows.py       rows by the thousand, written as fast as the database takes them
    day.py        the jobs of the day, with their attempts, logs and failures
    open_work.py  what has not ended: running, waiting, blocked, in a queue that is paused
    timed.py      schedules and what became of their instants; workflows and their runs
    deeds.py      what people did: pauses, drains, settings, bulk operations, with the audit of it
    watch.py      what they have said of failures, and their alerts
    people.py     users, groups and keys, in the control database
    handlers.py   the same work for live nodes, so that the day goes on

Nothing here is a way for jobs to be born: rows are written as they would stand after a day of work, with
all that the engine writes beside them. Counts are left as tallies and sightings, and the engine's own
roll-up adds them up.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.db import connections

from clusters.binding import cluster_bound
from clusters.models import current_policy
from jobs.demo import day, deeds, open_work, timed, watch
from jobs.demo.play import Play
from jobs.demo.stage import Stage
from jobs.engine import rollup, sightings
from jobs.engine.clock import database_now
from jobs.models import FailureSighting, Tally

Progress = Callable[[str, int, int], None]
ANALYZED = ("job", "job_listing", "attempt", "job_log", "rollup", "audit")
# Filled and emptied again.
EMPTIED = ("tally", "failure_sighting")


def fill(
    cluster_id: str, play: Play, jobs: int, seed: int, say: Progress, now: datetime | None = None
) -> int:
    """Fill a cluster with the last 24 hours of a play, about so many jobs; returns how many there are."""
    with cluster_bound(cluster_id) as cluster:
        using = cluster.alias
        now = now or database_now(connections[using])
        stage = Stage(using, play, jobs, seed, now)
        stage.build()
        schedules = timed.schedules(stage)
        timed.fires(stage, schedules)
        timed.workflows(stage, schedules)
        open_work.write(stage)
        day.write(stage, lambda done: say("jobs", done, jobs))
        stage.finish()
        _add_up(using, say)
        deeds.write(stage)
        watch.write(stage)
        _analyze(using)
        return stage.written


def _add_up(using: str, say: Progress) -> None:
    """Fold what was counted, as upkeep does."""
    policy = current_policy()
    total = left = Tally.objects.using(using).count() + FailureSighting.objects.using(using).count()
    for fold in (sightings.fold_sightings, rollup.fold_tallies):
        while folded := fold(using, policy):
            left -= folded
            say("figures", total - left, total)


def _analyze(using: str) -> None:
    """Statistics of a table that has grown a thousandfold are worth nothing."""
    connection = connections[using]
    with connection.cursor() as cursor:
        for table in ANALYZED:
            cursor.execute(f"ANALYZE {table}")
        if connection.vendor == "postgresql" and not connection.in_atomic_block:
            for table in EMPTIED:
                cursor.execute(f"VACUUM (ANALYZE) {table}")
