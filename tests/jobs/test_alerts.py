"""Alerts: when a rule is wrong, when it fires and recovers, and whom it tells how often."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import alert_notices, alert_rules, alerts
from jobs.engine.alert_sight import Sight
from jobs.engine.worker import Worker
from jobs.errors import AlertNotFiring, AlertNotFound, DuplicateAlert, InvalidAlert, OutdatedAlert
from jobs.models import (
    AlertEvent,
    AlertRule,
    Failure,
    FailureMinute,
    FailureSighting,
    Job,
    Queue,
    Schedule,
    Tally,
)
from jobs.models.queue import ALERT_QUEUE
from tests.api.test_failures import make_failure
from tests.factories import make_job, make_node, make_queue
from tests.jobs.schedule_cases import make_schedule

USING = "cluster-alpha"
POLICY = ClusterPolicy()
HOOK = "https://hooks.example/x"


def make_rule(kind: str = "oldest_ready", **values: Any) -> AlertRule:
    at_once = {"for_seconds": 0, "clear_after_seconds": 0, "quiet_seconds": 0, "webhook_url": HOOK}
    number = AlertRule.objects.count()
    if kind == "oldest_ready":
        at_once["limit_seconds"] = 300
    return alert_rules.create(
        {"name": f"rule {number}", "kind": kind, **at_once, **values}, by="test"
    )


def verdict(rule: AlertRule) -> Any:
    return Sight(USING, POLICY).verdict(rule)


def watch() -> None:
    assert alerts.watch(USING, POLICY) == 0


def wait_in(queue: str = "default", minutes: float = 14) -> Job:
    return make_job(queue=queue, run_at=timezone.now() - timedelta(minutes=minutes))


def tally(event: str, count: int, *, queue: str = "default", type: str = "x", ago: int = 0) -> None:  # noqa: A002
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=ago)
    Tally.objects.create(minute=minute, queue=queue, type=type, event=event, count=count)


def later(rule: AlertRule, seconds: float) -> None:
    """As if so much more time had passed for the rule."""
    rule.refresh_from_db()
    moved = {
        name: getattr(rule, name) - timedelta(seconds=seconds)
        for name in ("wrong_since", "right_since", "told_at", "state_since")
        if getattr(rule, name) is not None
    }
    AlertRule.objects.filter(pk=rule.pk).update(**moved)


def told() -> list[dict[str, Any]]:
    return [job.payload["body"] for job in Job.objects.filter(kind="webhook").order_by("id")]


def history(rule: AlertRule) -> list[str]:
    return [*AlertEvent.objects.filter(rule=rule).order_by("id").values_list("what", flat=True)]


# -- What is wrong ---------------------------------------------------------------------------------


def test_many_failures_are_wrong_and_few_or_a_small_share_are_not(alpha):
    rule = make_rule("failure_rate", ratio=0.1, at_least=10, window_seconds=900)
    tally("failed", 9)
    assert not verdict(rule).is_wrong
    tally("failed", 1)
    assert verdict(rule).is_wrong
    tally("succeeded", 90)
    assert not verdict(rule).is_wrong
    tally("failed", 1)
    found = verdict(rule)
    assert found.is_wrong
    assert found.sentence == "11 of 101 jobs failed in the last 15 min, limit 10 % and 10."
    assert found.page == "failures/"


def test_failures_before_the_window_and_of_others_do_not_count(alpha):
    rule = make_rule("failure_rate", queue="mail", type="a", at_least=5, window_seconds=600)
    tally("failed", 50, queue="mail", type="a", ago=30)
    tally("failed", 50, queue="web", type="a")
    tally("failed", 50, queue="mail", type="b")
    assert not verdict(rule).is_wrong
    tally("failed", 5, queue="mail", type="a")
    found = verdict(rule)
    assert found.is_wrong and found.sentence.startswith("mail, a: 5 of 5 jobs failed")
    assert found.page == "failures/?queue=mail&type=a"


def minutes(number: int, failed: int, **columns: Any) -> Failure:
    failure = Failure.objects.filter(pk=f"{number:016x}").first() or make_failure(number)
    minute = timezone.now().replace(second=0, microsecond=0)
    of = {"queue": "default", "type": "x", **columns}
    FailureMinute.objects.create(
        fingerprint=failure.pk, starts_at=minute, count=failed, failed=failed, **of
    )
    return failure


def test_what_is_muted_does_not_count_and_the_commonest_of_the_rest_is_linked(alpha):
    rule = make_rule("failure_rate", at_least=10)
    tally("failed", 100)
    minutes(1, 70)
    minutes(2, 20)
    minutes(3, 10)
    assert verdict(rule).page == f"failures/{1:016x}/"
    Failure.objects.filter(pk=f"{1:016x}").update(mark="muted")
    found = verdict(rule)
    assert found.sentence.startswith("30 of 30 jobs failed")
    assert found.page == f"failures/{2:016x}/"
    Failure.objects.filter(pk__in=[f"{2:016x}", f"{3:016x}"]).update(mark="muted")
    assert not verdict(rule).is_wrong
    Failure.objects.update(muted_until=timezone.now() - timedelta(minutes=1))
    assert verdict(rule).is_wrong


def test_muted_failures_that_are_not_folded_yet_do_not_count_either(alpha):
    rule = make_rule("failure_rate", at_least=10)
    make_failure(1, mark="muted")
    for _ in range(10):
        tally("failed", 1)
        job = make_job("failed")
        sighting = {"fingerprint": f"{1:016x}", "job_id": job.pk, "fence": job.fence}
        FailureSighting.objects.create(**sighting, seen_at=timezone.now())
    assert not verdict(rule).is_wrong
    Failure.objects.update(mark="known")
    assert verdict(rule).is_wrong


def test_the_oldest_ready_job_of_a_queue_that_is_not_paused(alpha):
    rule, of_one = make_rule(), make_rule(queue="mail")
    make_queue("paused", is_paused=True)
    wait_in("paused", 60)
    wait_in("default", 3)
    assert not verdict(rule).is_wrong
    wait_in("mail", 14)
    for one in (rule, of_one):
        found = verdict(one)
        assert found.is_wrong
        assert found.sentence == "mail: oldest ready job 14 min, limit 5 min."
        assert found.page == "jobs/?state=ready&queue=mail"
    assert not verdict(make_rule(queue="default")).is_wrong


def test_nodes_that_were_lost_of_late(alpha):
    rule = make_rule("dead_nodes", at_least=2, window_seconds=900)
    now = timezone.now()
    make_node("dead", closed_at=now - timedelta(hours=1))
    make_node("closed")
    make_node()
    make_node("dead", host="w1", pid=7)
    assert not verdict(rule).is_wrong
    make_node(host="w2", pid=8, lease_until=now - timedelta(seconds=1))
    found = verdict(rule)
    assert found.is_wrong and found.page == "nodes/"
    assert "w1:7" in found.sentence and "w2:8" in found.sentence


def test_schedules_that_are_late(alpha):
    rule = make_rule("late_schedules", limit_seconds=120)
    late, soon = make_schedule(), make_schedule()
    now = timezone.now()
    Schedule.objects.filter(pk=soon.pk).update(next_run_at=now - timedelta(minutes=1))
    Schedule.objects.filter(pk=late.pk).update(next_run_at=now + timedelta(minutes=1))
    assert not verdict(rule).is_wrong
    Schedule.objects.filter(pk=late.pk).update(
        name="nightly", next_run_at=now - timedelta(minutes=9)
    )
    found = verdict(rule)
    assert found.is_wrong and found.sentence == "Schedule nightly is 9 min late, limit 2 min."
    assert found.page == "schedules/?name=nightly"


def test_a_type_of_jobs_that_has_not_succeeded(alpha):
    rule = make_rule("heartbeat", type="backup", limit_seconds=3600)
    tally("succeeded", 1, type="backup", ago=90)
    tally("succeeded", 1, type="other")
    found = verdict(rule)
    assert found.is_wrong and found.sentence == "backup: no success in the last 1 h."
    assert found.page == "jobs/?type=backup"
    tally("succeeded", 1, type="backup", ago=50)
    assert not verdict(rule).is_wrong


def test_a_schedule_that_has_not_succeeded(alpha):
    schedule = make_schedule()
    rule = make_rule("heartbeat", schedule_id=schedule.pk, limit_seconds=3600)
    assert not verdict(rule).is_wrong
    rows = Schedule.objects.filter(pk=schedule.pk)
    rows.update(created_at=timezone.now() - timedelta(hours=9))
    assert verdict(rule).is_wrong
    rows.update(last_succeeded_at=timezone.now() - timedelta(hours=2), name="nightly")
    found = verdict(rule)
    assert found.is_wrong and found.page == f"schedules/{schedule.pk}/"
    assert found.sentence.startswith("nightly: last success 2 h ago")
    rows.update(last_succeeded_at=timezone.now())
    assert not verdict(rule).is_wrong
    rows.delete()
    assert "not there any more" in verdict(rule).sentence


def test_looking_reads_no_job_but_where_a_queue_begins(alpha, django_assert_max_num_queries):
    for kind, values in (
        ("failure_rate", {}),
        ("heartbeat", {"type": "x", "limit_seconds": 600}),
        ("dead_nodes", {}),
        ("late_schedules", {}),
    ):
        make_rule(kind, **values)
    for number in range(20):
        make_rule(queue=f"q{number}")
    watch()
    # Where nothing has changed nothing is written either.
    with django_assert_max_num_queries(20, using=USING) as asked:
        watch()
    looks = [query["sql"] for query in asked if '"job"' in query["sql"] or " job " in query["sql"]]
    assert len([sql for sql in looks if "hop" in sql]) == 1
    assert len(looks) == 1


# -- Fires and recovers ----------------------------------------------------------------------------


def test_a_rule_fires_once_and_recovers_once(alpha):
    rule = make_rule(name="mail waits")
    job = wait_in("mail")
    for _ in range(3):
        watch()
    (body,) = told()
    assert body["event"] == "alert.firing" and not body["is_test"]
    assert body["alert"]["message"] == "mail: oldest ready job 14 min, limit 5 min."
    assert body["alert"]["link"] == "/admin/alpha/jobs/?state=ready&queue=mail"
    assert body["text"].startswith("[alpha] FIRING mail waits: mail: oldest")
    job.delete()
    for _ in range(3):
        watch()
    assert [body["event"] for body in told()] == ["alert.firing", "alert.recovered"]
    assert history(rule) == ["fired", "told", "recovered", "told"]


def test_links_begin_with_the_public_address(alpha, settings):
    settings.PUBLIC_URL = "https://jobs.example.com"
    make_rule()
    wait_in("mail")
    watch()
    (body,) = told()
    where = "https://jobs.example.com/admin/alpha/"
    assert body["alert"]["link"] == f"{where}jobs/?state=ready&queue=mail"
    assert body["alert"]["alert_link"] == f"{where}alerts/{AlertRule.objects.get().pk}/"


def test_what_is_wrong_for_a_moment_does_not_fire(alpha):
    rule = make_rule(for_seconds=60, clear_after_seconds=120)
    job = wait_in()
    watch()
    rule.refresh_from_db()
    assert (rule.state, rule.status(timezone.now())) == ("ok", "pending")
    Job.objects.filter(pk=job.pk).update(run_at=timezone.now())
    watch()
    later(rule, 59)
    Job.objects.filter(pk=job.pk).update(run_at=timezone.now() - timedelta(minutes=9))
    watch()
    later(rule, 59)
    watch()
    assert AlertRule.objects.get().state == "ok"
    later(rule, 2)
    watch()
    assert AlertRule.objects.get().state == "firing"
    Job.objects.filter(pk=job.pk).update(run_at=timezone.now())
    watch()
    later(rule, 119)
    watch()
    assert AlertRule.objects.get().state == "firing"
    later(rule, 2)
    watch()
    assert AlertRule.objects.get().state == "ok"


def test_one_that_flaps_is_told_of_now_and_then(alpha):
    rule = make_rule(quiet_seconds=300)
    job = wait_in()
    watch()
    for minutes_ready in (0, 9, 0, 9, 0):
        run_at = timezone.now() - timedelta(minutes=minutes_ready)
        Job.objects.filter(pk=job.pk).update(run_at=run_at)
        watch()
    assert [body["event"] for body in told()] == ["alert.firing"]
    assert history(rule).count("fired") == 3
    later(rule, 301)
    watch()
    # Not what happened meanwhile, but how it stands.
    assert [body["event"] for body in told()] == ["alert.firing", "alert.recovered"]
    later(rule, 301)
    watch()
    assert len(told()) == 2


def test_many_at_once_are_one_delivery(alpha):
    rules = [make_rule(queue="mail") for _ in range(alert_notices.SUMMARY_FROM + 1)]
    elsewhere = make_rule(queue="mail", webhook_url="https://other.example/y")
    wait_in("mail")
    watch()
    bodies = {body["event"]: body for body in told()}
    assert {*bodies} == {"alert.summary", "alert.firing"} and len(told()) == 2
    assert bodies["alert.firing"]["alert"]["name"] == elsewhere.name
    summary = bodies["alert.summary"]
    assert (summary["firing"], summary["recovered"]) == (len(rules), 0)
    assert {one["name"] for one in summary["alerts"]} == {rule.name for rule in rules}
    assert all(history(rule) == ["fired", "told"] for rule in rules)
    watch()
    assert len(told()) == 2


def test_as_many_as_that_are_told_one_by_one(alpha):
    for _ in range(alert_notices.SUMMARY_FROM):
        make_rule(queue="mail")
    wait_in("mail")
    watch()
    assert [body["event"] for body in told()] == ["alert.firing"] * alert_notices.SUMMARY_FROM


def test_no_queue_of_jobs_keeps_a_delivery(alpha):
    make_rule(queue="mail")
    wait_in("mail")
    make_job(queue="default")
    Queue.objects.filter(name="default").update(max_entries=1, overflow="refuse")
    Queue.objects.all().named("default").pause(by="test", reason="looking")
    watch()
    job = Job.objects.get(kind="webhook")
    assert (job.priority, job.queue, job.state) == (-100, ALERT_QUEUE, "ready")
    assert job.max_attempts > 1


def test_a_node_that_takes_from_some_queues_delivers_alerts_too(alpha):
    def takes(queues: list[str] | None, *kinds: str) -> list[str] | None:
        given = {"concurrency": 1, "io_slots": 1}
        return Worker("alpha", queues=queues, kinds=[*kinds], **given).queues

    assert takes(["mail"], "python", "http") == ["mail", ALERT_QUEUE]
    assert takes([ALERT_QUEUE, "mail"], "http") == [ALERT_QUEUE, "mail"]
    assert takes(["mail"], "python") == ["mail"]
    assert takes(None, "python", "http") is None


def test_a_full_queue_makes_it_wait_and_loses_nothing(alpha):
    rule = make_rule()
    wait_in()
    Queue.objects.create(name=ALERT_QUEUE, max_entries=1, overflow="refuse")
    make_job(queue=ALERT_QUEUE)
    watch()
    rule.refresh_from_db()
    assert (rule.state, rule.told_state) == ("firing", "ok") and not told()
    Queue.objects.filter(name=ALERT_QUEUE).update(max_entries=None)
    watch()
    assert len(told()) == 1


def test_a_rule_without_a_webhook_tells_nobody(alpha):
    rule = make_rule(webhook_url="")
    wait_in()
    watch()
    assert history(rule) == ["fired"] and not told()


def test_a_rule_that_cannot_be_judged_keeps_back_no_other(alpha, monkeypatch):
    broken, sound = make_rule(name="a", for_seconds=0), make_rule(name="b", for_seconds=0)
    wait_in()
    judged = Sight.verdict

    def verdict(self: Sight, rule: AlertRule) -> Any:
        if rule.pk == broken.pk:
            raise ValueError("nobody thought of this")
        return judged(self, rule)

    monkeypatch.setattr(Sight, "verdict", verdict)
    watch()
    assert history(sound)[-1:] == ["told"]
    assert history(broken) == []


def test_a_rule_that_is_off_is_not_looked_at(alpha):
    rule = make_rule(is_enabled=False)
    wait_in()
    watch()
    assert not history(rule)


@pytest.mark.django_db(transaction=True)
def test_two_nodes_that_look_at_the_same_moment_tell_once(alpha, monkeypatch, patience):
    for number in range(3):
        make_rule(queue=f"q{number}")
        wait_in(f"q{number}")
    together = threading.Barrier(2, timeout=30)
    seen = Sight.verdict
    errors: list[Exception] = []
    met = threading.local()

    def judge(self: Sight, rule: AlertRule) -> Any:
        found = seen(self, rule)
        if not getattr(met, "is_done", False):
            met.is_done = True
            # Both have read every rule before either moves one.
            together.wait()
        return found

    monkeypatch.setattr(Sight, "verdict", judge)

    def work() -> None:
        from clusters.binding import cluster_bound

        try:
            with cluster_bound("alpha"):
                watch()
        except Exception as error:  # shown by the assertion below
            errors.append(error)
        finally:
            connections[USING].close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(told()) == 3
    assert AlertEvent.objects.filter(what="fired").count() == 3


# -- People ----------------------------------------------------------------------------------------


def test_whoever_mutes_hears_nothing_until_the_mute_ends(alpha):
    rule = make_rule()
    alert_rules.mute(rule.pk, by="ann", seconds=600, reason="I know")
    job = wait_in()
    watch()
    rule.refresh_from_db()
    assert rule.state == "firing" and rule.status(timezone.now()) == "muted" and not told()
    AlertRule.objects.update(muted_until=timezone.now() - timedelta(seconds=1))
    watch()
    assert [body["event"] for body in told()] == ["alert.firing"]
    alert_rules.mute(rule.pk, by="ann", seconds=600)
    job.delete()
    watch()
    alert_rules.unmute(rule.pk, by="ann")
    watch()
    assert [body["event"] for body in told()] == ["alert.firing", "alert.recovered"]


def test_an_acknowledgement_lasts_until_it_recovers(alpha):
    rule = make_rule()
    with pytest.raises(AlertNotFiring):
        alert_rules.acknowledge(rule.pk, by="ann")
    job = wait_in()
    watch()
    found = alert_rules.acknowledge(rule.pk, by="ann", reason="on it")
    assert found.status(timezone.now()) == "acknowledged"
    assert (found.acknowledged_by, found.acknowledge_reason) == ("ann", "on it")
    job.delete()
    watch()
    rule.refresh_from_db()
    assert (rule.state, rule.acknowledged_at, rule.acknowledged_by) == ("ok", None, "")


def test_a_test_says_that_it_is_one_and_changes_nothing(alpha):
    rule = make_rule()
    event = alert_rules.test(rule.pk, by="ann")
    (body,) = told()
    assert (body["event"], body["is_test"]) == ("alert.test", True)
    assert event.job_id == Job.objects.get(kind="webhook").pk
    rule.refresh_from_db()
    assert (rule.state, rule.told_at) == ("ok", None)
    quiet = make_rule(webhook_url="")
    with pytest.raises(InvalidAlert):
        alert_rules.test(quiet.pk, by="ann")


def test_a_rule_that_watches_something_else_begins_anew(alpha):
    rule = make_rule()
    wait_in("mail")
    watch()
    alert_rules.change(rule.pk, {"quiet_seconds": 60}, by="ann")
    assert AlertRule.objects.get().state == "firing"
    changed = alert_rules.change(rule.pk, {"queue": "web"}, by="ann", versions=[2])
    assert (changed.state, changed.wrong_since, changed.version) == ("ok", None, 3)
    with pytest.raises(OutdatedAlert):
        alert_rules.change(rule.pk, {"queue": "x"}, by="ann", versions=[2])
    other = alert_rules.change(rule.pk, {"kind": "dead_nodes"}, by="ann")
    assert (other.queue, other.limit_seconds, other.at_least) == (None, None, 1)


@pytest.mark.once
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "odd"}, "kind"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "\0"}, "name"),
        ({"severity": "odd"}, "severity"),
        ({"ratio": 0.1}, "ratio"),
        ({"limit_seconds": 0}, "limit_seconds"),
        ({"limit_seconds": float("nan")}, "limit_seconds"),
        ({"limit_seconds": True}, "limit_seconds"),
        ({"for_seconds": -1}, "for_seconds"),
        ({"kind": "failure_rate", "window_seconds": 90_000}, "window_seconds"),
        ({"kind": "failure_rate", "ratio": 1.1}, "ratio"),
        ({"kind": "failure_rate", "at_least": 1.5}, "at_least"),
        ({"kind": "heartbeat", "type": "x"}, "limit_seconds"),
        ({"kind": "heartbeat", "limit_seconds": 600}, "type"),
        ({"queue": "x" * 101}, "queue"),
        ({"webhook_url": "ftp://x/"}, "webhook_url"),
        ({"webhook_url": "https://u:p@x/"}, "webhook_url"),
        ({"webhook_url": "nothing"}, "webhook_url"),
    ],
)
def test_what_no_alert_can_be_is_refused(alpha, values, field):
    with pytest.raises(InvalidAlert) as refusal:
        alert_rules.create({"name": "n", "kind": "oldest_ready", **values}, by="test")
    assert refusal.value.field == field
    assert not AlertRule.objects.exists()


def test_names_are_taken_once_and_rules_are_bounded(alpha, monkeypatch):
    make_rule(name="a")
    other = make_rule(name="b")
    with pytest.raises(DuplicateAlert):
        make_rule(name="a")
    with pytest.raises(DuplicateAlert):
        alert_rules.change(other.pk, {"name": "a"}, by="test")
    monkeypatch.setattr(alert_rules, "MAX_RULES", 2)
    with pytest.raises(InvalidAlert):
        make_rule(name="c")
    alert_rules.delete(other.pk)
    with pytest.raises(AlertNotFound):
        alert_rules.get(other.pk)


def test_a_preview_keeps_nothing(alpha):
    wait_in("mail")
    found = alert_rules.preview({"kind": "oldest_ready", "limit_seconds": 60})
    assert found.is_wrong and found.sentence.startswith("mail: oldest ready job 14 min")
    assert not alert_rules.preview({"kind": "oldest_ready", "queue": "web"}).is_wrong
    assert not AlertRule.objects.exists()


def test_old_history_is_forgotten(alpha):
    rule = make_rule()
    for days in (1, 100):
        AlertEvent.objects.create(rule=rule, what="fired", at=timezone.now() - timedelta(days=days))
    assert alerts.forget(USING, POLICY) == 1
    assert alerts.forget(USING, POLICY) == 0
    assert AlertEvent.objects.count() == 1


def test_an_address_may_name_a_secret(alpha):
    assert make_rule(webhook_url="https://hooks.example/{{Secret.hook}}").webhook_url
