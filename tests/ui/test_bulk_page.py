"""Bulk operations on the screen: looked at, asked for with a reason, followed, stopped."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from clusters.policy import DEFAULTS
from jobs.engine import bulk, bulk_asking
from jobs.engine.bulk_count import TooSlow
from jobs.models import BulkAction, BulkOperation, BulkStatus, Job
from jobs.states import State
from tests.factories import make_job, make_node, make_queue

PATH = "/admin/alpha/bulk-operations/"


def new(action: str | None = "retry", **words: object) -> str:
    query = {**({"action": action} if action else {}), **words}
    return f"{PATH}new/?{urlencode(query, doseq=True)}"


def text(response) -> str:
    return html.unescape(response.content.decode())


def too_slow(*_: object) -> None:
    raise TooSlow


def form(response, **fields: str) -> dict[str, str]:
    """What the page's form sends, with the fields filled in."""
    size = re.search(r'name="size" value="(\d*)"', response.content.decode())
    return {"size": size[1], "reason": "the server is back", **fields}


def started(client, address: str, **fields: str) -> BulkOperation:
    before = set(BulkOperation.objects.values_list("pk", flat=True))
    response = client.post(address, form(client.get(address), **fields))
    assert response.status_code == 302, text(response)
    [operation] = BulkOperation.objects.exclude(pk__in=before)
    assert response["Location"] == f"{PATH}{operation.pk}/"
    return operation


def carry_out() -> None:
    while bulk.advance("cluster-alpha", DEFAULTS):
        pass


# -- Before ----------------------------------------------------------------------------------------


def test_it_says_how_many_in_which_states_and_shows_the_oldest(operator, alpha):
    now = timezone.now()
    jobs = [make_job("failed", created_at=now - timedelta(minutes=9 - n)) for n in range(7)]
    make_job("succeeded")
    page = text(operator.get(new(queue="default")))
    assert "Retry 7 jobs?" in page
    assert "7 can be retried" in page
    assert "What matches in another state is left alone" in page
    assert re.search(r"ui-state-failed\">failed</span> 7", page)
    shown = re.findall(r"/admin/alpha/jobs/([0-9a-f-]{36})/", page)
    assert shown == [str(job.pk) for job in jobs[:5]]
    assert '<p class="ui-words">queue:default</p>' in page
    assert 'href="/admin/alpha/jobs/?queue=default"' in page
    assert not BulkOperation.objects.exists()


def test_a_limit_is_the_oldest_so_many(operator, alpha):
    for _ in range(12):
        make_job("failed")
    address = new(state="failed", limit=10)
    assert "Retry the 10 oldest of 12 jobs?" in text(operator.get(address))
    operation = started(operator, address)
    assert operation.arguments == {"limit": 10}
    carry_out()
    assert Job.objects.filter(state="ready").count() == 10


def test_it_begins_with_the_words_of_the_address_and_the_reason(operator, alpha):
    make_job("failed", queue="mail", tags=["eu"])
    words = {"state": ["failed", "cancelled"], "queue": "mail", "tag": "eu"}
    operation = started(operator, new(**words))
    assert (operation.action, operation.filter, operation.arguments) == ("retry", words, {})
    assert operation.reason == "the server is back"
    assert operation.requested_by == "user:operator-1"
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.reason) == ("bulk_operations.request", "the server is back")
    assert entry.target_id == str(operation.pk)
    # Nodes do the work, not the request.
    assert Job.objects.get().state == "failed"


@pytest.mark.parametrize(
    ("action", "words", "fields", "arguments"),
    [
        ("retry", {"spread_seconds": 90}, {"spread_seconds": "90"}, {"spread_seconds": 90}),
        ("retry", {}, {"spread_seconds": "600"}, {"spread_seconds": 600}),
        ("move", {}, {"queue": "other"}, {"queue": "other"}),
        ("set_priority", {}, {"priority": "-5"}, {"priority": -5}),
        ("run_now", {}, {}, {}),
        ("cancel", {}, {}, {}),
        ("delete", {}, {}, {}),
    ],
)
def test_every_action_with_what_it_needs(admin, alpha, action, words, fields, arguments):
    make_queue("other")
    for state in State.values:
        make_job(state)
    operation = started(admin, new(action, queue="default", **words), **fields)
    assert (operation.action, operation.arguments) == (action, arguments)


def test_arguments_of_the_address_are_filled_in(operator, alpha):
    make_queue("other")
    make_job()
    page = text(operator.get(new("move", state="ready", to_queue="other")))
    assert re.search(r'<input[^>]*name="queue"[^>]*value="other"', page)
    assert '<option value="other">' in page
    page = text(operator.get(new("set_priority", state="ready", to_priority=7)))
    assert re.search(r'<input[^>]*name="priority"[^>]*value="7"', page)
    page = text(operator.get(new("retry", state="failed", spread_seconds=90)))
    assert re.search(r'<option value="90" selected', page)


def test_the_words_may_stand_in_one_line(operator, alpha):
    make_job("failed", error="timed out")
    make_job("failed", error="no route")
    address = new(q='state:failed error:"timed out" since:1h')
    page = text(operator.get(address))
    assert "Retry 1 job?" in page
    assert 'state:failed error:"timed out" since:' in page
    operation = started(operator, address)
    assert operation.filter.keys() == {"state", "error", "since"}
    carry_out()
    assert Job.objects.filter(state="ready").count() == 1
    assert f"{PATH}new/?action=retry&state=failed&error=timed+out&since=" in text(
        operator.get(f"{PATH}{operation.pk}/")
    )


def test_every_job_is_asked_for_by_its_word(operator, alpha):
    make_job()
    assert started(operator, new("cancel", all="true")).filter == {"all": True}


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_without_a_reason_nothing_begins(operator, alpha, reason):
    make_job("failed")
    address = new(state="failed")
    response = operator.post(address, form(operator.get(address), reason=reason))
    assert response.status_code == 400
    assert "errorlist" in text(response)
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize(
    ("action", "fields", "name"),
    [
        ("move", {"queue": "nowhere"}, "queue"),
        ("move", {"queue": ""}, "queue"),
        ("move", {"queue": "a\0b"}, "queue"),
        ("set_priority", {"priority": "101"}, "priority"),
        ("set_priority", {"priority": "x"}, "priority"),
        ("retry", {"spread_seconds": "7"}, "spread_seconds"),
        ("retry", {"size": "many"}, "size"),
    ],
)
def test_what_no_operation_may_have_is_refused(operator, alpha, action, fields, name):
    make_job("failed")
    make_job()
    address = new(action, queue="default")
    response = operator.post(address, form(operator.get(address), **fields))
    assert response.status_code == 400
    assert name in response.context["form"].errors
    assert not BulkOperation.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("action=retry", "filter"),
        ("action=explode&state=failed", "action"),
        ("action=retry&colour=red", "colour"),
        ("action=retry&state=lost", "state"),
        ("action=retry&all=true&queue=a", "filter.all"),
        ("action=retry&state=failed&limit=0", "limit"),
        ("action=retry&state=failed&limit=ten", "limit"),
        ("action=retry&state=failed&spread_seconds=-1", "spread_seconds"),
        ("action=set_priority&state=ready&to_priority=999", "to_priority"),
        ("action=retry&queue=%00", "queue"),
        ("action=retry&q=colour:red", "colour"),
        ("action=retry&q=state:failed&state=ready", "state"),
        ("action=retry&node=7", "node"),
        # An argument of another action, by its own field.
        ("action=cancel&state=ready&cursor=x", "cursor"),
    ],
)
def test_an_address_that_makes_no_sense_says_where(operator, alpha, query, field):
    for response in (operator.get(f"{PATH}new/?{query}"), operator.post(f"{PATH}new/?{query}")):
        assert response.status_code == 400
        assert f"<code>{field}</code>" in text(response)
    assert not BulkOperation.objects.exists()


def test_where_there_are_a_tenth_more_meanwhile_it_asks_again(operator, alpha):
    for _ in range(10):
        make_job("failed")
    address = new(state="failed")
    sent = form(operator.get(address))
    assert sent["size"] == "10"
    make_job("failed")
    assert operator.post(address, sent).status_code == 302
    make_job("failed")
    response = operator.post(address, sent)
    assert response.status_code == 400
    assert "There are more of them now" in text(response)
    assert "Retry 12 jobs?" in text(response)
    assert BulkOperation.objects.count() == 1
    # With the number that was seen this time it goes.
    assert operator.post(address, form(response)).status_code == 302


def test_nobody_begins_what_he_has_not_seen(operator, alpha):
    make_job("failed")
    assert operator.post(new(state="failed"), {"reason": "x"}).status_code == 400
    assert not BulkOperation.objects.exists()


def test_what_cannot_be_counted_is_said_so_and_may_begin(operator, alpha, monkeypatch):
    nothing_yet = bulk.DryRun(None, None, False, {}, [])
    monkeypatch.setattr(bulk_asking, "at_most", too_slow)
    monkeypatch.setattr(bulk_asking, "_walked", lambda *_: nothing_yet)
    make_job("failed")
    address = new(queue="default")
    page = text(operator.get(address))
    assert "Retry all that match?" in page
    assert "Not counted in time: all that can be retried" in page
    assert started(operator, address)


def test_in_production_the_cluster_must_be_typed_to_delete(admin, alpha, monkeypatch):
    clusters = {**settings.CLUSTERS, "alpha": replace(alpha, environment="production")}
    monkeypatch.setattr(settings, "CLUSTERS", clusters)
    make_job("succeeded")
    address = new("delete", state="succeeded")
    page = admin.get(address)
    assert "type alpha" in text(page)
    for typed in ("", "beta"):
        assert admin.post(address, form(page, cluster=typed)).status_code == 400
    assert not BulkOperation.objects.exists()
    assert started(admin, address, cluster="alpha")
    # To retry takes no more than a reason.
    make_job("failed")
    assert started(admin, new(state="failed"))


def test_without_an_action_it_offers_those_that_one_may(operator, admin, viewer, alpha):
    make_job("failed")
    page = text(operator.get(new(None, state="failed")))
    assert "?action=retry&state=failed" in page
    assert "?action=delete" not in page
    assert "?action=delete&state=failed" in text(admin.get(new(None, state="failed")))
    assert viewer.get(new(None, state="failed")).status_code == 403
    # No filter is not every job.
    assert "action=retry" not in text(operator.get(f"{PATH}new/"))


def test_an_operation_needs_the_right_to_its_action(operator, viewer, alpha):
    make_job("succeeded")
    for client, action in ((operator, "delete"), (viewer, "retry")):
        address = new(action, state="succeeded")
        assert client.get(address).status_code == 403
        assert client.post(address, {"reason": "x", "size": "1"}).status_code == 403
    assert not BulkOperation.objects.exists()


def test_it_tells_when_no_node_is_there_to_do_it(operator, alpha):
    make_job("cancelled")
    address = new(state="cancelled")
    assert "No node is live" in text(operator.get(address))
    make_node()
    assert "No node is live" not in text(operator.get(address))


def test_where_nothing_matches_there_is_nothing_to_press(operator, alpha):
    page = text(operator.get(new(state="failed")))
    assert "None of these jobs" in page
    assert re.search(r'<button[^>]*type="submit" disabled>', page)


def test_a_few_first_or_all_of_them_are_one_click(operator, alpha):
    for _ in range(3):
        make_job("failed")
    page = text(operator.get(new(state="failed", spread_seconds=60)))
    assert 'new/?action=retry&state=failed&spread_seconds=60&limit=10"' in page
    page = text(operator.get(new(state="failed", limit=2)))
    assert 'new/?action=retry&state=failed"' in page


def test_too_many_at_once_are_refused_on_the_page(operator, alpha, monkeypatch):
    monkeypatch.setattr(bulk_asking, "MAX_OPEN", 1)
    make_job("failed")
    address = new(state="failed")
    started(operator, address)
    response = operator.post(address, form(operator.get(address)))
    assert response.status_code == 400
    assert "bulk operations are under way" in text(response)


# -- Under way -------------------------------------------------------------------------------------


def make_operation(status: str = BulkStatus.RUNNING, **columns) -> BulkOperation:
    over = {} if status in ("pending", "running") else {"finished_at": timezone.now()}
    defaults = {
        "action": BulkAction.RETRY,
        "filter": {"state": ["failed"], "queue": "mail"},
        "reason": "why not",
        "requested_by": "user:anna",
        "started_at": timezone.now(),
    }
    return BulkOperation.objects.create(status=status, **{**defaults, **over, **columns})


def test_the_list_shows_the_newest_first_and_turns_by_key(viewer, alpha):
    assert "No bulk operation" in text(viewer.get(PATH))
    now = timezone.now()
    ids = [
        str(make_operation(created_at=now - timedelta(minutes=n), reason=f"reason {n}").pk)
        for n in range(5)
    ]
    page = text(viewer.get(f"{PATH}?limit=3"))
    found = re.findall(rf'href="{PATH}([0-9a-f-]{{36}})/"', page)
    assert found == ids[:3]
    assert "state:failed queue:mail" in page and "reason 0" in page and "user:anna" in page
    following = re.search(r'href="([^"]+)" rel="next"', page)[1]
    assert re.findall(rf'href="{PATH}([0-9a-f-]{{36}})/"', text(viewer.get(following))) == ids[3:]


def test_the_list_is_chosen_by_status_and_action(viewer, alpha):
    running, over = make_operation(), make_operation("finished", action="cancel")
    for query, wanted in (("status=running", running), ("action=cancel", over)):
        page = text(viewer.get(f"{PATH}?{query}"))
        assert re.findall(rf'href="{PATH}([0-9a-f-]{{36}})/"', page) == [str(wanted.pk)]
    response = viewer.get(f"{PATH}?status=tired")
    assert response.status_code == 400
    assert "<code>status</code>" in text(response)


def test_one_says_how_far_it_is_and_what_became_of_each(viewer, alpha):
    make_node()
    outcomes = {"retried": 600, "held": 30, "unique_key_taken": 4}
    operation = make_operation(expected=2134, seen=634, outcomes=outcomes)
    page = text(viewer.get(f"{PATH}{operation.pk}/"))
    assert "600 jobs were changed so far." in page
    assert 'aria-label="29.7 % done"' in page
    assert re.search(r"634 of about 2\u202f134\s*looked at", page)
    for outcome, count in outcomes.items():
        assert bulk.OUTCOMES[outcome] in page
        assert re.search(rf"{outcome}</span>.*?>{count}</td>", page, re.DOTALL)
    assert 'href="/admin/alpha/jobs/?state=failed&queue=mail"' in page
    assert "why not" in page and "user:anna" in page


@pytest.mark.parametrize("status", BulkStatus.values)
def test_every_status_has_a_page(admin, alpha, status):
    operation = make_operation(status, cancelled_by="user:b", error="it broke")
    page = text(admin.get(f"{PATH}{operation.pk}/"))
    assert f"ui-state-{status}" in page
    assert ("/stop/" in page) == (status in ("pending", "running"))


def test_it_is_told_when_no_node_goes_on(viewer, alpha):
    operation = make_operation("pending", started_at=None)
    assert "no node is live" in text(viewer.get(f"{PATH}{operation.pk}/"))


def test_stop_ends_it_and_leaves_a_trace(operator, viewer, alpha):
    for _ in range(3):
        make_job("failed")
    operation = started(operator, new(state="failed"))
    stop = f"{PATH}{operation.pk}/stop/"
    assert operator.get(stop).status_code == 405
    assert viewer.post(stop).status_code == 403
    assert "/stop/" not in text(viewer.get(f"{PATH}{operation.pk}/"))
    response = operator.post(stop, follow=True)
    assert "It is stopped" in text(response)
    assert "before it was stopped by user:operator-1" in text(response)
    operation.refresh_from_db()
    assert (operation.status, operation.cancelled_by) == ("cancelled", "user:operator-1")
    carry_out()
    assert Job.objects.filter(state="failed").count() == 3
    assert AuditEntry.objects.filter(verb="bulk_operations.stop").count() == 1


def test_what_is_over_cannot_be_stopped_and_says_so(operator, alpha):
    operation = make_operation("finished")
    response = operator.post(f"{PATH}{operation.pk}/stop/", follow=True)
    assert "The operation is finished already" in text(response)


def test_after_a_few_the_rest_is_one_click(operator, viewer, alpha):
    operation = make_operation("finished", arguments={"limit": 10, "spread_seconds": 60})
    page = text(operator.get(f"{PATH}{operation.pk}/"))
    rest = f"{PATH}new/?action=retry&state=failed&queue=mail&spread_seconds=60"
    assert re.search(rf'href="{re.escape(rest)}">The rest of them…', page)
    assert operator.get(rest).status_code == 200
    assert "new/?" not in text(viewer.get(f"{PATH}{operation.pk}/"))


def test_what_was_cancelled_can_be_retried(operator, alpha):
    make_job("cancelled", queue="mail")
    for _ in range(3):
        make_job(queue="mail")
    done = started(operator, new("cancel", queue="mail", state="ready"))
    carry_out()
    assert Job.objects.filter(state="cancelled").count() == 4
    page = text(operator.get(f"{PATH}{done.pk}/"))
    back = re.search(r'href="([^"]+)">Retry what it cancelled…', page)[1]
    assert "Retry 3 jobs?" in text(operator.get(back))
    started(operator, back)
    carry_out()
    assert Job.objects.filter(state="ready").count() == 3


def test_what_was_moved_can_be_moved_back(operator, alpha):
    make_queue("slow")
    for _ in range(3):
        make_job(queue="mail")
    done = started(operator, new("move", queue="mail"), queue="slow")
    carry_out()
    make_job(queue="slow")
    page = text(operator.get(f"{PATH}{done.pk}/"))
    back = re.search(r'href="([^"]+)">Move back…', page)[1]
    assert re.search(r'name="queue" value="mail"', text(operator.get(back)))
    started(operator, back, queue="mail")
    carry_out()
    assert sorted(Job.objects.values_list("queue", flat=True)) == ["mail"] * 3 + ["slow"]


def test_what_is_not_there_is_missing(operator, db):
    with_beta = PATH.replace("alpha", "beta")
    with cluster_bound("alpha"):
        operation = make_operation()
    for address in (
        f"{with_beta}{operation.pk}/",
        f"{PATH}00000000-0000-7000-8000-000000000000/",
        f"{PATH}nonsense/",
    ):
        assert operator.get(address).status_code == 404
        assert operator.post(f"{address}stop/").status_code == 404


# -- What it costs ---------------------------------------------------------------------------------


def test_a_page_asks_at_most_fifteen_times(operator, alpha, queries):
    make_node()
    for _ in range(30):
        make_job("failed")
        make_operation("finished", outcomes={"retried": 3})
    one = f"{PATH}{BulkOperation.objects.first().pk}/"
    for address in (PATH, one, new(state="failed"), new("move", state="ready")):
        with queries() as asked:
            assert operator.get(address).status_code == 200
        assert len(asked) <= 15, "\n".join(asked)


def test_what_people_wrote_is_text(operator, alpha):
    nasty = "<script>alert(1)</script>"
    make_job("failed", type=nasty)
    operation = make_operation(
        "failed", reason=nasty, requested_by=nasty, error=nasty, filter={"type": nasty}
    )
    for address in (PATH, f"{PATH}{operation.pk}/", new(type=nasty), new(None, type=nasty)):
        page = operator.get(address).content.decode()
        assert nasty not in page
        assert "&lt;script&gt;alert(1)" in page
