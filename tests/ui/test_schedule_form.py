"""The form of a schedule while it is written: what it comes to, and what is wrong with it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from clusters.models import AuditEntry
from jobs.engine import calendars, schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import Fire, Job, Schedule
from tests.jobs.schedule_cases import make_schedule
from tests.refusals import the_refusal
from tests.ui.test_schedules_page import FORM, PATH, make

pytestmark = pytest.mark.usefixtures("alpha")
PREVIEW = f"{PATH}preview/"


def errors_in(page: str) -> dict[str, str]:
    """The mistakes that a preview puts beside the fields."""
    found = re.findall(r'id="e-([a-z-]+)" hx-swap-oob="true">(.*?)</div>', page, re.DOTALL)
    return {name: re.sub(r"<[^>]*>", "", said) for name, said in found if said.strip()}


def test_a_preview_tells_the_next_runs_and_stores_nothing(operator):
    page = operator.post(PREVIEW, FORM).content.decode()
    assert "At 03:00 every day (Europe/Berlin)" in page
    assert page.count("<time") == 5
    assert errors_in(page) == {}
    assert not Schedule.objects.exists()
    assert not AuditEntry.objects.exists()
    assert operator.get(PREVIEW).status_code == 405


def test_what_is_not_filled_in_yet_is_no_mistake_and_the_timing_is_told_all_the_same(operator):
    form = {"name": "", "kind": "python", "type": "", "timing": "cron", "expression": "@daily"}
    page = operator.post(PREVIEW, form).content.decode()
    assert "Still to be filled in: name." in page
    assert page.count("<time") == 5
    assert errors_in(page) == {}


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"expression": "61 * * * *"}, "expression"),
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"queue": "nowhere"}, "queue"),
        ({"payload": "{"}, "payload"),
        ({"priority": "a"}, "priority"),
        ({"exclusions.dates": "2030-12-25, never"}, "exclusions-dates"),
        ({"name": "taken"}, "name"),
    ],
)
def test_a_mistake_is_told_beside_its_field(operator, form, field):
    make("taken")
    page = operator.post(PREVIEW, {**FORM, **form})
    assert page.status_code == 200
    assert [*errors_in(page.content.decode())] == [field]
    assert Schedule.objects.count() == 1


def test_old_and_new_runs_stand_side_by_side_and_saving_runs_nothing(operator):
    schedule = make()
    path = f"{PATH}{schedule.pk}/"
    page = operator.get(f"{path}edit/").content.decode()
    assert "The next runs stay where they are." in page
    form = {**FORM, "expression": "30 4 * * *", "version": "1"}
    page = operator.post(f"{path}preview/", form).content.decode()
    assert "The next runs move." in page
    assert page.count('data-label="As it is"') == page.count('data-label="After saving"') == 5
    schedule.refresh_from_db()
    assert schedule.expression == "0 3 * * *"
    response = operator.post(f"{path}edit/", form, follow=True)
    assert b"Nothing was run." in response.content
    schedule.refresh_from_db()
    assert schedule.expression == "30 4 * * *"
    assert not Job.objects.exists()
    assert not Fire.objects.exists()
    assert AuditEntry.objects.get().after == {"expression": "30 4 * * *"}


def test_only_what_differs_is_changed(operator):
    values = {"starts_at": datetime(2020, 1, 1, tzinfo=UTC), "interval_seconds": 0.1 + 3600}
    schedule = make(timing="interval", expression=None, spread_seconds=1.25, **values)
    path = f"{PATH}{schedule.pk}/edit/"
    shown = operator.get(path).context["form"].shown
    form = {name: value for name, value in shown.items() if value not in ("", [], False)}
    response = operator.post(path, {**form, "is_enabled": "on"}, follow=True)
    assert b"Nothing was changed." in response.content
    form |= {"is_enabled": "on", "description": "said\r\nin two lines"}
    assert b"Nothing was run." in operator.post(path, form, follow=True).content
    before = schedule.next_due_at
    schedule.refresh_from_db()
    assert schedule.description == "said\nin two lines"
    assert (schedule.next_due_at, schedule.interval_seconds) == (before, 3600.1)
    assert {*AuditEntry.objects.get().after} == {"description"}


def test_all_of_the_exclusions_are_written_and_read(operator):
    said = {
        "exclusions.days_of_week": ["Saturday", "Sunday"],
        "exclusions.dates": "2030-12-25, 2030-12-26",
        "exclusions.time_ranges": "22:00-06:00",
        "exclusions.calendars": "closed",
    }
    calendars.create("closed", ["2030-01-01"], by="test")
    noon = {**FORM, "expression": "0 12 * * *"}
    response = operator.post(f"{PATH}new/", {**noon, **said})
    assert response.status_code == 302, response.context["form"].errors
    schedule = Schedule.objects.get()
    assert schedule.exclusions == {
        "dates": ["2030-12-25", "2030-12-26"],
        "days_of_week": ["Saturday", "Sunday"],
        "time_ranges": [{"start": "22:00", "end": "06:00"}],
        "calendars": ["closed"],
    }
    shown = operator.get(f"{PATH}{schedule.pk}/edit/").context["form"].shown
    assert {name: shown[name] for name in said} == said
    form = {**noon, **said, "exclusions.dates": "", "exclusions.time_ranges": ""}
    assert operator.post(f"{PATH}{schedule.pk}/edit/", form).status_code == 302
    schedule.refresh_from_db()
    assert {*schedule.exclusions} == {"days_of_week", "calendars"}


def test_a_single_run_is_meant_by_the_clock_of_its_zone(operator):
    form = {**FORM, "timing": "once", "run_at": "2040-07-01T12:00", "expression": "left over"}
    assert operator.post(f"{PATH}new/", form).status_code == 302
    schedule = Schedule.objects.get()
    assert schedule.run_at == datetime(2040, 7, 1, 10, tzinfo=UTC)
    assert schedule.expression is None
    shown = operator.get(f"{PATH}{schedule.pk}/edit/").context["form"].shown
    assert shown["run_at"] == "2040-07-01T12:00"


def test_one_that_makes_runs_of_a_workflow(operator):
    workflow = workflows.create("w", [NewNode(make_schedule().pk)], by="test")
    form = {**FORM, "workflow_id": str(workflow.pk), "type": "left over"}
    assert operator.post(f"{PATH}new/", form).status_code == 302
    assert Schedule.objects.get(name="nightly").workflow_id == workflow.pk


def test_who_was_overtaken_by_another_is_told(operator):
    schedule = make()
    schedules.change(schedule.pk, {"description": "of another"}, by="anna")
    form = {**FORM, "description": "mine", "version": "1"}
    response = operator.post(f"{PATH}{schedule.pk}/edit/", form, follow=True)
    assert b"changed since you read it" in response.content
    schedule.refresh_from_db()
    assert schedule.description == "of another"


def test_a_viewer_has_no_form_and_a_forged_one_is_refused(viewer, operator):
    schedule = make(kind="shell", type="s", payload={"argv": ["true"]})
    paths = (f"{PATH}new/", f"{PATH}{schedule.pk}/edit/")
    for path in paths:
        assert viewer.get(path).status_code == 403
        assert viewer.post(path, FORM).status_code == 403
    for path in (PREVIEW, f"{PATH}{schedule.pk}/preview/"):
        assert viewer.post(path, FORM).status_code == 403
    for word in ("new/", "edit/"):
        assert word not in viewer.get(PATH).content.decode()
        assert word not in viewer.get(f"{PATH}{schedule.pk}/").content.decode()
    # Nor does an operator write what he may not start.
    assert operator.get(paths[1]).status_code == 403
    assert operator.post(f"{PATH}{schedule.pk}/preview/", FORM).status_code == 403
    assert "edit/" not in operator.get(f"{PATH}{schedule.pk}/").content.decode()
    page = operator.post(PREVIEW, {**FORM, "kind": "shell"}).content.decode()
    assert "need a grant" in errors_in(page)["kind"]


def test_a_forged_kind_is_told_in_the_audit(operator):
    answer = operator.post(f"{PATH}new/", {**FORM, "kind": "shell"})
    assert answer.status_code == 400
    the_refusal(answer, "schedules.create", "user:operator-1", kind="shell")


def test_the_form_asks_its_databases_a_fixed_number_of_times(operator, queries):
    schedule = make()
    for path in (f"{PATH}new/", f"{PATH}{schedule.pk}/edit/"):
        with queries() as asked:
            operator.get(path)
        assert len(asked) <= 15
    with queries() as asked:
        operator.post(f"{PATH}{schedule.pk}/preview/", FORM)
    assert len(asked) <= 15
