"""Tokens that are good for one request."""

from __future__ import annotations

import base64
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from authn import tokens
from authn.models import UsedToken, UserRole
from authn.tokens import find_principal, issue
from tests.api.conftest import Api, check_problem
from tests.authn.conftest import Issuers

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(django_user_model: Any) -> Any:
    user = django_user_model.objects.create_user("ann", password="right")
    UserRole.objects.create(user=user, cluster_id="alpha", role="viewer")
    return user


def test_it_is_good_once(ann: Any) -> None:
    text = issue(ann, is_one_time=True).text
    assert find_principal(text) is not None
    assert find_principal(text) is None
    assert find_principal(issue(ann, is_one_time=True).text) is not None


def test_others_are_good_until_they_end(ann: Any) -> None:
    text = issue(ann).text
    assert find_principal(text) is not None and find_principal(text) is not None
    assert not UsedToken.objects.exists()


def test_the_api_gives_one_out_and_takes_it_once(ann: Any, alpha: object) -> None:
    body = {"username": "ann", "password": "right", "one_time": True}
    text = Api(None).post("token", body).json()["access_token"]
    assert Api(None).get("whoami", authorization=f"Bearer {text}").status_code == 200
    again = Api(None).get("whoami", authorization=f"Bearer {text}")
    check_problem(again, 401, "invalid_credentials")


def test_one_that_is_not_good_is_not_used_up(ann: Any) -> None:
    text = issue(ann, is_one_time=True).text
    ann.is_active = False
    ann.save()
    assert find_principal(text) is None and not UsedToken.objects.exists()
    header, claims, signature = text.split(".")
    forged = base64.urlsafe_b64decode(claims + "==").replace(b'"once":true', b'"once":null')
    text = f"{header}.{base64.urlsafe_b64encode(forged).decode().rstrip('=')}.{signature}"
    assert find_principal(text) is None


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_is_let_in(ann: Any) -> None:
    for _ in range(5):
        text, begin, found = issue(ann, is_one_time=True).text, Barrier(4), []

        def use(text: str = text, begin: Barrier = begin, found: list[bool] = found) -> None:
            begin.wait()
            found.append(find_principal(text) is not None)
            connections.close_all()

        threads = [Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [False, False, False, True]


def test_it_is_kept_until_it_has_expired_for_sure(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_CLEAR_ONE_IN", 1)
    for name, ago in (("old", timedelta(hours=2)), ("late", timedelta(minutes=5))):
        UsedToken.objects.create(digest=name, expires_at=timezone.now() - ago)
    assert find_principal(issue(ann, is_one_time=True).text) is not None
    assert UsedToken.objects.filter(digest="late").exists()
    assert UsedToken.objects.count() == 2


def test_an_issuer_may_be_said_to_give_such_tokens_only(issuers: Issuers, settings: Any) -> None:
    from tests.authn.conftest import FILE, configured

    path = issuers.directory / "auth.toml"
    path.write_text(
        FILE.replace('roles_claim = "groups"', 'roles_claim = "groups"\none_time = true')
    )
    settings.AUTH = configured(issuers.directory)
    text = issuers.token("rsa", claims={"groups": ["ops"], "jti": "1"})
    assert find_principal(text) is not None
    assert find_principal(text) is None
    # The id counts, not the text; and who has none is refused.
    assert find_principal(issuers.token("rsa", claims={"jti": "1", "x": 1})) is None
    assert find_principal(issuers.token("rsa", claims={"groups": ["ops"]})) is None
    for bad in (7, "", "x" * 201, ["1"]):
        assert find_principal(issuers.token("rsa", claims={"jti": bad})) is None
    assert find_principal(issuers.token("rsa", claims={"jti": "2"})) is not None
