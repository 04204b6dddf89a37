"""People and programs with roles, in the control database: for the pages that tell who may do what.

Nobody can sign in as one of them, and the texts of the keys are thrown away as they are made.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from authn import roles
from authn.keys import create_key
from authn.models import ALL_CLUSTERS, AccessAuditEntry, ApiKey
from clusters.routers import CONTROL
from ui.models import SavedView

# Name, role, where: everywhere, or on the first or second cluster that is filled.
USERS = (
    ("oncall", "operator", "*"),
    ("lead", "admin", "*"),
    ("accounting", "operator", "2"),
    ("support", "viewer", "1"),
    ("auditor", "viewer", "*"),
)
GROUPS = (
    ("platform", "admin", "*"),
    ("letters-team", "operator", "1"),
    ("visitors", "viewer", "1"),
)
# Name, role, where, owner, used so many hours ago (None: never), ends in so many days, is revoked.
KEYS: tuple[tuple[str, str, str, str, float | None, float | None, bool], ...] = (
    ("ci", "admin", "*", "platform", 0.4, 40, False),
    ("shop", "operator", "1", "shop team", 0.01, None, False),
    ("mobile", "operator", "1", "mobile team", 0.02, 200, False),
    ("partners", "operator", "1", "letters team", 0.1, 5, False),
    ("office", "operator", "2", "wages team", 0.3, None, False),
    ("treasury", "operator", "2", "wages team", 1.2, 90, False),
    ("scraper", "viewer", "*", "platform", 0.005, None, False),
    ("old-importer", "operator", "2", "nobody any more", 900, None, True),
    ("trial", "viewer", "1", "partners", 400, -12, False),
    ("spare", "operator", "1", "shop team", None, None, False),
)

# Filters of the list of jobs that all may use, as they are typed.
VIEWS = (("Letters that failed", "state:failed queue:mail"), ("Held for a person", "is_held:true"))


def write(clusters: Sequence[str], seed: int) -> None:
    """Those who are not there yet."""
    chance = random.Random(f"{seed}-people")  # noqa: S311  nothing here is a secret
    with transaction.atomic(using=CONTROL):
        _people(clusters)
        _keys(clusters)
        _views(clusters)
        if not AccessAuditEntry.objects.filter(request_id__startswith="demo-").exists():
            AccessAuditEntry.objects.bulk_create(_entries(clusters, chance))


def _where(place: str, clusters: Sequence[str]) -> str:
    if place == "*":
        return ALL_CLUSTERS
    return clusters[min(int(place), len(clusters)) - 1]


def _people(clusters: Sequence[str]) -> None:
    users: Any = get_user_model()._default_manager
    for name, role, place in USERS:
        if not users.filter(username=name).exists():
            users.create_user(name, is_staff=True)
            _give("user", name, _where(place, clusters), role)
    for name, role, place in GROUPS:
        group, is_new = Group.objects.get_or_create(name=name)
        if is_new:
            _give("group", name, _where(place, clusters), role)
    group.user_set.add(users.get(username="support"))


def _give(sort: str, name: str, cluster_id: str, role: str) -> None:
    holder = roles.find(sort, name)
    assert holder is not None
    roles.give(holder, cluster_id, role)


def _keys(clusters: Sequence[str]) -> None:
    now = timezone.now()
    for name, role, place, owner, used, ends, is_revoked in KEYS:
        if ApiKey.objects.filter(name=name).exists() or settings.AUTH.key_named(name):
            continue
        key, _ = create_key(name, role, [_where(place, clusters)], owner=owner)
        ApiKey.objects.filter(pk=key.pk).update(
            created_at=now - timedelta(days=200),
            last_used_at=None if used is None else now - timedelta(hours=used),
            expires_at=None if ends is None else now + timedelta(days=ends),
            revoked_at=now - timedelta(days=30) if is_revoked else None,
        )


def _views(clusters: Sequence[str]) -> None:
    users: Any = get_user_model()._default_manager
    owner = users.get(username="oncall")
    for name, line in VIEWS:
        SavedView.objects.all().keep(owner, clusters[0], name, line, (), is_shared=True)


def _entries(clusters: Sequence[str], chance: random.Random) -> list[AccessAuditEntry]:
    now = timezone.now()
    first = clusters[0]
    plans: tuple[tuple[float, str, str, str, str, dict[str, Any]], ...] = (
        (
            30.0,
            "user:lead",
            "keys.revoke",
            "api_key",
            "old-importer",
            {"after": {"is_revoked": True}},
        ),
        (
            9.0,
            "user:lead",
            "roles.give",
            "user",
            "support",
            {"filter": {"cluster": first}, "after": {"role": "viewer", "granted_kinds": []}},
        ),
        (
            8.5,
            "user:lead",
            "roles.give",
            "group",
            "letters-team",
            {"filter": {"cluster": first}, "after": {"role": "operator", "granted_kinds": []}},
        ),
        (
            4.0,
            "user:lead",
            "keys.create",
            "api_key",
            "partners",
            {"after": {"role": "operator", "clusters": [first]}},
        ),
        (
            0.8,
            "user:lead",
            "keys.change",
            "api_key",
            "ci",
            {"after": {"is_rotated": True, "old_good_for_seconds": 86400.0}},
        ),
        (
            0.2,
            "user:lead",
            "roles.take",
            "user",
            "auditor",
            {"filter": {"cluster": first}, "before": {"role": "operator", "granted_kinds": []}},
        ),
    )
    return [
        AccessAuditEntry(
            at=_before(now, days),
            actor=actor,
            credential="session",
            surface="admin",
            address="192.0.2.41",
            verb=verb,
            target_type=kind,
            target_id=name,
            request_id=f"demo-{chance.getrandbits(48):012x}",
            **more,
        )
        for days, actor, verb, kind, name, more in plans
    ]


def _before(now: datetime, days: float) -> datetime:
    return now - timedelta(days=days)
