"""The native API without a credential, where the settings do not require one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authn.rights import rights_of
from tests.api.conftest import Api, check_problem, make_key  # noqa: F401  fixtures

pytestmark = pytest.mark.django_db


@pytest.fixture
def visitor(alpha: object, settings: Any) -> Api:
    settings.REQUIRE_AUTHENTICATION = False
    return Api(None)


def test_a_credential_is_required_unless_the_settings_say_otherwise(settings: Any) -> None:
    assert settings.REQUIRE_AUTHENTICATION is True
    check_problem(Api(None).get("alpha/jobs"), 401, "not_authenticated")


def test_without_one_everybody_has_the_role_that_is_named(visitor: Api, settings: Any) -> None:
    told = visitor.get("whoami").json()
    assert told["actor"] == "anonymous:native"
    assert {role["role"] for role in told["roles"]} == {"viewer"}
    assert visitor.get("alpha/jobs").status_code == 200
    assert visitor.get("beta/jobs").status_code == 200
    assert visitor.get("openapi.json").status_code == 200
    check_problem(visitor.post("alpha/queues", {"name": "q"}), 403, "permission_denied")
    settings.ANONYMOUS_ROLE = "admin"
    assert visitor.post("alpha/queues", {"name": "q"}).status_code == 201


def test_a_credential_that_is_present_decides(
    visitor: Api,
    make_key: Callable[..., str],  # noqa: F811
) -> None:
    check_problem(visitor.get("alpha/jobs", **{"x-api-key": "no"}), 401, "invalid_credentials")
    check_problem(visitor.get("alpha/jobs", authorization="Bearer x"), 401, "invalid_credentials")
    check_problem(visitor.get("alpha/jobs", **{"X-Password": "x"}), 401, "invalid_credentials")
    assert Api(make_key("viewer", name="ci")).get("whoami").json()["actor"] == "key:ci"


def test_pages_of_other_sites_get_nothing_done(visitor: Api, settings: Any) -> None:
    settings.ANONYMOUS_ROLE = "admin"
    evil = {"Origin": "https://evil.example"}
    check_problem(visitor.post("alpha/queues", {"name": "q"}, **evil), 401, "invalid_credentials")


def test_dialects_and_the_screen_stay_closed(visitor: Api) -> None:
    assert visitor.client.get("/api/v1/scheduler/jobs").status_code == 401
    assert visitor.client.get("/tork/jobs").status_code == 401
    assert visitor.client.get("/admin/alpha/").status_code == 302


def test_nobody_in_particular_gets_no_token(visitor: Api) -> None:
    check_problem(visitor.post("token", {}), 401, "not_authenticated")


def test_what_was_begun_goes_on_only_while_it_is_open(visitor: Api, settings: Any) -> None:
    settings.ANONYMOUS_ROLE = "operator"
    assert rights_of("anonymous:native", "jobs.cancel", "beta").is_allowed
    settings.REQUIRE_AUTHENTICATION = True
    assert not rights_of("anonymous:native", "jobs.cancel", "beta").is_allowed
