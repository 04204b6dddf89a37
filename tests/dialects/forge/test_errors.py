"""Which of our errors is which of the six kinds."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, DataError, IntegrityError, OperationalError
from django.http import Http404
from rest_framework import exceptions

from jobs import errors
from jobs.dialects.forge.errors import exception_handler, plain_exception_handler
from tests.dialects.forge.conftest import KINDS


def of_database(error: DatabaseError, cause: Exception) -> DatabaseError:
    error.__cause__ = cause
    return error


CASES: list[tuple[Exception, int, str, str | None]] = [
    (errors.JobNotFound(), 404, "not_found", None),
    (errors.QueueNotFound("there is no queue 'x'"), 404, "not_found", None),
    (errors.UnknownQueue(field="queue"), 404, "not_found", None),
    (Http404(), 404, "not_found", None),
    (errors.InvalidJob("too much", field="unique_key"), 400, "validation", "dedupe_key"),
    (errors.InvalidJob("so many", field="type"), 400, "validation", "kind"),
    (errors.InvalidJob("whatever"), 400, "validation", "input"),
    (errors.InvalidQueue("no", field="retry_base_seconds"), 400, "validation", "base_seconds"),
    (errors.InvalidCron("no"), 400, "validation", "cron_expr"),
    (errors.InvalidTransition(field="state"), 409, "conflict", None),
    (errors.Conflict(), 409, "conflict", None),
    (errors.UniqueKeyTaken(), 409, "conflict", None),
    (errors.QueueFull(), 429, "rate_limited", None),
    (exceptions.Throttled(wait=7), 429, "rate_limited", None),
    (errors.KindNotGranted(field="kind"), 403, "validation", "kind"),
    (exceptions.PermissionDenied(), 403, "validation", "authorization"),
    (exceptions.NotAuthenticated(), 401, "validation", "authorization"),
    (exceptions.UnsupportedMediaType("x"), 415, "validation", "Content-Type"),
    (OperationalError("database is locked"), 409, "conflict", None),
    (
        of_database(OperationalError("x"), psycopg.errors.QueryCanceled("secret words")),
        409, "conflict", None,
    ),
    (OperationalError("could not connect to secret words"), 503, "storage", None),
    (DataError("secret words"), 400, "validation", "input"),
    (IntegrityError("secret words"), 500, "internal", None),
    (ValueError("secret words"), 500, "internal", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "kind", "field"), CASES, ids=lambda one: repr(one)[:40]
)
def test_every_error_has_its_kind(
    error: Exception, status: int, kind: str, field: str | None, rf: Any
) -> None:
    context = {"request": rf.get("/queue/overview")}
    answer = exception_handler(error, context)
    body = json.loads(answer.content)
    assert (answer.status_code, body["kind"]) == (status, kind), body
    assert set(body) == KINDS[kind]
    assert body.get("field") == field
    assert "secret words" not in answer.content.decode()
    if kind == "rate_limited":
        assert body["retry_after_secs"] == int(answer["Retry-After"]) > 0
    plain = plain_exception_handler(error, context)
    assert plain.status_code == status
    assert plain["Content-Type"].startswith("text/plain")
    assert plain.content.strip()
