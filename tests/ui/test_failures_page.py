"""Groups of failures, and one of them."""

from __future__ import annotations

import pytest
from django.utils import timezone

from jobs.models import Failure, FailureHour
from tests.factories import make_job

PATH = "/admin/alpha/failures/"


@pytest.fixture
def group(alpha):
    now = timezone.now()
    job = make_job("failed", fingerprint="0123456789abcdef")
    FailureHour.objects.create(
        fingerprint="0123456789abcdef",
        starts_at=now.replace(minute=0, second=0, microsecond=0),
        count=4,
    )
    return Failure.objects.create(
        fingerprint="0123456789abcdef",
        error_type="SMTPError",
        message="no route to <host>",
        frame="mail.py send",
        type="email:new",
        queue="mail",
        job_id=job.pk,
        example="Traceback\n  <b>here</b>",
        count=9,
        first_seen_at=now,
        last_seen_at=now,
    )


def test_an_empty_list_says_what_is_normal(viewer, alpha):
    assert b"No failure is on record" in viewer.get(PATH).content


def test_a_group_with_its_counts(viewer, group):
    page = viewer.get(PATH).content.decode()
    assert "no route to &lt;host&gt;" in page
    assert ">4</td>" in page
    assert ">9</td>" in page


def test_one_group_with_its_trace_and_its_jobs(viewer, group):
    page = viewer.get(f"{PATH}{group.pk}/").content.decode()
    assert "&lt;b&gt;here&lt;/b&gt;" in page
    assert "jobs/?failure=0123456789abcdef" in page
    assert "4 failures in the last 7 days" in page
    listed = viewer.get("/admin/alpha/jobs/?failure=0123456789abcdef").content.decode()
    assert str(group.job_id) in listed


def test_the_figures_of_a_row_are_of_one_look(viewer, group, queries):
    """What is counted between two looks would make a part larger than the whole."""
    with queries() as asked:
        viewer.get(PATH)
    assert len([sql for sql in asked if '"failure"' in sql or '"failure_hour"' in sql]) == 1
    with queries() as asked:
        viewer.get(f"{PATH}{group.pk}/")
    looks = [sql for sql in asked if '"failure"' in sql or '"failure_hour"' in sql]
    assert ["failure_hour" in sql for sql in looks] == [True, False]


def test_filters(viewer, group):
    assert b"SMTPError" in viewer.get(f"{PATH}?queue=mail&type=email:new").content
    assert b"No failure matches" in viewer.get(f"{PATH}?queue=other").content
    for query in ("colour=red", "cursor=x", "since=soon", "order=most"):
        response = viewer.get(f"{PATH}?{query}")
        assert response.status_code == 400
        assert f"<code>{query.split('=')[0]}</code>".encode() in response.content


@pytest.mark.parametrize("name", ["ffffffffffffffff", "x", "%00"])
def test_an_unknown_group_is_missing(viewer, group, name):
    assert viewer.get(f"{PATH}{name}/").status_code == 404


def test_pages_ask_at_most_fifteen_times(viewer, group, queries):
    for path in (PATH, f"{PATH}{group.pk}/"):
        with queries() as asked:
            viewer.get(path)
        assert len(asked) <= 15
