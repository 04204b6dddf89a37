"""Waiting for a job through a real server: whoever waits holds nobody up."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from authn.keys import create_key
from clusters.binding import cluster_bound
from jobs.models import Job
from tests.commands.test_serve import answers
from tests.dialects.tork.conftest import GRANTS, task
from tests.dialects.tork.work import node
from tests.processes import free_port, started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


def ask(port: int, key: str, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = None if body is None else json.dumps(body)
    headers = {"x-api-key": key, "content-type": "application/json"}
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    told = json.loads(response.read())
    connection.close()
    return response.status, told, response.headers


def test_whoever_waits_holds_nobody_up(eventually: Callable[..., None]) -> None:
    key = create_key("test", "operator", ["*"], GRANTS)[1]
    port = free_port()
    arguments = ("serve", "--bind", f"127.0.0.1:{port}", "--workers", "1")
    body = {"name": "x", "tasks": [task("a", var="a")], "output": "{{ tasks.a }}"}
    with started(*arguments, env=worker_environment()) as process, ThreadPoolExecutor(4) as pool:
        eventually(lambda: process.poll() is not None or answers(port), seconds=60)
        wait = {**body, "wait": {"timeout": "50s"}}
        waiting = pool.submit(ask, port, key, "POST", "/jobs", wait)

        def has_come() -> bool:
            with cluster_bound("alpha"):
                return bool(Job.objects.exists())

        eventually(has_come, seconds=30)
        # The one worker answers others meanwhile.
        status, page, _ = ask(port, key, "GET", "/jobs")
        assert (status, page["totalItems"]) == (200, 1)
        assert not waiting.done()
        short = ask(port, key, "POST", "/jobs", {**body, "wait": {"timeout": "50ms"}})
        assert short[:2] == (408, {"message": "timeout waiting for job to complete"})
        assert short[2]["X-Request-ID"]
        bad = ask(port, key, "POST", "/jobs", {**body, "tasks": [{}], "wait": {"timeout": "1s"}})
        assert bad[0] == 400
        with cluster_bound("alpha"):
            node().run()
        status, told, headers = waiting.result(60)
        assert (status, told["state"], told["result"]) == (200, "COMPLETED", "a")
        assert headers["Content-Type"] == "application/json"
        # Who asks for what the database refuses hears of it from the other process too.
        none = ask(port, key, "POST", "/jobs", {**wait, "tags": ["x" * 61]})
        assert none[0] == 400
        _ends_with_the_server(port, key, wait, process, pool, eventually)


def _ends_with_the_server(
    port: int, key: str, wait: Any, process: Any, pool: Any, eventually: Any
) -> None:
    waiting = pool.submit(ask, port, key, "POST", "/jobs", wait)

    def waiters() -> list[psutil.Process]:
        """Processes that wait: below the worker, and not ended."""
        family = psutil.Process(process.pid).children(recursive=True)
        below = [one for one in family if one.ppid() != process.pid]
        return [one for one in below if one.status() != psutil.STATUS_ZOMBIE]

    def is_held() -> bool:
        with cluster_bound("alpha"):
            # This one and the one whose time was short.
            return bool(waiters()) and Job.objects.filter(kind="steps").count() == 3

    eventually(is_held, seconds=30)
    begun = time.monotonic()
    for child in waiters():
        child.terminate()
    status, told, _ = waiting.result(60)
    assert (status, told) == (500, {"message": "server shutting down"})
    assert time.monotonic() - begun < 40
