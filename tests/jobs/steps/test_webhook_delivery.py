"""Webhooks of a job that a real node runs and tells of."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from clusters.binding import cluster_bound
from jobs.engine.enqueue import NewJob, enqueue
from jobs.models import Attempt, Job
from jobs.states import FINAL, State
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "a-key-of-this-test-0123456789-0123456789"


class Receiver(ThreadingHTTPServer):
    """Keeps what it is told; answers the first delivery with 503."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[tuple[dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((dict(self.headers), body))
        self.send_response(503 if len(self.server.told) == 1 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_job_is_told_of_while_it_runs(
    receiver: Receiver, eventually: Callable[..., None]
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/x"
    step = {"name": "sleeps", "kind": "python", "type": "test:sleep", "payload": {"seconds": 2}}
    hooks = [
        {"url": url, "format": "tork"},
        {"url": url, "event": "task.StateChange", "headers": {"X-Key": "{{ secrets.key }}"}},
    ]
    payload = {"steps": [step], "webhooks": hooks, "secrets": {"key": "Canary-of-hooks"}}
    env = worker_environment(
        YARDMASTER_HANDLERS="tests.worker_handlers",
        YARDMASTER_HTTP_ALLOW=f"127.0.0.1:{receiver.server_port}",
        YARDMASTER_WEBHOOK_KEY=KEY,
    )
    with cluster_bound("alpha"):
        job = enqueue(NewJob(kind="steps", payload=payload), by="test").job
        with started("worker", "--cluster", "alpha", "--concurrency", "2", env=env):
            eventually(
                lambda: any(
                    b'"step"' in body and b'"running"' in body for _, body in receiver.told
                ),
                seconds=60,
            )
            # Told of while the step runs, not when it has ended.
            assert Job.objects.get(pk=job.pk).state not in FINAL
            eventually(lambda: not Job.objects.exclude(state__in=FINAL).exists(), seconds=60)
        deliveries = Job.objects.filter(kind="webhook")
        assert {one.state for one in deliveries} == {State.SUCCEEDED}
        assert Attempt.objects.filter(job__in=deliveries, outcome="failed").count() == 1
    bodies = [json.loads(body) for _, body in receiver.told[1:]]
    assert {body["state"] for body in bodies if "step" not in body} == {
        "PENDING",
        "RUNNING",
        "COMPLETED",
    }
    assert {body["step"]["state"] for body in bodies if "step" in body} == {
        "ready",
        "running",
        "succeeded",
    }
    for headers, body in receiver.told:
        parts = dict(part.split("=") for part in headers["X-Yardmaster-Signature"].split(","))
        signed = f"{parts['t']}.".encode() + body
        assert parts["v1"] == hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
        if b'"step"' in body:
            assert headers["X-Key"] == "Canary-of-hooks"
