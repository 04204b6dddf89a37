"""Refused credentials in the audit: each is told, a flood is counted, nothing that was sent is kept."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connections, models, transaction
from django.db.models import F
from django.test import Client

from authn import refusals
from authn.keys import create_key
from authn.models import AccessAuditEntry, ApiKey
from authn.presented import JWT, Presented
from clusters.models import AuditEntry
from tests.api.conftest import Api, check_problem

pytestmark = pytest.mark.usefixtures("alpha")
SECRET = "what-was-sent-in-vain"


@pytest.fixture(autouse=True)
def _fresh(settings: Any) -> None:
    settings.TRIES_PER_MINUTE = 1000
    refusals.budget.renew()


@pytest.fixture(autouse=True)
def _one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute ends while a test counts."""
    now = refusals.timezone.now()
    monkeypatch.setattr(refusals.timezone, "now", lambda: now)


@pytest.fixture
def ann(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("ann", password="right", is_staff=True)


def told() -> list[Any]:
    return [*AccessAuditEntry.objects.filter(verb="credentials.refuse").order_by("at", "id")]


def basic(name: str, password: str = SECRET) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def ask(**headers: str) -> Any:
    response = Api(None).get("alpha/jobs", **headers)
    assert response.status_code == 401
    return response


def test_a_wrong_secret_of_a_key_is_told_by_its_name() -> None:
    key, _ = create_key("ci", "viewer", ["alpha"])
    response = ask(x_api_key=f"ym_{key.public_id}_{'0' * 64}", X_Forwarded_For="192.0.2.1")
    (row,) = told()
    assert (row.actor, row.credential, row.surface) == ("unknown", "api_key", "native")
    assert (row.target_type, row.target_id, row.count) == ("api_key", "ci", 1)
    assert (row.address, row.request_id) == ("127.0.0.1", response["X-Request-ID"])


def test_revoked_and_expired_keys_are_told_as_well() -> None:
    _, text = create_key("ci", "viewer", ["alpha"])
    ApiKey.objects.all().revoke()
    ask(x_api_key=text)
    (row,) = told()
    assert row.target_id == "ci" and text.rpartition("_")[2] not in str(vars(row))


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({"authorization": basic("ann")}, "password"),
        ({"authorization": basic(SECRET)}, "password"),
        ({"authorization": basic(f"a\0{SECRET}")}, "password"),
        ({"X_User_Name": SECRET, "X_Password": SECRET}, "password"),
        ({"X_User_Name": SECRET}, "unusable"),
        ({"x_api_key": SECRET}, "api_key"),
        ({"x_api_key": f"ym_{'0' * 16}_{SECRET}"}, "api_key"),
        ({"authorization": f"Bearer ym_{'0' * 16}_{'a' * 64}"}, "api_key"),
        ({"authorization": f"Bearer {SECRET}.{SECRET}.x"}, "jwt"),
        ({"authorization": f"Digest {SECRET}"}, "unusable"),
        ({"authorization": f"Basic {SECRET}"}, "unusable"),
    ],
)
def test_nothing_that_was_sent_is_kept(ann: Any, headers: dict[str, str], credential: str) -> None:
    ask(**headers)
    (row,) = told()
    assert row.credential == credential
    words = str({name: value for name, value in vars(row).items() if name != "_state"})
    assert SECRET not in words and "a" * 64 not in words


def test_a_name_is_told_where_somebody_has_it(ann: Any) -> None:
    ask(authorization=basic("ann"))
    ask(authorization=basic("bob"))
    found = {row.target_id for row in told()}
    assert "ann" in found and "bob" not in found and len(found) == 2


def test_tries_within_a_minute_are_one_row_that_counts(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        ask(authorization=basic("ann"))
    ask(authorization=basic("bob"))
    assert {row.target_id: row.count for row in told()}["ann"] == 3
    later = refusals.timezone.now() + timedelta(minutes=1)
    monkeypatch.setattr(refusals.timezone, "now", lambda: later)
    ask(authorization=basic("ann"))
    assert sorted(row.count for row in told() if row.target_id == "ann") == [1, 3]


def test_the_login_form_and_the_token_are_told(ann: Any) -> None:
    Client().post("/admin/login/", {"username": "ann", "password": SECRET})
    check_problem(
        Api(None).post("token", {"username": "ann", "password": SECRET}), 401, "invalid_credentials"
    )
    assert {(row.surface, row.target_id) for row in told()} == {("admin", "ann"), ("native", "ann")}


def test_a_dialect_is_told_by_its_name() -> None:
    for path in ("/v1/tasks", "/tork/jobs", "/forge/jobs/kinds", "/api/v1/scheduler/jobs"):
        assert Client().get(path, headers={"x-api-key": SECRET}).status_code == 401
    assert {row.surface for row in told()} == {"asyncjobs", "tork", "forge", "scheduler"}


def test_who_is_blocked_is_told_once_and_costs_no_row_more(ann: Any, settings: Any) -> None:
    settings.TRIES_PER_MINUTE = 3
    for _ in range(3):
        ask(authorization=basic("ann"))
    for _ in range(5):
        answer = Api(None).get("alpha/jobs", authorization=basic("ann"))
        assert answer.status_code == 429
    assert [row.count for row in told()] == [3]
    assert AccessAuditEntry.objects.filter(verb="tries.block").count() == 2


def test_a_flood_from_everywhere_is_one_row_beyond_the_first(settings: Any) -> None:
    for number in range(refusals.ROWS_AT_ONCE + 20):
        meta = {"REMOTE_ADDR": f"192.0.{number // 250}.{number % 250}"}
        refusals.tell(type("R", (), {"META": meta})(), Presented(JWT, SECRET), "native")
    rows = told()
    # One more, where the test was so slow that there was room again.
    assert refusals.ROWS_AT_ONCE < len(rows) <= refusals.ROWS_AT_ONCE + 10
    assert sum(row.count for row in rows) == refusals.ROWS_AT_ONCE + 20
    (others,) = (row for row in rows if row.target_id == refusals.OTHERS)
    assert others.count >= 10 and others.address == ""


@pytest.mark.parametrize(
    "change",
    [
        {"count": 5, "verb": "keys.revoke"},
        {"count": 0},
        {"count": 1},
        {"reason": "x"},
        {"at": None},
        {"count": F("count") + 1, "actor": "key:x"},
    ],
)
def test_nothing_but_the_count_ever_changes(change: dict[str, Any]) -> None:
    ask(x_api_key=SECRET)
    (row,) = told()
    rows = models.QuerySet(AccessAuditEntry).filter(pk=row.pk)
    with pytest.raises(DatabaseError), transaction.atomic():
        rows.update(**change)
    create_key("ci", "viewer", ["alpha"])
    other = AccessAuditEntry.objects.create(actor="x", verb="keys.create", count=1)
    with pytest.raises(DatabaseError), transaction.atomic():
        models.QuerySet(AccessAuditEntry).filter(pk=other.pk).update(count=2)
    if connections["default"].vendor == "postgresql":
        with pytest.raises(DatabaseError), transaction.atomic():
            rows._raw_delete("default")
    assert AuditEntry.objects.count() == 0


def test_nobody_is_answered_otherwise_where_it_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise DatabaseError

    monkeypatch.setattr(refusals, "_tell", fail)
    ask(x_api_key=SECRET)
