"""{cluster}/schedules: make, show, list and change them"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.api.fields import format_time
from jobs.api.examples import SCHEDULE_EXAMPLES
from jobs.api.schedule_forms import ScheduleChangeInput
from jobs.api.schedule_wire import ScheduleDetail, ScheduleItem
from jobs.engine import schedules
from jobs.engine.definition import EDITABLE
from jobs.models import Fire, Job, Schedule, ScheduleDependency, ScheduleListing, Source, Status
from tests.api.conftest import Api, check_problem, fields
from tests.factories import WITH_A_PROGRAM, make_node
from tests.jobs.schedule_cases import hours_ago, make_schedule, put_back

PATH = "alpha/schedules"
HOURLY = {"name": "hourly", "type": "demo:noop", "timing": "cron", "expression": "0 * * * *"}
MISSING = "0190a1b2-0000-7000-8000-000000000000"


def errors(response: Any, status: int = 400, code: str = "invalid") -> list[str]:
    return [error["field"] for error in check_problem(response, status, code)["errors"]]


# -- Create, show ----------------------------------------------------------------------------------


def test_a_handler_that_nobody_has_is_refused_at_its_field(alpha: object, api: Api) -> None:
    make_node(types=["demo:noop"])
    typo = {**HOURLY, "type": "demo:typo"}
    assert errors(api.post(PATH, typo), code="unknown_handler") == ["type"]
    made = api.post(PATH, HOURLY).json()
    changed = api.patch(f"{PATH}/{made['id']}", {"type": "demo:typo"})
    assert errors(changed, code="unknown_handler") == ["type"]
    assert [one.type for one in Schedule.objects.all()] == ["demo:noop"]
    # A job may be there before its handler.
    assert api.post("alpha/jobs", {"type": "demo:typo"}).status_code == 201


def test_a_schedule_is_created_and_shown(alpha: object, api: Api) -> None:
    response = api.post(PATH, HOURLY)
    assert response.status_code == 201, response.content
    body = response.json()
    assert list(body) == list(ScheduleDetail().fields)
    assert response["Location"] == f"/jm-api/{PATH}/{body['id']}"
    assert response["ETag"] == '"1"'
    assert (body["state"], body["created_by"]) == ("enabled", "key:operator-1")
    assert datetime.fromisoformat(body["next_run_at"]) > timezone.now()
    shown = api.get(response["Location"])
    assert shown.json() == body
    assert shown["ETag"] == '"1"'
    assert api.get(f"{PATH}/count").json() == {"count": 1, "is_exact": True}
    [item] = api.get(PATH).json()["items"]
    assert list(item) == list(ScheduleItem().fields)
    assert item.items() <= body.items()


def test_everything_that_a_definition_may_say_is_stored(alpha: object, api: Api) -> None:
    first = api.post(PATH, {**HOURLY, "name": "first"}).json()["id"]
    said = {
        "name": "  all of it ",
        "description": "Says it all",
        "kind": "http",
        "type": "ping",
        "payload": {"method": "GET", "url": "https://example.com/{{Today}}"},
        "has_variables": True,
        "queue": "default",
        "priority": -5,
        "timeout_seconds": 12.5,
        "max_attempts": 4,
        "retry_base_seconds": 2.0,
        "retry_cap_seconds": 60.0,
        "retry_curve": "linear",
        "on_lost": "hold",
        "tags": ["a", "b"],
        "metadata": {"team": "x"},
        "timing": "interval",
        "interval_seconds": 300.0,
        "timezone": "Europe/Berlin",
        "starts_at": "2030-01-01T00:00:00.000000Z",
        "ends_at": "2031-01-01T00:00:00.000000Z",
        "gap": "skip",
        "spread_seconds": 30.0,
        "exclusions": {
            "days_of_week": ["Sunday"],
            "time_ranges": [{"start": "22:00", "end": "06:00"}],
        },
        "misfire": "all",
        "misfire_grace_seconds": 90.0,
        "misfire_limit": 5,
        "overlap": "queue_one",
        "depends_on": [first],
        "needs": "any",
        "is_enabled": False,
    }
    body = api.post(PATH, said).json()
    stored = {name: body[name] for name in said} | {"name": "  all of it "}
    rules = {"dates": [], "calendars": [], "countries": [], **said["exclusions"]}
    assert stored == {**said, "exclusions": rules}
    assert (body["name"], body["state"], body["next_run_at"]) == ("all of it", "disabled", None)
    assert body["anchor_at"] is not None


def test_the_fields_of_the_body_are_those_of_the_verbs() -> None:
    asked = {"payload_bytes" if n == "payload_base64" else n for n in ScheduleChangeInput().fields}
    assert asked == (EDITABLE - {"anchor_at"}) | {"depends_on"}


def test_bytes_take_the_place_of_a_payload_and_the_other_way_round(alpha: object, api: Api) -> None:
    path = api.post(PATH, {**HOURLY, "payload_base64": "AAEC"})["Location"]
    assert api.get(path).json()["payload_base64"] == "AAEC"
    body = api.patch(path, {"payload": {"a": 1}}).json()
    assert (body["payload"], body["payload_base64"]) == ({"a": 1}, None)
    body = api.patch(path, {"payload_base64": "/w=="}).json()
    assert (body["payload"], body["payload_base64"]) == (None, "/w==")
    both = {"payload": 1, "payload_base64": "AAEC"}
    assert errors(api.patch(path, both)) == ["payload_base64"]


@pytest.mark.parametrize("example", SCHEDULE_EXAMPLES, ids=lambda example: example.name)
def test_each_example_of_the_document_works(example: Any, alpha: object, api: Api) -> None:
    assert api.post(PATH, example.value).status_code == 201


@pytest.mark.once
@pytest.mark.parametrize(
    ("said", "code", "field"),
    [
        ({"expression": "61 * * * *"}, "invalid_cron", "expression"),
        ({"expression": "0 0 30 2 *"}, "invalid_cron", "expression"),
        ({"expression": "0 7 * * * *"}, "invalid_cron", "expression"),
        ({"expression": None}, "invalid", "expression"),
        ({"expression": 7}, "invalid", "expression"),
        ({"timezone": "Mars/Olympus"}, "invalid_timezone", "timezone"),
        ({"timezone": ""}, "invalid", "timezone"),
        ({"timing": "yearly"}, "invalid", "timing"),
        ({"interval_seconds": 5}, "invalid", "interval_seconds"),
        ({"timing": "interval", "expression": None}, "invalid", "interval_seconds"),
        ({"name": " "}, "invalid", "name"),
        ({"name": "a\nb"}, "invalid", "name"),
        ({"name": "x" * 201}, "invalid", "name"),
        ({"description": "x" * 2001}, "invalid", "description"),
        ({"queue": "nowhere"}, "unknown_queue", "queue"),
        ({"type": "not a name"}, "invalid", "type"),
        ({"type": ""}, "invalid", "type"),
        ({"kind": "workflow"}, "invalid", "kind"),
        ({"kind": "http", "payload": {}}, "invalid", "payload.url"),
        ({"tags": [""]}, "invalid", "tags[0]"),
        ({"tags": "a"}, "invalid", "tags"),
        ({"metadata": {"a b": 1}}, "invalid", "metadata"),
        ({"retry_curve": "wild"}, "invalid", "retry_curve"),
        ({"retry_base_seconds": 10, "retry_cap_seconds": 5}, "invalid", "retry_cap_seconds"),
        ({"priority": 101}, "invalid", "priority"),
        ({"misfire": "none"}, "invalid", "misfire"),
        ({"misfire_limit": 101}, "invalid", "misfire_limit"),
        ({"misfire_grace_seconds": 0}, "invalid", "misfire_grace_seconds"),
        ({"spread_seconds": -1}, "invalid", "spread_seconds"),
        ({"overlap": True}, "invalid", "overlap"),
        ({"starts_at": "2030-01-01"}, "invalid", "starts_at"),
        (
            {"starts_at": "2030-01-01T00:00:00Z", "ends_at": "2029-01-01T00:00:00Z"},
            "invalid",
            "ends_at",
        ),
        ({"ends_at": "2001-01-01T00:00:00Z"}, "invalid", "ends_at"),
        ({"exclusions": []}, "invalid", "exclusions"),
        ({"exclusions": {"dates": ["2030-02-30"]}}, "invalid", "exclusions.dates[0]"),
        ({"exclusions": {"weekdays": []}}, "invalid", "exclusions.weekdays"),
        ({"exclusions": {"calendars": ["no such"]}}, "invalid", "exclusions.calendars[0]"),
        (
            {"exclusions": {"days_of_week": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]}},
            "invalid",
            "exclusions",
        ),
        ({"depends_on": [MISSING]}, "invalid", "depends_on"),
        ({"depends_on": ["x"]}, "invalid", "depends_on[0]"),
        ({"workflow_id": MISSING}, "invalid", "workflow_id"),
        ({"version": 3}, "invalid", "version"),
        ({"is_paused": True}, "invalid", "is_paused"),
        ({"anchor_at": "2030-01-01T00:00:00Z"}, "invalid", "anchor_at"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_400_by_its_field_and_nothing_is_stored(
    said: dict[str, Any], code: str, field: str, alpha: object, api: Api
) -> None:
    assert errors(api.post(PATH, {**HOURLY, **said}), code=code) == [field]
    assert not Schedule.objects.exists()
    existing = make_schedule(name="hourly")
    if said != {"expression": None} and "timing" not in said:
        assert errors(api.patch(f"{PATH}/{existing.pk}", said), code=code) == [field]
    assert list(Schedule.objects.values_list("version", flat=True)) == [1]
    assert not ScheduleDependency.objects.exists()


@pytest.mark.parametrize("missing", ["name", "timing"])
def test_what_is_needed_is_asked_for(missing: str, alpha: object, api: Api) -> None:
    said = {name: value for name, value in HOURLY.items() if name != missing}
    assert errors(api.post(PATH, said)) == [missing]


def test_a_name_is_taken_whatever_its_case_until_its_schedule_is_deleted(
    alpha: object, api: Api
) -> None:
    first = api.post(PATH, HOURLY)
    assert errors(api.post(PATH, {**HOURLY, "name": "HOURLY"}), 409, "duplicate_name") == ["name"]
    other = api.post(PATH, {**HOURLY, "name": "other"})["Location"]
    assert errors(api.patch(other, {"name": "Hourly"}), 409, "duplicate_name") == ["name"]
    assert api.delete(first["Location"]).status_code == 204
    assert api.patch(other, {"name": "Hourly"}).status_code == 200
    refused = api.post(f"{first['Location']}/restore")
    assert errors(refused, 409, "duplicate_name") == ["name"]


# -- Once ------------------------------------------------------------------------------------------

ONCE = {"name": "once", "type": "demo:noop", "timing": "once"}


@pytest.mark.parametrize(
    ("run_at", "zone", "taken", "local"),
    [
        ("2040-06-01T12:00:00+02:00", "UTC", "2040-06-01T10:00", "2040-06-01T10:00:00+00:00"),
        ("2040-06-01T12:00", "Europe/Berlin", "2040-06-01T10:00", "2040-06-01T12:00:00+02:00"),
        # The clock shows it twice: the earlier one.
        ("2029-10-28T02:30:00", "Europe/Berlin", "2029-10-28T00:30", "2029-10-28T02:30:00+02:00"),
    ],
)  # fmt: skip
def test_a_one_time_schedule_shows_which_moment_was_taken(
    run_at: str, zone: str, taken: str, local: str, alpha: object, api: Api
) -> None:
    body = api.post(PATH, {**ONCE, "run_at": run_at, "timezone": zone}).json()
    assert (body["run_at"], body["run_at_local"]) == (f"{taken}:00.000000Z", local)
    assert body["next_run_at"] == body["run_at"]


def test_a_wall_time_in_a_gap_is_refused_with_both_candidates(alpha: object, api: Api) -> None:
    said = {**ONCE, "run_at": "2029-03-25T02:30", "timezone": "Europe/Berlin"}
    problem = check_problem(api.post(PATH, said), 400, "invalid")
    assert [error["field"] for error in problem["errors"]] == ["run_at"]
    assert "2029-03-25T01:30:00+01:00" in problem["detail"]
    assert "2029-03-25T03:30:00+02:00" in problem["detail"]
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    "run_at", ["2001-01-01T00:00:00Z", "2001-01-01T00:00", "tomorrow", "2040-13-01T00:00", "", None]
)
def test_a_moment_that_has_passed_or_is_none_is_refused(
    run_at: object, alpha: object, api: Api
) -> None:
    assert errors(api.post(PATH, {**ONCE, "run_at": run_at})) == ["run_at"]
    assert not Schedule.objects.exists()


def test_a_one_time_schedule_that_has_run_is_completed_and_can_be_set_anew(
    alpha: object, api: Api
) -> None:
    path = api.post(PATH, {**ONCE, "run_at": "2040-01-01T00:00:00Z"})["Location"]
    Schedule.objects.update(
        run_at=hours_ago(1), last_due_at=hours_ago(1), next_due_at=None, next_run_at=None
    )
    assert api.get(path).json()["state"] == "completed"
    assert api.patch(path, {"description": "it has run"}).json()["next_run_at"] is None
    body = api.patch(path, {"run_at": "2041-01-01T00:00:00Z"}).json()
    assert (body["state"], body["next_run_at"]) == ("enabled", "2041-01-01T00:00:00.000000Z")


# -- Change ----------------------------------------------------------------------------------------


def test_a_change_goes_by_the_version_that_was_read(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    changed = api.patch(path, {"description": "one"}, if_match='"1"')
    assert (changed.status_code, changed["ETag"]) == (200, '"2"')
    check_problem(
        api.patch(path, {"description": "two"}, if_match='"1"'), 412, "precondition_failed"
    )
    check_problem(api.delete(path, if_match='"1"'), 412, "precondition_failed")
    check_problem(
        api.post(
            f"{path}/reschedule", {"timing": "interval", "interval_seconds": 9}, if_match='"x"'
        ),
        412,
        "precondition_failed",
    )
    assert Schedule.objects.get().description == "one"
    assert api.patch(path, {"description": "three"}, if_match='"7", "2"').status_code == 200


def test_a_change_of_nothing_is_400(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    assert errors(api.patch(path, {})) == ["body"]


@pytest.mark.parametrize(
    "said",
    [
        {"description": "x"},
        {"payload": [1]},
        {"priority": 3},
        {"tags": ["x"]},
        {"overlap": "allow"},
        {"interval_seconds": 3600},
        {"timing": "interval", "interval_seconds": 3600.0, "timezone": "UTC"},
        {"is_enabled": True},
    ],
)
def test_a_change_that_leaves_the_timing_alone_does_not_move_the_next_run(
    said: dict[str, Any], alpha: object, api: Api
) -> None:
    interval = {"timing": "interval", "interval_seconds": 3600, "expression": None}
    path = api.post(PATH, {**HOURLY, **interval})["Location"]
    moved = timezone.now() + timedelta(minutes=7)
    Schedule.objects.update(next_due_at=moved, next_run_at=moved, anchor_at=moved)
    body = api.patch(path, said).json()
    assert body["next_run_at"] == body["anchor_at"] == format_time(moved.astimezone(UTC))


def test_disabling_and_enabling_stop_and_start_it(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    body = api.patch(path, {"is_enabled": False}).json()
    assert (body["state"], body["next_run_at"]) == ("disabled", None)
    body = api.patch(path, {"is_enabled": True}).json()
    assert body["state"] == "enabled"
    assert datetime.fromisoformat(body["next_run_at"]) > timezone.now()


def test_one_that_could_not_be_made_today_can_still_be_disabled(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    Schedule.objects.update(ends_at=hours_ago(3), next_due_at=None, next_run_at=None)
    assert api.patch(path, {"is_enabled": False}).status_code == 200
    Schedule.objects.update(timezone="Gone/Zone", error="no such zone", is_enabled=True)
    assert api.patch(path, {"is_enabled": False}).status_code == 200
    assert api.get(path).json()["sentence"] is not None
    mended = api.patch(path, {"timezone": "UTC", "ends_at": None, "is_enabled": True}).json()
    assert (mended["state"], mended["error"]) == ("enabled", None)


def test_a_timing_can_be_exchanged_for_another_kind(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    body = api.patch(path, {"timing": "interval", "interval_seconds": 90}).json()
    assert (body["expression"], body["interval_seconds"]) == (None, 90.0)
    left = datetime.fromisoformat(body["next_run_at"]) - timezone.now()
    assert timedelta(seconds=80) < left <= timedelta(seconds=90)
    assert errors(api.patch(path, {"expression": "@daily"})) == ["expression"]


# -- Reschedule ------------------------------------------------------------------------------------


def test_a_timing_may_wait_for_its_moment(alpha: object, api: Api) -> None:
    path = api.post(PATH, {**HOURLY, "expression": "0 0 * * *"})["Location"]
    before = api.get(path).json()["next_run_at"]
    asked = {"timing": "cron", "expression": "0 12 * * *", "effective_from": "2030-01-01T00:00:00Z"}
    body = api.post(f"{path}/reschedule", asked).json()
    assert (body["expression"], body["next_run_at"]) == ("0 0 * * *", before)
    assert body["pending"]["expression"] == "0 12 * * *"
    assert body["effective_from"] == "2030-01-01T00:00:00.000000Z"
    ahead = api.get(f"{path}/next-runs?count=2&after=2029-12-31T00:00:00Z").json()["items"]
    assert [one["due_at"] for one in ahead] == [
        "2030-01-01T12:00:00.000000Z",
        "2030-01-02T12:00:00.000000Z",
    ]
    body = api.post(f"{path}/reschedule", {"timing": "interval", "interval_seconds": 60}).json()
    assert (body["pending"], body["effective_from"], body["timing"]) == (None, None, "interval")


def test_what_cannot_be_rescheduled_is_refused(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    for asked, field in (
        ({}, "timing"),
        ({"timing": "interval"}, "interval_seconds"),
        ({"timing": "cron", "expression": "@daily", "interval_seconds": 3}, "interval_seconds"),
        ({"timing": "once", "run_at": "2001-01-01T00:00:00Z"}, "run_at"),
        (
            {
                "timing": "once",
                "run_at": "2030-01-01T00:00:00Z",
                "effective_from": "2031-01-01T00:00:00Z",
            },
            "run_at",
        ),
        (
            {"timing": "cron", "expression": "@daily", "effective_from": "2999-01-01T00:00:00Z"},
            "effective_from",
        ),
        ({"timing": "cron", "expression": "@daily", "name": "x"}, "name"),
    ):
        assert errors(api.post(f"{path}/reschedule", asked)) == [field]
    assert Schedule.objects.get().version == 1


# -- Lists -----------------------------------------------------------------------------------------


@pytest.fixture
def many(alpha: object) -> dict[str, Schedule]:
    made = {
        "plain": make_schedule(name="Plain", description="letters to Bavaria"),
        "paused": make_schedule(name="Paused", tags=["red", 'odd "tag"']),
        "disabled": make_schedule(name="Disabled", is_enabled=False, timing="interval",
                                  interval_seconds=60),
        "broken": make_schedule(name="Broken", type="other"),
        "completed": make_schedule(name="Completed", kind="http", payload={"url": "https://a.b/"}),
        "deleted": make_schedule(name="Deleted"),
    }  # fmt: skip
    schedules.pause(made["paused"].pk, by="key:x")
    schedules.delete(made["deleted"].pk, by="key:x")
    rows = Schedule.objects
    rows.filter(name="Broken").update(error="x", next_due_at=None, next_run_at=None)
    rows.filter(name="Completed").update(next_due_at=None, next_run_at=None)
    rows.filter(name="Plain").update(
        consecutive_failures=2, source=Source.CODE, created_by="code:node"
    )
    return made


@pytest.mark.parametrize("state", Status.values)
def test_each_state_is_shown_and_found(state: str, many: dict[str, Schedule], api: Api) -> None:
    name = "plain" if state == "enabled" else state
    [item] = api.get(f"{PATH}?state={state}").json()["items"]
    assert (item["id"], item["state"]) == (str(many[name].pk), state)
    assert api.get(f"{PATH}/count?state={state}").json()["count"] == 1


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["Completed", "Broken", "Disabled", "Paused", "Plain"]),
        ("kind=http", ["Completed"]),
        ("type=other", ["Broken"]),
        ("tag=red", ["Paused"]),
        ("tag=odd+%22tag%22", ["Paused"]),
        ("tag=re", []),
        ("timing=interval", ["Disabled"]),
        ("source=code", ["Plain"]),
        ("created_by=code:node", ["Plain"]),
        ("failing=true", ["Plain"]),
        ("failing=false&timing=interval", ["Disabled"]),
        ("search=BAVARIA", ["Plain"]),
        ("search=aBLe", ["Disabled"]),
        ("search=%25", []),
        ("queue=nowhere", []),
        ("queue=default&state=paused", ["Paused"]),
        ("order=name", ["Broken", "Completed", "Disabled", "Paused", "Plain"]),
        ("order=next_run_at", ["Plain"]),
    ],
)
def test_filters_and_orders(
    query: str, names: list[str], many: dict[str, Schedule], api: Api
) -> None:
    items = api.get(f"{PATH}?{query}").json()["items"]
    assert [item["name"] for item in items] == names
    if "order" not in query:
        assert api.get(f"{PATH}/count?{query}").json()["count"] == len(names)


def test_lists_follow_a_change_of_what_they_are_filtered_by(alpha: object, api: Api) -> None:
    path = api.post(PATH, {**HOURLY, "tags": ["old"], "description": "Bäume"})["Location"]
    before = ("search=hourly", "search=Bäume", "tag=old", "type=demo:noop", "timing=cron")
    after = ("search=DAILY", "tag=new", "type=demo:echo", "timing=interval")
    assert [api.get(f"{PATH}/count?{query}").json()["count"] for query in before] == [1] * 5
    assert [api.get(f"{PATH}/count?{query}").json()["count"] for query in after] == [0] * 4
    said = {"name": "daily", "tags": ["new"], "type": "demo:echo", "description": ""}
    api.patch(path, {**said, "timing": "interval", "interval_seconds": 86400})
    assert [api.get(f"{PATH}/count?{query}").json()["count"] for query in before] == [0] * 5
    assert [api.get(f"{PATH}/count?{query}").json()["count"] for query in after] == [1] * 4
    Schedule.objects.all().delete()
    assert not ScheduleListing.objects.exists()


@pytest.mark.parametrize("order", ["created_at", "name", "next_run_at"])
def test_pages_go_forth_and_back_in_each_order(order: str, alpha: object, api: Api) -> None:
    for number in (3, 1, 4, 2, 5):
        make_schedule(name=f"n{number}", expression=f"{number} * * * *")
    whole = [item["name"] for item in api.get(f"{PATH}?order={order}").json()["items"]]
    address, pages = f"{PATH}?order={order}&limit=2", []
    while address:
        page = api.get(address).json()
        pages.append([item["name"] for item in page["items"]])
        previous, address = page["previous"], page["next"]
    assert [name for page in pages for name in page] == whole
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [item["name"] for item in api.get(previous).json()["items"]] == pages[1]


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=on", "state"), ("order=id", "order"), ("failing=yes", "failing"), ("x=1", "x"),
     ("limit=0", "limit"), ("search=", "search"), ("kind=magic", "kind")],
)  # fmt: skip
def test_a_bad_query_is_400(query: str, field: str, alpha: object, api: Api) -> None:
    assert errors(api.get(f"{PATH}?{query}")) == [field]


def test_a_list_is_one_query_whatever_its_length(alpha: object, api: Api) -> None:
    for _ in range(3):
        make_schedule(depends_on=())
    api.get(PATH)
    with CaptureQueriesContext(connections["cluster-alpha"]) as found:
        assert len(api.get(PATH).json()["items"]) == 3
    assert len([q for q in found if "schedule" in q["sql"]]) == 1


# -- Delete, restore -------------------------------------------------------------------------------


def test_a_deleted_schedule_is_shown_and_can_be_restored(alpha: object, api: Api) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    assert api.delete(path).status_code == 204
    body = api.get(path).json()
    assert (body["state"], body["next_run_at"]) == ("deleted", None)
    for verb in ("pause", "resume", "trigger"):
        check_problem(api.post(f"{path}/{verb}"), 404, "not_found")
    check_problem(api.patch(path, {"description": "x"}), 404, "not_found")
    check_problem(api.delete(path), 404, "not_found")
    body = api.post(f"{path}/restore").json()
    assert body["state"] == "enabled"
    assert datetime.fromisoformat(body["next_run_at"]) > timezone.now()
    check_problem(api.post(f"{path}/restore"), 404, "not_found")


def test_deleting_for_good_is_for_admins_and_takes_all_with_it(
    alpha: object, api: Api, admin: Api
) -> None:
    path = api.post(PATH, HOURLY)["Location"]
    api.post(f"{path}/trigger")
    check_problem(api.delete(f"{path}?hard=true"), 403, "permission_denied")
    assert admin.delete(f"{path}?hard=true").status_code == 204
    check_problem(api.get(path), 404, "not_found")
    assert not Job.objects.exists()
    assert not Fire.objects.exists()


def test_what_others_need_is_not_deleted_for_good(alpha: object, admin: Api) -> None:
    needed = make_schedule(name="needed")
    make_schedule(name="who needs it", depends_on=[needed.pk])
    refused = admin.delete(f"{PATH}/{needed.pk}?hard=true")
    problem = check_problem(refused, 409, "schedule_in_use")
    assert "who needs it" in problem["detail"]
    assert Schedule.objects.get(name="needed").deleted_at is None


# -- Grants ----------------------------------------------------------------------------------------


def test_kinds_that_need_a_grant_need_it_for_every_change(
    alpha: object, make_key: Callable[..., str]
) -> None:
    shell = {**HOURLY, "kind": "shell", "type": "s", "payload": {"argv": ["true"]}}
    granted = Api(make_key("operator", grants=("shell",)))
    other = Api(make_key("admin"))
    assert errors(other.post(PATH, shell), 403, "kind_not_granted") == ["kind"]
    assert not Schedule.objects.exists()
    path = granted.post(PATH, shell)["Location"]
    calls = [
        ("PATCH", "", {"description": "x"}),
        ("POST", "/reschedule", {"timing": "interval", "interval_seconds": 60}),
        ("POST", "/trigger", {}),
        ("PUT", "/exclusions", {}),
        ("POST", "/exclusions", {}),
        ("DELETE", "/exclusions", None),
        ("PUT", "/dependencies", {"depends_on": [MISSING]}),
        ("DELETE", "/dependencies", None),
    ]
    for method, ending, body in calls:
        check_problem(other(method, path + ending, body), 403, "kind_not_granted")
    assert Schedule.objects.get().version == 1
    plain = other.post(PATH, {**HOURLY, "name": "plain"})["Location"]
    refused = other.patch(plain, {"kind": "shell", "payload": {"argv": ["true"]}})
    check_problem(refused, 403, "kind_not_granted")
    # To stop it needs no more than the role, and does not take it from its owner.
    assert other.post(f"{path}/pause").status_code == 200
    assert other.post(f"{path}/resume").status_code == 200
    assert other.delete(path).status_code == 204
    check_problem(other.post(f"{path}/restore"), 403, "kind_not_granted")
    assert granted.post(f"{path}/restore").json()["updated_by"] == "key:operator-1"
    assert granted.post(f"{path}/trigger").status_code == 202
    assert Job.objects.count() == 1


def test_a_run_with_another_payload_needs_the_grants_of_both(
    alpha: object, make_key: Callable[..., str]
) -> None:
    plain = {"steps": [{"name": "a", "kind": "python", "type": "demo:noop"}]}
    granted, other = Api(make_key("operator", grants=("shell",))), Api(make_key("admin"))
    steps = {**HOURLY, "kind": "steps", "type": "s"}
    harmless = other.post(PATH, {**steps, "name": "a", "payload": plain})["Location"]
    program = granted.post(PATH, {**steps, "name": "b", "payload": WITH_A_PROGRAM})["Location"]
    for path, payload in ((harmless, WITH_A_PROGRAM), (program, plain)):
        refused = other.post(f"{path}/trigger", {"payload": payload})
        check_problem(refused, 403, "kind_not_granted")
    for change in ("PUT", "POST"):
        check_problem(other(change, f"{program}/exclusions", {}), 403, "kind_not_granted")
    assert not Job.objects.exists()
    assert granted.post(f"{harmless}/trigger", {"payload": WITH_A_PROGRAM}).status_code == 202
    assert other.post(f"{harmless}/trigger", {"payload": plain}).status_code == 202


def test_editing_what_is_late_never_fires_the_past(alpha: object, api: Api) -> None:
    schedule = make_schedule()
    put_back(schedule, hours_ago(5))
    body = api.patch(f"{PATH}/{schedule.pk}", {"expression": "30 4 1 1 *"}).json()
    assert datetime.fromisoformat(body["next_due_at"]) > timezone.now()


def test_runs_that_expire_are_asked_for_in_seconds(alpha: object, api: Api) -> None:
    body = {"name": "s", "type": "a", "timing": "cron", "expression": "@daily"}
    made = api.post("alpha/schedules", {**body, "expires_in_seconds": 90}).json()
    assert made["expires_in_seconds"] == 90
    changed = api.patch(f"alpha/schedules/{made['id']}", {"expires_in_seconds": None})
    assert changed.json()["expires_in_seconds"] is None
    response = api.patch(f"alpha/schedules/{made['id']}", {"expires_in_seconds": -1})
    assert fields(response) == ["expires_in_seconds"]
