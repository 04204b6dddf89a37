"""Keys over time: another text, last use, where from; and keys of the configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authn.addresses import client_address, read_networks
from authn.keys import create_key, find_principal, rotate_key
from authn.models import ApiKey
from authn.rights import rights_of
from tests.api.conftest import Api, check_problem, make_key  # noqa: F401  fixtures
from tests.authn.conftest import configured

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
CONFIGURED = "configured-key-0123456789-0123456789"


# -- Rotation --------------------------------------------------------------------------------------


def test_a_rotated_key_has_two_texts_until_the_old_one_ends() -> None:
    key, old = create_key("ci", "operator", ["alpha"], ["shell"])
    new = rotate_key(key, DAY)
    assert new is not None
    assert new != old
    for text in (old, new):
        caller = find_principal(text)
        assert caller is not None
        assert caller.actor == "key:ci"
        assert caller.kinds_granted_on("alpha") == {"shell"}
    ApiKey.objects.update(previous_until=timezone.now() - timedelta(seconds=1))
    assert find_principal(old) is None
    assert find_principal(new) is not None


def test_without_grace_the_old_text_ends_at_once() -> None:
    key, old = create_key("ci", "operator", ["alpha"])
    new = rotate_key(key, timedelta(0))
    assert find_principal(old) is None
    assert find_principal(new or "") is not None


def test_a_second_rotation_ends_what_was_before_the_first() -> None:
    key, first = create_key("ci", "operator", ["alpha"])
    second = rotate_key(key, DAY)
    third = rotate_key(key, DAY)
    assert [find_principal(text or "") is not None for text in (first, second, third)] == [
        False,
        True,
        True,
    ]


def test_a_key_that_is_not_valid_gets_no_new_text() -> None:
    key, _ = create_key("ci", "operator", ["alpha"])
    ApiKey.objects.all().revoke()
    assert rotate_key(key, DAY) is None
    old, _ = create_key("old", "operator", ["alpha"])
    ApiKey.objects.filter(pk=old.pk).update(expires_at=timezone.now() - DAY)
    assert rotate_key(old, DAY) is None


def test_a_revoked_key_is_refused_with_both_texts() -> None:
    key, old = create_key("ci", "operator", ["alpha"])
    new = rotate_key(key, DAY)
    ApiKey.objects.all().revoke()
    assert find_principal(old) is None
    assert find_principal(new or "") is None


# -- Last use --------------------------------------------------------------------------------------


def test_use_is_noted_once_a_minute_and_not_with_every_request() -> None:
    _, plain = create_key("ci", "operator", ["alpha"])
    with CaptureQueriesContext(connections["default"]) as first:
        find_principal(plain)
    assert any("UPDATE" in query["sql"] for query in first)
    noted = ApiKey.objects.get().last_used_at
    assert timezone.now() - noted < timedelta(seconds=30)
    with CaptureQueriesContext(connections["default"]) as others:
        for _ in range(20):
            find_principal(plain)
    assert len(others) == 20
    assert ApiKey.objects.get().last_used_at == noted
    ApiKey.objects.update(last_used_at=noted - timedelta(seconds=61))
    find_principal(plain)
    assert ApiKey.objects.get().last_used_at >= noted


def test_a_bad_key_is_not_used() -> None:
    _, plain = create_key("ci", "operator", ["alpha"])
    find_principal(plain[:-1] + ("0" if plain[-1] != "0" else "1"))
    assert ApiKey.objects.get().last_used_at is None


# -- Addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:1::5", True),
        ("2001:db9::5", False),
        ("11.0.0.1", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_a_key_is_good_only_from_where_it_may_come(address: str, may: bool) -> None:
    places = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
    _, plain = create_key("ci", "operator", ["alpha"], addresses=places)
    assert (find_principal(plain, address) is not None) == may


def test_elsewhere_a_key_is_as_bad_as_any(make_key: Callable[..., str]) -> None:  # noqa: F811
    here = Api(make_key("viewer", addresses=["127.0.0.1"]))
    there = Api(make_key("viewer", addresses=["10.0.0.0/8"]))
    assert here.get("whoami").status_code == 200
    check_problem(there.get("whoami"), 401, "invalid_credentials")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        # What stands further left was said by the client himself.
        ("10.0.0.1", "10.0.0.9, 192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("192.0.2.5", "192.0.2.1", "192.0.2.5"),
    ],
)
def test_only_trusted_proxies_say_where_a_request_comes_from(
    peer: str, forwarded: str, address: str
) -> None:
    assert client_address(peer, forwarded, read_networks(["10.0.0.0/8"])) == address


def test_the_address_of_a_proxy_is_not_that_of_its_clients(
    settings: Any,
    make_key: Callable[..., str],  # noqa: F811
) -> None:
    api = Api(make_key("viewer", addresses=["192.0.2.0/24"]))
    forwarded = {"X-Forwarded-For": "192.0.2.1"}
    check_problem(api.get("whoami", **forwarded), 401, "invalid_credentials")
    settings.TRUSTED_PROXIES = read_networks(["127.0.0.1"])
    assert api.get("whoami", **forwarded).status_code == 200
    check_problem(api.get("whoami"), 401, "invalid_credentials")


# -- Keys of the configuration ---------------------------------------------------------------------


def write(directory: Path, settings: Any, extra: str = "") -> None:
    digest = hashlib.sha256(CONFIGURED.encode()).hexdigest()
    (directory / "auth.toml").write_text(
        f'[keys.deploy]\nsha256 = "{digest}"\nrole = "operator"\nclusters = ["alpha"]\n'
        f'grants = ["shell"]\n{extra}'
    )
    settings.AUTH = configured(directory)


def test_a_key_of_the_configuration_is_a_caller(tmp_path: Path, settings: Any) -> None:
    write(tmp_path, settings)
    told = Api(CONFIGURED).get("whoami").json()
    assert told["actor"] == "key:deploy"
    assert told["roles"] == [{"cluster": "alpha", "role": "operator", "granted_kinds": ["shell"]}]
    check_problem(Api(CONFIGURED + "x").get("whoami"), 401, "invalid_credentials")
    assert rights_of("key:deploy", "jobs.cancel", "alpha").kinds == {"shell"}
    assert not rights_of("key:deploy", "jobs.cancel", "beta").is_allowed


def test_its_text_may_stand_in_a_file(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "key").write_text(f"{CONFIGURED}\n")
    (tmp_path / "auth.toml").write_text(
        '[keys.deploy]\nkey_file = "key"\nrole = "viewer"\nclusters = ["*"]\n'
    )
    settings.AUTH = configured(tmp_path)
    assert CONFIGURED not in repr(settings.AUTH)
    assert find_principal(CONFIGURED) is not None


def test_it_ends_and_is_bound_to_places_as_others_are(tmp_path: Path, settings: Any) -> None:
    write(tmp_path, settings, 'addresses = ["10.0.0.0/8"]\n')
    assert find_principal(CONFIGURED, "10.1.1.1") is not None
    assert find_principal(CONFIGURED, "11.1.1.1") is None
    past = (datetime.now(UTC) - DAY).isoformat()
    write(tmp_path, settings, f"expires_at = {past}\n")
    assert find_principal(CONFIGURED, "10.1.1.1") is None
