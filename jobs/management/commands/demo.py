"""Fill clusters with a day that might have been."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from clusters.acting import acting_as
from clusters.binding import cluster_bound
from clusters.management.base import (
    CommandFailed,
    Conflict,
    NotFound,
    OperatorCommand,
    UsageError,
    check_database_is_there,
)
from clusters.registry import PRODUCTION
from clusters.routers import CONTROL
from jobs.demo import fill, people
from jobs.demo.play import Play
from jobs.demo.plays import OF_CLUSTERS, PLAYS
from jobs.models import Job

JOBS, SEED = 100_000, 2030
MOST_JOBS = 2_000_000


class Command(OperatorCommand):
    help = (
        "Fill one or two empty clusters with a believable day: jobs, failures, schedules, deeds, and "
        "people with roles. For trying the screen; never where the environment is production."
    )
    acts_on_cluster = False

    def shape(self, parser: ArgumentParser) -> None:
        self.add_common(parser)
        add = parser.add_argument
        add(
            "--cluster",
            action="append",
            metavar="ID",
            help="may be given twice; default: the first two",
        )
        add("--jobs", type=int, default=JOBS, help=f"of both together (default {JOBS:,})")
        add("--seed", type=int, default=SEED, help="the same seed makes the same day")
        add("--add", action="store_true", help="also to clusters that have jobs already")
        add(
            "--if-empty",
            action="store_true",
            help="leave clusters alone that have jobs already, without a complaint",
        )
        parser.set_defaults(run=self.fill, verb=None)

    def fill(self, asked: Namespace) -> None:
        if not 100 <= asked.jobs <= MOST_JOBS:
            raise UsageError(f"between 100 and {MOST_JOBS:,} jobs", field="jobs")
        plays = self._plays(asked)
        check_database_is_there(CONTROL)
        for cluster_id in plays:
            self._check(cluster_id)
        if not asked.add:
            taken = [cluster_id for cluster_id in plays if _has_jobs(cluster_id)]
            if taken and not asked.if_empty:
                raise Conflict(
                    f"there are jobs in {', '.join(taken)} already; --add fills it all the same"
                )
            plays = {key: play for key, play in plays.items() if key not in taken}
        whole = sum(play.jobs for play in plays.values())
        written = {}
        # Nobody acts: what the day's people did is told of them.
        with acting_as(None):
            if plays:
                people.write([*plays], asked.seed)
            for cluster_id, play in plays.items():
                with self._bar(cluster_id) as say:
                    number = round(asked.jobs * play.jobs / whole)
                    written[cluster_id] = fill(cluster_id, play, number, asked.seed, say)
        self.show(
            written,
            lambda: self.print_table(("cluster", "jobs"), [*map(list, written.items())]),
        )

    def _plays(self, asked: Namespace) -> dict[str, Play]:
        wanted = [*dict.fromkeys(asked.cluster or ())]
        if unknown := set(wanted) - settings.CLUSTERS.keys():
            raise NotFound(f"there is no cluster {', '.join(sorted(unknown))}")
        if len(wanted) > len(PLAYS):
            raise UsageError("the demo has two clusters", field="cluster")
        ids = wanted or [*settings.CLUSTERS][: len(PLAYS)]
        if set(ids) == set(OF_CLUSTERS):
            return dict(OF_CLUSTERS)
        return dict(zip(ids, PLAYS, strict=False))

    def _check(self, cluster_id: str) -> None:
        cluster = settings.CLUSTERS[cluster_id]
        if cluster.environment == PRODUCTION:
            raise CommandFailed(f"{cluster_id} is a production cluster; the demo is never for one")
        check_database_is_there(cluster.alias)

    @contextmanager
    def _bar(self, cluster_id: str) -> Iterator[Callable[[str, int, int], None]]:
        console = self.progress_console()
        if not console.is_terminal:
            self.say(f"filling {cluster_id} …")
            yield lambda what, done, total: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            tasks: dict[str, object] = {}

            def say(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(f"{cluster_id}: {what}", total=total)
                progress.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

            yield say


def _has_jobs(cluster_id: str) -> bool:
    with cluster_bound(cluster_id):
        return Job.objects.exists()
