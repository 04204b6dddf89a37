"""What can go wrong between a caller and a cluster."""

from __future__ import annotations

from collections.abc import Mapping

from django.core.exceptions import PermissionDenied


class ClusterNotBound(RuntimeError):
    """A cluster's data was asked for while no cluster was bound; there is no default to fall back to."""


class UnsoundSettings(ValueError):
    """Settings that are not allowed, or do not fit together; ``problems`` names each."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = dict(problems)


class OutdatedSettings(Exception):
    """The settings were changed since they were read."""


class UnknownCluster(LookupError):
    """No cluster with this id is configured."""


class NotAllowed(PermissionDenied):
    """Whoever acts has no role that covers the verb; every surface refuses it in its own words.

    ``kind``: the role would do, and it takes a grant for work of this kind.
    """

    def __init__(self, verb: str, kind: str = "") -> None:
        super().__init__(f"no role of yours covers {verb}")
        self.verb, self.kind = verb, kind


class Unchangeable(TypeError):
    """The audit only grows: what was told once is neither changed nor deleted."""
