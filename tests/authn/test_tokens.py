"""Tokens that are good: whom they stand for, and until when."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
import time_machine
from django.utils import timezone

from authn.models import UserRole
from authn.tokens import find_principal, issue
from tests.api.conftest import Api, check_problem, fields, make_key  # noqa: F401  fixtures
from tests.authn.conftest import Issuers, jwk, made_keys, private_pem
from tests.authn.test_configuration import made

pytestmark = pytest.mark.django_db
BOTH = {"username": "ann", "password": "secret"}


@pytest.fixture
def ann(django_user_model: Any) -> Any:
    user = django_user_model.objects.create_user("ann", password="secret")
    UserRole.objects.create(user=user, cluster_id="alpha", role="operator", granted_kinds=["shell"])
    return user


# -- Ours ------------------------------------------------------------------------------------------


def test_a_token_stands_for_its_user_with_the_roles_he_has_now(ann: Any) -> None:
    token = issue(ann).text
    caller = find_principal(token)
    assert caller is not None
    assert caller.actor == "user:ann"
    assert caller.role_on("alpha") == "operator"
    assert caller.kinds_granted_on("alpha") == {"shell"}
    UserRole.objects.update(role="viewer")
    again = find_principal(token)
    assert again is not None
    assert again.role_on("alpha") == "viewer"


@pytest.mark.parametrize("change", ["password", "barred", "deleted"])
def test_a_token_ends_with_what_it_was_given_for(change: str, ann: Any) -> None:
    token = issue(ann).text
    if change == "password":
        ann.set_password("another")
        ann.save()
    elif change == "barred":
        ann.is_active = False
        ann.save()
    else:
        ann.delete()
    assert find_principal(token) is None


def test_a_token_ends_by_itself(ann: Any) -> None:
    token = issue(ann, timedelta(minutes=10)).text
    with time_machine.travel(timezone.now() + timedelta(minutes=9)):
        assert find_principal(token) is not None
    # Clocks may differ by half a minute.
    with time_machine.travel(timezone.now() + timedelta(minutes=10, seconds=20)):
        assert find_principal(token) is not None
    with time_machine.travel(timezone.now() + timedelta(minutes=10, seconds=40)):
        assert find_principal(token) is None


@pytest.mark.parametrize(("name", "algorithm"), [("rsa", "RS256"), ("ec", "ES256")])
def test_the_key_says_how_our_own_tokens_are_signed(
    name: str, algorithm: str, settings: Any, ann: Any
) -> None:
    from rest_framework_simplejwt import state

    found, problems = made(private_pem(made_keys()[name]))
    assert problems == []
    settings.SIMPLE_JWT = {**settings.SIMPLE_JWT, **found, "ISSUER": "yardmaster"}
    backend = state.token_backend
    made_now = type(backend)(
        algorithm,
        found["SIGNING_KEY"],
        found["VERIFYING_KEY"],
        "yardmaster",
        "yardmaster",
        leeway=30,
    )
    state.token_backend = made_now
    try:
        token = issue(ann).text
        assert jwt.get_unverified_header(token)["alg"] == algorithm
        assert find_principal(token) is not None
    finally:
        state.token_backend = backend
    assert find_principal(token) is None


# -- POST {base}/token -----------------------------------------------------------------------------


def test_a_user_gets_a_token_for_his_password(ann: Any) -> None:
    response = Api(None).post("token", BOTH)
    assert response.status_code == 200, response.content
    assert response["Cache-Control"] == "no-store"
    told = response.json()
    assert set(told) == {"access_token", "token_type", "expires_in_seconds", "expires_at"}
    assert told["token_type"] == "Bearer"
    assert 3590 <= told["expires_in_seconds"] <= 3600
    bearer = {"authorization": f"Bearer {told['access_token']}"}
    assert Api(None).get("whoami", **bearer).json()["actor"] == "user:ann"
    assert Api(None).get("alpha/jobs", **bearer).status_code == 200
    check_problem(Api(None).get("beta/jobs", **bearer), 404, "not_found")


def test_his_headers_may_say_who_he_is(ann: Any) -> None:
    both = {"X-User-Name": "ann", "X-Password": "secret"}
    response = Api(None).post("token", {"lifetime_seconds": 120}, **both)
    assert 110 <= response.json()["expires_in_seconds"] <= 120
    assert Api(None).post("token", **both).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, "not_authenticated"),
        ({}, "not_authenticated"),
        ({"username": "ann"}, "not_authenticated"),
        ({"username": "ann", "password": 7}, "not_authenticated"),
        ({"username": "ann", "password": "wrong"}, "invalid_credentials"),
        ({"username": "bob", "password": "secret"}, "invalid_credentials"),
        ({"username": "ann\0", "password": "secret"}, "invalid"),
        ({"username": "a" * 200, "password": "secret"}, "invalid_credentials"),
    ],
)
def test_nobody_else_gets_one(body: Any, code: str, ann: Any) -> None:
    check_problem(Api(None).post("token", body), 400 if code == "invalid" else 401, code)


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"lifetime_seconds": 1}, "lifetime_seconds"),
        ({"lifetime_seconds": 10**9}, "lifetime_seconds"),
        ({"lifetime_seconds": "long"}, "lifetime_seconds"),
        ({"scope": "all"}, "scope"),
    ],
)
def test_what_else_is_asked_is_checked(extra: dict[str, Any], field: str, ann: Any) -> None:
    assert fields(Api(None).post("token", {**BOTH, **extra})) == [field]


def test_a_key_or_a_token_gets_no_token(ann: Any, make_key: Callable[..., str]) -> None:  # noqa: F811
    check_problem(Api(make_key("admin")).post("token"), 403, "permission_denied")
    # What a header says decides, whatever the body adds.
    check_problem(Api(make_key("admin")).post("token", BOTH), 403, "permission_denied")
    bearer = {"authorization": f"Bearer {issue(ann).text}"}
    check_problem(Api(None).post("token", **bearer), 403, "permission_denied")


def test_who_may_not_sign_in_gets_none(ann: Any) -> None:
    ann.is_active = False
    ann.save()
    check_problem(Api(None).post("token", BOTH), 401, "invalid_credentials")


# -- Issuers of the configuration ------------------------------------------------------------------


def test_a_claim_names_the_roles_where_the_configuration_maps_it(issuers: Issuers) -> None:
    caller = find_principal(issuers.token("rsa", claims={"groups": ["ops", "all", "unknown"]}))
    assert caller is not None
    assert caller.actor == "jwt:rsa:ann"
    assert (caller.role_on("alpha"), caller.role_on("beta")) == ("operator", "viewer")
    assert caller.kinds_granted_on("alpha") == {"shell"}
    both = find_principal(issuers.token("rsa", claims={"groups": ["boss", "ops"]}))
    assert both is not None
    assert both.role_on("alpha") == "admin"


@pytest.mark.parametrize("groups", [None, "nothing", ["nothing"], {"ops": True}, [["ops"]], 7])
def test_any_other_claim_gives_none(groups: Any, issuers: Issuers) -> None:
    caller = find_principal(issuers.token("rsa", claims={"groups": groups, "role": "admin"}))
    assert caller is not None
    assert caller.clusters() == []


def test_subjects_are_our_users_where_the_configuration_says_so(issuers: Issuers, ann: Any) -> None:
    caller = find_principal(issuers.token("ec", claims={"groups": ["boss"]}))
    assert caller is not None
    assert (caller.actor, caller.role_on("alpha")) == ("user:ann", "operator")
    assert find_principal(issuers.token("ec", claims={"sub": "bob"})) is None
    ann.is_active = False
    ann.save()
    assert find_principal(issuers.token("ec")) is None


def test_a_new_set_of_keys_is_taken_without_a_restart(issuers: Issuers) -> None:
    new = made_keys()["stranger_rsa"]
    token = issuers.token("rsa", key=new, header={"kid": "new"})
    assert find_principal(token) is None
    path = issuers.directory / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(new, "new")]}))
    assert find_principal(token) is not None
    assert find_principal(issuers.token("rsa")) is None
    path.write_text("broken")
    os.utime(path, ns=(1, 1))
    # Those of the start are better than none.
    assert find_principal(issuers.token("rsa")) is not None
