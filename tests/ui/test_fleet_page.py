"""The fleet: a card for each cluster, and in one sentence what is wrong with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from clusters.health import watch
from clusters.models import ClusterSetting, forget_policies
from jobs.engine import alert_rules, schedules
from jobs.models import AlertRule, Schedule, Tally
from tests.factories import make_job, make_node, make_queue

CARD = {"HX-Request": "true", "UI-Version": ""}


@pytest.fixture(autouse=True)
def _up(monkeypatch):
    # Its answer comes from a thread, which does not see what the test has not committed.
    monkeypatch.setattr(watch, "ask", lambda aliases, seconds: dict.fromkeys(aliases, True))


def card(client, cluster: str = "alpha") -> str:
    response = client.get(f"/admin/{cluster}/card/", headers=CARD)
    assert response.status_code == 200
    return response.content.decode()


def test_the_page_itself_asks_no_cluster(viewer, queries):
    with queries() as asked:
        page = viewer.get("/admin/").content.decode()
    assert 'hx-get="/admin/alpha/card/"' in page
    assert 'hx-get="/admin/beta/card/"' in page
    assert len(asked) <= 5


def test_it_has_the_cards_of_those_one_may_see(sign_in):
    page = sign_in("viewer", "beta").get("/admin/").content.decode()
    assert "/admin/beta/" in page
    assert "alpha" not in page


def test_all_is_well(viewer, alpha):
    make_node()
    Tally.objects.create(
        minute=timezone.now().replace(second=0, microsecond=0),
        queue="default",
        type="x",
        event="succeeded",
        count=12,
    )
    page = card(viewer)
    assert "All is well." in page
    assert "ui-is-fine" in page
    assert "12 jobs finished in the last hour, 0 of them failed." in page
    assert 'role="img"' in page


def test_nothing_to_do_is_said_as_well(viewer, alpha):
    make_node()
    assert "Nothing to do" in card(viewer)


def test_a_job_that_waits_too_long(viewer, alpha):
    make_node()
    make_job(queue="mail", run_at=timezone.now() - timedelta(minutes=14, seconds=5))
    page = card(viewer)
    assert "mail: oldest ready job 14 min" in page
    assert "limit 5 min" in page
    assert "/admin/alpha/jobs/?state=ready&amp;queue=mail" in page
    assert "ui-is-broken" in page


def test_jobs_and_nobody_to_take_them(viewer, alpha):
    make_job()
    page = card(viewer)
    assert "No node takes jobs, and 1 are ready." in page
    assert "ui-is-broken" in page


def test_a_queue_that_no_node_serves(viewer, alpha):
    make_node(queues=["default"])
    make_job(queue="mail")
    assert "mail: jobs are ready and no node takes from this queue." in card(viewer)


def test_a_pause_with_jobs_behind_it_is_told_of_and_is_no_alarm(viewer, alpha):
    make_node()
    make_queue("mail", is_paused=True)
    make_job(queue="mail", run_at=timezone.now() - timedelta(hours=2))
    page = card(viewer)
    assert "mail: paused by test" in page
    assert "ui-is-notice" in page


def test_a_silent_node(viewer, alpha):
    make_node()
    make_node(host="gone", pid=9, lease_until=timezone.now() - timedelta(seconds=1))
    assert "Not heard of any more: gone:9." in card(viewer)


def test_many_failures(viewer, alpha):
    make_node()
    minute = timezone.now().replace(second=0, microsecond=0)
    for event, count in (("succeeded", 50), ("failed", 30)):
        Tally.objects.create(minute=minute, queue="mail", type="x", event=event, count=count)
    page = card(viewer)
    assert "30 of 80 jobs failed in the last hour." in page
    assert "ui-is-warning" in page


def test_a_restored_cluster(viewer, alpha):
    ClusterSetting.objects.all().mark_restored(by="cli:test")
    forget_policies()
    assert "Restored from a backup" in card(viewer)


def test_a_passive_cluster(viewer, alpha):
    make_node()
    assert "none starts" not in card(viewer)
    ClusterSetting.objects.all().change({"mode": "passive"}, by="cli:test")
    forget_policies()
    assert "The cluster is passive: its jobs are kept, and none starts." in card(viewer)


def test_what_fires_is_told_of(viewer, alpha):
    make_node()
    words = {"webhook_url": "https://hooks.example/x"}
    rule = alert_rules.create({"name": "mail is old", "kind": "oldest_ready", **words}, by="test")
    assert "mail is old" not in card(viewer)
    rules = AlertRule.objects.filter(pk=rule.pk)
    rules.update(state="firing", sentence="mail: oldest ready job 14 min.", page="jobs/?queue=mail")
    page = card(viewer)
    assert "Alert mail is old: mail: oldest ready job 14 min.</a>" in page
    assert 'href="/admin/alpha/jobs/?queue=mail"' in page
    assert "ui-is-warning" in page
    rules.update(severity="critical")
    assert "ui-is-broken" in card(viewer)
    rules.update(acknowledged_at=timezone.now(), acknowledged_by="user:anna")
    page = card(viewer)
    assert "14 min (user:anna has it)." in page and "ui-is-notice" in page
    rules.update(muted_until=timezone.now() + timedelta(hours=1))
    assert "mail is old" not in card(viewer)


def test_a_card_asks_at_most_fifteen_times(viewer, alpha, queries):
    make_node()
    for n in range(130):
        make_job(queue=f"q{n % 3}" if n < 20 else "deep")
    with queries() as asked:
        card(viewer)
    assert len(asked) <= 15, "\n".join(asked)


def test_the_same_card_again_is_nothing(viewer, alpha):
    make_node()
    version = viewer.get("/admin/alpha/card/", headers=CARD)["UI-Version"]
    again = viewer.get("/admin/alpha/card/", headers={**CARD, "UI-Version": version})
    assert again.status_code == 204


# -- A cluster that does not answer ----------------------------------------------------------------


def test_a_dead_cluster_is_said_to_be_so_at_once(viewer, alpha, monkeypatch):
    monkeypatch.setattr(watch, "ask", lambda aliases, seconds: dict.fromkeys(aliases))
    page = card(viewer)
    assert "Unreachable" in page
    assert "Nothing is known of it yet." in page
    assert "All is well" not in page


def test_what_was_known_of_it_stays_and_is_said_to_be_old(viewer, alpha, monkeypatch):
    make_node()
    for _ in range(7):
        make_job()
    assert "Unreachable" not in card(viewer)
    watch.report_down("cluster-alpha")
    since = watch.down_since("cluster-alpha")
    monkeypatch.setattr(watch, "ask", lambda aliases, seconds: dict.fromkeys(aliases, False))
    page = card(viewer)
    assert f'title="{since:%Y-%m-%d %H:%M:%S} UTC" data-form="clock"' in page
    assert "<dt>Ready</dt><dd>7</dd>" in page
    assert "ui-is-dead" in page


def test_it_dies_while_it_is_asked(viewer, alpha, monkeypatch):
    def broken(using, **kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr("ui.snapshot.read", broken)
    page = card(viewer)
    assert "Unreachable since" in page
    assert "gone" not in page


def test_late_schedules_are_counted_and_told_of(viewer, alpha):
    make_node()
    timing = {"type": "demo:noop", "timing": "cron", "expression": "0 3 * * *"}
    late = schedules.create({"name": "nightly", **timing}, by="test")
    schedules.create({"name": "daily", **timing}, by="test")
    assert "<dt>Late schedules</dt><dd>0</dd>" in card(viewer)
    due = timezone.now() - timedelta(minutes=3, seconds=5)
    Schedule.objects.filter(pk=late.pk).update(next_due_at=due, next_run_at=due)
    page = card(viewer)
    assert '<dt>Late schedules</dt><dd class="ui-warn">1</dd>' in page
    assert "Schedule nightly is 3 min" in page
    assert 'href="/admin/alpha/schedules/"' in page
