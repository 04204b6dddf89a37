"""One queue: its figures, its limits, and that what waits in it is cancelled."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.models import BulkOperation, Queue, Tally
from tests.factories import make_job, make_node, make_queue

PATH = "/admin/alpha/queues/mail/"
LIMITS = {"rate_period_seconds": "1", "overflow": "refuse"}


def tally(event: str, count: int, **columns) -> None:
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=2)
    Tally.objects.create(
        minute=minute, event=event, count=count, **{"queue": "mail", "type": "x", **columns}
    )


def shown(client, path: str = PATH) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


# -- Figures ---------------------------------------------------------------------------------------


def test_rates_and_the_time_until_it_is_empty(viewer, alpha):
    make_node()
    for _ in range(6):
        make_job(queue="mail")
    tally("enqueued", 110)
    tally("started", 220)
    html = shown(viewer)
    # Of ten minutes, and what has passed of this one.
    assert re.search(r"<dt>In / min</dt><dd>(9.[5-9]|1[01])</dd>", html)
    assert re.search(r"<dt>Out / min</dt><dd>(19|2[0-2])</dd>", html)
    assert re.search(r"<dt>Empty in</dt><dd>(3[0-9]|4[0-2]) s\s*</dd>", html)
    row = shown(viewer, "/admin/alpha/queues/")
    assert re.search(
        r'"In, out / min" class="ui-right ui-num">(9.[5-9]|1[01]), (19|2[0-2])</td>', row
    )


def test_a_queue_that_fills_up_is_never_empty(viewer, alpha):
    make_node()
    make_job(queue="mail")
    tally("enqueued", 220)
    tally("started", 110)
    assert "does not shrink" in shown(viewer)


@pytest.mark.parametrize("path", [PATH, "/admin/alpha/queues/"])
def test_how_much_of_its_limits_is_used(viewer, alpha, path):
    now = timezone.now().timestamp()
    make_queue(
        "mail",
        max_concurrency=4,
        rate_limit=100,
        rate_period_seconds=3600.0,
        rate_grants=[[now - 5, 90]],
        max_entries=50,
    )
    for _ in range(3):
        make_job("running", queue="mail")
    for state in ("ready", "ready", "scheduled"):
        make_job(state, queue="mail")
    html = shown(viewer, path)
    assert "3 of 4 running" in html
    assert "90 of 100 started in 1 h" in html
    assert "3 of 50 waiting" in html
    assert 'ui-full" max="100" value="90"' in html


@pytest.mark.parametrize("path", [PATH, "/admin/alpha/queues/"])
def test_a_type_that_no_node_knows_is_told_of(viewer, alpha, path):
    make_node(types=["demo:noop"])
    make_job(queue="mail", type="letter:print")
    make_job(queue="mail", type="demo:noop")
    make_job(queue="mail", type="somewhere", kind="http")
    html = shown(viewer, path)
    assert "no live node knows letter:print<" in html
    assert "no live node takes this queue" not in html


@pytest.mark.parametrize("path", [PATH, "/admin/alpha/queues/"])
def test_a_queue_that_no_node_takes_is_told_of(viewer, alpha, path):
    make_node(queues=["default"])
    make_node(lease_until=timezone.now() - timedelta(seconds=1))
    make_job(queue="mail")
    html = shown(viewer, path)
    assert "no live node takes this queue" in html
    assert "no live node knows" not in html


def test_who_paused_it_and_until_when(viewer, alpha):
    make_queue("mail", is_paused=True, pause_reason="it moves")
    assert "until somebody resumes it" in shown(viewer)
    until = timezone.now() + timedelta(days=1)
    Queue.objects.filter(name="mail").update(resume_at=until)
    html = shown(viewer)
    assert "by test" in html
    assert f"{until:%Y-%m-%d %H:%M:%S} UTC" in html


def test_what_people_did_to_it_is_for_those_who_may_read_the_audit(viewer, operator, alpha):
    make_queue("mail")
    operator.post(f"{PATH}pause/", {"reason": "the server moves"})
    assert "What people did to it" in shown(operator)
    assert "What people did to it" not in shown(viewer)


def test_it_asks_at_most_fifteen_times(admin, alpha, queries):
    make_node()
    for n in range(130):
        make_job(queue="mail" if n < 110 else f"q{n % 9}")
    with queries() as asked:
        shown(admin)
    assert len(asked) <= 15, "\n".join(asked)


def test_a_queue_that_is_not_there_is_missing(admin, alpha):
    for page in ("", "limits/", "purge/", "pause/"):
        assert admin.get(f"/admin/alpha/queues/nowhere/{page}").status_code == 404
        assert admin.post(f"/admin/alpha/queues/no%00where/{page}").status_code in (404, 405)


def test_a_deed_that_was_asked_for_here_leads_back_here(operator, alpha):
    make_queue("mail")
    response = operator.post(f"{PATH}pause/?from=queue", {"reason": "x"})
    assert response["Location"] == PATH
    response = operator.post(f"{PATH}resume/?from=queue")
    assert response["Location"] == PATH
    assert operator.post(f"{PATH}pause/", {"reason": "x"})["Location"] == "/admin/alpha/queues/"


# -- Limits ----------------------------------------------------------------------------------------


def test_limits_are_set_by_the_verb_with_a_trace(admin, alpha):
    make_queue("mail", max_entries=9)
    form = {**LIMITS, "max_concurrency": "7", "rate_limit": "", "reason": "the server is slow"}
    assert admin.post(f"{PATH}limits/", form)["Location"] == PATH
    queue = Queue.objects.get(name="mail")
    assert (queue.max_concurrency, queue.max_entries, queue.version) == (7, None, 2)
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.reason) == ("queues.change", "the server is slow")
    assert entry.before == {"max_concurrency": None, "max_entries": 9}
    assert entry.after == {"max_concurrency": 7, "max_entries": None}


def test_the_form_shows_what_is_set_and_nothing_is_done_without_a_change(admin, alpha):
    make_queue("mail", max_concurrency=7, rate_limit=5, rate_period_seconds=2.5)
    html = shown(admin, f"{PATH}limits/")
    assert 'value="7"' in html
    assert 'value="2.5"' in html
    form = {"max_concurrency": "7", "rate_limit": "5", "rate_period_seconds": "2.5"}
    assert admin.post(f"{PATH}limits/", {**form, "overflow": "refuse"}).status_code == 302
    assert Queue.objects.get(name="mail").version == 1
    assert not AuditEntry.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"max_concurrency": "0"}, "max_concurrency"),
        ({"max_concurrency": "1.5"}, "max_concurrency"),
        ({"rate_limit": "9" * 30}, "rate_limit"),
        ({"rate_period_seconds": "nan"}, "rate_period_seconds"),
        ({"rate_period_seconds": ""}, "rate_period_seconds"),
        ({"overflow": "explode"}, "overflow"),
        ({"overflow": "drop_oldest"}, "overflow"),
        ({"max_entries": "-1"}, "max_entries"),
        ({"reason": "x" * 501}, "reason"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_at_its_field(admin, alpha, form, field):
    make_queue("mail")
    response = admin.post(f"{PATH}limits/", {**LIMITS, **form})
    assert response.status_code == 400
    assert field in response.context["form"].errors
    assert Queue.objects.get(name="mail").version == 1
    assert not AuditEntry.objects.exists()


# -- Purge -----------------------------------------------------------------------------------------


def test_a_purge_says_what_it_is_about_and_runs_in_the_background(admin, alpha):
    make_queue("mail")
    jobs = [make_job(queue="mail") for _ in range(3)]
    make_job("scheduled", queue="mail")
    make_job("running", queue="mail")
    make_job(queue="other")
    html = shown(admin, f"{PATH}purge/")
    assert "mail: 4 jobs wait to be started" in html
    assert "3 ready" in html
    assert str(jobs[0].pk) in html
    assert 'name="seen" value="4"' in html
    assert admin.post(f"{PATH}purge/", {"seen": "4"}).status_code == 400
    assert not BulkOperation.objects.exists()
    response = admin.post(f"{PATH}purge/", {"seen": "4", "reason": "a loop filled it"})
    [operation] = BulkOperation.objects.all()
    assert response["Location"] == f"/admin/alpha/bulk-operations/{operation.pk}/"
    assert operation.filter["queue"] == "mail"
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.target_id, entry.reason) == (
        "queues.purge",
        "mail",
        "a loop filled it",
    )


def test_where_it_has_grown_by_a_tenth_it_is_asked_again(admin, alpha):
    for _ in range(12):
        make_job(queue="mail")
    response = admin.post(f"{PATH}purge/", {"seen": "10", "reason": "x"})
    assert response.status_code == 409
    assert b"More jobs have come" in response.content
    assert b'name="seen" value="12"' in response.content
    assert not BulkOperation.objects.exists()
    assert admin.post(f"{PATH}purge/", {"seen": "12", "reason": "x"}).status_code == 302


def test_in_production_the_cluster_is_typed(admin, alpha, monkeypatch):
    make_job(queue="mail")
    production = replace(settings.CLUSTERS["alpha"], environment="production")
    monkeypatch.setitem(settings.CLUSTERS, "alpha", production)
    form = {"seen": "1", "reason": "x"}
    for typed in ({}, {"cluster": "beta"}):
        response = admin.post(f"{PATH}purge/", {**form, **typed})
        assert response.status_code == 400
        assert "cluster" in response.context["form"].errors
    assert not BulkOperation.objects.exists()
    assert admin.post(f"{PATH}purge/", {**form, "cluster": "alpha"}).status_code == 302


@pytest.mark.parametrize("seen", ["", "-1", "many", "9" * 30])
def test_a_count_that_nobody_was_shown_is_refused(admin, alpha, seen):
    make_job(queue="mail")
    assert admin.post(f"{PATH}purge/", {"seen": seen, "reason": "x"}).status_code == (
        400 if seen else 409
    )
    assert not BulkOperation.objects.exists()
