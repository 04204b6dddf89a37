"""{cluster}/alerts"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from jobs.api.alerts import AlertEventItem, AlertItem
from jobs.engine import alerts
from jobs.models import AlertRule, Job
from jobs.secrets import meant_payload
from tests.api.conftest import Api, check_problem
from tests.factories import make_job
from tests.jobs.test_alerts import POLICY, USING, make_rule, wait_in

NEW = {"name": "late", "kind": "oldest_ready", "webhook_url": "https://hooks.example/x"}


def test_an_alert_is_made_read_changed_and_deleted(alpha: object, api: Api) -> None:
    made = api.post("alpha/alerts", NEW)
    assert made.status_code == 201, made.content
    body = made.json()
    assert list(body) == list(AlertItem().fields)
    assert made["Location"] == f"/jm-api/alpha/alerts/{body['id']}"
    assert (body["status"], body["limit_seconds"], body["ratio"]) == ("ok", 300.0, None)
    path = f"alpha/alerts/{body['id']}"
    assert api.get(path).json() == body
    assert api.get("alpha/alerts").json()["items"] == [body]
    assert api.get("alpha/alerts/count").json() == {"count": 1, "is_exact": True}
    assert made["ETag"] == '"1"'
    changed = api.patch(path, {"limit_seconds": 60, "queue": "mail"}, if_match='"1"')
    assert (changed.json()["limit_seconds"], changed.json()["queue"]) == (60.0, "mail")
    check_problem(api.patch(path, {"queue": None}, if_match='"1"'), 412, "precondition_failed")
    assert api.delete(path).status_code == 204
    check_problem(api.get(path), 404, "not_found")


def test_nobody_sees_in_a_delivery_where_it_goes(alpha: object, api: Api, viewer: Api) -> None:
    url = "https://hooks.example/services/T1/B2/hush?key=hush"
    made = api.post("alpha/alerts", {**NEW, "webhook_url": url}).json()
    assert api.post(f"alpha/alerts/{made['id']}/test").status_code == 202
    job = Job.objects.get(kind="webhook")
    assert job.payload["url"] == url
    body = viewer.get(f"alpha/jobs/{job.pk}").json()
    assert body["payload"]["url"] == "https://hooks.example/***"
    assert "hush" not in str(body)
    # Who sends back what he was shown means what is stored; another address is another.
    assert meant_payload("webhook", body["payload"], job.payload)["url"] == url
    other = {**body["payload"], "url": "https://other.example/***"}
    assert meant_payload("webhook", other, job.payload) == other | {"headers": {}}


@pytest.mark.parametrize("word", ["node:web:\u00b2", "args.items.\u00b2:x", "args.items.9:x"])
def test_digits_that_are_no_number_find_nothing(alpha: object, api: Api, word: str) -> None:
    make_job(payload={"items": ["x"]})
    answer = api.get(f"alpha/jobs?q={quote(word)}")
    assert answer.status_code in (200, 400), answer.content
    assert answer.json().get("items", []) == []


def test_a_list_of_alerts_asks_no_more_for_more_of_them(alpha: object, api: Api) -> None:
    api.post("alpha/alerts", NEW)
    with CaptureQueriesContext(connections["cluster-alpha"]) as one:
        api.get("alpha/alerts")
    for number in range(3):
        api.post("alpha/alerts", {**NEW, "name": f"n{number}"})
    with CaptureQueriesContext(connections["cluster-alpha"]) as four:
        assert len(api.get("alpha/alerts").json()["items"]) == 4
    assert len(four) == len(one)


def test_viewers_do_not_see_where_it_is_told(alpha: object, api: Api, viewer: Api) -> None:
    api.post("alpha/alerts", NEW)
    (item,) = viewer.get("alpha/alerts").json()["items"]
    assert item["webhook_url"] is None
    assert viewer.get(f"alpha/alerts/{item['id']}").json()["webhook_url"] is None
    assert api.get(f"alpha/alerts/{item['id']}").json()["webhook_url"] == NEW["webhook_url"]


def test_a_preview_says_whether_and_why(alpha: object, viewer: Api) -> None:
    wait_in("mail")
    asked = {"kind": "oldest_ready", "limit_seconds": 60}
    body = viewer.post("alpha/alerts/preview", asked).json()
    assert body == {
        "would_fire": True,
        "message": "mail: oldest ready job 14 min, limit 1 min.",
        "link": "/admin/alpha/jobs/?state=ready&queue=mail",
    }
    body = viewer.post("alpha/alerts/preview", {**asked, "queue": "web"}).json()
    assert (body["would_fire"], body["link"]) == (False, None)
    assert not AlertRule.objects.exists()


def test_it_is_acknowledged_muted_and_tried(alpha: object, api: Api) -> None:
    path = f"alpha/alerts/{make_rule().pk}"
    check_problem(api.post(f"{path}/acknowledge", {}), 409, "invalid_transition")
    wait_in()
    alerts.watch(USING, POLICY)
    body = api.post(f"{path}/acknowledge", {"reason": "on it"}).json()
    assert (body["status"], body["acknowledge_reason"]) == ("acknowledged", "on it")
    assert body["acknowledged_by"].startswith("key:")
    assert api.post(f"{path}/mute", {"seconds": 60}).json()["status"] == "muted"
    assert api.post(f"{path}/unmute").json()["status"] == "acknowledged"
    tried = api.post(f"{path}/test")
    assert tried.status_code == 202 and list(tried.json()) == list(AlertEventItem().fields)
    job = Job.objects.get(pk=tried.json()["job_id"])
    assert job.payload["body"]["is_test"] is True
    happened = [item["what"] for item in api.get(f"{path}/events").json()["items"]]
    assert happened == ["tested", "unmuted", "muted", "acknowledged", "told", "fired"]
    first = api.get(f"{path}/events?limit=4").json()
    rest = api.get(first["next"].removeprefix("/jm-api/")).json()
    assert [item["what"] for item in rest["items"]] == ["told", "fired"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("post", "", {"kind": "dead_nodes"}, "name"),
        ("post", "", {"name": "x", "kind": "odd"}, "kind"),
        ("post", "", {"name": "x", "kind": "dead_nodes", "queue": "mail"}, "queue"),
        ("post", "", {"name": "x", "kind": "dead_nodes", "at_least": 0}, "at_least"),
        ("post", "", {"name": "x", "kind": "dead_nodes", "state": "firing"}, "state"),
        ("post", "", {**NEW, "webhook_url": "file:///etc/passwd"}, "webhook_url"),
        ("post", "/preview", {"kind": "heartbeat", "limit_seconds": 60}, "type"),
        ("patch", "/{id}", {}, "body"),
        ("patch", "/{id}", {"ratio": 0.5}, "ratio"),
        ("post", "/{id}/mute", {}, "until"),
        ("post", "/{id}/mute", {"seconds": 60, "until": "2040-01-01T00:00:00Z"}, "until"),
        ("post", "/{id}/mute", {"until": "2020-01-01T00:00:00Z"}, "until"),
        ("post", "/{id}/mute", {"seconds": -1}, "seconds"),
    ],
)
def test_what_is_wrong_is_named(
    method: str, path: str, body: dict[str, Any], field: str, alpha: object, api: Api
) -> None:
    rule = make_rule()
    before = AlertRule.objects.values().get()
    answer = getattr(api, method)(f"alpha/alerts{path.format(id=rule.pk)}", body)
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    check_problem(answer, 400, "invalid")
    assert AlertRule.objects.values().get() == before


def test_a_name_is_taken_once(alpha: object, api: Api) -> None:
    api.post("alpha/alerts", NEW)
    check_problem(api.post("alpha/alerts", NEW), 409, "duplicate_name")


def test_what_is_not_there_is_404(alpha: object, api: Api) -> None:
    for key in ("x", "0190a1b2-0000-7000-8000-000000000000"):
        for call in (
            lambda k: api.get(f"alpha/alerts/{k}"),
            lambda k: api.get(f"alpha/alerts/{k}/events"),
            lambda k: api.post(f"alpha/alerts/{k}/test"),
            lambda k: api.delete(f"alpha/alerts/{k}"),
        ):
            check_problem(call(key), 404, "not_found")
