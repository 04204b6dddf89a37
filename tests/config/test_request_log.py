"""Requests in the log of the cluster that they were for."""

from __future__ import annotations

import http.client
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.test import Client

from authn.keys import create_key
from clusters.log import LogEntry
from config import request_log
from config.request_log import Line, RequestLogMiddleware, RequestsLog, requests_log
from tests.api.conftest import BASE
from tests.processes import free_port, started, worker_environment


def lines(cluster: str = "alpha") -> list[LogEntry]:
    return [*LogEntry.objects.using(f"cluster-{cluster}").order_by("logged_at", "id")]


@pytest.fixture
def logged(transactional_db: None, settings: Any) -> Iterator[Callable[..., Any]]:
    """Asks a server that keeps such a log, and waits until it is written."""
    settings.LOGGED_CLUSTERS = ["*"]
    client = Client(raise_request_exception=False)

    def ask(method: str, path: str, **headers: str) -> Any:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        response = client.generic(method, path, b"{}", "application/json", headers=given)
        requests_log.close()
        return response

    yield ask
    requests_log.close()


def make_key(name: str = "reader", role: str = "viewer", clusters: tuple[str, ...] = ("*",)) -> str:
    return create_key(name, role, clusters)[1]


def test_a_request_is_told_of_with_its_status_duration_and_caller(logged: Any) -> None:
    key = make_key()
    logged("GET", f"{BASE}/alpha/jobs?tag=hush", x_api_key=key, x_request_id="one")
    (line,) = lines()
    assert (line.method, line.path, line.status) == ("GET", f"{BASE}/alpha/jobs", 200)
    assert (line.actor, line.address, line.request_id) == ("key:reader", "127.0.0.1", "one")
    assert (line.category, line.level, line.surface) == ("api", "info", "native")
    assert line.duration_ms > 0
    assert line.message == f"GET {BASE}/alpha/jobs 200 by key:reader"
    assert lines("beta") == []


def test_those_that_were_refused_are_told_of_too(logged: Any) -> None:
    key = make_key()
    logged("GET", f"{BASE}/alpha/jobs")
    logged("GET", f"{BASE}/alpha/jobs", x_api_key="ym_bad")
    logged("POST", f"{BASE}/alpha/jobs", x_api_key=key)
    logged("GET", f"{BASE}/alpha/jobs/nothing", x_api_key=key)
    found = [(line.status, line.actor, line.level) for line in lines()]
    assert found == [
        (401, "", "warning"),
        (401, "", "warning"),
        (403, "key:reader", "warning"),
        (404, "key:reader", "info"),
    ]


def test_each_cluster_has_its_own_and_the_rest_goes_to_the_default_one(logged: Any) -> None:
    key = make_key()
    logged("GET", f"{BASE}/beta/jobs", x_api_key=key)
    logged("GET", "/clusters/beta/asyncjobs/v1/queues", x_api_key=key)
    assert [line.surface for line in lines("beta")] == ["native", "asyncjobs"]
    assert lines() == []
    for path in (f"{BASE}/whoami", f"{BASE}/gone/jobs", "/tork/jobs", "/scheduler/nowhere"):
        logged("GET", path, x_api_key=key)
    assert [line.surface for line in lines()] == ["native", "native", "tork", "scheduler"]
    assert len(lines("beta")) == 2


def test_probes_and_pages_are_not_told_of(logged: Any) -> None:
    for path in (
        "/livez",
        "/readyz",
        "/healthz",
        f"{BASE}/readyz",
        "/forge/health",
        "/tork/health",
    ):
        assert logged("GET", path).status_code in (200, 401), path
    logged("GET", "/admin/login/")
    assert lines() == []


def test_only_clusters_that_are_named_keep_one(logged: Any, settings: Any) -> None:
    settings.LOGGED_CLUSTERS = ["beta"]
    key = make_key()
    logged("GET", f"{BASE}/alpha/jobs", x_api_key=key)
    logged("GET", f"{BASE}/beta/jobs", x_api_key=key)
    logged("GET", f"{BASE}/whoami", x_api_key=key)
    assert lines() == []
    assert len(lines("beta")) == 1


def test_without_the_setting_no_request_passes_through_it(settings: Any) -> None:
    settings.LOGGED_CLUSTERS = []
    with pytest.raises(MiddlewareNotUsed):
        RequestLogMiddleware(lambda request: None)  # type: ignore[arg-type,return-value]


def test_a_path_is_stored_without_controls_and_without_keys(logged: Any) -> None:
    key = make_key()
    path = f"{BASE}/alpha/jobs/%00%0A%1B[31m%E2%80%AE"
    assert logged("GET", path, x_api_key=key).status_code == 404
    assert logged("GET", f"{BASE}/alpha/jobs/{key}", x_api_key=key).status_code == 404
    assert logged("GET", f"{BASE}/alpha/jobs/" + "x" * 2000, x_api_key=key).status_code == 404
    evil, secret, long = lines()
    assert evil.path == f"{BASE}/alpha/jobs/\\x00\\x0a\\x1b[31m\\u202e"
    assert key.rsplit("_", 1)[1] not in secret.path + secret.message
    assert secret.path.endswith("_***")
    assert len(long.path) == 500


def test_a_database_that_does_not_take_lines_costs_no_request(
    logged: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = make_key()
    monkeypatch.setattr(request_log, "_entries", lambda lines: [LogEntry(status="none")])
    assert logged("GET", f"{BASE}/alpha/jobs", x_api_key=key).status_code == 200
    assert lines() == []
    assert "the log of requests lacks 1 lines" in caplog.text


def test_what_is_too_much_is_dropped_and_counted(
    transactional_db: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RequestsLog(max_waiting=5)
    with monkeypatch.context() as patch:
        patch.setattr(log, "_start", lambda: None)
        for _ in range(8):
            log.add("cluster-alpha", Line(0.0, "native", "GET", "/", 200, 1.0, "", "", ""))
    log._waiting.get_nowait()
    log._start()
    log.close()
    assert len(lines()) == 4
    assert "the log of requests lacks 3 lines" in caplog.text


def test_a_forked_process_does_not_write_what_its_parent_will(transactional_db: None) -> None:
    log = RequestsLog()
    log._thread = object()  # type: ignore[assignment]  # nobody takes anything from it
    log.add("cluster-alpha", Line(0.0, "native", "GET", "/", 200, 1.0, "", "", ""))
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, b"%d %d" % (log._waiting.qsize(), log._thread is None))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "0 1"
    os.wait()
    assert log._waiting.qsize() == 1


def test_a_server_has_written_all_of_it_when_it_has_ended(
    transactional_db: None, eventually: Callable[..., None]
) -> None:
    port, key = free_port(), make_key()
    flags = ("serve", "--bind", f"127.0.0.1:{port}", "--workers", "2")
    environment = worker_environment(YARDMASTER_REQUEST_LOG="alpha")

    def ask(path: str) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", headers={"x-api-key": key}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return int(response.status)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
            return 0

    with started(*flags, env=environment, grace=40) as process:
        eventually(lambda: ask("/livez") == 200 or process.poll() is not None)
        assert [ask(f"{BASE}/alpha/queues") for _ in range(7)] == [200] * 7
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert [line.status for line in lines()] == [200] * 7
