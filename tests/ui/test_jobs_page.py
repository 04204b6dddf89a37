"""The list of jobs: what it finds, how it turns, and what it never asks the database."""

from __future__ import annotations

import csv
import html
import io
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs import job_search
from jobs.models import Job
from jobs.states import State
from tests.factories import make_job, make_node, make_queue
from ui.job_columns import COLUMNS

PATH = "/admin/alpha/jobs/"


def shown(response) -> list[str]:
    return re.findall(r'href="/admin/alpha/jobs/([0-9a-f-]{36})/"', response.content.decode())


def text(response) -> str:
    return html.unescape(response.content.decode())


def link(response, rel: str) -> str | None:
    found = re.search(rf'href="([^"]+)" rel="{rel}"', response.content.decode())
    return found and found[1].replace("&amp;", "&")


def test_an_empty_list_says_what_to_do(viewer):
    page = viewer.get(PATH).content
    assert b"No job yet" in page
    assert b"manage.py jobs enqueue" in page
    assert b"No job matches" in viewer.get(f"{PATH}?state=failed").content


def test_each_word_finds_its_jobs(viewer, alpha):
    make_queue("mail")
    wanted = make_job("failed", queue="mail", type="email:new", kind="http", tags=["eu"])
    make_job()
    for word in (
        "state=failed",
        "queue=mail",
        "type=email:new",
        "kind=http",
        "tag=eu",
        "reason=error",
    ):
        assert shown(viewer.get(f"{PATH}?{word}")) == [str(wanted.pk)], word
    everything = "state=failed&queue=mail&type=email:new&kind=http&tag=eu"
    assert shown(viewer.get(f"{PATH}?{everything}")) == [str(wanted.pk)]
    assert len(shown(viewer.get(f"{PATH}?state=failed&state=ready"))) == 2
    # A form sends its empty fields, too.
    assert len(shown(viewer.get(f"{PATH}?state=&queue=&type=&kind=&tag="))) == 2


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=lost", "state"),
        ("kind=magic", "kind"),
        ("colour=red", "colour"),
        ("cursor=nonsense", "cursor"),
        ("limit=100000", "limit"),
        ("queue=%00", "queue"),
        ("created_after=soon", "created_after"),
        ("node=7", "node"),
    ],
)
def test_a_word_that_makes_no_sense_is_said_at_its_name(viewer, query, field):
    response = viewer.get(f"{PATH}?{query}")
    assert response.status_code == 400
    assert f"<code>{field}</code>".encode() in response.content


def test_pages_are_turned_by_key_both_ways(viewer, alpha):
    now = timezone.now()
    jobs = [make_job(created_at=now - timedelta(minutes=n)) for n in range(7)]
    ids = [str(job.pk) for job in jobs]
    first = viewer.get(f"{PATH}?limit=3")
    assert shown(first) == ids[:3]
    assert link(first, "prev") is None
    second = viewer.get(link(first, "next"))
    assert shown(second) == ids[3:6]
    third = viewer.get(link(second, "next"))
    assert shown(third) == ids[6:]
    assert link(third, "next") is None
    assert shown(viewer.get(link(third, "prev"))) == ids[3:6]


def test_a_cursor_of_one_cluster_is_none_of_another(viewer, alpha):
    for _ in range(3):
        make_job()
    following = link(viewer.get(f"{PATH}?limit=1"), "next")
    assert viewer.get(following.replace("/alpha/", "/beta/")).status_code == 400


def line_of(response) -> str:
    found = re.search(r'<input id="f-line" name="q" value="([^"]*)"', response.content.decode())
    return html.unescape(found[1])


def test_the_words_of_an_address_stand_in_the_line(viewer, alpha):
    page = viewer.get(f"{PATH}?reason=error&queue=mail&args=user.id:1&columns=queue")
    assert line_of(page) == "reason:error queue:mail args.user.id:1"
    page = viewer.get(f"{PATH}?q=state:failed++since:2h&tag=eu")
    assert line_of(page) == "state:failed since:2h tag:eu"
    # What cannot be read is there to be mended.
    page = viewer.get(f"{PATH}?q=error:%22half")
    assert page.status_code == 400
    assert line_of(page) == 'error:"half'


def test_a_tab_keeps_all_other_words_and_the_columns(viewer, alpha):
    page = text(viewer.get(f"{PATH}?q=state:failed+since:2h&columns=queue"))
    assert 'href="?q=state%3Aready+since%3A2h&columns=queue"' in page
    assert 'href="?q=since%3A2h&columns=queue"' in page


def test_the_line_finds_what_its_words_say(viewer, alpha):
    node = make_node(host="w3")
    wanted = make_job(
        "failed",
        queue="mail",
        type="email:new",
        error="it timed out",
        payload={"user": {"id": 123}},
    )
    make_job("failed", queue="mail", error="no route")
    running = make_job("running", node=node)
    for line, job in (
        ("state:failed queue:mail type:email:new error:TIMED attempt:>2 since:2h", wanted),
        ('args.user.id:123 error:"timed out"', wanted),
        ("node:w3", running),
    ):
        assert shown(viewer.get(PATH, {"q": line})) == [str(job.pk)], line
    assert shown(viewer.get(PATH, {"q": "error:nowhere"})) == []


@pytest.mark.parametrize(
    ("line", "word"),
    [("colour:red", "colour"), ("state:lost", "state"), ("mail", "mail"), ("node:w9", "node")],
)
def test_what_is_wrong_in_the_line_is_said_by_its_word(viewer, alpha, line, word):
    response = viewer.get(PATH, {"q": line})
    assert response.status_code == 400
    assert f"<code>{word}</code>" in text(response)


def test_a_search_says_how_far_it_got_and_goes_on(viewer, alpha, monkeypatch):
    monkeypatch.setattr(job_search, "SECONDS", 0.0)
    monkeypatch.setattr(job_search, "PAGE", 10)
    now = timezone.now()
    jobs = [
        make_job("failed", error=f"e{n}.", created_at=now - timedelta(minutes=n)) for n in range(25)
    ]
    response = viewer.get(f"{PATH}?q=error:e22.")
    assert f'Searched to <time datetime="{jobs[9].created_at:%Y-%m-%dT%H:%M}' in text(response)
    assert "Nothing up to there" in text(response)
    response = viewer.get(re.search(r'href="([^"]+)">Go on', text(response))[1])
    response = viewer.get(re.search(r'href="([^"]+)">Go on', text(response))[1])
    assert shown(response) == [str(jobs[22].pk)]
    assert "Searched to" not in text(response)


def test_columns_are_chosen_in_the_address(viewer, alpha):
    make_job(priority=7, unique_key="once")
    page = text(viewer.get(f"{PATH}?columns=unique_key&columns=priority"))
    head = re.findall(r"<th[^>]*>([^<]*)</th>", page)
    assert head == ["Job", "Priority", "Unique key"]
    assert ">once</td>" in page
    assert re.search(r'value="priority" checked', page)
    assert "Attempts" in re.findall(r"<th[^>]*>([^<]*)</th>", text(viewer.get(PATH)))
    assert viewer.get(f"{PATH}?columns=colour").status_code == 400


@pytest.mark.parametrize("state", State.values)
def test_every_column_of_every_state(viewer, alpha, state):
    make_job(state)
    query = "&".join(f"columns={name}" for name in COLUMNS)
    assert viewer.get(f"{PATH}?{query}").status_code == 200


def test_all_that_match_are_led_to_what_may_be_done_with_them(operator, admin, viewer, alpha):
    make_job("failed", queue="mail")
    page = text(operator.get(f"{PATH}?q=queue:mail+args.a:1"))
    new = "/admin/alpha/bulk-operations/new/"
    assert f'href="{new}?action=retry&queue=mail&args=a%3A1"' in page
    assert "action=delete" not in page
    assert "action=delete&queue=mail" in text(admin.get(f"{PATH}?queue=mail"))
    assert new not in text(viewer.get(f"{PATH}?queue=mail"))
    # Nothing is chosen, so nothing is meant.
    assert new not in text(operator.get(PATH))


# -- CSV -------------------------------------------------------------------------------------------


def rows_of(response) -> list[dict[str, str]]:
    assert response.status_code == 200
    whole = b"".join(response.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(whole)))


def test_what_matches_is_exported_as_csv(viewer, alpha, monkeypatch):
    monkeypatch.setattr("ui.job_columns._PAGE", 3)
    now = timezone.now()
    jobs = [
        make_job("failed", error=f"e{n}", tags=["a", "b"], created_at=now - timedelta(minutes=n))
        for n in range(8)
    ]
    make_job(queue="other")
    page = text(viewer.get(f"{PATH}?q=state:failed"))
    link_of_it = re.search(r'href="([^"]+)" download', page)[1]
    response = viewer.get(link_of_it)
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="alpha-jobs.csv"'
    rows = rows_of(response)
    assert [row["id"] for row in rows] == [str(job.pk) for job in jobs]
    assert (rows[0]["tags"], rows[0]["error"], rows[0]["is_held"]) == ("a, b", "e0", "false")
    assert [row["error"] for row in rows_of(viewer.get(f"{PATH}export.csv?q=error:e5"))] == ["e5"]


def test_no_cell_of_the_csv_is_a_formula(viewer, alpha):
    make_job("failed", type="=cmd|' /C calc'!A0", error="+1", tags=["@x"], unique_key="-1")
    [row] = rows_of(viewer.get(f"{PATH}export.csv"))
    cells = [row[name] for name in ("type", "error", "tags", "unique_key")]
    assert [cell[:2] for cell in cells] == ["'=", "'+", "'@", "'-"]


def test_an_export_is_bounded_and_one_of_the_streams_of_its_caller(viewer, alpha, monkeypatch):
    from ui import job_columns

    for _ in range(5):
        make_job()
    pieces = job_columns.csv_pieces("cluster-alpha", {}, limit=2)
    assert b"".join(pieces).count(b"\n") == 3
    response = viewer.get(f"{PATH}export.csv")
    assert (response.caller, response.of_a_caller) == ("user:viewer-1", 20)
    assert response.when_full.status_code == 429


@pytest.mark.parametrize("query", ["state=lost", "q=colour:red", "q=x", "columns=colour"])
def test_a_filter_that_makes_no_sense_is_no_file(viewer, alpha, query):
    response = viewer.get(f"{PATH}export.csv?{query}")
    assert response.status_code == 400
    assert response["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    "query",
    ["", "?state=ready", "?queue=default", "?state=ready&tag=eu&kind=http", "?q=error:x+args.a:1"],
)
def test_jobs_are_neither_counted_nor_skipped(viewer, alpha, queries, query):
    for _ in range(60):
        make_job(tags=["eu"])
    with queries() as asked:
        response = viewer.get(PATH + query)
        assert viewer.get(link(response, "next") or PATH).status_code == 200
    about_jobs = [sql for sql in asked if re.search(r"\bjob(_listing|_tag)?\b", sql)]
    assert about_jobs
    for sql in about_jobs:
        assert "OFFSET" not in sql.upper()
        # The choice of a way looks some thousand keys ahead; nothing counts the table.
        assert not re.search(r"COUNT\((?!\*\) FROM \(SELECT 1)", sql.upper()), sql


def test_a_page_asks_as_often_whatever_it_shows(viewer, alpha, queries):
    numbers = []
    for _ in range(2):
        for _ in range(20):
            make_job("failed", tags=["eu"])
        with queries() as asked:
            viewer.get(PATH)
        numbers.append(len(asked))
    assert numbers[0] == numbers[1] <= 15


def test_a_fragment_is_the_list_alone_and_nothing_where_it_is_the_same(viewer, alpha):
    make_job()
    live = {"HX-Request": "true", "UI-Version": "old"}
    response = viewer.get(PATH, headers=live)
    assert response.status_code == 200
    assert b"<html" not in response.content
    assert len(shown(response)) == 1
    live["UI-Version"] = response["UI-Version"]
    assert viewer.get(PATH, headers=live).status_code == 204
    make_job()
    assert viewer.get(PATH, headers=live).status_code == 200


def test_what_jobs_hold_is_text(viewer, alpha):
    nasty = "<script>alert(1)</script>"
    make_job("failed", type=nasty, tags=[nasty], error=nasty)
    page = viewer.get(PATH).content.decode()
    assert nasty not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_page_of_long_errors_stays_small(viewer):
    import gzip

    with cluster_bound("alpha"):
        for n in range(60):
            make_job(
                "failed", error=f"Error {n}\n" + "x" * 4000, tags=[f"{tag}" * 60 for tag in "abcd"]
            )
        assert Job.objects.count() == 60
    assert len(gzip.compress(viewer.get(PATH).content)) < 60 * 1024
