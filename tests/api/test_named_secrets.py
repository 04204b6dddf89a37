"""{cluster}/secrets: written by admins, named by operators, read back by nobody."""

from __future__ import annotations

from typing import Any

import pytest

from clusters.models import AuditEntry
from jobs.api.secrets import SecretItem
from jobs.models import Secret
from jobs.sealing import opened_secret
from tests.api.conftest import Api, check_problem, fields

PATH = "alpha/secrets"
VALUE = "Canary-7f3a-of-the-api"


def value_of(name: str) -> str:
    return opened_secret(name, Secret.objects.get(pk=name).sealed)


def test_a_secret_is_kept_sealed_and_never_said(alpha: object, admin: Api, api: Api) -> None:
    made = admin.post(PATH, {"name": "api_token", "value": VALUE, "description": "of the shop"})
    assert made.status_code == 201, made.content
    assert made["Location"] == "/jm-api/alpha/secrets/api_token"
    assert list(made.json()) == list(SecretItem().fields)
    assert made.json()["reference"] == "secret:api_token"
    assert value_of("api_token") == VALUE
    replies = [made, api.get(PATH), api.get(f"{PATH}/api_token"), api.get(f"{PATH}/count")]
    assert [reply.status_code for reply in replies[1:]] == [200, 200, 200]
    assert not any(VALUE.encode() in reply.content for reply in replies)
    stored = Secret.objects.get()
    assert VALUE not in repr([stored.__dict__, [*AuditEntry.objects.values()]])
    trace = AuditEntry.objects.get()
    assert (trace.verb, trace.target_id) == ("secrets.write", "api_token")


def test_another_value_takes_its_place(alpha: object, admin: Api) -> None:
    read = admin.post(PATH, {"name": "a", "value": VALUE})
    changed = admin.patch(f"{PATH}/a", {"value": "another one"}, If_Match=read["ETag"])
    assert changed.status_code == 200, changed.content
    assert (changed.json()["version"], value_of("a")) == (2, "another one")
    stale = admin.patch(f"{PATH}/a", {"value": "a third"}, If_Match=read["ETag"])
    check_problem(stale, 412, "precondition_failed")
    assert admin.patch(f"{PATH}/a", {"description": "x"}).status_code == 200
    assert value_of("a") == "another one"
    told = AuditEntry.objects.order_by("id").values_list("after", flat=True)
    assert [after.get("has_new_value") for after in told] == [None, True, False]


def test_a_secret_is_deleted(alpha: object, admin: Api) -> None:
    admin.post(PATH, {"name": "a", "value": VALUE})
    assert admin.delete(f"{PATH}/a").status_code == 204
    for response in (admin.get(f"{PATH}/a"), admin.delete(f"{PATH}/a")):
        check_problem(response, 404, "not_found")
    check_problem(admin.patch(f"{PATH}/a", {"value": VALUE}), 404, "not_found")


def test_a_name_is_taken_once(alpha: object, admin: Api) -> None:
    admin.post(PATH, {"name": "a", "value": VALUE})
    check_problem(admin.post(PATH, {"name": "a", "value": "other"}), 409, "duplicate_name")
    assert value_of("a") == VALUE


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a"}, "value"),
        ({"value": VALUE}, "name"),
        ({"name": "a b", "value": VALUE}, "name"),
        ({"name": "../a", "value": VALUE}, "name"),
        ({"name": "a" * 101, "value": VALUE}, "name"),
        ({"name": "", "value": VALUE}, "name"),
        ({"name": "a\n", "value": VALUE}, "name"),
        ({"name": "a", "value": "abc"}, "value"),
        ({"name": "a", "value": "ü" * 40_000}, "value"),
        ({"name": "a", "value": "x" * 70_000}, "value"),
        ({"name": "a", "value": 12345}, "value"),
        ({"name": "a", "value": "abcd\0"}, "value"),
        ({"name": "a", "value": VALUE, "sealed": "x"}, "sealed"),
        ({"name": "a", "value": VALUE, "description": "x" * 501}, "description"),
    ],
)
def test_a_wrong_secret_is_refused_without_its_value(
    body: dict[str, Any], field: str, alpha: object, admin: Api
) -> None:
    response = admin.post(PATH, body)
    assert fields(response) == [field]
    assert VALUE.encode() not in response.content
    assert not Secret.objects.exists()


def test_without_a_key_nothing_is_kept(alpha: object, admin: Api, settings: Any) -> None:
    settings.SECRETS_KEYS = []
    response = admin.post(PATH, {"name": "a", "value": VALUE})
    assert fields(response) == ["value"]
    assert b"YARDMASTER_SECRETS_KEY" in response.content
    assert not Secret.objects.exists()


def test_secrets_of_one_cluster_are_not_those_of_another(make_key: Any) -> None:
    both = Api(make_key("admin", "alpha", "beta"))
    both.post(PATH, {"name": "a", "value": VALUE})
    assert both.get("beta/secrets").json()["items"] == []
    check_problem(both.get("beta/secrets/a"), 404, "not_found")


def test_they_are_listed_by_name_page_by_page(alpha: object, admin: Api) -> None:
    for name in ("c", "a", "b"):
        admin.post(PATH, {"name": name, "value": VALUE})
    page = admin.get(f"{PATH}?limit=2").json()
    rest = admin.get(page["next"]).json()
    assert [one["name"] for one in page["items"] + rest["items"]] == ["a", "b", "c"]
    assert admin.get(f"{PATH}/count").json()["count"] == 3
