"""`manage.py alerts`"""

from __future__ import annotations

import json
from typing import Any

from jobs.engine import alerts
from jobs.models import AlertRule, Failure, Job
from tests.api.test_failures import make_failure
from tests.jobs.test_alerts import POLICY, USING, make_rule, wait_in


def test_alerts_are_made_listed_shown_and_changed(alpha: object, run: Any) -> None:
    words = ("--kind", "failure_rate", "--ratio", "0.2", "--at-least", "20", "--window", "15m")
    assert run("alerts", "create", "letters", *words, "--queue", "mail", "--quiet", "10m").code == 0
    rule = AlertRule.objects.get()
    assert (rule.ratio, rule.at_least, rule.window_seconds, rule.quiet_seconds) == (
        *(0.2, 20, 900, 600),
    )
    assert run("alerts", "change", "letters", "--enabled", "no", "--name", "post").code == 0
    (item,) = json.loads(run("alerts", "list", "-o", "json").out)["items"]
    assert (item["name"], item["status"], item["queue"]) == ("post", "disabled", "mail")
    shown = json.loads(run("alerts", "show", item["id"], "-o", "json").out)
    assert shown == {**item, "events": []}
    assert run("alerts", "delete", "post", "--yes").code == 0
    assert not AlertRule.objects.exists()


def test_what_fires_is_seen_tried_and_acknowledged(alpha: object, run: Any) -> None:
    make_rule(name="late")
    wait_in("mail")
    alerts.watch(USING, POLICY)
    assert "mail: oldest ready job 14 min" in run("alerts", "list").out
    tried = run("alerts", "test", "late", "-o", "json")
    job = Job.objects.get(pk=json.loads(tried.out)["job_id"])
    assert job.payload["event"] == "alert.test"
    assert run("alerts", "acknowledge", "late", "--reason", "on it").code == 0
    assert run("alerts", "mute", "late", "--for", "2h").code == 0
    shown = json.loads(run("alerts", "show", "late", "-o", "json").out)
    assert shown["status"] == "muted" and shown["acknowledge_reason"] == "on it"
    assert [event["what"] for event in shown["events"]] == [
        *("muted", "acknowledged", "tested", "told", "fired"),
    ]
    found = run("alerts", "preview", "--kind", "oldest_ready", "--limit", "5m", "-o", "json")
    assert json.loads(found.out)["would_fire"] is True


def test_mistakes_have_their_exit_codes(alpha: object, run: Any) -> None:
    make_rule(name="late")
    for code, words in (
        (2, "create x --kind dead_nodes --ratio 0.5"),
        (2, "create x --kind heartbeat --limit 1h"),
        (2, "create x --kind heartbeat --limit 1h --schedule y"),
        (2, "create x --kind dead_nodes --webhook ftp://x"),
        (2, "change late"),
        (3, "show nothing"),
        (4, "create late --kind dead_nodes"),
        (4, "acknowledge late"),
    ):
        assert run("alerts", *words.split()).code == code, words
    assert AlertRule.objects.count() == 1


def test_failures_are_muted_and_owned(alpha: object, run: Any) -> None:
    name = make_failure(7).fingerprint
    assert run("failures", "mute", name, "--for", "8h", "--reason", "later").code == 0
    group = Failure.objects.get()
    assert (group.mark, group.mark_reason) == ("muted", "later") and group.muted_until
    assert name in run("failures", "list", "--mark", "muted").out
    assert run("failures", "own", name, "--owner", "ann", "--ticket", "https://t/1").code == 0
    assert run("failures", "unmute", name).code == 0
    group.refresh_from_db()
    assert (group.mark, group.owner, group.ticket) == ("known", "ann", "https://t/1")
    assert run("failures", "own", name).code == 2
    assert run("failures", "own", name, "--ticket", "javascript:x").code == 2
    assert run("failures", "known", "0" * 16).code == 3
