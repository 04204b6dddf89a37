"""Which credential decides, where there are several; and which headers carry them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from authn.keys import create_key
from authn.presented import presented
from authn.settings import credential_problems
from authn.tokens import issue
from tests.api.conftest import Api, check_problem

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

NAMES = {
    "YARDMASTER_API_KEY_HEADER": "x-api-key",
    "YARDMASTER_USER_HEADER": "X-User-Name",
    "YARDMASTER_PASSWORD_HEADER": "X-Password",
    "YARDMASTER_JWT_HEADER": "Authorization",
}
SOUND = {"jwt_scheme": "Bearer", "issuers": ["a", "b"], "mechanisms": ["api_key", "jwt"]}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def credentials(db: None, django_user_model: Any) -> dict[str, dict[str, str]]:
    """A good and a bad one of each mechanism, in the order in which they decide."""
    ann = django_user_model.objects.create_user("ann", password="secret")
    eve = django_user_model.objects.create_user("eve", password="secret")
    return {
        "key:header": {"x-api-key": create_key("header", "viewer", ["*"])[1]},
        "key:bearer": {"authorization": f"Bearer {create_key('bearer', 'viewer', ['*'])[1]}"},
        "user:ann": {"X-User-Name": "ann", "X-Password": "secret"},
        "user:eve": {"authorization": f"Bearer {issue(eve).text}"},
        "basic": {"authorization": basic(ann.username, "secret")},
    }


def test_each_mechanism_says_who_it_is(credentials: dict[str, dict[str, str]]) -> None:
    for actor, headers in credentials.items():
        told = Api(None).get("whoami", **headers).json()["actor"]
        assert told == ("user:ann" if actor == "basic" else actor)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("key:header", "key:bearer"),
        ("key:header", "user:ann"),
        ("key:header", "user:eve"),
        ("key:header", "basic"),
        ("key:bearer", "user:ann"),
        ("user:ann", "user:eve"),
        ("user:ann", "basic"),
    ],
)
def test_the_first_decides_and_a_bad_one_is_not_passed_over(
    first: str, second: str, credentials: dict[str, dict[str, str]]
) -> None:
    both = {**credentials[second], **credentials[first]}
    assert Api(None).get("whoami", **both).json()["actor"] == first
    for header, value in credentials[first].items():
        if header == "authorization" and first == "key:bearer":
            wrong = value[:-1] + ("0" if value[-1] != "0" else "1")
        else:
            wrong = "wrong"
        check_problem(
            Api(None).get("whoami", **{**both, header: wrong}), 401, "invalid_credentials"
        )


@pytest.mark.parametrize(
    "headers",
    [
        {"X-User-Name": "ann"},
        {"X-Password": "secret"},
        {"authorization": "Digest x"},
        {"authorization": "Basic %%%"},
        {"authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        {"authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
        {"authorization": "Bearer"},
        {"authorization": ""},
        {"authorization": "ann:secret"},
    ],
)
def test_half_of_a_credential_is_a_bad_one(
    headers: dict[str, str], credentials: dict[str, dict[str, str]]
) -> None:
    check_problem(Api(None).get("whoami", **headers), 401, "invalid_credentials")


def test_the_headers_can_be_named(settings: Any, credentials: dict[str, dict[str, str]]) -> None:
    settings.API_KEY_HEADER, settings.USER_HEADER = "X-Job-Key", "X-Who"
    settings.PASSWORD_HEADER, settings.JWT_HEADER = "X-Word", "X-Token"
    settings.JWT_SCHEME = "Token"
    api = Api(None)
    key = credentials["key:header"]["x-api-key"]
    token = credentials["user:eve"]["authorization"].removeprefix("Bearer ")
    asked = {
        "key:header": {"x-job-key": key},
        "user:ann": {"x-who": "ann", "x-word": "secret"},
        "user:eve": {"x-token": f"token {token}"},
    }
    for actor, headers in asked.items():
        assert api.get("whoami", **headers).json()["actor"] == actor
    # The old names mean nothing any more, and Authorization carries no token now.
    check_problem(api.get("whoami", **{"x-api-key": key}), 401, "not_authenticated")
    bearer = api.get("whoami", authorization=f"Bearer {token}")
    check_problem(bearer, 401, "invalid_credentials")


def test_a_mechanism_that_is_off_lets_nobody_in(
    settings: Any, credentials: dict[str, dict[str, str]]
) -> None:
    settings.AUTH_MECHANISMS = ["api_key"]
    for actor, headers in credentials.items():
        status = 200 if actor.startswith("key:") else 401
        assert Api(None).get("whoami", **headers).status_code == status


def test_names_and_passwords_may_be_of_any_script(db: None, django_user_model: Any) -> None:
    django_user_model.objects.create_user("zoë", password="пароль")
    as_sent = {
        "HTTP_X_USER_NAME": "zoë".encode().decode("latin-1"),
        "HTTP_X_PASSWORD": "пароль".encode().decode("latin-1"),
    }
    found = presented(as_sent)
    assert found is not None
    assert (found.user, found.text) == ("zoë", "пароль")
    told = Api(None).get("whoami", authorization=basic("zoë", "пароль"))
    assert told.json()["actor"] == "user:zoë"


def test_sound_names_have_no_problem() -> None:
    assert credential_problems(NAMES, **SOUND) == []
    other = {**NAMES, "YARDMASTER_JWT_HEADER": "X-Token"}
    assert credential_problems(other, **{**SOUND, "jwt_scheme": "Token"}) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"YARDMASTER_API_KEY_HEADER": "cookie"}, "API_KEY_HEADER"),
        ({"YARDMASTER_API_KEY_HEADER": "Authorization"}, "API_KEY_HEADER"),
        ({"YARDMASTER_API_KEY_HEADER": "x key"}, "API_KEY_HEADER"),
        ({"YARDMASTER_API_KEY_HEADER": ""}, "API_KEY_HEADER"),
        ({"YARDMASTER_USER_HEADER": "X-API-KEY"}, "USER_HEADER"),
        ({"YARDMASTER_PASSWORD_HEADER": "x-user-name"}, "PASSWORD_HEADER"),
        ({"YARDMASTER_JWT_HEADER": "X-Token"}, "JWT_SCHEME"),
        ({"jwt_scheme": ""}, "JWT_SCHEME"),
        ({"jwt_scheme": "two words"}, "JWT_SCHEME"),
        ({"jwt_scheme": "basic"}, "JWT_SCHEME"),
        ({"mechanisms": []}, "AUTH_MECHANISMS"),
        ({"mechanisms": ["magic"]}, "AUTH_MECHANISMS"),
        ({"issuers": ["a", "a"]}, "JWT_ISSUER"),
    ],
)
def test_names_that_cannot_be_are_told_at_the_start(change: dict[str, Any], named: str) -> None:
    names = {name: change.get(name, header) for name, header in NAMES.items()}
    rest = {name: change.get(name, value) for name, value in SOUND.items()}
    problems = credential_problems(names, **rest)
    assert len(problems) == 1
    assert named in problems[0]
