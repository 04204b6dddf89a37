"""{cluster}/calendars"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs.api.calendars import CalendarDetail, CalendarItem
from jobs.models import Calendar, Schedule
from tests.api.conftest import Api, check_problem
from tests.api.test_schedules import errors
from tests.jobs.schedule_cases import hours_ago, make_schedule, put_back

PATH = "alpha/calendars"


@pytest.fixture
def path(alpha: object, api: Api) -> str:
    return str(api.post(PATH, {"name": "works", "dates": ["2030-05-01"]})["Location"])


def test_a_calendar_is_created_shown_changed_and_deleted(alpha: object, api: Api) -> None:
    said = {"name": "works", "description": "Shut", "dates": ["2030-12-25", "2030-05-01"]}
    response = api.post(PATH, said)
    assert (response.status_code, response["ETag"]) == (201, '"1"')
    assert response["Location"] == f"/jm-api/{PATH}/works"
    body = response.json()
    assert list(body) == list(CalendarItem().fields)
    assert body["dates"] == ["2030-05-01", "2030-12-25"]
    shown = api.get(f"{PATH}/works").json()
    assert list(shown) == list(CalendarDetail().fields)
    assert shown == {**body, "schedules": []}
    assert api.get(PATH).json()["items"] == [body]
    assert api.get(f"{PATH}/count").json() == {"count": 1, "is_exact": True}
    changed = api.patch(f"{PATH}/works", {"dates": []}, if_match='"1"')
    assert (changed.json()["dates"], changed["ETag"]) == ([], '"2"')
    check_problem(
        api.patch(f"{PATH}/works", {"dates": []}, if_match='"1"'), 412, "precondition_failed"
    )
    check_problem(api.delete(f"{PATH}/works", if_match='"1"'), 412, "precondition_failed")
    assert api.delete(f"{PATH}/works").status_code == 204
    check_problem(api.get(f"{PATH}/works"), 404, "not_found")


@pytest.mark.once
@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "count"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"dates": ["1.5.2030"]}, "dates[0]"),
        ({"dates": ["2030-05-01", "2030-02-30"]}, "dates[1]"),
        ({"dates": "2030-05-01"}, "dates"),
        ({"dates": ["2030-05-01"] * 2001}, "dates"),
        ({"description": "x" * 501}, "description"),
        ({"version": 1}, "version"),
    ],
)
def test_what_cannot_be_is_refused(
    said: dict[str, Any], field: str, alpha: object, api: Api
) -> None:
    assert errors(api.post(PATH, {"name": "works", "dates": [], **said})) == [field]
    assert not Calendar.objects.exists()


def test_a_name_is_taken_once_and_does_not_change(path: str, api: Api) -> None:
    second = api.post(PATH, {"name": "works", "dates": []})
    assert errors(second, 409, "duplicate_name") == ["name"]
    assert errors(api.patch(path, {"name": "other"})) == ["name"]
    assert errors(api.patch(path, {})) == ["body"]


def test_one_that_schedules_name_is_not_deleted(path: str, api: Api) -> None:
    schedule = make_schedule(name="user", exclusions={"calendars": ["works"]})
    problem = check_problem(api.delete(path), 409, "calendar_in_use")
    assert "user" in problem["detail"]
    named = [{"schedule_id": str(schedule.pk), "name": "user"}]
    assert api.get(path).json()["schedules"] == named
    api.delete(f"alpha/schedules/{schedule.pk}")
    assert api.delete(path).status_code == 204


def test_other_dates_move_the_next_runs_of_those_that_name_it(path: str, api: Api) -> None:
    daily = {"expression": "0 0 * * *"}
    named = make_schedule(exclusions={"calendars": ["works"]}, **daily)
    plain = make_schedule(**daily)
    tomorrow = named.next_due_at.date()
    body = api.patch(path, {"dates": [tomorrow.isoformat()]})
    assert body.status_code == 200
    fresh = Schedule.objects.get(pk=named.pk)
    assert fresh.next_due_at == named.next_due_at + timedelta(days=1)
    assert fresh.next_run_at == fresh.next_due_at
    assert (fresh.version, Schedule.objects.get(pk=plain.pk).version) == (2, 1)
    api.patch(path, {"dates": []})
    assert Schedule.objects.get(pk=named.pk).next_due_at == named.next_due_at


def test_other_dates_fire_nothing_and_leave_alone_what_is_due(path: str, api: Api) -> None:
    late = make_schedule(exclusions={"calendars": ["works"]})
    put_back(late, hours_ago(1))
    stopped = make_schedule(exclusions={"calendars": ["works"]}, is_enabled=False)
    api.patch(path, {"dates": [timezone.now().date().isoformat()]})
    assert Schedule.objects.get(pk=late.pk).next_due_at == hours_ago(1)
    assert Schedule.objects.get(pk=stopped.pk).next_due_at is None


def test_one_schedule_that_cannot_be_worked_out_keeps_no_other_from_its_dates(
    path: str, api: Api
) -> None:
    broken = make_schedule(exclusions={"calendars": ["works"]})
    sound = make_schedule(exclusions={"calendars": ["works"]}, expression="0 0 * * *")
    Schedule.objects.filter(pk=broken.pk).update(timezone="Gone/Zone")
    day = sound.next_due_at.date().isoformat()
    assert api.patch(path, {"dates": [day]}).status_code == 200
    assert "Gone/Zone" in (Schedule.objects.get(pk=broken.pk).error or "")
    assert Schedule.objects.get(pk=sound.pk).next_due_at > sound.next_due_at
