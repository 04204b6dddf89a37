"""What the audit tells of deeds that were refused."""

from __future__ import annotations

from typing import Any

from authn.models import AccessAuditEntry
from clusters.models import REFUSED, AuditEntry


def refused(alias: str = "cluster-alpha") -> list[Any]:
    """The rows of one cluster, the oldest first."""
    return [*AuditEntry.objects.using(alias).filter(verb=REFUSED).order_by("at", "id")]


def access_refused() -> list[Any]:
    """Those of what belongs to no cluster."""
    return [*AccessAuditEntry.objects.filter(verb=REFUSED).order_by("at", "id")]


def everywhere() -> list[Any]:
    return [*refused(), *refused("cluster-beta"), *access_refused()]


def the_refusal(
    response: Any, verb: str, actor: str, *, kind: str = "", of_access: bool = False
) -> Any:
    """The one row there is: that this request was refused this verb, in the audit that it belongs to."""
    [row] = everywhere()
    assert [row] == (access_refused() if of_access else refused())
    assert row.after == ({"verb": verb, "kind": kind} if kind else {"verb": verb})
    assert (row.actor, row.address, row.count) == (actor, "127.0.0.1", 1)
    assert row.request_id == response["X-Request-ID"]
    assert row.before is None and row.reason == "" and row.target_type and row.target_id
    return row
