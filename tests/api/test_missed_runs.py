"""{cluster}/schedules/{id}/run-missed and skip-next; the lists of what is late or has gaps"""

from __future__ import annotations

from uuid import UUID

import pytest

from jobs.models import Fire, Job, Schedule
from tests.api.conftest import Api, check_problem
from tests.api.test_schedules import MISSING, PATH, errors
from tests.jobs.schedule_cases import (
    fire,
    hours_ago,
    keep_away_from_the_turn,
    make_schedule,
    put_back,
)

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture
def gap() -> tuple[str, Fire]:
    """The address of a schedule that has missed six runs, and the row of them."""
    keep_away_from_the_turn()
    schedule = make_schedule(misfire="skip", overlap="allow")
    put_back(schedule, hours_ago(5))
    fire()
    return f"{PATH}/{schedule.pk}", Fire.objects.get()


def test_a_gap_is_run_once(gap: tuple[str, Fire], api: Api) -> None:
    path, row = gap
    asked = {"fire_id": str(row.pk), "which": "latest", "reason": "wanted"}
    response = api.post(f"{path}/run-missed", asked)
    assert response.status_code == 202
    body = response.json()
    assert (len(body["job_ids"]), body["workflow_run_ids"], body["left"]) == (1, [], 5)
    assert Job.objects.get().pk == UUID(body["job_ids"][0])
    assert api.post(f"{path}/run-missed", {**asked, "which": "skip"}).json()["left"] == 0
    check_problem(api.post(f"{path}/run-missed", asked), 409, "invalid_transition")
    check_problem(api.post(f"{path}/run-missed", {**asked, "fire_id": MISSING}), 404, "not_found")
    check_problem(api.post(f"{PATH}/{MISSING}/run-missed", asked), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"which": "all"}, "fire_id"),
        ({"fire_id": MISSING}, "which"),
        ({"fire_id": "x", "which": "all"}, "fire_id"),
        ({"fire_id": MISSING, "which": "some"}, "which"),
        ({"fire_id": MISSING, "which": "all", "reason": "x" * 501}, "reason"),
        ({"fire_id": MISSING, "which": "all", "colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_named(gap: tuple[str, Fire], api: Api, body: object, field: str) -> None:
    path, _ = gap
    assert field in errors(api.post(f"{path}/run-missed", body))
    assert not Job.objects.exists()


def test_the_next_run_is_skipped(gap: tuple[str, Fire], api: Api) -> None:
    path, _ = gap
    due = api.get(path).json()["next_due_at"]
    body = api.post(f"{path}/skip-next", {"reason": "stock-taking"}).json()
    assert body["next_due_at"] > due
    [first, second] = api.get(f"{path}/next-runs?count=2").json()["items"]
    assert first["due_at"] == due
    assert first["excluded"] == "left out by key:operator-1: stock-taking"
    assert (second["due_at"], second["excluded"]) == (body["next_due_at"], None)
    api.post(f"{path}/pause")
    check_problem(api.post(f"{path}/skip-next"), 409, "invalid_transition")


def test_late_ones_and_those_with_gaps_are_listed(gap: tuple[str, Fire], api: Api) -> None:
    path, _ = gap
    late = make_schedule()
    put_back(late, hours_ago(0))

    def found(query: str) -> set[str]:
        return {item["id"] for item in api.get(f"{PATH}?{query}").json()["items"]}

    assert found("late=true") == {str(late.pk)}
    assert found("missed=true") == {path.rsplit("/", 1)[-1]}
    everyone = {str(pk) for pk in Schedule.objects.values_list("pk", flat=True)}
    assert found("late=false") | found("late=true") == everyone
    assert found("missed=false") == everyone - found("missed=true")
