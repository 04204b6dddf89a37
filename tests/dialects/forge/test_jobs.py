"""Jobs: lists and their filters, one of them, and new ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import listing, payload_search
from jobs.models import Job
from jobs.models.rollup import DAY
from tests.dialects.forge.conftest import TIME, Caller, check_envelope, fixture
from tests.factories import make_attempt, make_job, make_node, make_queue

ALIAS = "cluster-alpha"
EXAMPLES = fixture("jobs")
OLD = datetime(2026, 5, 1, tzinfo=UTC)


def page(caller: Caller, limit: int = 50, offset: int = 0, **words: Any) -> dict[str, Any]:
    return caller.do("jobs/list", {"filter": words, "limit": limit, "offset": offset})


# -- Lists -----------------------------------------------------------------------------------------


def test_the_list_of_the_manual(viewer: Caller) -> None:
    asked = {"queue": "gh", "type": "gh_issue_refresh", "payload": {"name": "Repo-42"}}
    wanted = [make_job(state, **asked) for state in ("failed", "cancelled")]
    wanted.append(make_job("scheduled", attempts=1, **asked))
    for other in (
        {"queue": "default"}, {"type": "other"}, {"payload": {"name": "repo-43"}},
        {"created_at": OLD},
    ):  # fmt: skip
        make_job("failed", **{**asked, **other})
    make_job("succeeded", **asked)
    body = EXAMPLES["list"]
    found = viewer.do("jobs/list", body)
    assert set(found) == {"rows", "total", "limit", "offset"}
    assert (found["total"], found["limit"], found["offset"]) == (3, 50, 0)
    assert [row["id"] for row in found["rows"]] == [str(job.pk) for job in wanted[::-1]]
    assert all(list(row) == EXAMPLES["row"] for row in found["rows"])


def test_rows_of_a_job_at_work(viewer: Caller) -> None:
    job = make_job("running", queue="gh", priority=-3, unique_key="k", error="it failed once")
    row = viewer.row(job)
    for name in ("enqueued_at", "scheduled_at", "started_at", "heartbeat_at"):
        assert TIME.match(row.pop(name)), name
    assert row == {
        "id": str(job.pk), "queue_name": "gh", "kind": "demo:noop", "status": "in_progress",
        "priority": -3, "attempts": 1, "max_attempts": 3, "completed_at": None,
        "last_error": "it failed once", "dedupe_key": "k",
        "process_id": f"gh-{str(job.pk)[-12:]}-{job.node_id}",
    }  # fmt: skip
    assert "payload" not in row


def test_several_queues_and_kinds_are_either_of_them(viewer: Caller) -> None:
    made = {
        (queue, kind, state): str(make_job(state, queue=queue, type=kind).pk)
        for queue in ("a", "b", "c")
        for kind in ("x", "y", "z")
        for state in ("ready", "succeeded")
    }
    for queues in ([], ["a"], ["a", "b"], ["a", "b", "nothing"]):
        for kinds in ([], ["x"], ["x", "z"]):
            for statuses in ([], ["pending"], ["done", "pending"], ["dead"]):
                wanted = {
                    pk
                    for (queue, kind, state), pk in made.items()
                    if (not queues or queue in queues)
                    and (not kinds or kind in kinds)
                    and (not statuses or (state == "ready" and "pending" in statuses)
                         or (state == "succeeded" and "done" in statuses))
                }  # fmt: skip
                found = viewer.listed(queues=queues, kinds=kinds, statuses=statuses)
                assert len(found) == len(set(found))
                assert set(found) == wanted, (queues, kinds, statuses)


def test_a_page_is_a_part_of_what_matches(viewer: Caller) -> None:
    now = timezone.now()
    made = [
        str(make_job("ready", created_at=now - timedelta(seconds=index)).pk) for index in range(7)
    ]
    for offset, expected in ((0, made[:3]), (3, made[3:6]), (6, made[6:]), (7, []), (9999, [])):
        found = page(viewer, limit=3, offset=offset)
        assert [row["id"] for row in found["rows"]] == expected
        assert (found["total"], found["offset"]) == (7, offset)
    searched = page(viewer, limit=3, offset=3, payload_search="null")
    assert searched["total"] == 0


def test_times_bound_when_jobs_were_enqueued(viewer: Caller) -> None:
    made = [make_job("ready", created_at=OLD + timedelta(days=day)) for day in range(3)]
    assert viewer.listed(**{"from": "2026-05-02T00:00:00Z"}) == [str(j.pk) for j in made[:0:-1]]
    assert viewer.listed(to="2026-05-02T02:00:00+02:00") == [str(made[0].pk)]


@pytest.mark.parametrize(
    ("text", "finds"),
    [
        ("ALPHA", True),
        ("50%", True),
        ("a_b", True),
        ("5_%", False),
        ("b\\", False),
        ('"n": 1', True),
    ],
)
def test_a_search_takes_its_text_as_it_is(text: str, finds: bool, viewer: Caller) -> None:
    job = make_job("ready", payload={"a": "alpha", "b": "50%", "c": "a_b", "n": 1})
    make_job("ready", payload={"other": True})
    assert viewer.listed(payload_search=text) == ([str(job.pk)] if finds else [])


def test_a_search_looks_at_so_many_jobs(viewer: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_search, "LOOKED_AT", 3)
    now = timezone.now()
    for index in range(5):
        make_job("ready", payload="here", created_at=now - timedelta(seconds=index))
    assert page(viewer, payload_search="here")["total"] == 3


SECRETS = {
    "url": "http://example.com/hook",
    "headers": {"Authorization": "Bearer Sesame-7", "Accept": "text/csv"},
    "body": {"password": ["open-it"], "user": "ann"},
}


@pytest.mark.parametrize("text", ["Bearer", "sesame", '"Authorization": "B', "same-7", "open-it"])
def test_a_search_does_not_look_behind_the_mask(text: str, viewer: Caller) -> None:
    job = make_job("ready", kind="http", type="http", payload=SECRETS)
    assert text not in json.dumps(viewer.read(f"jobs/inspect/{job.pk}"))
    assert viewer.listed(payload_search=text) == []


@pytest.mark.parametrize("text", ["example.com", "TEXT/csv", '"password": ["***"]', "Ann"])
def test_a_search_finds_what_is_shown_beside_secrets(text: str, viewer: Caller) -> None:
    job = make_job("ready", kind="http", type="http", payload=SECRETS)
    assert viewer.listed(payload_search=text) == [str(job.pk)]


def test_a_search_knows_letters_of_every_language(viewer: Caller) -> None:
    job = make_job("ready", payload={"city": "ZÜRICH"})
    assert viewer.listed(payload_search="zürich") == [str(job.pk)]


def test_a_search_ends_in_time_with_what_it_found(
    viewer: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [make_job("ready", payload="here") for _ in range(6)]
    clock = iter(range(1000))
    monkeypatch.setattr(payload_search, "countdown", lambda: float(next(clock)))
    monkeypatch.setattr(payload_search, "SECONDS", 4.0)
    found = page(viewer, payload_search="here")
    assert 1 <= found["total"] < 6
    assert found["rows"][0]["id"] == str(made[-1].pk)


def test_a_search_reads_so_much(viewer: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_search, "MOST_CHARACTERS", 250)
    for _ in range(5):
        make_job("ready", payload="a" * 98)
    assert page(viewer, payload_search="aaa")["total"] == 3


@pytest.mark.parametrize("first", [1, 2])
def test_a_search_goes_page_by_page(
    first: int, viewer: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_search, "PAGE", first)
    monkeypatch.setattr(payload_search, "LARGEST_PAGE", 2)
    made = [make_job("ready", payload=index % 2 or {"n": "here"}) for index in range(9)]
    assert viewer.listed(payload_search="here") == [str(job.pk) for job in made[::-2]]


def test_the_total_stops_where_counting_does(
    viewer: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNT_LIMIT", 2)
    for _ in range(4):
        make_job("ready")
    found = page(viewer, limit=4)
    assert found["total"] == 2
    assert len(found["rows"]) == 2


def test_a_list_asks_as_often_for_many_jobs_as_for_one(viewer: Caller) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connections[ALIAS]) as captured:
            assert page(viewer, queues=["default", "b"], statuses=["in_progress", "dead"])["rows"]
        return len(captured)

    make_job("running")
    before = queries()
    for _ in range(20):
        make_job("running", queue="b")
        make_job("failed")
    assert queries() == before <= 6


def test_kinds_of_all_and_of_a_queue(viewer: Caller) -> None:
    assert viewer.read("jobs/kinds") == []
    for queue, kind in (("a", "z"), ("a", "m"), ("b", "m"), ("b", "k"), ("a", "z")):
        make_job("ready", queue=queue, type=kind)
    assert viewer.read("jobs/kinds") == ["k", "m", "z"]
    assert viewer.read("jobs/kinds?queue_name=b") == ["k", "m"]
    check_envelope(viewer.get("jobs/kinds?queue_name=c"), 404, "not_found")


def test_kinds_of_a_queue_are_known_from_before(
    viewer: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import job_kinds
    from jobs.models import Rollup

    monkeypatch.setattr(job_kinds, "_NEWEST", 1)
    make_job("ready", type="old", created_at=OLD)
    make_job("ready", type="new")
    for kind in ("old", "gone"):
        day = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        Rollup.objects.create(resolution_seconds=DAY, starts_at=day, queue="default", type=kind)
    assert viewer.read("jobs/kinds?queue_name=default") == ["new", "old"]


def test_scheduled_jobs_come_in_the_order_of_their_time(viewer: Caller) -> None:
    now = timezone.now()
    made = [
        make_job("scheduled", queue=f"q{hours % 2}", run_at=now + timedelta(hours=hours))
        for hours in (3, 1, 2)
    ]
    make_job("scheduled", attempts=1)
    make_job("blocked")
    order = [str(made[index].pk) for index in (1, 2, 0)]
    assert [row["id"] for row in viewer.read("jobs/scheduled")] == order
    of_queue = viewer.read("jobs/scheduled?queue_name=q1")
    assert [row["id"] for row in of_queue] == [order[0], order[2]]
    check_envelope(viewer.get("jobs/scheduled?queue_name=q7"), 404, "not_found")


def test_failed_jobs_are_listed_newest_first_and_so_many(viewer: Caller) -> None:
    now = timezone.now()
    made = [
        make_job("scheduled", attempts=2, created_at=now - timedelta(minutes=index))
        for index in range(3)
    ]
    found = viewer.read("jobs/failed?limit=2")
    assert [row["id"] for row in found] == [str(job.pk) for job in made[:2]]
    for query in ("", "?limit=0", "?limit=501", "?limit=x", "?limit="):
        check_envelope(viewer.get(f"jobs/failed{query}"), 400, "validation", "limit")


# -- One -------------------------------------------------------------------------------------------


def test_inspecting_a_job_shows_its_payload_and_errors(viewer: Caller) -> None:
    job = make_job("failed", payload={"password": "x", "n": 1}, error="last")
    for index in range(3):
        make_attempt(job, error=f"try {index}")
    found = viewer.read(f"jobs/inspect/{job.pk}")
    assert set(found) == {"row", "payload", "error_history"}
    assert found["payload"] == {"password": "x", "n": 1}
    assert [one["attempt"] for one in found["error_history"]] == [1, 2, 3]
    assert [one["message"] for one in found["error_history"]] == ["try 0", "try 1", "try 2"]
    assert all(TIME.match(one["at"]) for one in found["error_history"])
    assert found["row"] == page(viewer)["rows"][0]


def test_secrets_of_requests_and_bytes_are_shown_with_care(viewer: Caller) -> None:
    job = make_job("ready", kind="http", payload={"headers": {"Authorization": "Bearer x"}})
    shown = viewer.read(f"jobs/inspect/{job.pk}")["payload"]
    assert shown == {"headers": {"Authorization": "***"}}
    job = make_job("ready", payload_bytes=b"\x00\xff")
    assert viewer.read(f"jobs/inspect/{job.pk}")["payload"] == {"payload_base64": "AP8="}


@pytest.mark.parametrize(
    "job_id",
    ["01J0000000000000000000000", "x", "0190a1b2-0000-7000-8000-000000000000", "%00", "{}" * 20],
)
def test_what_is_no_job_is_missing(job_id: str, api: Caller) -> None:
    check_envelope(api.get(f"jobs/inspect/{job_id}"), 404, "not_found")
    check_envelope(api.post(f"jobs/run-now/{job_id}"), 404, "not_found")


def test_ids_are_found_as_they_are_written(viewer: Caller) -> None:
    job = make_job("ready")
    assert viewer.row(str(job.pk).upper())["id"] == str(job.pk)
    check_envelope(viewer.get(f"jobs/inspect/{job.pk.hex}"), 404, "not_found")


# -- New ones --------------------------------------------------------------------------------------


def test_enqueueing_as_in_the_manual(api: Caller) -> None:
    job_id = api.do("jobs/enqueue", EXAMPLES["enqueue"])
    job = Job.objects.get(pk=job_id)
    assert (job.type, job.queue, job.payload, job.state) == (
        "gh_issue_refresh",
        "default",
        {},
        "ready",
    )
    assert (job.priority, job.max_attempts, job.unique_key) == (0, 5, None)
    assert api.row(job_id)["status"] == "pending"


def test_enqueueing_with_everything(api: Caller) -> None:
    make_queue("gh")
    job_id = api.do(
        "jobs/enqueue",
        {
            "kind": "a", "payload": [1, None], "queue_name": "gh", "dedupe_key": "k",
            "run_at": "2034-01-01T00:00:00+01:00", "priority": -7, "max_attempts": 2,
            "something_else": True,
        },
    )  # fmt: skip
    row = api.row(job_id)
    assert row["scheduled_at"] == "2033-12-31T23:00:00Z"
    assert (row["priority"], row["max_attempts"], row["dedupe_key"]) == (-7, 2, "k")
    assert Job.objects.get().payload == [1, None]


def test_a_key_that_is_taken_answers_with_the_job_that_has_it(api: Caller) -> None:
    new = {"kind": "a", "payload": None, "queue_name": "default", "dedupe_key": "k"}
    first = api.do("jobs/enqueue", new)
    make_queue("other")
    assert api.do("jobs/enqueue", {**new, "kind": "b", "queue_name": "other"}) == first
    Job.objects.all().cancel()
    assert api.do("jobs/enqueue", new) != first
    assert Job.objects.count() == 2


def test_the_demo(api: Caller) -> None:
    job = Job.objects.get(pk=api.do("jobs/enqueue-demo", {"payload": {"sleep_ms": 5}}))
    assert (job.type, job.queue, job.payload) == ("noop_echo", "default", {"sleep_ms": 5})
    assert Job.objects.get(pk=api.do("jobs/enqueue-demo", {})).payload is None


def test_a_full_queue_asks_to_come_back(api: Caller) -> None:
    make_queue("small", max_entries=1)
    new = {"kind": "a", "payload": None, "queue_name": "small"}
    api.do("jobs/enqueue", new)
    response = api.post("jobs/enqueue", new)
    body = check_envelope(response, 429, "rate_limited")
    assert body["retry_after_secs"] == int(response["Retry-After"]) > 0
    assert Job.objects.count() == 1


NEW = {"kind": "a", "payload": {}, "queue_name": "default"}
BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"kind": None}, 400, "kind"),
    ({"kind": ""}, 400, "kind"),
    ({"kind": "  "}, 400, "kind"),
    ({"kind": "a b"}, 400, "kind"),
    ({"kind": "x" * 201}, 400, "kind"),
    ({"kind": 5}, 400, "kind"),
    ({"queue_name": None}, 400, "input"),
    ({"queue_name": ""}, 400, "input"),
    ({"queue_name": 5}, 400, "queue_name"),
    ({"dedupe_key": ""}, 400, "dedupe_key"),
    ({"dedupe_key": "k" * 201}, 400, "dedupe_key"),
    ({"dedupe_key": 5}, 400, "dedupe_key"),
    ({"run_at": "tomorrow"}, 400, "run_at"),
    ({"run_at": "2026-01-01T00:00:00"}, 400, "run_at"),
    ({"run_at": "2999-01-01T00:00:00Z"}, 400, "run_at"),
    ({"run_at": 5}, 400, "run_at"),
    ({"priority": 101}, 400, "priority"),
    ({"priority": 2**70}, 400, "priority"),
    ({"priority": "1"}, 400, "priority"),
    ({"max_attempts": 0}, 400, "max_attempts"),
    ({"max_attempts": 101}, 400, "max_attempts"),
    ({"payload": "x" * 300_000}, 400, "payload"),
]


@pytest.mark.once
@pytest.mark.parametrize(("members", "status", "field"), BAD)
def test_what_cannot_be_enqueued_is_named(
    members: dict[str, Any], status: int, field: str, api: Caller
) -> None:
    check_envelope(api.post("jobs/enqueue", {**NEW, **members}), status, "validation", field)
    assert not Job.objects.exists()


def test_a_payload_may_be_null_but_not_left_out(api: Caller) -> None:
    new = {"kind": "a", "queue_name": "default"}
    check_envelope(api.post("jobs/enqueue", new), 400, "validation", "payload")
    assert Job.objects.get(pk=api.do("jobs/enqueue", {**new, "payload": None})).payload is None


def test_a_queue_that_is_not_there_would_keep_a_job_for_ever(api: Caller) -> None:
    for name in ("nothing", "a b", "x" * 500):
        body = check_envelope(
            api.post("jobs/enqueue", {**NEW, "queue_name": name}), 404, "not_found"
        )
        assert "queue" in body["msg"]
    assert not Job.objects.exists()


BAD_LISTS: list[tuple[Any, str]] = [
    ([], "json"),
    ({"limit": 1}, "offset"),
    ({"offset": 0}, "limit"),
    ({"limit": 0, "offset": 0}, "limit"),
    ({"limit": 501, "offset": 0}, "limit"),
    ({"limit": 1, "offset": -1}, "offset"),
    ({"limit": 1, "offset": 10_001}, "offset"),
    ({"limit": "1", "offset": 0}, "limit"),
    ({"limit": 1, "offset": 0, "filter": []}, "filter"),
    ({"limit": 1, "offset": 0, "filter": {"queues": "a"}}, "filter.queues"),
    ({"limit": 1, "offset": 0, "filter": {"queues": [1]}}, "filter.queues[0]"),
    ({"limit": 1, "offset": 0, "filter": {"kinds": ["a"] * 51}}, "filter.kinds"),
    ({"limit": 1, "offset": 0, "filter": {"statuses": ["dead", "cancelled"]}}, "filter.statuses"),
    ({"limit": 1, "offset": 0, "filter": {"from": "now"}}, "filter.from"),
    ({"limit": 1, "offset": 0, "filter": {"to": "2026-13-01T00:00:00Z"}}, "filter.to"),
    ({"limit": 1, "offset": 0, "filter": {"payload_search": "x" * 201}}, "filter.payload_search"),
    ({"limit": 1, "offset": 0, "filter": {"payload_search": {}}}, "filter.payload_search"),
]


@pytest.mark.once
@pytest.mark.parametrize(("body", "field"), BAD_LISTS)
def test_a_list_that_cannot_be_is_named(body: Any, field: str, viewer: Caller) -> None:
    check_envelope(viewer.post("jobs/list", body), 400, "validation", field)


def test_a_filter_may_be_left_out(viewer: Caller) -> None:
    make_node()
    make_job("ready")
    assert viewer.do("jobs/list", {"limit": 5, "offset": 0})["total"] == 1
