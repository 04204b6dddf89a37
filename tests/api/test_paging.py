"""Pages by cursor, forth and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from jobs.models import Job
from tests.api.conftest import Api, fields
from tests.factories import make_job, make_node, make_queue

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def types(alpha: object) -> list[str]:
    """Seven jobs, newest first; three of them were made in the same instant."""
    for number, minute in enumerate((0, 1, 2, 2, 2, 3, 4)):
        make_job(type=f"t:{number}", created_at=NOON + timedelta(minutes=minute))
    rows = Job.objects.order_by("-created_at", "-id").values_list("type", flat=True)
    return list(rows)


def walk(api: Api, path: str, way: str = "next") -> list[dict[str, Any]]:
    pages = []
    following: str | None = path
    while following:
        response = api.get(following)
        assert response.status_code == 200, response.content
        pages.append(response.json())
        following = pages[-1][way]
    return pages


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
def test_pages_hold_every_row_once_in_both_directions(
    limit: int, types: list[str], viewer: Api
) -> None:
    pages = walk(viewer, f"alpha/jobs?limit={limit}")
    seen = [job["type"] for page in pages for job in page["items"]]
    assert seen == types
    assert pages[0]["previous"] is None
    assert pages[-1]["next"] is None
    if len(pages) > 1:
        back = walk(viewer, pages[-1]["previous"], "previous")
        seen_back = [page["items"] for page in reversed(back)]
        assert [j["type"] for items in seen_back for j in items] == types[
            : (len(pages) - 1) * limit
        ]
        assert back[-1]["previous"] is None
        assert all(page["next"] for page in back)


def test_rows_that_come_or_go_between_two_pages_move_no_others(
    types: list[str], viewer: Api
) -> None:
    first = viewer.get("alpha/jobs?limit=3").json()
    make_job(type="new")
    Job.objects.filter(type__in=types[:4]).delete()
    second = viewer.get(first["next"]).json()
    assert [job["type"] for job in second["items"]] == types[4:]


def test_a_page_may_have_become_empty(types: list[str], viewer: Api) -> None:
    first = viewer.get("alpha/jobs?limit=3").json()
    Job.objects.all().delete()
    assert viewer.get(first["next"]).json() == {"items": [], "next": None, "previous": None}


def test_filters_and_limit_stay_in_the_address_and_the_count_does_not(
    types: list[str], viewer: Api
) -> None:
    following = viewer.get("alpha/jobs?limit=1&state=ready&state=failed&count=exact").json()["next"]
    assert following.startswith("/jm-api/alpha/jobs?limit=1&state=ready&state=failed&cursor=")
    assert "count" not in viewer.get(following).json()


def test_the_limit_may_change_on_the_way(types: list[str], viewer: Api) -> None:
    following = viewer.get("alpha/jobs?limit=1").json()["next"]
    items = viewer.get(following.replace("limit=1", "limit=5")).json()["items"]
    assert [job["type"] for job in items] == types[1:6]


def test_a_cursor_is_for_its_list_and_its_filters(types: list[str], viewer: Api) -> None:
    for _ in range(2):
        make_node()
        make_queue()
    following = viewer.get("alpha/jobs?limit=1&state=ready").json()["next"]
    cursor = unquote(following.partition("cursor=")[2])
    for path in (
        f"alpha/jobs?limit=1&cursor={cursor}",
        f"alpha/jobs?limit=1&state=failed&cursor={cursor}",
        f"alpha/jobs?limit=1&state=ready&queue=default&cursor={cursor}",
        f"alpha/nodes?cursor={cursor}",
        f"alpha/queues?cursor={cursor}",
        f"alpha/jobs?state=ready&cursor={cursor}x",
        f"alpha/jobs?state=ready&cursor=x{cursor}",
        f"alpha/jobs?state=ready&cursor={cursor.partition(':')[0]}",
        "alpha/jobs?state=ready&cursor=%F0%9F%98%80:x",
    ):
        assert fields(viewer.get(path)) == ["cursor"], path
    assert viewer.get(f"alpha/jobs/?state=ready&cursor={cursor}").status_code == 200


def test_queues_are_paged_by_name(alpha: object, viewer: Api) -> None:
    for name in ("b", "a", "d", "C"):
        make_queue(name)
    pages = walk(viewer, "alpha/queues?limit=2")
    names = [queue["name"] for page in pages for queue in page["items"]]
    assert sorted(names) == ["C", "a", "b", "d", "default"]
    assert len(pages) == 3
    back = walk(viewer, pages[-1]["previous"], "previous")
    assert [q["name"] for page in reversed(back) for q in page["items"]] == names[:4]


def test_nodes_are_paged_by_their_start(alpha: object, viewer: Api) -> None:
    for minute in range(5):
        make_node(host=f"h{minute}", started_at=NOON + timedelta(minutes=minute))
    pages = walk(viewer, "alpha/nodes?limit=2")
    assert [n["host"] for page in pages for n in page["items"]] == ["h4", "h3", "h2", "h1", "h0"]
