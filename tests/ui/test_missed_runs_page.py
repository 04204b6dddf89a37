"""Schedules that are late or have missed runs: found, told of, run, left out; the next run, skipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import schedules
from jobs.models import Fire, FireState, Job
from jobs.states import State
from tests.factories import make_job
from tests.jobs.schedule_cases import (
    fire,
    hours_ago,
    keep_away_from_the_turn,
    make_schedule,
    put_back,
)

PATH = "/admin/alpha/schedules/"
pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture(autouse=True)
def _away() -> None:
    keep_away_from_the_turn()


def with_gap(**values):
    """A schedule with six missed runs, and its gap."""
    schedule = make_schedule(misfire="skip", **values)
    put_back(schedule, hours_ago(5))
    fire()
    return schedule, Fire.objects.get(schedule=schedule)


def test_each_line_has_a_mark_for_each_of_the_last_fires(viewer, queries):
    for n in range(12):
        schedule = make_schedule(name=f"hourly {n:02}")
        for hours, state in enumerate(("succeeded", "failed", "running", None)):
            job = make_job(state, schedule_id=schedule.pk).pk if state else None
            due = hours_ago(hours)
            Fire.objects.create(schedule=schedule, due_at=due, state=FireState.FIRED, job_id=job)
        if n == 0:
            schedule_id = schedule.pk
    Fire.objects.create(
        schedule_id=schedule_id, due_at=hours_ago(9), state="missed", reason="misfire", count=3
    )
    with queries() as asked:
        page = viewer.get(PATH).content.decode()
    assert len(asked) <= 15
    assert sum("FROM fire" in sql for sql in asked) == 1
    assert page.count('aria-label="The last 4: ') == 11
    told = "1 missed, 1 ran, 1 running, 1 failed, 1 succeeded"
    assert f'aria-label="The last 5: {told}"' in page
    assert page.count("has missed runs") == 1
    with queries() as asked:
        page = viewer.get(f"{PATH}{schedule_id}/").content.decode()
    assert len(asked) <= 15
    assert "ui-state-failed" in page


def test_late_ones_and_those_with_gaps_are_found(viewer):
    on_time, late = make_schedule(name="on time"), make_schedule(name="behind")
    gap, _ = with_gap(name="full of holes")
    put_back(late, hours_ago(0))
    for word, found in (("late", late), ("missed", gap)):
        page = viewer.get(f"{PATH}?{word}=true").content.decode()
        assert f"{PATH}{found.pk}/" in page
        assert f"{PATH}{on_time.pk}/" not in page
        assert 'aria-current="page"' in page
    assert "late by" in viewer.get(PATH).content.decode()
    page = viewer.get(f"{PATH}{late.pk}/").content.decode()
    assert "It is late by" in page
    # The alert's own link.
    page = viewer.get(f"{PATH}?name=behind").content.decode()
    assert f"{PATH}{late.pk}/" in page
    assert "on time" not in page


@pytest.mark.parametrize("order", ["name", "next_run_at", "created_at"])
def test_each_order_turns_its_pages(viewer, order):
    for name in ("b", "a", "c"):
        make_schedule(name=f"the {name}")
    seen = []
    path = f"{PATH}?order={order}&limit=2"
    for _ in range(2):
        response = viewer.get(path)
        assert response.status_code == 200
        seen += [row["one"].name for row in response.context["rows"]]
        path = response.context["next"]
    assert sorted(seen) == ["the a", "the b", "the c"]
    assert seen == sorted(seen) or order != "name"


def test_a_gap_is_run_and_told_of(operator):
    schedule, gap = with_gap(overlap="allow")
    path = f"{PATH}{schedule.pk}/"
    page = operator.get(path).content.decode()
    assert "<strong>6 missed</strong>" in page
    assert f"{path}missed/{gap.pk}/all/" in page
    page = operator.get(f"{path}missed/{gap.pk}/all/").content.decode()
    assert "All of them run, at once." in page
    assert operator.post(f"{path}missed/{gap.pk}/all/", {}).status_code == 400
    assert not Job.objects.exists()
    form = {"reason": "the nodes were down"}
    response = operator.post(f"{path}missed/{gap.pk}/all/", form, follow=True)
    assert "6 runs of what was missed: made." in response.content.decode()
    assert b"missed</strong>" not in response.content
    assert Job.objects.filter(state=State.READY).count() == 6
    entry = AuditEntry.objects.get()
    told = (entry.verb, entry.actor, entry.reason)
    assert told == ("schedules.run_missed", "user:operator-1", "the nodes were down")
    assert "the nodes were down" in response.content.decode()
    assert operator.post(f"{path}missed/{gap.pk}/all/", form).status_code == 404


def test_what_cannot_be_run_keeps_the_page_and_says_why(operator):
    schedule, gap = with_gap(overlap="replace")
    path = f"{PATH}{schedule.pk}/missed/{gap.pk}"
    response = operator.post(f"{path}/all/", {"reason": "x"}, follow=True)
    assert b"run the latest. Nothing was changed" in response.content
    response = operator.post(f"{path}/latest/", {"reason": "x"}, follow=True)
    assert "5 are missed as before" in response.content.decode()
    response = operator.post(f"{path}/skip/", {"reason": "too late"}, follow=True)
    assert b"What was missed stays left out." in response.content
    assert operator.get(f"{path}/some/").status_code == 404
    assert Job.objects.count() == 1


def test_the_next_run_is_skipped_with_a_reason(operator):
    schedule = make_schedule()
    path = f"{PATH}{schedule.pk}/"
    assert b"Skip the next" in operator.get(path).content
    assert b"Nothing else changes" in operator.get(f"{path}skip-next/").content
    assert operator.post(f"{path}skip-next/", {}).status_code == 400
    response = operator.post(f"{path}skip-next/", {"reason": "stock-taking"}, follow=True)
    page = response.content.decode()
    assert "left out by user:operator-1: stock-taking" in page
    again = schedules.get(schedule.pk)
    assert again.next_due_at == schedule.next_due_at + timedelta(hours=1)
    schedules.pause(schedule.pk, by="test")
    assert b"Skip the next" not in operator.get(path).content
    response = operator.post(f"{path}skip-next/", {"reason": "x"}, follow=True)
    assert b"Nothing of it is to come" in response.content


def test_who_only_looks_sees_no_button_and_a_forged_form_changes_nothing(viewer, operator):
    schedule, gap = with_gap(kind="shell", type="s", payload={"argv": ["true"]})
    path = f"{PATH}{schedule.pk}/"
    rest = (f"missed/{gap.pk}/all/", f"missed/{gap.pk}/skip/", "skip-next/")
    page = viewer.get(path).content.decode()
    assert "6 missed" in page
    for one in rest:
        assert one not in page
        assert viewer.get(f"{path}{one}").status_code == 403
        assert viewer.post(f"{path}{one}", {"reason": "x"}).status_code == 403
    # Nor does who may not start what it starts.
    assert "missed/" not in operator.get(path).content.decode()
    assert operator.post(f"{path}{rest[0]}", {"reason": "x"}).status_code == 403
    assert not Job.objects.exists()
    assert Fire.objects.get().state == FireState.MISSED
    with cluster_bound("beta"):
        other = make_schedule()
    assert operator.post(f"{PATH}{other.pk}/skip-next/", {"reason": "x"}).status_code == 404


def test_more_runs_to_come_on_demand_and_days_on_which_clocks_change(viewer):
    schedule = make_schedule(expression="30 2 * * *", timing="cron", timezone="Europe/Berlin")
    path = f"{PATH}{schedule.pk}/"
    assert viewer.get(path).content.count(b"in Europe/Berlin") == 5
    assert viewer.get(f"{path}?runs=20").content.count(b"in Europe/Berlin") == 20
    assert viewer.get(f"{path}?runs=21").status_code == 400


@pytest.mark.parametrize(
    ("month", "said"),
    [
        (3, "clocks go forward from 02:00 to 03:00: what lies between does not come"),
        (10, "clocks go back from 03:00 to 02:00: what lies between comes twice"),
    ],
)
def test_a_change_of_the_clocks_is_said_in_words(month, said):
    from jobs import timing
    from ui import words

    last_sunday = datetime(2030, month, 31 if month == 3 else 27, 0, 30, tzinfo=UTC)
    change = timing.clock_change(last_sunday, "Europe/Berlin")
    assert change is not None
    assert words.clock_change(change) == said
    assert timing.clock_change(last_sunday + timedelta(days=3), "Europe/Berlin") is None
