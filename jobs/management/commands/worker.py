"""Start a node: a process that claims and runs the jobs of one cluster."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from clusters.binding import cluster_bound
from clusters.checks import TAG
from clusters.errors import UnknownCluster, UnsoundSettings
from clusters.management.addresses import address
from jobs.executors import NODE_KINDS
from jobs.registry import HandlersUnusable


class Command(BaseCommand):
    help = (
        "Start a node: it claims and runs the jobs of one cluster and does the cluster's upkeep. "
        "SIGTERM or Ctrl-C lets running work end within the grace, a second one cuts it short. "
        "Jobs of kind container run where YARDMASTER_CONTAINER_ENGINE names the socket of an engine, "
        "with the images of YARDMASTER_CONTAINER_IMAGES and the directories of "
        "YARDMASTER_CONTAINER_BIND_MOUNTS."
    )

    # All checks would import every page and cost a second of each start.
    requires_system_checks = [TAG]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--cluster", help="whose jobs to run; may be left out where one cluster is configured"
        )
        parser.add_argument("--queues", help="comma-separated names; every queue if left out")
        parser.add_argument(
            "--concurrency", type=int, default=2, help="python and files jobs at a time (default 2)"
        )
        parser.add_argument(
            "--io-concurrency",
            type=int,
            default=20,
            help="http, shell, container and procedure jobs at a time (default 20)",
        )
        parser.add_argument(
            "--enable-shell", action="store_true", help="run jobs of kind shell on this host"
        )

        parser.add_argument(
            "--restored",
            action="store_true",
            help="the database came from a backup: let no node of the cluster start a job until "
            "somebody confirms (manage.py restored)",
        )
        parser.add_argument(
            "--health",
            type=health_address,
            metavar="WHERE",
            help="answer /livez and /readyz at 127.0.0.1:8081 or unix:/run/yardmaster/node",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        from jobs.engine.health import HealthUnavailable
        from jobs.engine.worker import Worker

        cluster_id = options["cluster"] or self._only_cluster()
        listed = (name.strip() for name in (options["queues"] or "").split(","))
        queues = [name for name in listed if name] or None
        kinds = set(settings.WORKER_KINDS) | ({"shell"} if options["enable_shell"] else set())
        if unknown := kinds - {*NODE_KINDS}:
            raise CommandError(f"unknown kinds: {', '.join(sorted(unknown))}", returncode=2)
        for name in ("concurrency", "io_concurrency"):
            if not 0 <= options[name] <= 1000:
                raise CommandError(f"--{name.replace('_', '-')} must be 0 to 1000", returncode=2)
        try:
            with cluster_bound(cluster_id):
                worker = Worker(
                    cluster_id,
                    queues=queues,
                    kinds=sorted(kinds),
                    concurrency=options["concurrency"],
                    io_slots=options["io_concurrency"],
                    health=options["health"],
                    is_restored=options["restored"],
                )
                status = worker.run()
        except UnknownCluster:
            known = ", ".join(settings.CLUSTERS)
            raise CommandError(
                f"there is no cluster {cluster_id!r}; configured are: {known}", returncode=2
            ) from None
        except UnsoundSettings as error:
            raise CommandError(
                f"the settings of {cluster_id} do not fit together with its persisted ones: {error}",
                returncode=2,
            ) from None
        except HealthUnavailable as error:
            raise CommandError(f"--health: {error}", returncode=2) from None
        except HandlersUnusable as error:
            raise CommandError(str(error), returncode=2) from None
        sys.exit(status)

    def _only_cluster(self) -> str:
        import os

        if chosen := os.environ.get("YARDMASTER_CLUSTER"):
            return chosen
        if len(settings.CLUSTERS) == 1:
            return str(next(iter(settings.CLUSTERS)))
        known = ", ".join(settings.CLUSTERS)
        raise CommandError(f"which cluster? --cluster with one of: {known}", returncode=2)


def health_address(text: str) -> tuple[str, int] | Path:
    """Where a node tells its health: to its own host only, for it asks nobody who they are."""
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute():
            raise ArgumentTypeError(f"{text[:60]!r}: the socket needs an absolute path")
        return path
    found = address(text)
    if not found.is_loopback:
        raise ArgumentTypeError(
            f"{text[:60]!r}: only an address of this host itself, or unix:/path"
        )
    return found.host, found.port
