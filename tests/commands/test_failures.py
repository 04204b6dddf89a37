"""`manage.py failures`"""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import Failure

pytestmark = pytest.mark.usefixtures("alpha")


def make_failure(number: int, **columns: object) -> Failure:
    seen = columns.pop("seen", None) or timezone.now()
    defaults = {
        "error_type": "ValueError",
        "message": "no order <number>",
        "queue": "mail",
        "type": "mail:send",
        "job_id": "0190a1b2-0000-7000-8000-000000000000",
        "example": "Traceback\nValueError: no order 17",
        "count": 3,
        "first_seen_at": seen,
        "last_seen_at": seen,
    }
    return Failure.objects.create(fingerprint=f"{number:016x}", **{**defaults, **columns})


def test_groups_are_listed_and_chosen(run):
    make_failure(1, seen=timezone.now() - timedelta(hours=3))
    make_failure(2, queue="web", type="web:get")

    def listed(*arguments: str) -> list[int]:
        items = run("failures", "list", *arguments, "-o", "json").json["items"]
        return [int(item["fingerprint"], 16) for item in items]

    assert listed() == [2, 1]
    assert listed("--limit", "1") == [2]
    assert listed("--queue", "mail") == [1]
    assert listed("--type", "web:get") == [2]
    assert listed("--since", "2h") == [2]
    assert "no order <number>" in run("failures", "list").out
    assert run("failures", "list", "--limit", "0").code == 2


def test_one_group_is_shown_with_its_example(run):
    failure = make_failure(7)
    shown = run("failures", "show", failure.fingerprint, "-o", "json").json
    assert (shown["count"], len(shown["hours"])) == (3, 168)
    assert "no order 17" in run("failures", "show", failure.fingerprint).out
    for missing in ("0" * 16, "x", failure.fingerprint + "0", "x" * 5000):
        assert run("failures", "show", missing).code == 3
