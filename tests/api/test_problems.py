"""How errors are told, and what they do not tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.test import RequestFactory
from rest_framework import exceptions, serializers

from clusters.health import watch
from config import problems
from config.problems import STATUS_OF, exception_handler
from jobs import errors
from jobs.api.views import JobViewSet
from jobs.engine import idempotency
from tests.api.conftest import Api, check_problem


def all_subclasses(cls: type) -> set[type]:
    return {cls}.union(*(all_subclasses(sub) for sub in cls.__subclasses__()))


def test_every_error_of_the_domain_has_a_status() -> None:
    assert idempotency.KeyReused in all_subclasses(errors.JobError)
    assert {error.code for error in all_subclasses(errors.JobError)} <= set(STATUS_OF)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def handler(self: Any, request: Any, cluster_id: str) -> Any:
        raise error

    monkeypatch.setattr(JobViewSet, "list", handler)


def caused(error: Exception, sqlstate: str) -> Exception:
    cause = Exception("secret detail")
    cause.sqlstate = sqlstate  # type: ignore[attr-defined]
    error.__cause__ = cause
    return error


@pytest.mark.once
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OperationalError("could not connect to db.internal:5432"), 503, "cluster_unreachable"),
        (InterfaceError("connection already closed"), 503, "cluster_unreachable"),
        (caused(OperationalError("canceling statement"), "57014"), 503, "timeout"),
        (caused(OperationalError("lock"), "55P03"), 503, "timeout"),
        (OperationalError("database is locked"), 503, "timeout"),
        (DataError("integer out of range"), 400, "invalid"),
        (caused(IntegrityError("duplicate key"), "23505"), 409, "conflict"),
        (IntegrityError("CHECK constraint failed: job_state_known"), 500, "internal_error"),
        (RuntimeError("the password is hunter2"), 500, "internal_error"),
        (RecursionError(), 500, "internal_error"),
        (exceptions.Throttled(wait=2.5), 429, "throttled"),
        (errors.InvalidTransition("no", field="state"), 409, "invalid_transition"),
        (errors.JobError(), 400, "job_error"),
    ],
)
def test_whatever_is_raised_becomes_a_problem(
    error: Exception,
    status: int,
    code: str,
    alpha: object,
    viewer: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, error)
    response = viewer.get("alpha/jobs")
    body = check_problem(response, status, code)
    if status >= 500:
        assert body["detail"] in problems._TEXTS.values()
        assert body["errors"] == []
    if status in (429, 503):
        assert int(response["Retry-After"]) in (3, 5)


def test_a_dead_cluster_is_not_waited_for_twice(
    alpha: object, viewer: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusters import health

    monkeypatch.setattr(health, "_answers", lambda alias: False)
    watch.report_down("cluster-alpha")
    failing(monkeypatch, AssertionError("not asked"))
    check_problem(viewer.get("alpha/jobs"), 503, "cluster_unreachable")
    assert viewer.get("clusters/alpha").json()["is_reachable"] is False


def test_a_cluster_that_is_back_is_found_out_in_the_background(
    alpha: object, viewer: Api, eventually: Any
) -> None:
    watch.report_down("cluster-alpha")
    eventually(lambda: viewer.get("alpha/jobs").status_code == 200)


def test_nested_errors_of_serializers_become_paths() -> None:
    class Inner(serializers.Serializer[Any]):
        size = serializers.IntegerField(max_value=3)

    class Outer(serializers.Serializer[Any]):
        boxes = Inner(many=True)
        name = serializers.CharField()

    form = Outer(data={"boxes": [{"size": 1}, {"size": 9}]})
    with pytest.raises(exceptions.ValidationError) as caught:
        form.is_valid(raise_exception=True)
    request = RequestFactory().get("/")
    answer = exception_handler(caught.value, {"request": request, "view": None})
    assert answer is not None
    found = {(e["field"], e["code"]) for e in json.loads(answer.content)["errors"]}
    assert found == {("boxes[1].size", "max_value"), ("name", "required")}


def test_an_unknown_host_is_a_problem_that_names_it(viewer: Api) -> None:
    problem = check_problem(viewer.get("whoami", host="evil.example"), 400, "invalid")
    [error] = problem["errors"]
    assert error["field"] == "Host" and "YARDMASTER_ALLOWED_HOSTS" in error["message"]


def test_what_is_nowhere_is_a_problem_too(anonymous: Api, db: None) -> None:
    check_problem(anonymous.client.get("/nowhere"), 404, "not_found")


def test_pages_of_the_admin_site_stay_pages(admin_client: Any) -> None:
    response = admin_client.get("/admin/nowhere/")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
