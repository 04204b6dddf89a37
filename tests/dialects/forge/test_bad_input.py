"""Bodies and queries of every bad kind: the envelope, never a 5xx, and nothing stored."""

from __future__ import annotations

import pytest

from jobs.models import Job, Queue
from tests.api.test_bodies import cases
from tests.dialects.forge.addresses import ENDPOINTS
from tests.dialects.forge.conftest import Caller, check_envelope

WITH_BODY = [(path, body) for _, path, _, body in ENDPOINTS if body is not None]


@pytest.mark.once
@pytest.mark.parametrize("path", [path for path, _ in WITH_BODY])
def test_what_is_no_json_is_told_in_the_envelope(path: str, admin: Caller) -> None:
    before = list(Queue.objects.values())
    for raw in (b"{", b"nonsense", b'{"a":1,"a":2}', b"[" * 5000, b'"\xff"', b'{"n":NaN}', b"\x00"):
        body = check_envelope(admin.post(path, raw=raw), 400, "validation")
        assert body["field"]
        assert body["msg"]
    assert list(Queue.objects.values()) == before
    assert not Job.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize("path", [path for path, _ in WITH_BODY])
def test_a_body_of_another_kind_is_refused(path: str, admin: Caller) -> None:
    for raw in (b"[]", b"1", b'"x"', b"null", b"true"):
        check_envelope(admin.post(path, raw=raw), 400, "validation", "json")
    if path != "jobs/enqueue-demo":
        response = admin.post(path, raw=b"")
        assert check_envelope(response, 400, "validation")["field"] != "json"


@pytest.mark.parametrize("name", ["kind", "queue_name", "payload", "dedupe_key", "run_at"])
def test_hostile_values_never_break_it(name: str, admin: Caller) -> None:
    for value in (
        '"\\u0000"',
        '"\\ud800"',
        "1e999",
        "[[[[1]]]]",
        '{"$gt":1}',
        '"; DROP TABLE job"',
    ):
        raw = f'{{"kind":"a","queue_name":"default","payload":{{}},"{name}":{value}}}'
        response = admin.post("jobs/enqueue", raw=raw.encode())
        assert response.status_code in (200, 400, 404), (value, response.content)
        if response.status_code != 200:
            assert response.json()["kind"] in ("validation", "not_found")


def test_the_corpus_of_bad_json(admin: Caller) -> None:
    bodies = [raw for _, raw in cases()]
    assert len(bodies) > 40
    for raw in bodies:
        for path in ("jobs/list", "jobs/retry", "queue/default/backoff"):
            response = admin.post(path, raw=raw)
            assert response.status_code in (400, 413), (path, raw[:80])
            check_envelope(response, response.status_code, "validation")


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "from"),
        ("from=2026-01-01T00:00:00Z", "to"),
        ("from=0001-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&bucket_secs=60", "from"),
        ("from=2026-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&bucket_secs=31622400", "to"),
        ("from=0001-01-01T00:00:00%2B05:00&to=2026-01-01T00:00:00Z&bucket_secs=60", "from"),
        ("from=x&to=2026-01-01T00:00:00Z&bucket_secs=60", "from"),
        ("from=2026-01-01T00:00:00Z&to=%00&bucket_secs=60", "to"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", "bucket_secs"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&bucket_secs=-1", "bucket_secs"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&bucket_secs=1.5", "bucket_secs"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&bucket_secs=" + "9" * 20, "bucket_secs"),
    ],
)  # fmt: skip
def test_ranges_that_cannot_be_are_named(query: str, field: str, viewer: Caller) -> None:
    for path in ("timeline?", "resource-series?", "db-series?", "metric-series?queue=default&"):
        check_envelope(viewer.get(f"queue/{path}{query}"), 400, "validation", field)


def test_the_queue_of_a_series_has_to_be_there(viewer: Caller) -> None:
    query = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&bucket_secs=60"
    check_envelope(viewer.get(f"queue/metric-series?{query}"), 400, "validation", "queue")
    check_envelope(viewer.get(f"queue/metric-series?queue=x&{query}"), 404, "not_found")


def test_unknown_parameters_and_members_are_ignored(viewer: Caller) -> None:
    assert viewer.get("queue/overview?x=1").status_code == 200
    assert viewer.get("jobs/kinds?password__startswith=a").json() == []
