"""Alerts on the screen: what fires comes first, forms with a preview, and what a webhook answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import resolve
from django.utils import timezone

from jobs.engine import alert_rules, alerts
from jobs.engine.alert_rules import FIELDS
from jobs.models import AlertEvent, AlertRule, Failure, Job
from tests.factories import make_job
from tests.jobs.test_alerts import POLICY, USING, make_rule, minutes, tally, wait_in

PATH = "/admin/alpha/alerts/"
TIMES = {"for_seconds": "1m", "clear_after_seconds": "90", "quiet_seconds": "5m"}
FORM = {"name": "letters", "severity": "warning", "is_enabled": "on", **TIMES}
FAILURES = {**FORM, "ratio": "20", "at_least": "5", "window_seconds": "15m", "queue": "mail"}


def content(page: Any) -> str:
    html: str = page.content.decode()
    return html[html.index('id="content"') :]


def test_an_empty_list_says_what_alerts_are_for(viewer, alpha):
    assert "Nothing is watched" in content(viewer.get(PATH))


def test_a_delivery_that_failed_is_told_of_in_the_list(viewer, alpha):
    make_rule(name="e fires", queue="mail")
    wait_in("mail")
    alerts.watch(USING, POLICY)
    assert "not delivered" not in content(viewer.get(PATH))
    delivery = Job.objects.get(kind="webhook")
    Job.objects.filter(pk=delivery.pk).update(
        state="failed", reason="error", finished_at=timezone.now()
    )
    page = content(viewer.get(PATH))
    assert f'href="/admin/alpha/jobs/{delivery.pk}/">not delivered</a>' in page


def test_what_fires_comes_first_with_the_way_to_its_cause(viewer, alpha):
    make_rule(name="a quiet one", queue="none")
    make_rule(name="b turned off", is_enabled=False)
    muted = make_rule(name="c muted", queue="mail")
    alert_rules.mute(muted.pk, by="ann", seconds=600)
    make_rule(name="d waits", queue="mail", for_seconds=600)
    make_rule(name="e fires", queue="mail")
    wait_in("mail")
    alerts.watch(USING, POLICY)
    page = content(viewer.get(PATH))
    names = ["e fires", "d waits", "c muted", "a quiet one", "b turned off"]
    assert sorted(names, key=page.index) == names
    states = ("firing", "pending", "muted", "ok", "disabled")
    assert all(f"ui-state-{state}" in page for state in states)
    assert 'href="/admin/alpha/jobs/?state=ready&amp;queue=mail"' in page


def test_the_page_says_that_links_have_no_host(viewer, alpha, settings):
    assert "YARDMASTER_PUBLIC_URL" in content(viewer.get(PATH))
    settings.PUBLIC_URL = "https://jobs.example.com"
    assert "YARDMASTER_PUBLIC_URL" not in content(viewer.get(PATH))


@pytest.mark.parametrize("kind", FIELDS)
def test_each_kind_has_a_form_of_its_own_words(operator, alpha, kind):
    page = content(operator.get(f"{PATH}new/?kind={kind}"))
    every = {name for fields in FIELDS.values() for name in fields}
    assert {name for name in every if f'name="{name}"' in page} == set(FIELDS[kind])
    assert operator.get(f"{PATH}new/?kind=odd").status_code == 404


def test_a_preview_says_whether_and_why_and_keeps_nothing(operator, alpha):
    path = f"{PATH}new/?kind=failure_rate"
    page = content(operator.post(path, {**FAILURES, "preview": "1"}))
    assert "Would fire now: no." in page and "0 of 0 jobs failed" in page
    tally("failed", 7, queue="mail")
    page = content(operator.post(path, {**FAILURES, "preview": "1"}))
    assert (
        "Would fire now: yes, because" in page and "7 of 7 jobs failed in the last 15 min" in page
    )
    assert 'value="letters"' in page
    assert not AlertRule.objects.exists()


def test_an_alert_is_made_and_edited(operator, alpha):
    response = operator.post(f"{PATH}new/?kind=failure_rate", FAILURES)
    rule = AlertRule.objects.get()
    assert response["Location"] == f"{PATH}{rule.pk}/"
    assert (rule.ratio, rule.at_least, rule.window_seconds, rule.queue) == (0.2, 5, 900, "mail")
    assert (rule.for_seconds, rule.clear_after_seconds, rule.quiet_seconds) == (60, 90, 300)
    assert (rule.type, rule.created_by) == (None, "user:operator-1")
    page = content(operator.get(f"{PATH}{rule.pk}/edit/"))
    assert 'value="20"' in page and 'value="15m"' in page and 'value="90s"' in page
    changed = {**FAILURES, "ratio": "12.5", "queue": ""}
    assert operator.post(f"{PATH}{rule.pk}/edit/", changed).status_code == 302
    rule.refresh_from_db()
    assert (rule.ratio, rule.queue, rule.version) == (0.125, None, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window_seconds": "soon"}, "Write it such as"),
        ({"window_seconds": "9d"}, "must be between"),
        ({"ratio": "101"}, "less than or equal"),
        ({"at_least": ""}, "required"),
        ({"webhook_url": "ftp://x"}, "http"),
        ({"name": "taken"}, "there is an alert named"),
        ({"name": " "}, "required"),
    ],
)
def test_a_form_says_what_is_wrong_with_it(operator, alpha, changes, said):
    make_rule(name="taken")
    response = operator.post(f"{PATH}new/?kind=failure_rate", {**FAILURES, **changes})
    assert response.status_code == 400 and said in content(response)
    assert AlertRule.objects.count() == 1


def test_its_history_and_what_its_webhook_answered(operator, viewer, alpha, queries):
    rule = make_rule(queue="mail", webhook_url="https://hooks.example/very-secret")
    wait_in("mail")
    alerts.watch(USING, POLICY)
    assert operator.post(f"{PATH}{rule.pk}/test/").status_code == 302
    event = AlertEvent.objects.get(what="tested")
    now = timezone.now()
    Job.objects.filter(pk=event.job_id).update(
        state="succeeded",
        result={"status": 204},
        fence=1,
        started_at=now,
        finished_at=now,
        node_id=make_job("running").node_id,
    )
    with queries() as asked:
        page = content(operator.get(f"{PATH}{rule.pk}/"))
    assert len(asked) <= 15
    assert "answered 204" in page and "fired" in page and "very-secret" in page
    assert "Open the cause" in page and "Acknowledge…" in page
    assert "very-secret" not in content(viewer.get(f"{PATH}{rule.pk}/"))


def test_acknowledged_muted_and_deleted(operator, alpha):
    rule = make_rule(queue="mail")
    path = f"{PATH}{rule.pk}/"
    page = operator.post(f"{path}acknowledge/", {"reason": "x"}, follow=True)
    assert b"does not fire" in page.content
    wait_in("mail")
    alerts.watch(USING, POLICY)
    assert operator.post(f"{path}acknowledge/", {"reason": "on it"}).status_code == 302
    page = content(operator.get(path))
    assert "has it" in page and "on it" in page and "ui-state-acknowledged" in page
    assert operator.post(f"{path}mute/", {"reason": "x"}).status_code == 400
    assert operator.post(f"{path}mute/", {"reason": "sleep", "lasts": "3600"}).status_code == 302
    rule.refresh_from_db()
    assert rule.is_muted(timezone.now() + timedelta(minutes=59))
    assert operator.post(f"{path}unmute/").status_code == 302
    assert operator.post(f"{path}delete/", {}).status_code == 400
    assert operator.post(f"{path}delete/", {"reason": "old"}).status_code == 302
    assert operator.get(path).status_code == 404
    assert operator.post(f"{path}test/").status_code == 404


def test_lists_ask_a_fixed_number_of_questions(viewer, alpha, queries):
    make_rule()
    with queries() as one:
        viewer.get(PATH)
    for _ in range(10):
        make_rule()
    with queries() as many:
        viewer.get(PATH)
    assert len(one) == len(many) <= 15


def test_every_link_of_an_alert_leads_to_a_page(operator, alpha):
    """What the engine writes into deliveries are addresses of this screen."""
    minutes(1, 20)
    tally("failed", 30)
    make_rule("failure_rate", at_least=5)
    make_rule("failure_rate", at_least=5, queue="default", type="x")
    make_rule("dead_nodes")
    make_rule("late_schedules", limit_seconds=5)
    make_rule("heartbeat", type="a b&c", limit_seconds=600)
    make_rule()
    wait_in("default")
    alerts.watch(USING, POLICY)
    pages = {rule.page for rule in AlertRule.objects.all() if rule.page}
    assert len(pages) >= 3
    for page in pages:
        assert operator.get(f"/admin/alpha/{page}").status_code == 200, page
    assert resolve(f"/admin/alpha/failures/{1:016x}/")


def test_what_is_muted_is_no_trouble_of_the_cluster(viewer, alpha):
    tally("failed", 40)
    minutes(1, 35)
    card = viewer.get("/admin/alpha/card/").content.decode()
    assert "40 of 40 jobs failed in the last hour." in card
    Failure.objects.update(mark="muted")
    card = viewer.get("/admin/alpha/card/").content.decode()
    assert "jobs failed in the last hour." not in card
