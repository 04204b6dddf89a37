"""A host's own code in the five places; docs/examples/authentication.py has one for each."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from authn.checks import providers_can_be_called
from docs.examples import authentication as examples
from tests.api.conftest import Api, check_problem, make_key  # noqa: F401  fixtures

EXAMPLES = "docs.examples.authentication"
pytestmark = pytest.mark.usefixtures("db")
Maker = Callable[..., str]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def actor(response: Any) -> str:
    assert response.status_code == 200, response.content
    return response.json()["actor"]


def test_an_identity_provider_stands_in_the_place_of_all_credentials(
    settings: Any,
    make_key: Maker,  # noqa: F811
) -> None:
    settings.IDENTITY_PROVIDER = f"{EXAMPLES}.by_trusted_header"
    assert actor(Api(None).get("whoami", **{"X-Sso-User": "zoe"})) == "sso:zoe"
    key = Api(make_key("admin"))
    assert actor(key.get("whoami", **{"X-Sso-User": "zoe"})) == "sso:zoe"
    check_problem(key.get("whoami"), 401, "invalid_credentials")
    check_problem(Api(None).get("whoami"), 401, "not_authenticated")
    check_problem(
        Api(None).post("alpha/jobs", {"type": "x"}, **{"X-Sso-User": "zoe"}),
        403,
        "permission_denied",
    )


def test_credentials_beside_an_identity_provider_are_counted(settings: Any, db: None) -> None:
    settings.TRIES_PER_MINUTE = 10
    settings.IDENTITY_PROVIDER = f"{EXAMPLES}.by_trusted_header"
    caller = Api("ym_0123456789abcdef_" + "0" * 64)
    answers = [caller.get("whoami").status_code for _ in range(12)]
    assert answers[0] == 401 and answers[-1] == 429


def test_an_identity_provider_is_asked_by_the_dialects_too(settings: Any, alpha: object) -> None:
    settings.IDENTITY_PROVIDER = f"{EXAMPLES}.by_trusted_header"
    client = Api(None).client
    assert client.get("/tork/jobs").status_code == 401
    assert client.get("/tork/jobs", headers={"X-Sso-User": "zoe"}).status_code == 200


def test_an_authorisation_provider_refuses_what_a_role_covers(
    settings: Any,
    monkeypatch: Any,
    make_key: Maker,  # noqa: F811
    alpha: object,
) -> None:
    settings.AUTHORISATION_PROVIDER = f"{EXAMPLES}.nothing_on_sundays"
    admin, viewer = Api(make_key("admin")), Api(make_key("viewer"))
    queue = {"name": "q"}
    monkeypatch.setattr(examples, "today", lambda: 6)
    check_problem(admin.post("alpha/queues", queue), 403, "permission_denied")
    assert admin.get("alpha/queues").status_code == 200
    monkeypatch.setattr(examples, "today", lambda: 0)
    assert admin.post("alpha/queues", queue).status_code == 201
    # It gives nothing that the role does not.
    check_problem(viewer.post("alpha/queues", {"name": "r"}), 403, "permission_denied")


def test_an_answer_that_is_not_exactly_yes_is_no(
    settings: Any,
    monkeypatch: Any,
    make_key: Maker,  # noqa: F811
) -> None:
    monkeypatch.setattr(examples, "nothing_on_sundays", lambda *_: "no")
    settings.AUTHORISATION_PROVIDER = f"{EXAMPLES}.nothing_on_sundays"
    check_problem(Api(make_key("admin")).get("whoami"), 403, "permission_denied")


def test_a_key_provider_is_asked_before_our_own_keys(
    settings: Any,
    make_key: Maker,  # noqa: F811
) -> None:
    settings.API_KEY_PROVIDER = f"{EXAMPLES}.key_of_a_vault"
    assert actor(Api("vault-key-of-billing-0123456789").get("whoami")) == "vault:billing"
    assert actor(Api(make_key("viewer", name="own")).get("whoami")) == "key:own"
    check_problem(Api("vault-key-of-nobody").get("whoami"), 401, "invalid_credentials")


def test_a_user_provider_is_asked_before_our_own_users(
    settings: Any, django_user_model: Any
) -> None:
    settings.USER_PROVIDER = f"{EXAMPLES}.user_of_a_file"
    django_user_model.objects.create_user("ann", password="x")
    asked = Api(None)
    both = {"X-User-Name": "dora", "X-Password": "correct horse"}
    assert actor(asked.get("whoami", **both)) == "file:dora"
    assert actor(asked.get("whoami", authorization=basic("dora", "correct horse"))) == "file:dora"
    assert actor(asked.get("whoami", authorization=basic("ann", "x"))) == "user:ann"
    refused = asked.get("whoami", authorization=basic("dora", "wrong"))
    check_problem(refused, 401, "invalid_credentials")


def test_a_token_provider_is_asked_before_our_own_issuers(settings: Any) -> None:
    settings.JWT_PROVIDER = f"{EXAMPLES}.opaque_token"
    found = Api(None).get("whoami", authorization="Bearer opaque-session-of-carla")
    assert actor(found) == "session:carla"
    assert found.json()["roles"] == [{"cluster": "alpha", "role": "admin", "granted_kinds": []}]
    refused = Api(None).get("whoami", authorization="Bearer opaque-session-of-dan")
    check_problem(refused, 401, "invalid_credentials")


@pytest.mark.parametrize("path", ["no.such.module", f"{EXAMPLES}.nobody", f"{EXAMPLES}.FILE"])
def test_a_path_that_leads_nowhere_is_told_at_the_start(path: str, settings: Any) -> None:
    assert providers_can_be_called(None) == []
    settings.JWT_PROVIDER = path
    assert [found.id for found in providers_can_be_called(None)] == ["authn.E001"]
