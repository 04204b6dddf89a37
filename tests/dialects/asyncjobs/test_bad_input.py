"""Whatever is sent: the documented refusal by its name, nothing stored, and never a mistake of ours."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from jobs.models import IdempotencyKey, Job
from tests.dialects.asyncjobs.conftest import Caller, check_error

RAW: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"  ", None),
    (b"[]", None),
    (b"7", None),
    (b'"a"', None),
    (b"true", None),
    (b"{", None),
    (b'{"type": "a"', None),
    (b'{"type": "a"} {}', None),
    (b'{"type": "a"} x', None),
    (b'{"type": "a",}', None),
    (b"{'type': 'a'}", None),
    (b'{"type": "a", "type": "b"}', "type"),
    (b'{"type": "a", "Type": "b"}', "type"),
    (b'{"type": "a", "nope": 1}', "nope"),
    (b'{"type": "a", "": 1}', ""),
    (b'{"type": "a", "payload": NaN}', None),
    (b'{"type": "a", "payload": Infinity}', None),
    (b'{"type": "a", "payload": 1e999}', "payload"),
    (b'{"type": "a", "payload": "\\u0000"}', "payload"),
    (b'{"type": "a", "payload": {"x": ["\\ud800"]}}', "payload.x[0]"),
    (b'{"type": "a", "payload": "\xff"}', None),
    (b"\xef\xbb\xbf{}", None),
    (b'{"type": "a", "payload": ' + b"[" * 40 + b"]" * 40 + b"}", None),
    (b'{"type": "a", "payload": [' + b"0," * 20_000 + b"0]}", None),
    (b'{"type": "a", "payload": ' + b"9" * 5000 + b"}", None),
    (b"[" * 100_000, None),
    (b'{"a":' * 50_000, None),
]


@pytest.mark.once
@pytest.mark.parametrize(("raw", "field"), RAW, ids=[repr(raw)[:40] for raw, _ in RAW])
def test_a_body_that_is_none_is_refused(raw: bytes, field: str | None, admin: Caller) -> None:
    response = admin.post("v1/tasks", raw=raw, **{"Idempotency-Key": "k"})
    check_error(response, 400, "invalid_argument", "invalid_json", field)
    for path in ("v1/queues", "v1/schedules", "v1/tasks/retry"):
        response = admin.post(path, raw=raw)
        assert response.json()["error"]["details"]["reason"] == "invalid_json", path
        assert response.status_code == 400
    assert not Job.objects.exists() and not IdempotencyKey.objects.exists()


def test_null_is_an_empty_object(admin: Caller) -> None:
    for path, reason, field in (
        ("v1/tasks", "task_type_invalid", "type"),
        ("v1/queues", "queue_name_required", "name"),
        ("v1/schedules", "task_type_invalid", "task_type"),
        ("v1/tasks/retry", "ids_required", "ids"),
    ):
        check_error(admin.post(path, raw=b" null "), 400, "invalid_argument", reason, field)
        assert "error" in admin.post(path, raw=b"{}").json()


BAD_TYPES = ["", "bad type!", "a.b", "a/b", "é", "a\n", " a", "x" * 201, "-a", ":a"]


@pytest.mark.once
@pytest.mark.parametrize("task_type", BAD_TYPES)
def test_a_type_that_is_none_is_refused(task_type: str, api: Caller) -> None:
    response = api.post("v1/tasks", {"type": task_type})
    check_error(response, 400, "invalid_argument", "task_type_invalid", "type")


VALUES: list[Any] = [
    7, -1, 0, 1.5, 10**30, True, "", "x", "\ud7ff", "x" * 3000, [], [7], [[]], {}, {"a": 1},
    "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01t00:00:00z",
    "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01T00:00:00+24:00",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "aGk", "aGk=x", "a-_=", "aGk=\x01",
    "'; DROP TABLE job; --",
]  # fmt: skip
# Which reason each member has, and of which of the values it takes.
MEMBERS: dict[str, tuple[set[str], Any]] = {
    "queue": ({"invalid_json", "queue_not_found"}, lambda v: v == ""),
    "payload": (set(), lambda v: True),
    "payload_base64": ({"invalid_json"}, lambda v: v in ("", "x" * 3000)),
    "deadline": ({"invalid_json"}, lambda v: False),
    "max_tries": ({"invalid_json", "task_invalid"}, lambda v: v == 7 and v is not True),
    "dependencies": ({"invalid_json"}, lambda v: v == []),
    "load_dependencies": ({"invalid_json"}, lambda v: v is True),
    "signature": (
        {"invalid_json", "task_invalid"},
        lambda v: isinstance(v, str) and len(v) <= 1024,
    ),
    "id": ({"invalid_json", "task_id_invalid"}, lambda v: v == ""),
    "created": ({"invalid_json", "task_invalid"}, lambda v: False),
    "type": (
        {"invalid_json", "task_type_invalid"},
        lambda v: isinstance(v, str) and re.fullmatch(r"[0-9a-zA-Z][0-9A-Za-z_:-]{0,199}", v),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", MEMBERS)
def test_a_wrong_value_is_refused_by_its_name(name: str, api: Caller) -> None:
    reasons, takes = MEMBERS[name]
    taken = 0
    for value in VALUES:
        response = api.post("v1/tasks", {"type": "a", name: value})
        if takes(value):
            assert response.status_code == 201, (value, response.content)
            taken += 1
            continue
        error = response.json()["error"]
        assert response.status_code in (400, 404), (value, response.content)
        assert error["details"]["reason"] in reasons, (value, error)
        assert error["details"]["field"].split("[")[0] == name, (value, error)
    assert Job.objects.count() == taken


def test_a_moment_must_be_one(api: Caller) -> None:
    # An empty text is no moment, where it is a name that was left out.
    response = api.post("v1/tasks", raw=json.dumps({"type": "a", "deadline": ""}).encode())
    check_error(response, 400, "invalid_argument", "invalid_json", "deadline")
