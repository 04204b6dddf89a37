"""The doctor: what an on-call person asks first, answered cluster by cluster.

    findings.py     what one check found, how bad it is and what to do
    database.py     the database itself: reachable, up to date, vacuumed, durable
    work.py         the work in it: nodes, queues, duties, clocks

A check reads and never mends. It looks at a bounded number of rows, for it is asked while things burn.
"""

from __future__ import annotations

from django.db import DatabaseError, InterfaceError

from clusters.binding import cluster_bound
from clusters.registry import Cluster
from clusters.routers import CONTROL
from jobs.doctor import database, work
from jobs.doctor.findings import Check, Finding, failed


def examine(cluster: Cluster) -> list[Finding]:
    """All findings about one cluster; if its database does not answer, only that."""
    with cluster_bound(cluster.id):
        found = _examine(cluster.alias, database.CHECKS)
        if any(finding.check in ("reachable", "schema") and finding.is_bad for finding in found):
            return found  # what the rest would say is no news
        return found + _examine(cluster.alias, work.CHECKS)


def examine_control() -> list[Finding]:
    """All findings about the control database."""
    return _examine(CONTROL, database.CHECKS_OF_CONTROL)


def _examine(alias: str, checks: tuple[Check, ...]) -> list[Finding]:
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(alias)
        except (DatabaseError, InterfaceError) as error:
            name = check.__name__.removeprefix("check_")
            advice = "see whether the database is overloaded, and ask again"
            found.append(failed(name, f"could not be checked: {str(error).strip()}", advice))
        if found and found[-1].check == "reachable" and found[-1].is_bad:
            break
    return found
