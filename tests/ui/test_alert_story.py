"""From an alert to what it tells of mended, in a real browser: three clicks, for however many jobs."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import alert_rules
from jobs.engine.enqueue import enqueue_many
from jobs.engine.new_job import NewJob
from jobs.models import AlertEvent, BulkOperation, FailureMinute
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import chromium, program, visit
from tests.ui.test_browser import _answers, _people, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)
FAILED = 2134
KEY = "a key of the tests that signs deliveries"


@contextmanager
def receiver() -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """Whoever is told: keeps signatures and bodies."""
    told: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.headers["X-Yardmaster-Signature"], body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, told
    finally:
        server.shutdown()
        server.server_close()


def checked(signature: str, body: bytes) -> dict[str, Any]:
    """The body, if it was signed; as docs/alerts.md says."""
    parts = dict(part.split("=", 1) for part in signature.split(","))
    signed = parts["t"].encode() + b"." + body
    expected = hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(expected, parts["v1"])
    found: dict[str, Any] = json.loads(body)
    return found


def _fail() -> None:
    with cluster_bound("alpha"):
        fails = NewJob(type="demo:fail", payload={"times": 99}, max_attempts=1)
        enqueue_many([fails] * FAILED, by="test")


def _watch(hook: str) -> None:
    """As soon as all of them have failed and are in their group."""
    with cluster_bound("alpha"):
        at_once = {"for_seconds": 0, "clear_after_seconds": 86400, "quiet_seconds": 0}
        rule = {"name": "too many fail", "kind": "failure_rate", "webhook_url": hook}
        alert_rules.create({**rule, **at_once}, by="test")


def _failed() -> int:
    with cluster_bound("alpha"):
        return sum(FailureMinute.objects.values_list("failed", flat=True))


def _retried() -> tuple[str, int] | None:
    with cluster_bound("alpha"):
        operation = BulkOperation.objects.first()
        if operation is None or operation.status != "finished":
            return None
        done = sum(count for what, count in operation.outcomes.items() if what != "not_possible")
        return operation.reason, done


def _entry() -> tuple[str, str, str]:
    with cluster_bound("alpha"):
        entry = AuditEntry.objects.get(verb="bulk_operations.request")
        return entry.actor, entry.reason, str((entry.filter or {}).get("failure"))


def _answer() -> str | None:
    with cluster_bound("alpha"):
        event = AlertEvent.objects.filter(what="told").first()
        return event and str(event.rule_id)


@pytest.mark.once
def test_an_alert_a_group_and_all_retried_are_three_clicks(transactional_db: None) -> None:
    program()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with receiver() as (hook_port, told):
        environment = worker_environment(
            YARDMASTER_PUBLIC_URL=address,
            YARDMASTER_WEBHOOK_KEY=KEY,
            YARDMASTER_HTTP_ALLOW=f"127.0.0.1:{hook_port}",
            YARDMASTER_HTTP_PORTS=str(hook_port),
        )
        _people()
        _fail()
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        node = ("worker", "--cluster", "alpha", "--concurrency", "2")
        with (
            started("serve", *bind, env=environment),
            started(*node, env=environment, grace=1),
        ):
            until(lambda: _failed() == FAILED, 120)
            _watch(f"http://127.0.0.1:{hook_port}/on-call")
            until(lambda: told, 120)
            until(lambda: _answers(port))
            body = checked(*told[0])
            assert body["event"] == "alert.firing"
            assert f"{FAILED:,}".replace(",", "\u202f") in body["alert"]["message"]
            link = body["alert"]["link"]
            assert link.startswith(f"{address}/admin/alpha/failures/")
            with chromium() as browser, visit(browser, address) as visitor:
                visitor.page.set_default_timeout(60_000)
                visitor.sign_in("operator")
                clicks = 1
                visitor.page.goto(link)
                visitor.page.get_by_role("link", name="Retry all", exact=True).click()
                clicks += 1
                visitor.page.get_by_label("Reason").fill("the mail server is back")
                visitor.page.locator(".ui-bulk button[type=submit]").click()
                clicks += 1
                visitor.page.wait_for_url("**/bulk-operations/*/")
                assert clicks == 3
                found = until(lambda: in_thread(_retried), 120)
                assert found == ("the mail server is back", FAILED)
                assert visitor.complaints == []
                visitor.go(f"/admin/alpha/alerts/{in_thread(_answer)}/").sees("answered 204")
            fingerprint = link.rstrip("/").rpartition("/")[2]
            assert in_thread(_entry) == ("user:operator", "the mail server is back", fingerprint)
