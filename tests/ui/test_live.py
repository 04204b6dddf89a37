"""What live parts owe to those who watch: no session lasts longer, and what is unchanged is not sent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from tests.factories import make_node

PARTS = ("", "card/", "queues/", "queues/default/", "nodes/", "series/", "jobs/", "failures/")
FRAGMENT = {"HX-Request": "true", "UI-Version": ""}


@pytest.mark.parametrize("part", PARTS)
def test_polling_extends_no_session(viewer, alpha, part):
    make_node()
    soon = timezone.now() + timedelta(minutes=1)
    Session.objects.update(expire_date=soon)
    for _ in range(3):
        response = viewer.get(f"/admin/alpha/{part}", headers=FRAGMENT)
        assert response.status_code == 200
        assert "sessionid" not in response.cookies
    assert [*Session.objects.values_list("expire_date", flat=True)] == [soon]


@pytest.mark.parametrize("part", PARTS)
def test_a_session_that_is_over_sends_the_whole_page_to_the_login(viewer, alpha, part):
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    response = viewer.get(f"/admin/alpha/{part}", headers=FRAGMENT)
    assert response.status_code == 401
    assert response["HX-Redirect"] == "/admin/login/"


@pytest.mark.parametrize("part", [part for part in PARTS if part != "series/"])
def test_what_has_not_changed_is_not_sent_again(viewer, alpha, part):
    make_node()
    path = f"/admin/alpha/{part}"
    version = viewer.get(path, headers=FRAGMENT)["UI-Version"]
    again = viewer.get(path, headers={**FRAGMENT, "UI-Version": version})
    assert (again.status_code, again.content) == (204, b"")


def test_a_reader_that_speaks_has_one_place_and_one_sentence(viewer, alpha):
    html = viewer.get("/admin/alpha/").content.decode()
    assert html.count("aria-live") == 1
    assert '<p class="ui-sr" id="ui-said" role="status" aria-live="polite"></p>' in html
    assert html.count("data-says") == 1
    assert "No node takes jobs." in html[html.index("data-says") :]
