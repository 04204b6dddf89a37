"""The list of jobs: what it finds, how it turns, and what it never asks the database."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.models import Job
from tests.factories import make_job, make_queue

PATH = "/admin/alpha/jobs/"


def shown(response) -> list[str]:
    return re.findall(r'href="/admin/alpha/jobs/([0-9a-f-]{36})/"', response.content.decode())


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


def test_the_form_keeps_words_that_have_no_field(viewer, alpha):
    page = viewer.get(f"{PATH}?reason=error&queue=mail").content.decode()
    assert '<input type="hidden" name="reason" value="error">' in page
    assert 'name="queue" value="mail"' in page
    assert 'href="?state=failed&amp;reason=error&amp;queue=mail"' in page


@pytest.mark.parametrize(
    "query", ["", "?state=ready", "?queue=default", "?state=ready&tag=eu&kind=http"]
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
