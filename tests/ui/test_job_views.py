"""Saved views of the list of jobs: one's own, those of others, and the one to begin with."""

from __future__ import annotations

import html
import re

import pytest

from authn.models import AccessAuditEntry
from clusters.models import AuditEntry
from tests.factories import make_job
from ui.models import MAX_VIEWS, DefaultView, SavedView

PATH = "/admin/alpha/jobs/"


def text(response) -> str:
    return html.unescape(response.content.decode())


def keep(client, name: str, q: str = "state:failed", **more) -> None:
    response = client.post(f"{PATH}views/save/", {"name": name, "q": q, **more})
    assert response.status_code == 302


def view(name: str) -> SavedView:
    return SavedView.objects.get(name=name)


def seen(client) -> list[str]:
    page = text(client.get(f"{PATH}?q="))
    listed = page[page.index('class="ui-views"') :] if 'class="ui-views"' in page else ""
    return re.findall(r'<li>\s*<a href="[^"]*"[^>]*>([^<]+)</a>', listed)


def test_a_view_keeps_the_line_and_the_columns(viewer, alpha):
    make_job("failed", queue="mail")
    response = viewer.post(
        f"{PATH}views/save/",
        {"name": " mine ", "q": "queue:mail since:2h", "columns": ["state", "queue"]},
    )
    to = f"{PATH}?q=queue%3Amail+since%3A2h&columns=state&columns=queue"
    assert response["Location"] == to
    page = text(viewer.get(to))
    assert f'href="{to.removeprefix(PATH)}" aria-current="page">mine</a>' in page
    kept = view("mine")
    assert (kept.line, kept.columns, kept.is_shared, kept.cluster_id) == (
        "queue:mail since:2h",
        ["state", "queue"],
        False,
        "alpha",
    )


def test_the_same_name_again_changes_ones_own_view_only(viewer, operator, alpha):
    keep(viewer, "broken")
    keep(operator, "broken", "state:cancelled")
    keep(viewer, "broken", "state:failed queue:mail", is_shared="on")
    lines = SavedView.objects.order_by("line").values_list("line", "is_shared")
    assert [*lines] == [("state:cancelled", False), ("state:failed queue:mail", True)]


def test_what_is_done_to_a_view_that_others_see_is_told_in_the_audit_of_access(viewer, alpha):
    keep(viewer, "broken")
    keep(viewer, "broken", "state:failed queue:mail")
    keep(viewer, "broken")
    keep(viewer, "own")
    viewer.post(f"{PATH}views/{view('own').pk}/delete/")
    assert not AccessAuditEntry.objects.exists()
    keep(viewer, "broken", is_shared="on")
    keep(viewer, "broken", "state:cancelled", is_shared="on")
    viewer.post(f"{PATH}views/{view('broken').pk}/begin/")
    assert viewer.post(f"{PATH}views/{view('broken').pk}/delete/").status_code == 302
    rows = [*AccessAuditEntry.objects.order_by("at", "id")]
    whole = {"line": "state:failed", "columns": [], "is_shared": False}
    assert [(row.verb, row.before, row.after) for row in rows] == [
        ("views.keep", {"is_shared": False}, {"is_shared": True}),
        ("views.keep", {"line": "state:failed"}, {"line": "state:cancelled"}),
        ("views.delete", {**whole, "line": "state:cancelled", "is_shared": True}, None),
    ]
    assert {(row.actor, row.surface, row.target_type, row.target_id) for row in rows} == {
        ("user:viewer-1", "admin", "saved_view", "alpha/broken")
    }
    assert not AuditEntry.objects.exists()


def test_what_is_refused_leaves_no_trace_of_a_view(viewer, operator, alpha):
    keep(viewer, "common", is_shared="on")
    assert operator.post(f"{PATH}views/{view('common').pk}/delete/").status_code == 404
    assert viewer.post(f"{PATH}views/save/", {"name": "bad", "q": "state:"}).status_code == 302
    assert [row.verb for row in AccessAuditEntry.objects.all()] == ["views.keep"]


def test_others_see_what_is_shared_and_only_its_owner_takes_it_away(viewer, operator, alpha):
    keep(viewer, "private")
    keep(viewer, "common", is_shared="on")
    assert seen(viewer) == ["common", "private"]
    assert seen(operator) == ["common"]
    assert "by viewer-1" in text(operator.get(f"{PATH}?q="))
    for name in ("common", "private"):
        assert operator.post(f"{PATH}views/{view(name).pk}/delete/").status_code == 404
        assert viewer.get(f"{PATH}views/{view(name).pk}/delete/").status_code == 405
        assert viewer.post(f"{PATH}views/{view(name).pk}/delete/").status_code == 302
    assert not SavedView.objects.exists()


def test_a_list_begins_with_the_view_that_one_chose(viewer, operator, alpha):
    keep(viewer, "common", is_shared="on")
    begin = f"{PATH}views/{view('common').pk}/begin/"
    assert operator.post(begin).status_code == 302
    response = operator.get(PATH)
    assert response.status_code == 302
    assert response["Location"] == f"{PATH}?q=state%3Afailed"
    # Nobody else's, no other cluster's, and not what was asked for with words.
    assert viewer.get(PATH).status_code == 200
    assert operator.get("/admin/beta/jobs/").status_code == 200
    assert operator.get(f"{PATH}?q=").status_code == 200
    assert operator.get(f"{PATH}?queue=mail").status_code == 200
    assert operator.post(f"{PATH}views/all/begin/").status_code == 302
    assert operator.get(PATH).status_code == 200


def test_what_is_not_shared_any_more_is_nobodys_beginning(viewer, operator, alpha):
    keep(viewer, "common", is_shared="on")
    for client in (viewer, operator):
        client.post(f"{PATH}views/{view('common').pk}/begin/")
    keep(viewer, "common")
    assert operator.get(PATH).status_code == 200
    assert viewer.get(PATH).status_code == 302
    assert DefaultView.objects.count() == 1
    viewer.post(f"{PATH}views/{view('common').pk}/delete/")
    assert viewer.get(PATH).status_code == 200


def test_a_view_is_of_one_cluster(viewer, sign_in, alpha):
    keep(viewer, "common", is_shared="on")
    assert seen(viewer) == ["common"]
    stranger = sign_in("viewer", "beta")
    assert "common" not in text(viewer.get("/admin/beta/jobs/"))
    for client in (viewer, stranger):
        for deed in ("delete", "begin"):
            address = f"/admin/beta/jobs/views/{view('common').pk}/{deed}/"
            assert client.post(address).status_code == 404
    assert stranger.post(f"{PATH}views/save/", {"name": "x", "q": ""}).status_code == 404
    assert SavedView.objects.count() == 1


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": "", "q": "state:failed"}, "Name"),
        ({"name": "x" * 61, "q": "state:failed"}, "Name"),
        ({"name": "a\0b", "q": "state:failed"}, "Name"),
        ({"name": "x", "q": "state:lost"}, "State"),
        ({"name": "x", "q": "colour:red"}, "Colour"),
        ({"name": "x", "q": "x" * 2001}, "Q"),
        ({"name": "x", "q": "", "columns": ["colour"]}, "Columns"),
    ],
)
def test_what_could_not_be_shown_is_not_kept(viewer, alpha, form, said):
    response = viewer.post(f"{PATH}views/save/", form)
    assert response.status_code == 302
    page = text(viewer.get(f"{PATH}?q="))
    assert re.search(rf"{said}[^<]*: [^<]*Nothing was changed", page)
    assert not SavedView.objects.exists()


def test_there_is_an_end_to_them(viewer, alpha):
    for n in range(MAX_VIEWS):
        keep(viewer, f"view {n}")
    response = viewer.post(f"{PATH}views/save/", {"name": "more", "q": ""}, follow=True)
    assert f"{MAX_VIEWS} views are enough" in text(response)
    keep(viewer, "view 3", "queue:mail")
    assert SavedView.objects.count() == MAX_VIEWS


def test_with_its_owner_a_view_goes(viewer, alpha):
    keep(viewer, "mine")
    view("mine").owner.delete()
    assert not SavedView.objects.exists()


def test_names_are_text(viewer, alpha):
    nasty = "<script>alert(1)</script>"
    keep(viewer, nasty, f'error:"{nasty}"')
    page = viewer.get(f"{PATH}?q=").content.decode()
    assert nasty not in page
    assert "&lt;script&gt;alert(1)" in page
