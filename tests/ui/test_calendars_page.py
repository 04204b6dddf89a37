"""Calendars: named dates, in the admin."""

from __future__ import annotations

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import calendars
from jobs.models import Calendar, Schedule
from tests.jobs.schedule_cases import make_schedule

LIST = "/admin/alpha/jobs/calendar/"
ADD = f"{LIST}add/"


def change(calendar: Calendar) -> str:
    return f"{LIST}{calendar.pk}/change/"


def test_one_is_made_changed_and_deleted(operator, alpha, queries):
    form = {
        "name": "closed",
        "description": "the works",
        "dates": "2034-12-25\n2034-01-01, 2034-01-01",
    }
    assert operator.post(ADD, form).status_code == 302
    calendar = Calendar.objects.get()
    assert calendar.dates == ["2034-01-01", "2034-12-25"]
    assert calendar.updated_by == "user:operator-1"
    with queries() as asked:
        page = operator.get(LIST).content.decode()
    assert len(asked) <= 15
    assert "closed" in page
    schedule = make_schedule(
        timing="cron", expression="0 3 * * *", exclusions={"calendars": ["closed"]}
    )
    due = schedule.next_run_at
    assert due is not None
    page = operator.get(change(calendar)).content.decode()
    assert "2034-01-01\n2034-12-25" in page
    assert schedule.name in page
    form = {"description": "", "dates": f"{due:%Y-%m-%d}"}
    assert operator.post(change(calendar), form).status_code == 302
    # The verb moves the next runs of those that name it.
    assert Schedule.objects.get().next_run_at > due
    delete = f"{LIST}{calendar.pk}/delete/"
    response = operator.post(delete, {"reason": "x"}, follow=True)
    assert b"name this calendar" in response.content
    assert Calendar.objects.exists()
    Schedule.objects.update(exclusions={})
    assert operator.post(delete, {"reason": "done with"}).status_code == 302
    assert not Calendar.objects.exists()
    rows = AuditEntry.objects.order_by("at", "id")
    assert [(row.verb, row.target_id, row.reason) for row in rows] == [
        ("calendars.create", "closed", ""),
        ("calendars.change", "closed", ""),
        ("calendars.delete", "closed", "done with"),
    ]
    assert rows[1].before == {"description": "the works", "dates": ["2034-01-01", "2034-12-25"]}


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "taken"}, "name"),
        ({"dates": "2034-02-30"}, "dates"),
        ({"dates": "tomorrow"}, "dates"),
        ({"description": "x" * 501}, "description"),
    ],
)
def test_what_no_calendar_may_say_is_refused_at_its_field(operator, alpha, form, field):
    calendars.create("taken", [], by="test")
    response = operator.post(ADD, {"name": "mine", "description": "", "dates": "", **form})
    assert response.status_code == 200
    assert field in response.context["adminform"].form.errors
    assert [one.name for one in Calendar.objects.all()] == ["taken"]
    assert not AuditEntry.objects.exists()


def test_a_viewer_reads_and_does_no_more(viewer, alpha):
    calendar = calendars.create("closed", ["2034-01-01"], by="test")
    page = viewer.get(change(calendar)).content.decode()
    assert "2034-01-01" in page
    assert 'name="_save"' not in page
    assert viewer.post(ADD, {"name": "mine", "dates": ""}).status_code == 403
    assert viewer.post(change(calendar), {"dates": ""}).status_code == 403
    assert viewer.post(f"{LIST}{calendar.pk}/delete/", {"reason": "x"}).status_code == 403
    calendar.refresh_from_db()
    assert calendar.dates == ["2034-01-01"]


def test_one_of_another_cluster_is_missing(operator):
    with cluster_bound("beta"):
        calendar = calendars.create("closed", [], by="test")
    assert operator.get(change(calendar)).status_code == 302
    assert b"closed" not in operator.get(LIST).content
