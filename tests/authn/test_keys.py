"""API keys: made, taken apart, found."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authn import keys
from authn.keys import create_key, find_principal, parse_key
from authn.models import ApiKey, RoleBinding

pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> Iterator[str]:
    _, plain = create_key("ci", "operator", ["alpha"], ["shell"])
    return plain


def test_a_key_finds_its_caller_with_roles_and_grants(key: str) -> None:
    caller = find_principal(key)
    assert caller is not None
    assert (caller.name, caller.actor) == ("ci", "key:ci")
    assert caller.role_on("alpha") == "operator"
    assert caller.role_on("beta") is None
    assert caller.may_see("alpha")
    assert not caller.may_see("beta")
    assert caller.kinds_granted_on("alpha") == {"shell"}
    assert caller.kinds_granted_on("beta") == set()
    assert [cluster.id for cluster in caller.clusters()] == ["alpha"]


def test_the_text_of_a_key_is_not_kept(key: str) -> None:
    row = ApiKey.objects.values().get()
    secret = key.split("_")[2]
    assert secret not in str(row)
    assert bytes.fromhex(secret) not in bytes(row["digest"])
    assert len(secret) * 4 == 256


def test_there_is_one_way_to_write_a_key(key: str) -> None:
    assert parse_key(key) is not None
    prefix, public_id, secret = key.split("_")
    for other in (
        "",
        prefix,
        f"{prefix}_{public_id}",
        f"{prefix}_{public_id}_",
        f"{prefix}__{secret}",
        f"YM_{public_id}_{secret}",
        f"{prefix}_{public_id}_{secret}\n",
        f" {key}",
        f"{key}_",
        f"{prefix}_{public_id}_{secret.upper()}" if secret.upper() != secret else "x",
        f"{prefix}_{public_id[:-1]}_{secret}",
        key.replace("_", "-"),
        key.replace(public_id, "\u0661" * 16),
    ):
        assert parse_key(other) is None, other
        assert find_principal(other) is None


def test_expired_revoked_and_wrong_keys_find_nobody(key: str) -> None:
    _, expired = create_key("old", "admin", ["*"])
    ApiKey.objects.filter(name="old").update(expires_at=timezone.now() - timedelta(seconds=2))
    _, later = create_key("new", "admin", ["*"], expires=timezone.now() + timedelta(minutes=1))
    assert find_principal(expired) is None
    assert find_principal(later) is not None
    assert ApiKey.objects.filter(name="new").revoke() == 1
    assert find_principal(later) is None
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert find_principal(wrong) is None
    assert find_principal(key) is not None


def test_a_key_is_found_with_one_query(key: str) -> None:
    find_principal(key)
    with CaptureQueriesContext(connections["default"]) as asked:
        find_principal(key)
    assert len(asked) == 1


def test_an_unknown_id_costs_the_same_comparison(key: str, monkeypatch: Any) -> None:
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return original(left, right)

    original = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    assert find_principal(f"ym_{'0' * 16}_{'0' * 64}") is None
    assert find_principal(key) is not None
    assert compared == [(32, 32)] * 4


def test_a_key_without_roles_is_good_and_sees_nothing() -> None:
    _, plain = create_key("nobody", "viewer", [])
    caller = find_principal(plain)
    assert caller is not None
    assert caller.roles == {}
    assert caller.clusters() == []


def test_a_role_of_one_cluster_wins_over_that_of_all(key: str) -> None:
    row = ApiKey.objects.get()
    RoleBinding.objects.create(api_key=row, cluster_id="*", role="admin", granted_kinds=["x"])
    caller = find_principal(key)
    assert caller is not None
    assert caller.role_on("alpha") == "operator"
    assert caller.role_on("beta") == "admin"
    assert caller.kinds_granted_on("alpha") == {"shell", "x"}
    assert [cluster.id for cluster in caller.clusters()] == ["alpha", "beta"]
    assert not caller.may_see("gamma")
