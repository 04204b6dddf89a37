"""How far whoever acts reaches: whose keys and roles he sees, and what he may hand out.

Nobody gives more than he has: a role only where he is an admin, and a grant only where he has that grant,
or is a superuser, to whom users and groups belong. What he does not see is for him what is not there.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.db.models import Exists, OuterRef, Q

from authn.errors import InvalidAccess
from authn.models import ALL_CLUSTERS, ApiKey, ApiKeyQuerySet, Role, RoleBinding
from clusters.acting import who_acts
from clusters.errors import NotAllowed
from jobs.errors import KindNotGranted
from jobs.executors import GRANTED_KINDS


def roles_seen(verb: str) -> Q:
    """Which rows of roles whoever acts may see by this verb."""
    somebody = who_acts()
    if somebody is None:
        return Q()
    own = [cluster_id for cluster_id in settings.CLUSTERS if somebody.may(verb, cluster_id)]
    if not somebody.may(verb, ALL_CLUSTERS):
        return Q(cluster_id__in=own)
    # Those of all clusters, and of such as are configured no more.
    return ~Q(cluster_id__in=settings.CLUSTERS.keys() - {*own})


def keys_seen(verb: str) -> ApiKeyQuerySet:
    """Keys with a role on a cluster where whoever acts may do this."""
    keys: ApiKeyQuerySet = ApiKey.objects.all()
    somebody = who_acts()
    bindings = RoleBinding.objects.filter(api_key=OuterRef("pk"))
    seen = Q(Exists(bindings.filter(roles_seen(verb))))
    if somebody is None or somebody.may(verb, ALL_CLUSTERS):
        seen |= Q(~Exists(bindings))
    return keys.filter(seen)


def check_clusters(clusters: Iterable[str], field: str = "clusters") -> None:
    """Refuse clusters that are not there, and in the same words those that whoever acts does not see."""
    somebody = who_acts()
    for cluster_id in clusters:
        if cluster_id == ALL_CLUSTERS:
            continue
        is_there = cluster_id in settings.CLUSTERS
        if not is_there or (somebody and not somebody.may("clusters.read", cluster_id)):
            known = ", ".join(settings.CLUSTERS) if somebody is None else ""
            text = f"there is no cluster {cluster_id[:40]!r}" + (known and f"; known: {known}")
            raise InvalidAccess(text, field=field)


def check_role(role: str) -> None:
    if role not in Role.values:
        raise InvalidAccess(f"must be one of {', '.join(Role.values)}", field="role")


def check_gift(cluster_id: str, kinds: Iterable[str]) -> None:
    """Refuse to hand out, by a role on this cluster, more than whoever acts has himself."""
    if {*kinds} - {*GRANTED_KINDS}:
        raise InvalidAccess(f"a grant is one of {', '.join(GRANTED_KINDS)}", field="granted_kinds")
    somebody = who_acts()
    if somebody is None or somebody.is_superuser:
        return
    if cluster_id == ALL_CLUSTERS and not all(
        somebody.may("roles.give", each) for each in settings.CLUSTERS
    ):
        # He has a lower role of his own on one of them.
        raise NotAllowed("roles.give")
    for kind in sorted({*kinds} - somebody.kinds(cluster_id)):
        raise KindNotGranted(
            f"whoever has no grant for {kind!r} hands out none", field="granted_kinds", kind=kind
        )
