"""A dialect that is open to callers without credentials, and how far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authn.rights import rights_of
from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from tests.api.conftest import Api, _forget_health, make_key  # noqa: F401  fixtures
from tests.dialects.scheduler.conftest import CRON_JOB, Caller
from tests.factories import make_node


@pytest.fixture
def visitor(alpha: object) -> Iterator[Caller]:
    make_node(types=["demo:noop"])
    yield Caller(None)


def test_it_acts_with_the_role_that_the_settings_name(visitor: Caller, settings: Any) -> None:
    assert visitor.get("jobs").status_code == 401
    settings.ANONYMOUS_ROLES = {"scheduler": "viewer"}
    assert visitor.get("jobs").status_code == 200
    assert visitor.post("jobs", CRON_JOB).status_code == 403
    settings.ANONYMOUS_ROLES = {"scheduler": "operator"}
    assert visitor.post("jobs", CRON_JOB).status_code == 201
    assert visitor.post("admin/pause-all", {}).status_code == 403
    with cluster_bound("alpha"):
        assert {*AuditEntry.objects.values_list("actor", flat=True)} == {"anonymous:scheduler"}


def test_a_credential_that_is_present_decides(
    visitor: Caller,
    settings: Any,
    make_key: Callable[..., str],  # noqa: F811
) -> None:
    settings.ANONYMOUS_ROLES = {"scheduler": "admin"}
    assert visitor.get("jobs", authorization="Bearer no").status_code == 401
    assert visitor.get("jobs", x_api_key="no").status_code == 401
    assert Caller(make_key("viewer")).post("jobs", CRON_JOB).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_get_nothing_done(
    headers: dict[str, str], visitor: Caller, settings: Any
) -> None:
    settings.ANONYMOUS_ROLES = {"scheduler": "admin"}
    for path in ("admin/pause-all", "jobs"):
        assert visitor("POST", path, CRON_JOB, **headers).status_code == 401
    assert visitor("GET", "jobs", **headers).status_code == 200
    own = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert visitor("POST", "jobs", CRON_JOB, **own).status_code == 201


@pytest.mark.parametrize("header", ["X-User-Name", "X-Password"])
def test_who_sends_a_password_is_not_nobody(header: str, visitor: Caller, settings: Any) -> None:
    settings.ANONYMOUS_ROLES = {"scheduler": "admin"}
    assert visitor("GET", "jobs", **{header: "x"}).status_code == 401


def test_a_certificate_that_was_checked_has_the_role_named_for_it(
    visitor: Caller, settings: Any
) -> None:
    settings.CERTIFICATE_ROLES = {"scheduler": "operator"}
    assert visitor.get("jobs").status_code == 401
    settings.CLIENT_CERTIFICATES = True
    assert visitor.post("jobs", CRON_JOB).status_code == 201
    assert visitor.post("admin/pause-all", {}).status_code == 403
    assert rights_of("certificate:scheduler", "jobs.cancel", "alpha").is_allowed
    with cluster_bound("alpha"):
        assert {*AuditEntry.objects.values_list("actor", flat=True)} == {"certificate:scheduler"}


def test_it_is_that_dialect_on_the_default_cluster_and_nothing_else(
    visitor: Caller, settings: Any
) -> None:
    settings.ANONYMOUS_ROLES = {"asyncjobs": "admin"}
    assert visitor.get("jobs").status_code == 401
    settings.ANONYMOUS_ROLES = {"scheduler": "admin"}
    assert visitor.get("/clusters/alpha/scheduler/jobs").status_code == 200
    assert visitor.get("/clusters/beta/scheduler/jobs").status_code == 401
    native = Api(None)
    assert native.get("alpha/jobs").status_code == 401
    assert native.get("whoami").status_code == 401
    assert visitor.client.get("/admin/alpha/").status_code == 302


def test_what_it_began_goes_on_only_while_it_is_open(settings: Any, db: None) -> None:
    assert not rights_of("anonymous:forge", "jobs.cancel", "alpha").is_allowed
    settings.ANONYMOUS_ROLES = {"forge": "operator"}
    assert rights_of("anonymous:forge", "jobs.cancel", "alpha").is_allowed
    assert not rights_of("anonymous:forge", "jobs.delete", "alpha").is_allowed
    assert not rights_of("anonymous:forge", "jobs.cancel", "beta").is_allowed
    assert not rights_of("anonymous:asyncjobs", "jobs.cancel", "alpha").is_allowed
