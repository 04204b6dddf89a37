"""Searches: words in names and descriptions, states, tags; and whom lists show a job to."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from rest_framework.test import APIRequestFactory, force_authenticate

from authn.models import UserRole
from authn.users import principal_of
from jobs import steps_search
from jobs.dialects.tork.views.jobs import JobView
from jobs.dialects.tork.views.schedules import ScheduledJobView
from jobs.dialects.tork.wire.states import STATES_OF_WORDS
from jobs.models import Job, StepsListing
from jobs.models.job_queryset import JobQuerySet
from jobs.steps_search import Search
from tests.dialects.tork.conftest import Caller, checked, task
from tests.dialects.tork.work import node


@pytest.fixture
def some(api: Caller) -> Caller:
    api.submit(
        name="nightly packing", description="moves all reports", tags=["etl"], tasks=[task()]
    )
    api.submit(
        name="hourly export", description="a failed idea", tags=["etl", "eu"], tasks=[task()]
    )
    api.submit(name="thumbnails", tasks=[task(run="echo fail")])
    return api


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", {"nightly packing", "hourly export", "thumbnails"}),
        ("packing", {"nightly packing"}),
        # Stemmed, in any case.
        ("PACKS", {"nightly packing"}),
        ("report", {"nightly packing"}),
        # All words, stop words left out.
        ("the packing of reports", {"nightly packing"}),
        ("packing export", set()),
        # No prefixes, no operators.
        ("thumb", set()),
        ("packing OR export", set()),
        ("thumb*", set()),
        ('"', {"nightly packing", "hourly export", "thumbnails"}),
        # A state, or the word itself.
        ("failed", {"thumbnails", "hourly export"}),
        ("failed idea", {"hourly export"}),
        ("FAILED thumbnails", {"thumbnails"}),
        ("completed", {"nightly packing", "hourly export"}),
        ("completed packing", {"nightly packing"}),
        ("running", set()),
        ("tag:etl", {"nightly packing", "hourly export"}),
        ("tags:eu,nosuch", {"hourly export"}),
        ("tag:eu tag:etl", {"nightly packing", "hourly export"}),
        ("tag:etl completed export", {"hourly export"}),
        ("tag:nosuch", set()),
        ("tag: packing", {"nightly packing"}),
        ("'; DROP TABLE job; --", set()),
        ("a" * 5000, set()),
        ("x\x00y", set()),
    ],
)
def test_a_search_finds(query: str, names: set[str], some: Caller) -> None:
    node().run()
    from urllib.parse import quote

    page = some.read(f"jobs?q={quote(query)}")
    assert {one["name"] for one in page["items"]} == names
    assert page["totalItems"] == len(names)


def test_what_is_found_comes_newest_first_and_page_by_page(api: Caller, alpha: object) -> None:
    for number in range(7):
        api.submit(name=f"report {number}", tags=["a"], tasks=[task()])
    api.submit(name="other", tasks=[task()])
    for query in ("report", "tag:a", "report pending", "pending tag:a"):
        found = [
            api.read(f"jobs?size=3&page={number}&q={query}")["items"] for number in (1, 2, 3, 4)
        ]
        names = [[one["name"] for one in page] for page in found]
        assert names == [
            ["report 6", "report 5", "report 4"],
            ["report 3", "report 2", "report 1"],
            ["report 0"],
            [],
        ], query


def test_what_is_deleted_is_not_found(api: Caller) -> None:
    api.submit(name="gone soon", tasks=[task()])
    node().run()
    jobs: JobQuerySet = Job.objects.filter(kind="steps")
    assert jobs.delete_final() == 1
    assert api.listed("q=gone") == []
    assert not StepsListing.objects.exists()
    assert not Job.objects.exists()


def test_totals_end_at_a_limit(api: Caller, alpha: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_search, "MOST", 3)
    for number in range(5):
        api.submit(name=f"n{number}", tasks=[task()])
    page = api.read("jobs?size=2&page=2")
    assert (page["totalItems"], page["totalPages"], page["size"]) == (3, 2, 1)


def test_nothing_goes_through_all_jobs(
    api: Caller, alpha: Any, django_assert_max_num_queries: Any
) -> None:
    from django.db import connections

    api.submit(name="one", tags=["t"], tasks=[task()])
    connection = connections[alpha.alias]
    for query in ("", "one", "failed", "tag:t", "failed one tag:t"):
        asked = Search(*steps_search.read_query(query))
        for way in steps_search._ways(connection, asked, STATES_OF_WORDS):
            explain = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute(
                    f"{explain}SELECT {way.key} FROM {way.sql}"
                    f" ORDER BY {way.created} DESC, {way.key} DESC LIMIT 20",
                    way.values,
                )
                plan = " ".join(str(row) for row in cursor.fetchall())
            assert "Seq Scan on job" not in plan, plan
            assert "SCAN j " not in plan, plan


# -- Permissions -----------------------------------------------------------------------------------


def _as_user(view: Any, action: str, name: str) -> list[str]:
    """The names in a list as a user sees it; nobody signs in over HTTP yet."""
    user = get_user_model().objects.get(username=name)
    request = APIRequestFactory().get("/jobs")
    force_authenticate(request, user=principal_of(user))  # type: ignore[arg-type]
    response = view.as_view({"get": action})(request, cluster_id="alpha")
    return [one["name"] for one in checked(response)["items"]]


def test_lists_show_a_user_what_is_for_all_and_for_him(api: Caller) -> None:
    users = get_user_model().objects
    bob, eve = (users.create_user(name, password="x") for name in ("bob", "eve"))
    bob.groups.add(Group.objects.create(name="kings"))
    for user, role in ((bob, "viewer"), (eve, "operator")):
        UserRole.objects.create(user=user, cluster_id="alpha", role=role)
    for name, permissions in (
        ("all", None),
        ("bobs", [{"user": "bob"}]),
        ("kings", [{"role": "kings"}]),
        ("operators", [{"role": "operator"}]),
        ("public", [{"role": "public"}, {"user": "bob"}]),
    ):
        more = {} if permissions is None else {"permissions": permissions}
        api.submit(name=name, tasks=[task()], **more)
        body = {"name": name, "tasks": [task()], "schedule": {"cron": "@hourly"}, **more}
        checked(api.post("scheduled-jobs", body))
    for view in (JobView, ScheduledJobView):
        assert _as_user(view, "list", "bob") == ["public", "kings", "bobs", "all"]
        assert _as_user(view, "list", "eve") == ["public", "operators", "all"]
    # Whoever is no user sees all.
    assert len(api.listed()) == 5
    shown = api.read("jobs?q=bobs")["items"][0]
    (permission,) = api.job(shown["id"])["permissions"]
    assert permission["user"]["username"] == "bob"


def test_sub_jobs_are_for_whom_their_jobs_are_for(api: Caller) -> None:
    get_user_model().objects.create_user("bob", password="x")
    inner = {"name": "inner", "tasks": [task()]}
    api.submit(
        permissions=[{"user": "bob"}],
        tasks=[
            {"name": "a", "subjob": inner},
            {"name": "b", "subjob": {**inner, "name": "apart", "detached": True}},
        ],
    )
    node().run()
    assert [*StepsListing.objects.values_list("audience", flat=True)] == [["user:bob"]] * 3
