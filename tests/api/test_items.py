"""A job that the database writes into a list is the job that Python writes alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import connections

from jobs import listing
from jobs.api.items import COLUMNS, item_sql
from jobs.api.job_wire import JobItem, job_to_json
from jobs.models import Job
from jobs.states import State
from tests.factories import make_job

ALPHA = "cluster-alpha"
AN_ID = UUID("01a20191-868c-7979-8cdf-31c02d86b8b8")
WHOLE_SECOND = datetime(2026, 1, 31, 12, tzinfo=UTC)
MICROSECOND = datetime(1999, 12, 31, 23, 59, 59, 1, tzinfo=UTC)
LATE = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
# All that JSON escapes, and what it might: U+2028, DEL, a character beyond 16 bits, a format's sign.
ODD = "quo\"te back\\slash /slash %s %% {} ' \u2028\x7f\x85 é 漢 \U0001f600 " + "".join(
    map(chr, range(1, 32))
)
NUMBERS = [0.1, 1.5, 300.0, 1e-9, 86399.999, 1e22, 123456789.123456]


def listed() -> list[dict[str, Any]]:
    sql = item_sql(connections[ALPHA].vendor)
    return [json.loads(item) for (item,) in listing.newest(ALPHA, {}, sql, 50)]


def check(**columns: Any) -> dict[str, Any]:
    """Write one job both ways."""
    Job.objects.all().delete()
    pk = make_job(columns.pop("state", State.READY), **columns).pk
    [item] = listed()
    # The key order too: it is the order in which clients and people read a job.
    assert list(item.items()) == list(job_to_json(Job.objects.get(pk=pk)).items())
    return item


def test_all_fields_are_there_in_their_order() -> None:
    assert list(COLUMNS) == list(JobItem().fields)


@pytest.mark.parametrize(
    "column",
    ["type", "queue", "kind", "enqueued_by", "progress_note", "error", "unique_key", "fingerprint"],
)
def test_any_text_comes_out_as_it_went_in(column: str, alpha: object) -> None:
    length = Job._meta.get_field(column).max_length or 5000
    for start in range(0, len(ODD), length):
        text = ODD[start : start + length]
        assert check(**{column: text})[column] == text


def test_tags_and_metadata_hold_any_text_and_number(alpha: object) -> None:
    assert check(tags=[ODD[:60], "", "red"])["tags"] == [ODD[:60], "", "red"]
    metadata = {ODD[:60]: ODD[:60], "a": 2**63, "b": -(10**30), "c": 0.1, "d": True, "e": ""}
    assert check(metadata=metadata)["metadata"] == metadata


@pytest.mark.parametrize(
    "column",
    ["run_at", "created_at", "started_at", "cancel_requested_at", "expires_at", "deadline_at"],
)
def test_times_have_six_digits(column: str, alpha: object) -> None:
    assert check(**{column: WHOLE_SECOND})[column] == "2026-01-31T12:00:00.000000Z"
    assert check(**{column: MICROSECOND})[column] == "1999-12-31T23:59:59.000001Z"
    assert check(**{column: LATE})[column] == "9999-12-31T23:59:59.999999Z"


def test_a_time_of_the_databases_own_clock_has_six_digits_too(alpha: object) -> None:
    with connections[ALPHA].cursor() as cursor:
        make_job()
        cursor.execute("UPDATE job SET started_at = CURRENT_TIMESTAMP")
        if connections[ALPHA].vendor == "sqlite":
            cursor.execute("UPDATE job SET started_at = strftime('%%Y-%%m-%%d %%H:%%M:%%f')", [])
    [item] = listed()
    assert item["started_at"] == job_to_json(Job.objects.get())["started_at"]
    assert len(item["started_at"]) == 27


@pytest.mark.parametrize(
    "column",
    ["timeout_seconds", "progress_timeout_seconds", "retry_base_seconds", "retry_cap_seconds"],
)
def test_numbers_lose_nothing(column: str, alpha: object) -> None:
    for number in NUMBERS:
        assert check(**{column: number})[column] == number


def test_whole_numbers_and_percents(alpha: object) -> None:
    item = check(fence=2**63 - 1, attempts=2**31 - 1, priority=-100, pending_dependencies=7)
    assert (item["fence"], item["priority"]) == (2**63 - 1, -100)
    for percent in (0.0, 33.333333333333336, 100.0):
        assert check(progress_percent=percent)["progress_percent"] == percent


@pytest.mark.parametrize("state", State.values)
def test_each_state(state: str, alpha: object) -> None:
    assert check(state=state, copy_of=AN_ID)["copy_of"] == str(AN_ID)


def test_held_and_failed_for_each_reason(alpha: object) -> None:
    item = check(state=State.FAILED, is_held=True, reason="poisoned", finished_at=WHOLE_SECOND)
    assert (item["is_held"], item["reason"]) == (True, "poisoned")
    item = check(state=State.FAILED, error=None, crashes=3, on_lost="hold")
    assert (item["is_held"], item["error"], item["finished_at"][-1]) == (False, None, "Z")
