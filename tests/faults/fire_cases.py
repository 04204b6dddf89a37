"""Schedules for fault tests, and what must have come of them; no code of the engine judges it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.models import Schedule
from tests.faults.database import Database, plain_id, seconds
from tests.faults.harness import Yard
from tests.faults.report import percentile

MICRO = timedelta(microseconds=1)


@dataclass(frozen=True)
class Planned:
    """Schedules that were made, and each instant at which each of them is due."""

    due: dict[str, list[float]]

    @property
    def count(self) -> int:
        return sum(map(len, self.due.values()))


def plan_intervals(
    count: int, instants: int, *, every: float, start: datetime, first: int = 0, **values: Any
) -> Planned:
    """So many schedules, evenly spread over their interval, each with so many instants."""
    step, rows, due = timedelta(seconds=every), [], {}
    for number in range(first, first + count):
        anchor = start + step * (number - first) / count
        row = Schedule(
            name=f"fault {number}",
            type="fault:work",
            timing="interval",
            interval_seconds=every,
            anchor_at=anchor,
            ends_at=anchor + step * instants + step / 2,
            next_due_at=anchor + step,
            next_run_at=anchor + step,
            accounted_until=anchor,
            overlap="allow",
            created_by="fault",
            updated_by="fault",
            **{name: v(number) if callable(v) else v for name, v in values.items()},
        )
        rows.append(row)
        due[plain_id(row.pk)] = [
            round((anchor + step * (n + 1)).timestamp(), 6) for n in range(instants)
        ]
    Schedule.objects.bulk_create(rows, batch_size=200)
    return Planned(due)


def plan_one_moment(count: int, at: datetime) -> Planned:
    """So many schedules that are all due once, at the same moment."""
    rows = [
        Schedule(
            name=f"burst {number}",
            type="fault:work",
            timing="once",
            run_at=at,
            next_due_at=at,
            next_run_at=at,
            accounted_until=at - MICRO,
            created_by="fault",
            updated_by="fault",
        )
        for number in range(count)
    ]
    Schedule.objects.bulk_create(rows, batch_size=200)
    return Planned({plain_id(row.pk): [round(at.timestamp(), 6)] for row in rows})


def in_a_moment(seconds_ahead: float) -> datetime:
    return datetime.fromtimestamp(int(time.time() + seconds_ahead), UTC)


def fired(database: Database) -> int:
    return int(database.value("SELECT count(*) FROM fire WHERE state = 'fired'") or 0)


def judge(yard: Yard, planned: Planned) -> dict[str, Any]:
    """Compare the rows with the plan: exactly one fire and one job for each schedule and instant."""
    wanted = {(pk, at) for pk, times in planned.due.items() for at in times}
    fires = Counter(
        (plain_id(pk), round(seconds(at), 6), plain_id(job) if job else None)
        for pk, at, job in yard.database.rows(
            "SELECT schedule_id, due_at, job_id FROM fire WHERE state = 'fired'"
        )
    )
    jobs = Counter(
        (plain_id(pk), round(seconds(at), 6), plain_id(job))
        for pk, at, job in yard.database.rows(
            "SELECT schedule_id, due_at, id FROM job WHERE schedule_id IS NOT NULL"
        )
    )
    by_fire = Counter((pk, at) for pk, at, _ in fires.elements())
    by_job = Counter((pk, at) for pk, at, _ in jobs.elements())
    # Whoever looks at the jobs may call them accepted: they are those of the fires, and no others.
    yard.accepted += [job for *_, job in fires if job is not None]
    late = [
        seconds(at) - seconds(due)
        for due, at in yard.database.rows("SELECT due_at, fired_at FROM fire WHERE state = 'fired'")
    ]
    return {
        "due": len(wanted),
        "fires": sum(by_fire.values()),
        "jobs": sum(by_job.values()),
        "missing": len(wanted - by_fire.keys()) + len(wanted - by_job.keys()),
        "extra": len(by_fire.keys() - wanted)
        + len(by_job.keys() - wanted)
        + sum(count - 1 for count in (*by_fire.values(), *by_job.values())),
        "fire_without_its_job": len(fires.keys() - jobs.keys()),
        "left_out": yard.database.value("SELECT count(*) FROM fire WHERE state <> 'fired'"),
        "late_p50_seconds": percentile(late, 0.5),
        "late_p99_seconds": percentile(late, 0.99),
        "late_max_seconds": round(max(late, default=0.0), 3),
    }


def assert_exact(figures: dict[str, Any]) -> None:
    wrong = ("missing", "extra", "fire_without_its_job", "left_out")
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0), figures
    assert figures["fires"] == figures["jobs"] == figures["due"]
