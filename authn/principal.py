"""Who is calling, as the rest of the program sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.conf import settings

from authn.configuration import RoleOn
from authn.models import ALL_CLUSTERS, Role
from clusters.registry import Cluster

# Beside the names of dialects.
NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller with a role per cluster id, or for ``*``; ``granted_kinds`` are keyed in the same way."""

    name: str
    actor: str
    roles: Mapping[str, str]
    granted_kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_superuser: bool = False

    def role_on(self, cluster_id: str) -> str | None:
        """The role on a cluster; one given for that very cluster wins over one given for all."""
        return self.roles.get(cluster_id) or self.roles.get(ALL_CLUSTERS)

    def may_see(self, cluster_id: str) -> bool:
        return cluster_id in settings.CLUSTERS and self.role_on(cluster_id) is not None

    def kinds_granted_on(self, cluster_id: str) -> frozenset[str]:
        """Kinds of work beyond the role, granted for this cluster or for all."""
        everywhere = self.granted_kinds.get(ALL_CLUSTERS, frozenset())
        return everywhere | self.granted_kinds.get(cluster_id, frozenset())

    def clusters(self) -> list[Cluster]:
        """The clusters this caller may see, by id."""
        return [
            cluster for _, cluster in sorted(settings.CLUSTERS.items()) if self.may_see(cluster.id)
        ]


def principal_with(name: str, actor: str, given: Iterable[RoleOn]) -> Principal:
    """A caller with the roles that a configuration gives; of several on a cluster the highest counts."""
    roles: dict[str, str] = {}
    grants: dict[str, frozenset[str]] = {}
    for item in sorted(given, key=lambda item: Role.values.index(item.role)):
        for cluster_id in item.clusters:
            roles[cluster_id] = item.role
            grants[cluster_id] = grants.get(cluster_id, frozenset()) | item.grants
    return Principal(name, actor, roles, grants)


def anonymous_of(dialect: str | None) -> Principal | None:
    """Who calls without a credential of his own; None where that is not open to such callers.

    ``native`` is the native API, which is open on all clusters or on none.
    """
    if dialect is None:
        return None
    if dialect == NATIVE:
        if settings.REQUIRE_AUTHENTICATION:
            return None
        return Principal("anonymous", "anonymous:native", {ALL_CLUSTERS: settings.ANONYMOUS_ROLE})
    role, name = settings.ANONYMOUS_ROLES.get(dialect), "anonymous"
    if settings.CLIENT_CERTIFICATES and dialect in settings.CERTIFICATE_ROLES:
        # Whoever came this far has shown a certificate that was checked.
        role, name = settings.CERTIFICATE_ROLES[dialect], "certificate"
    if role is None:
        return None
    return Principal(name, f"{name}:{dialect}", {settings.DEFAULT_CLUSTER_ID: role})
