"""Without good credentials no address gives anything away."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.http import HttpResponse
from django.utils import timezone

from authn.models import ApiKey
from tests.api.conftest import Api, check_problem
from tests.api.routes import METHODS, all_routes, filled, native_routes
from tests.dialects.asyncjobs.conftest import check_error
from tests.dialects.forge.conftest import check_refusal as of_forge
from tests.dialects.forge.conftest import speaks as is_forge
from tests.dialects.scheduler.conftest import check_problem as of_scheduler
from tests.dialects.tork.conftest import check_refusal as of_tork
from tests.dialects.tork.conftest import speaks as is_tork

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

OPEN = {"/livez", "/jm-api/readyz", "/readyz", "/asyncjobs/readyz"}
OPEN |= {f"{place}/healthz" for place in ("", "/asyncjobs", "/clusters/alpha/asyncjobs")}
OF_ASYNCJOBS = re.compile(r"/(v1|healthz|readyz)\b|(/clusters/<str:cluster_id>)?/asyncjobs\b")
# Of Tork's addresses those that it does not have at the bare paths; nobody else has this one.
NOWHERE = {"/users"}
REDIRECT = {"/", "/admin", "/jm-api/swagger"}
METRICS = "/jm-api/metrics"


def check_plain(response: HttpResponse, status: int, code: str = "") -> None:
    assert response.status_code == status
    assert response["Content-Type"] == "text/plain; charset=utf-8"


def bad_credentials(good: str) -> list[dict[str, str]]:
    public_id, secret = good.split("_")[1:]
    return [
        {"x-api-key": ""},
        {"x-api-key": "x"},
        {"x-api-key": f"ym_{public_id}_{'0' * 64}"},
        {"x-api-key": f"ym_{'0' * 16}_{secret}"},
        {"x-api-key": good.upper()},
        {"x-api-key": good + "0"},
        {"x-api-key": f"{good},{good}"},
        {"x-api-key": "ym_" + "a" * 5000},
        {"x-api-key": "\xff\xfe\x01"},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer x"},
        {"authorization": f"Basic {good}"},
        {"authorization": good},
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        # The first one decides: a good one behind it does not help.
        {"x-api-key": "x", "authorization": f"Bearer {good}"},
    ]


def test_every_route_but_health_and_pages_is_401_without_credentials(
    db: None, anonymous: Api
) -> None:
    asked = 0
    for route in all_routes():
        path = filled(route)
        if (
            path in OPEN | REDIRECT | NOWHERE
            or path.endswith("/health")
            or path.startswith("/admin/")
        ):
            continue
        for address in (path, path + "/"):
            for method in METHODS:
                response = anonymous.client.generic(method, address)
                assert response.status_code == 401, (method, address)
                challenge = "basic realm=Restricted" if is_tork(route) else "Bearer"
                assert response["WWW-Authenticate"] == challenge
                assert "Allow" not in response
                if method != "HEAD" and OF_ASYNCJOBS.match(route):
                    check_error(response, 401, "invalid_argument", "unauthenticated")
                elif method != "HEAD":
                    check: Callable[..., object] = check_problem
                    if is_forge(route):
                        check = of_forge
                    elif is_tork(route):
                        check = of_tork
                    elif "/scheduler" in route:
                        check = of_scheduler
                    elif route == METRICS:
                        check = check_plain
                    check(response, 401, "not_authenticated")
                asked += 1
    assert asked > 2500


def test_every_native_route_is_401_with_bad_credentials(db: None, operator_key: str) -> None:
    for route in native_routes():
        for headers in bad_credentials(operator_key):
            response = Api(None).get(filled(route), **headers)
            if route == METRICS:
                check_plain(response, 401)
                continue
            body = check_problem(response, 401, "invalid_credentials")
            assert body["detail"] == "The credentials are not valid."


def test_bad_credentials_of_every_sort_get_the_same_words(
    make_key: Callable[..., str], operator_key: str
) -> None:
    expired = make_key("admin", name="expired")
    ApiKey.objects.filter(name="expired").update(expires_at=timezone.now() - timedelta(seconds=1))
    revoked = make_key("admin", name="revoked")
    ApiKey.objects.filter(name="revoked").revoke()
    answers = set()
    for headers in [
        {"x-api-key": expired},
        {"x-api-key": revoked},
        *bad_credentials(operator_key),
    ]:
        response = Api(None).get("alpha/jobs", **headers)
        body = response.json()
        del body["request_id"]
        names = tuple(sorted(response.headers))
        answers.add((response.status_code, str(body), names))
    assert len(answers) == 1


def test_an_unknown_address_is_401_before_it_is_404(anonymous: Api, viewer: Api) -> None:
    for path in ("nothing", "alpha/nothing", "alpha/jobs/x/y", "", "alpha//jobs", "alpha/jobs//"):
        check_problem(anonymous.get(path), 401, "not_authenticated")
        check_problem(viewer.get(path), 404, "not_found")
        check_problem(viewer.post(path, {}), 404, "not_found")


def test_credentials_come_before_the_body_and_the_query(anonymous: Api) -> None:
    response = anonymous.post("alpha/jobs?nonsense=1", raw=b"[" * 600_000)
    check_problem(response, 401, "not_authenticated")


@pytest.mark.parametrize("name", ["X-API-KEY", "x-api-key"])
def test_the_name_of_the_header_may_be_in_any_case(operator_key: str, name: str) -> None:
    assert Api(None).get("whoami", **{name: operator_key}).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_a_key_may_come_as_a_bearer_token(operator_key: str, scheme: str) -> None:
    response = Api(None).get("whoami", authorization=f"{scheme} {operator_key}")
    assert response.status_code == 200


def test_a_session_does_not_open_the_api(admin_client: object, db: None) -> None:
    response = admin_client.get("/jm-api/alpha/jobs")
    check_problem(response, 401, "not_authenticated")


def test_methods_that_a_route_does_not_have_are_405_and_named(viewer: Api) -> None:
    response = viewer("PUT", "alpha/jobs")
    check_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, POST"
    check_problem(viewer("OPTIONS", "alpha/jobs"), 405, "method_not_allowed")


def test_trace_is_refused(viewer: Api) -> None:
    check_problem(viewer("TRACE", "alpha/jobs"), 405, "method_not_allowed")
