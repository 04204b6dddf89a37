"""Dashboard, timeline, what is upcoming, previews and histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs.models import Fire, Job, Schedule
from tests.dialects.scheduler.conftest import MISSING, Caller, check_problem
from tests.factories import make_job


def ended(job_id: str, state: str, hours_ago: float, seconds: float = 10, **columns: Any) -> None:
    at = timezone.now() - timedelta(hours=hours_ago)
    columns = {"started_at": at - timedelta(seconds=seconds), "finished_at": at, **columns}
    make_job(state, schedule_id=job_id, trigger="schedule", created_at=at, **columns)


def test_the_dashboard_of_nothing(api: Caller) -> None:
    shown = api.get("dashboard/stats").json()
    assert shown["successRate"] == 100 and shown["averageDurationSeconds"] is None
    assert (shown["totalJobs"], shown["upcoming"]) == (0, [])


def test_the_dashboard_counts_the_last_day(api: Caller) -> None:
    job = api.make(scheduleType="Interval", intervalSeconds=600)["id"]
    api.make(name="yearly", scheduleExpression="0 0 1 1 *")
    paused = api.make(name="paused")["id"]
    api.post(f"jobs/{paused}/pause")
    api.make(name="disabled", isEnabled=False)
    api.delete(f"jobs/{api.make(name='deleted')['id']}")
    for state, hours in (("succeeded", 1), ("succeeded", 2), ("failed", 3), ("cancelled", 1)):
        ended(job, state, hours, seconds={"failed": 40}.get(state, 10))
    ended(job, "failed", 25)
    make_job("failed")  # of no schedule
    Schedule.objects.filter(pk=job).update(consecutive_failures=1)
    shown = api.get("dashboard/stats").json()
    wanted = {
        "totalJobs": 4, "enabledJobs": 3, "activeJobs": 2, "pausedJobs": 1, "failedJobs": 1,
        "successRate": 66.67, "recentFailureCount": 1,
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted
    assert isinstance(shown["upcomingExecutions"], int) and shown["upcomingExecutions"] >= 1
    assert shown["averageDurationSeconds"] == pytest.approx(17.5, abs=0.1)
    assert [one["jobName"] for one in shown["upcoming"]] == ["nightly", "yearly"]
    assert shown["executionsToday"] <= 4
    (first,) = api.get("executions/upcoming?take=1").json()
    assert first == {"jobId": job, "jobName": "nightly", "nextRun": api.job(job)["nextRunAt"]}
    check_problem(api.get("executions/upcoming?take=0"), 400, "validation_failed", "take")


def test_the_timeline_fills_hours_in_which_nothing_began(api: Caller) -> None:
    job = api.make()["id"]
    this_hour = timezone.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    at = this_hour - timedelta(hours=2)
    for state, count in (("succeeded", 2), ("failed", 1), ("cancelled", 1), ("running", 1)):
        for _ in range(count):
            begun = {"started_at": at + timedelta(minutes=59)}
            make_job(state, schedule_id=job, trigger="schedule", **begun)
    make_job("succeeded", started_at=at)  # of no schedule
    points = api.get("executions/timeline?hours=4").json()
    assert len(points) == 4
    assert [point["bucket"] for point in points] == sorted(point["bucket"] for point in points)
    assert points[-1]["bucket"] == this_hour.strftime("%Y-%m-%dT%H:00:00Z")
    assert points[1] == {
        "bucket": at.strftime("%Y-%m-%dT%H:00:00Z"),
        "successCount": 2, "failedCount": 1, "runningCount": 1, "cancelledCount": 1,
    }  # fmt: skip
    assert all(sum(v for k, v in p.items() if k != "bucket") == 0 for p in (points[0], points[3]))
    other = api.make(name="other")["id"]
    assert api.get(f"executions/timeline?jobId={other}&hours=4").json()[1]["successCount"] == 0
    assert api.get(f"executions/timeline?jobId={job}&hours=4").json()[1]["successCount"] == 2
    fine = api.get("executions/timeline?hours=4&bucketMinutes=30").json()
    assert len(fine) == 8 and sum(point["failedCount"] for point in fine) == 1
    assert len(api.get("executions/timeline").json()) == 24
    assert len(api.get("executions/timeline?hours=720").json()) == 720


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("hours=0", "hours"),
        ("hours=721", "hours"),
        ("hours=1.5", "hours"),
        ("bucketMinutes=7", "bucketMinutes"),
        ("hours=720&bucketMinutes=5", "bucketMinutes"),
        ("jobId=7", "jobId"),
    ],
)
def test_bad_timelines(query: str, field: str, api: Caller) -> None:
    check_problem(api.get(f"executions/timeline?{query}"), 400, "validation_failed", field)


def test_a_preview_needs_no_job(api: Caller) -> None:
    body = {
        "scheduleType": "Cron",
        "scheduleExpression": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "count": 400,
    }
    check_problem(api.post("schedules/preview", body), 400, "validation_failed", "count")
    body["count"] = 100
    found = api.post("schedules/preview", body).json()
    assert len(found) == 100
    assert {one["localTime"][11:] for one in found} <= {"02:30:00", "03:00:00"}
    body["exclusions"] = {"excludedDaysOfWeek": ["Sunday"]}
    excluded = [one for one in api.post("schedules/preview", body).json() if one["isExcluded"]]
    assert excluded and {one["excludedBy"] for one in excluded} == {"Sunday"}
    bad = {**body, "timezone": "Mars/Olympus"}
    check_problem(api.post("schedules/preview", bad), 400, "invalid_timezone", "timezone")
    bad = {**body, "scheduleExpression": "0 0 30 2 *"}
    response = api.post("schedules/preview", bad)
    assert response.status_code == 400 and "scheduleExpression" in response.json()["errors"]
    assert not Schedule.objects.exists()


def test_next_runs_are_those_that_come(api: Caller) -> None:
    made = api.make(isEnabled=False)
    found = api.get(f"jobs/{made['id']}/next-runs").json()
    assert len(found) == 10 and all(one["runAt"].endswith("T03:00:00Z") for one in found)
    for query in ("count=0", "count=101"):
        check_problem(
            api.get(f"jobs/{made['id']}/next-runs?{query}"), 400, "validation_failed", "count"
        )
    check_problem(api.get(f"jobs/{MISSING}/next-runs"), 404, "job_not_found")


def test_a_history_tells_who_did_what_and_what_was_left_out(api: Caller) -> None:
    job = api.make(createdBy="ops")["id"]
    execution = api.post(f"jobs/{job}/trigger").json()
    api.post(f"executions/{execution}/cancel")
    retried = api.post(f"executions/{execution}/retry").json()
    Fire.objects.create(
        schedule_id=job, due_at=datetime(2026, 1, 1, tzinfo=UTC), state="skipped",
        reason="overlap", detail="the run before has not ended",
    )  # fmt: skip
    api.post(f"jobs/{job}/pause", {"reason": "audit"})
    page = api.get(f"jobs/{job}/history").json()
    assert page["totalCount"] == 5
    by_action = {item["action"]: item for item in page["items"]}
    assert set(by_action) == {"Created", "Triggered", "Retried", "Skipped", "Paused"}
    assert page["items"][-1]["action"] == "Created"
    assert by_action["Created"]["performedBy"].startswith("key:")  # whatever it calls itself
    assert by_action["Created"]["changes"]["after"]["createdBy"] == "ops"
    assert by_action["Created"]["ipAddress"] == "127.0.0.1"
    assert by_action["Triggered"]["changes"] == {"executionId": execution}
    assert by_action["Retried"]["changes"] == {
        "executionId": retried,
        "retryParentId": execution,
    }
    assert by_action["Skipped"]["changes"]["scheduledFor"] == "2026-01-01T00:00:00Z"
    assert by_action["Paused"]["changes"]["reason"] == "audit"
    api.put(f"jobs/{job}", {"name": "changed"})
    page = api.get(f"jobs/{job}/history?pageSize=1").json()
    assert (page["items"][0]["action"], page["totalPages"]) == ("Updated", 6)
    assert page["items"][0]["changes"]["before"]["name"] == "nightly"
    assert page["items"][0]["changes"]["after"]["name"] == "changed"
    api.delete(f"jobs/{job}")
    assert api.get(f"jobs/{job}/history").json()["items"][0]["action"] == "Deleted"
    check_problem(api.get(f"jobs/{MISSING}/history"), 404, "job_not_found")


def test_figures_are_along_their_indexes(api: Caller, is_postgresql: bool) -> None:
    """A question about a day must not read all jobs there ever were."""
    from django.db import connections

    if not is_postgresql:
        pytest.skip("plans are asked of PostgreSQL")
    # Enough old ones that to read them all is not as good.
    long_ago = timezone.now() - timedelta(days=9)
    Job.objects.bulk_create(
        Job(
            type="demo:noop", state="succeeded", schedule_id=MISSING, trigger="schedule",
            enqueued_by="test", timeout_seconds=1, max_attempts=1, created_at=at, started_at=at,
            finished_at=at,
        )
        for at in (long_ago - timedelta(seconds=number) for number in range(500))
    )  # fmt: skip
    with connections["cluster-alpha"].cursor() as cursor:
        cursor.execute("ANALYZE job")
        cursor.execute("SET LOCAL enable_seqscan = off")
        for condition, index in (
            ("started_at IS NOT NULL AND started_at >= now()", "job_scheduled_started"),
            ("finished_at IS NOT NULL AND finished_at >= now()", "job_scheduled_ended"),
        ):
            cursor.execute(
                f"EXPLAIN SELECT count(*) FROM job WHERE schedule_id IS NOT NULL AND {condition}"
            )
            plan = "".join(row[0] for row in cursor.fetchall())
            assert index in plan, plan
        # To sort so few looks cheap.
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute(
            "EXPLAIN SELECT id FROM job WHERE schedule_id IS NOT NULL"
            " ORDER BY created_at DESC, id DESC LIMIT 20"
        )
        plan = "".join(row[0] for row in cursor.fetchall())
        assert "job_scheduled_newest" in plan, plan
