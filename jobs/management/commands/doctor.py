"""Look for what is wrong with the clusters, and say what to do about it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings
from django.db import connections

from clusters.management.base import FAILED, NotFound
from clusters.registry import Cluster
from clusters.routers import CONTROL
from jobs.doctor import examine, examine_control
from jobs.doctor.findings import FAIL, OK, WARN, Finding, worst
from jobs.management.base import JobsCommand

# The control database among the clusters; no cluster can have this name.
CONTROL_ID = "(control)"


class Command(JobsCommand):
    help = (
        "Look for what is wrong with the clusters and their databases, and say what to do about it. "
        "Exit status 1: something fails."
    )
    acts_on_cluster = False

    def shape(self, parser: ArgumentParser) -> None:
        parser.set_defaults(run=self.examine)
        parser.add_argument("--cluster", metavar="ID", help="only this one; default: all")
        parser.add_argument("--all", action="store_true", help="show what is fine, too")
        parser.add_argument(
            "-o", "--output", choices=("table", "json"), default="table", help="default: table"
        )
        parser.add_argument(
            "--json", action="store_const", const="json", dest="output", help="the same as -o json"
        )

    def examine(self, asked: Namespace) -> None:
        found = self._findings(asked.cluster)
        self.show(
            {
                "items": [_document(name, findings) for name, findings in found.items()],
                "next": None,
                "previous": None,
            },
            lambda: self._table(found, shows_all=asked.all),
        )
        if any(finding.is_bad for findings in found.values() for finding in findings):
            self.stdout.flush()
            sys.exit(FAILED)

    def _findings(self, cluster_id: str | None) -> dict[str, list[Finding]]:
        if cluster_id is not None:
            cluster = settings.CLUSTERS.get(cluster_id)
            if cluster is None:
                known = ", ".join(settings.CLUSTERS)
                raise NotFound(f"there is no cluster {cluster_id!r}; known: {known}")
            return {cluster_id: examine(cluster)}
        clusters = [*settings.CLUSTERS.values()]
        # At once, so that one that is down costs its connect timeout and no more.
        with ThreadPoolExecutor(max_workers=8) as threads:
            control = threads.submit(_control_and_close)
            found = zip(clusters, threads.map(_examine_and_close, clusters), strict=True)
            return {
                CONTROL_ID: control.result(),
                **{cluster.id: findings for cluster, findings in found},
            }

    def _table(self, found: dict[str, list[Finding]], *, shows_all: bool) -> None:
        rows = [
            (name, finding.check, finding.status, finding.found, finding.advice)
            for name, findings in found.items()
            for finding in findings
            if shows_all or finding.status != OK
        ]
        if rows:
            self.print_table(("cluster", "check", "status", "found", "what to do"), rows)
        counts = dict.fromkeys((OK, WARN, FAIL), 0)
        for findings in found.values():
            for finding in findings:
                counts[finding.status] += 1
        self.say(", ".join(f"{count} {status}" for status, count in counts.items()))


def _document(name: str, findings: list[Finding]) -> dict[str, Any]:
    return {
        "cluster": None if name == CONTROL_ID else name,
        "status": worst(findings),
        "findings": [
            {
                "check": finding.check,
                "status": finding.status,
                "found": finding.found,
                "advice": finding.advice,
                "details": finding.details,
            }
            for finding in findings
        ],
    }


def _examine_and_close(cluster: Cluster) -> list[Finding]:
    try:
        return examine(cluster)
    finally:
        connections[cluster.alias].close()


def _control_and_close() -> list[Finding]:
    try:
        return examine_control()
    finally:
        connections[CONTROL].close()
