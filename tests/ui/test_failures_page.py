"""Groups of failures, and one of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import Failure, FailureHour, FailureMinute
from tests.api.test_failures import make_failure
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


def test_one_group_with_its_trace_and_its_jobs(viewer, group):
    page = viewer.get(f"{PATH}{group.pk}/").content.decode()
    assert "&lt;b&gt;here&lt;/b&gt;" in page
    assert "jobs/?failure=0123456789abcdef" in page
    assert "4 failures in the last 7 days" in page
    assert "<dt>Ever</dt><dd>9</dd>" in page
    listed = viewer.get("/admin/alpha/jobs/?failure=0123456789abcdef").content.decode()
    assert str(group.job_id) in listed


def test_the_figures_of_a_row_are_of_one_look(viewer, group, queries):
    """What is counted between two looks would make a part larger than the whole."""
    with queries() as asked:
        viewer.get(PATH)
    looks = [sql for sql in asked if '"failure"' in sql or '"failure_hour"' in sql]
    # The small charts of all rows are the second.
    assert ["in_7_days" in sql for sql in looks] == [True, False]
    with queries() as asked:
        viewer.get(f"{PATH}{group.pk}/")
    looks = [sql for sql in asked if '"failure"' in sql or '"failure_hour"' in sql]
    assert ['FROM "failure_hour"' in sql and "in_7_days" not in sql for sql in looks] == [
        True,
        False,
    ]


def test_pages_ask_a_fixed_number_of_questions(viewer, group, queries):
    with queries() as one:
        viewer.get(PATH)
    for number in range(20):
        make_failure(100 + number)
        make_job("failed", is_held=True)
    with queries() as many:
        viewer.get(PATH)
    assert len(many) == len(one) <= 15
    with queries() as asked:
        viewer.get(f"{PATH}{group.pk}/")
    assert len(asked) <= 15


def test_a_row_has_its_hour_its_mark_and_a_small_chart(viewer, group):
    Failure.objects.update(mark="returned", owner="mail team")
    minute = timezone.now().replace(second=0, microsecond=0)
    old = minute - timedelta(hours=2)
    for at, count in ((minute, 3), (old, 50)):
        columns = {"fingerprint": group.pk, "queue": "mail", "type": "x"}
        FailureMinute.objects.create(**columns, starts_at=at, count=count)
    page = viewer.get(PATH).content.decode()
    assert 'data-label="1 h" class="ui-right ui-num">3</td>' in page
    assert "ui-state-returned" in page and "mail team" in page
    assert 'aria-label="4 in 24 hours, by the hour."' in page


def test_what_to_do_leads_to_the_page_that_counts_first(operator, group):
    page = operator.get(f"{PATH}{group.pk}/").content.decode()
    where = "/admin/alpha/bulk-operations/new/?action="
    like = f"failure={group.pk}"
    for link in (
        f"retry&amp;state=failed&amp;{like}",
        f"retry&amp;state=failed&amp;{like}&amp;limit=10",
        f"cancel&amp;state=scheduled&amp;{like}",
    ):
        assert f'href="{where}{link}"' in page
    FailureHour.objects.update(count=2134)
    page = operator.get(f"{PATH}{group.pk}/").content.decode()
    # So many at one moment would be a second outage.
    assert f'href="{where}retry&amp;state=failed&amp;{like}&amp;spread_seconds=600"' in page


def test_own_frames_come_before_the_whole_trace(viewer, group):
    site = "/usr/lib/python3/site-packages/smtp/client.py"
    trace = (
        'Traceback (most recent call last):\n  File "/srv/shop/mail/tasks.py", line 33, in send\n'
        f'    connect(host)\n  File "{site}", line 9, in connect\n    raise SMTPError\nSMTPError: x'
    )
    Failure.objects.update(
        example=trace, seen_on={"types": ["email:new"], "nodes": ["w1:7"], "versions": ["4.2"]}
    )
    page = viewer.get(f"{PATH}{group.pk}/").content.decode()
    own, whole = page.split("The whole trace")
    assert "shop/mail/tasks.py:33" in own and "connect(host)" in own and site not in own
    assert site in whole
    assert "w1:7" in own and "4.2" in own


def test_muting_and_owning_and_knowing(operator, group):
    path = f"{PATH}{group.pk}/"
    form = {"reason": "the partner mends it", "lasts": "3600"}
    assert operator.post(f"{path}mute/", form).status_code == 302
    group.refresh_from_db()
    assert (group.mark, group.marked_by) == ("muted", "user:operator-1")
    assert timedelta(minutes=59) < group.muted_until - timezone.now() < timedelta(minutes=61)
    page = operator.get(path).content.decode()
    assert "the partner mends it" in page and "Unmute" in page
    assert operator.post(f"{path}known/").status_code == 302
    group.refresh_from_db()
    assert (group.mark, group.muted_until) == ("known", None)
    refused = operator.post(f"{path}own/", {"owner": "ann", "ticket": "javascript:alert(1)"})
    assert refused.status_code == 400 and b"begins with https" in refused.content
    ticket = "https://tickets.example/17"
    assert operator.post(f"{path}own/", {"owner": "ann", "ticket": ticket}).status_code == 302
    assert f'href="{ticket}"' in operator.get(path).content.decode()


def test_held_jobs_are_decided_one_by_one(operator, alpha):
    retried, closed = (make_job("failed", is_held=True) for _ in range(2))
    page = operator.get(PATH).content.decode()
    assert str(retried.pk) in page and str(closed.pk) in page
    for job, deed, state in ((retried, "retry", "ready"), (closed, "close", "failed")):
        path = f"{PATH}held/{job.pk}/{deed}/"
        assert operator.post(path, {}).status_code == 400
        assert operator.post(path, {"reason": "looked at it"}).status_code == 302
        job.refresh_from_db()
        assert (job.state, job.is_held) == (state, False)
    again = operator.post(path, {"reason": "twice"}, follow=True).content.decode()
    assert "does not wait for a decision" in again
    assert str(closed.pk) not in operator.get(PATH).content.decode()


def test_filters(viewer, group):
    assert b"SMTPError" in viewer.get(f"{PATH}?queue=mail&type=email:new&mark=new").content
    assert b"No failure matches" in viewer.get(f"{PATH}?mark=muted").content
    assert b"No failure matches" in viewer.get(f"{PATH}?queue=other").content
    for query in ("colour=red", "cursor=x", "since=soon", "order=most", "mark=odd"):
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
