"""What becomes of instants that came while no node was there: every combination, after three outages.

An hourly schedule had its last run, and then there was no node for a while. The table says, by the
misfire and the overlap rule and by whether that last run has ended, how many jobs come of it and how, and
how many instants are left out. docs/schedules.md has the same table in words.

    run       the newest so many instants get a job, which may start at once
    waits     a job that starts when the run before has ended
    replaces  the same, and the run before is asked to stop
    in turn   a job for each, the next when the one before has ended
    missed    instants in a row of reason `misfire`; skipped: rows of reason `overlap`
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from uuid_utils.compat import uuid7

from jobs.engine import fires
from jobs.models import Fire, Job, Schedule
from jobs.states import State, WaitsFor
from tests.jobs.schedule_cases import POLICY, USING, end_run, make_schedule, put_back

pytestmark = pytest.mark.usefixtures("alpha")

LIMIT = 12  # of `all` here; 100 where nobody says otherwise
HOUR = timedelta(hours=1)
NOON = datetime(2024, 6, 12, 12, tzinfo=UTC)
# The last run was for the hour before the first that was missed; noon is the newest. Later than a minute
# is later than the grace.
OUTAGES = {
    "1 minute": (1, NOON + timedelta(seconds=45)),
    "3 hours": (3, NOON + timedelta(minutes=15)),
    "40 days": (960, NOON + timedelta(minutes=15)),
}
TABLE = """
misfire overlap    before | 1 minute    | 3 hours               | 40 days
latest  skip       ended  | 1 run       | 1 run, 2 missed       | 1 run, 959 missed
latest  skip       runs   | 1 skipped   | 2 missed, 1 skipped   | 959 missed, 1 skipped
latest  allow      ended  | 1 run       | 1 run, 2 missed       | 1 run, 959 missed
latest  allow      runs   | 1 run       | 1 run, 2 missed       | 1 run, 959 missed
latest  queue_one  ended  | 1 run       | 1 run, 2 missed       | 1 run, 959 missed
latest  queue_one  runs   | 1 waits     | 1 waits, 2 missed     | 1 waits, 959 missed
latest  replace    ended  | 1 run       | 1 run, 2 missed       | 1 run, 959 missed
latest  replace    runs   | 1 replaces  | 1 replaces, 2 missed  | 1 replaces, 959 missed
all     skip       ended  | 1 run       | 3 in turn             | 12 in turn, 948 missed
all     skip       runs   | 1 skipped   | 3 in turn             | 12 in turn, 948 missed
all     allow      ended  | 1 run       | 3 run                 | 12 run, 948 missed
all     allow      runs   | 1 run       | 3 run                 | 12 run, 948 missed
all     queue_one  ended  | 1 run       | 3 in turn             | 12 in turn, 948 missed
all     queue_one  runs   | 1 waits     | 3 in turn             | 12 in turn, 948 missed
all     replace    ended  | 1 run       | 1 run, 2 skipped      | 1 run, 948 missed, 11 skipped
all     replace    runs   | 1 replaces  | 1 replaces, 2 skipped | 1 replaces, 948 missed, 11 skipped
skip    skip       ended  | 1 run       | 3 missed              | 960 missed
skip    skip       runs   | 1 skipped   | 3 missed              | 960 missed
skip    allow      ended  | 1 run       | 3 missed              | 960 missed
skip    allow      runs   | 1 run       | 3 missed              | 960 missed
skip    queue_one  ended  | 1 run       | 3 missed              | 960 missed
skip    queue_one  runs   | 1 waits     | 3 missed              | 960 missed
skip    replace    ended  | 1 run       | 3 missed              | 960 missed
skip    replace    runs   | 1 replaces  | 3 missed              | 960 missed
"""
HOW = ("run", "waits", "replaces", "in turn")


def cases():
    head, *rows = [line.split("|") for line in TABLE.strip().splitlines()]
    for words, *cells in rows:
        for outage, cell in zip(head[1:], cells, strict=True):
            expected = {}
            for part in cell.strip().split(", "):
                count, _, what = part.partition(" ")
                expected[what] = int(count)
            yield pytest.param(
                *words.split(), outage.strip(), expected, id=f"{outage} {' '.join(words.split())}"
            )


def test_the_table_has_all_24_combinations():
    assert len({tuple(case.values[:3]) for case in cases()}) == 24


@pytest.mark.parametrize(("misfire", "overlap", "before", "outage", "expected"), [*cases()])
def test_after_an_outage(misfire, overlap, before, outage, expected, monkeypatch):
    missed, now = OUTAGES[outage]
    first = NOON - (missed - 1) * HOUR
    schedule = make_schedule(
        expression="0 * * * *", misfire=misfire, overlap=overlap, misfire_limit=LIMIT
    )
    monkeypatch.setattr(fires, "database_now", lambda connection: now)
    # The run before, for the hour before; its node is still at it, or it has ended.
    put_back(schedule, first - HOUR)
    Schedule.objects.update(misfire_grace_seconds=31 * 86400)
    monkeypatch.setattr(fires, "database_now", lambda connection: first - HOUR)
    assert fires.fire_due(USING, POLICY) == 1
    (earlier,) = claimed()
    if before == "ended":
        end_run(earlier)
    Schedule.objects.update(misfire_grace_seconds=60)
    monkeypatch.setattr(fires, "database_now", lambda connection: now)

    tick_until_nothing_changes(now)
    early = jobs_after(earlier)
    if before == "runs":
        # What was to begin beside it has begun, and no other.
        kinds = {(job.state, job.waits_for) for job in early}
        if "waits" in expected or "replaces" in expected:
            assert kinds == {(State.BLOCKED, WaitsFor.RUN)}
        elif overlap != "allow":
            assert kinds == set()
        earlier.refresh_from_db()
        is_asked = earlier.cancel_requested_at is not None
        assert is_asked == ("replaces" in expected)
        end_run(earlier, State.CANCELLED if is_asked else State.SUCCEEDED)
    live = most_at_once(earlier, now)
    later = jobs_after(earlier)
    count = sum(expected.get(how, 0) for how in HOW)
    assert [job.due_at for job in later] == [NOON - n * HOUR for n in reversed(range(count))]
    assert live == (count if overlap == "allow" else min(count, 1))
    assert left_out(schedule) == {
        what: expected[what] for what in ("missed", "skipped") if what in expected
    }
    # Every instant is accounted for, and what comes next is not due yet.
    fired = Fire.objects.filter(state="fired").exclude(job_id=earlier.pk)
    assert list(fired.order_by("due_at").values_list("due_at", "job_id")) == [
        (job.due_at, job.pk) for job in later
    ]
    schedule.refresh_from_db()
    assert schedule.next_due_at == NOON + HOUR
    assert count + schedule.left_out == missed


def claimed() -> list[Job]:
    """Nodes take what is ready."""
    ready = Job.objects.filter(state=State.READY)
    ids = list(ready.values_list("pk", flat=True))
    ready.update(
        state=State.RUNNING, fence=1, attempts=1, node_id=uuid7(), started_at=timezone.now()
    )
    return list(Job.objects.filter(pk__in=ids))


def tick_until_nothing_changes(now: datetime) -> None:
    """Nodes look again and again; the schedule waits for a run, or for what is to come."""
    before = None
    while (seen := Schedule.objects.values_list("next_due_at", "left_out").get()) != before:
        before = seen
        if seen[0] > now:
            break
        assert fires.fire_due(USING, POLICY) == 1
        claimed()


def most_at_once(earlier: Job, now: datetime) -> int:
    """Let every run come to its end, one by one; returns how many were at work at the same time."""
    most = 0
    while True:
        tick_until_nothing_changes(now)
        claimed()
        running = Job.objects.filter(state=State.RUNNING).exclude(pk=earlier.pk).order_by("due_at")
        most = max(most, len(running))
        if not running:
            return most
        end_run(running[0])


def jobs_after(earlier: Job) -> list[Job]:
    return list(Job.objects.exclude(pk=earlier.pk).order_by("due_at"))


def left_out(schedule: Schedule) -> dict[str, int]:
    found: dict[str, int] = {}
    reasons = {"missed": "misfire", "skipped": "overlap"}
    for row in Fire.objects.filter(schedule=schedule).exclude(state="fired"):
        assert row.reason == reasons[row.state]
        found[row.state] = found.get(row.state, 0) + row.count
    return found


@pytest.mark.parametrize("misfire", ["latest", "all", "skip"])
def test_a_row_of_missed_instants_tells_the_first_the_last_and_how_many(misfire, monkeypatch):
    missed, now = OUTAGES["40 days"]
    schedule = make_schedule(
        expression="0 * * * *", misfire=misfire, overlap="allow", misfire_limit=LIMIT
    )
    put_back(schedule, first := NOON - (missed - 1) * HOUR)
    monkeypatch.setattr(fires, "database_now", lambda connection: now)
    tick_until_nothing_changes(now)
    (row,) = Fire.objects.filter(state="missed")
    kept = {"latest": 1, "all": LIMIT, "skip": 0}[misfire]
    assert (row.due_at, row.count, row.is_at_least) == (first, missed - kept, False)
    last = NOON - kept * HOUR
    assert last <= row.last_due_at < last + HOUR
    assert f"the schedule says {misfire}" in row.detail


def test_what_is_within_the_grace_is_not_missed_under_any_word(monkeypatch):
    """Every ten seconds, a minute and a half away: nine instants, of which six are not late."""
    schedule = make_schedule(
        timing="cron", expression="@every 10s", misfire="skip", overlap="allow"
    )
    Schedule.objects.update(created_at=NOON - HOUR)
    put_back(schedule, NOON)
    now = NOON + timedelta(seconds=90)
    monkeypatch.setattr(fires, "database_now", lambda connection: now)
    tick_until_nothing_changes(now)
    assert left_out(schedule) == {"missed": 3}
    assert Fire.objects.filter(state="fired").count() == Job.objects.count() == 7


def test_instants_that_were_excluded_are_told_of_after_an_outage_too(monkeypatch):
    _, now = OUTAGES["40 days"]
    schedule = make_schedule(
        expression="0 * * * *", exclusions={"time_ranges": [{"start": "08:00", "end": "20:00"}]}
    )
    put_back(schedule, datetime(2024, 6, 10, 7, tzinfo=UTC))
    monkeypatch.setattr(fires, "database_now", lambda connection: now)
    assert fires.fire_due(USING, POLICY) == 1
    rows = Fire.objects.order_by("due_at").values_list("state", "reason", "count")
    # 10 June: 7:00, twelve excluded, 20:00-23:00; 11 June: 8, 12, 4; 12 June: 8, and four before noon.
    assert sorted(rows) == [
        ("fired", None, 1),
        ("missed", "misfire", 1 + 4 + 8 + 4 + 8 - 1),
        ("skipped", "exclusion", 12 + 12),
    ]
