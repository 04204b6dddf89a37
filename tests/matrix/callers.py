"""Who calls: nobody, somebody with bad credentials, and each role in one of two clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from authn.keys import create_key
from authn.models import ApiKey, Role

RANK = {"viewer": 1, "operator": 2, "admin": 3}


@dataclass(frozen=True)
class Caller:
    name: str
    headers: Mapping[str, str]
    # None: his credentials are not good, or there are none.
    role: str | None = None
    cluster: str | None = None

    @property
    def is_known(self) -> bool:
        return self.role is not None

    def covers(self, least: str) -> bool:
        return self.role is not None and RANK[self.role] >= RANK[least]


def make_callers() -> list[Caller]:
    """All of them; the bad credentials were good ones of an admin of everything."""
    wrong = _key("wrong", "admin", "*")
    expired = _key("expired", "admin", "*")
    ApiKey.objects.filter(name="expired").update(expires_at=timezone.now() - timedelta(seconds=1))
    revoked = _key("revoked", "admin", "*")
    ApiKey.objects.filter(name="revoked").revoke()
    return [
        Caller("none", {}),
        Caller("bad", {"x-api-key": wrong[:-1] + ("0" if wrong[-1] != "0" else "1")}),
        Caller("expired", {"x-api-key": expired}),
        Caller("revoked", {"x-api-key": revoked}),
        *(
            Caller(
                f"{role} of {cluster}",
                {"x-api-key": _key(f"{role} of {cluster}", role, cluster)},
                role,
                cluster,
            )
            for cluster in ("alpha", "beta")
            for role in Role.values
        ),
    ]


def _key(name: str, role: str, cluster: str) -> str:
    # Grants are no part of a role; they have tests of their own.
    return create_key(name, role, [cluster], ["shell"])[1]
