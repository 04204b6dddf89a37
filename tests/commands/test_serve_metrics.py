"""Several workers of one `manage.py serve` count their requests together."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from authn.keys import create_key
from tests.jobs.prometheus.scraped import Scraped
from tests.processes import free_port, started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


class Server:
    def __init__(self, port: int, pid: int, key: str) -> None:
        self.port, self.pid, self.key = port, pid, key

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def counts(self) -> dict[str, int]:
        """Requests so far, by surface, without those that asked for this."""
        status, body = self.get("/jm-api/metrics", **{"x-api-key": self.key})
        assert status == 200, body
        found = Scraped(body).all("http_request_seconds_count")
        return {dict(rest)["surface"]: int(value) for rest, value in found.items()}

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def answers(self) -> bool:
        try:
            return self.get("/static/nothing")[0] == 404
        except OSError:
            return False


@contextmanager
def serving(eventually, home: Path, workers: int = 3, **env: str) -> Iterator[Server]:
    key = create_key("scraper", "viewer", ["*"])[1]
    port = free_port()
    flags = ("--bind", f"127.0.0.1:{port}", "--workers", str(workers))
    environment = worker_environment(YARDMASTER_HOME=str(home), **env)
    with started("serve", *flags, env=environment) as process:
        server = Server(port, process.pid, key)
        eventually(lambda: process.poll() is not None or server.answers(), seconds=60)
        assert process.poll() is None, process.stdout.read()
        yield server


def test_requests_to_three_workers_are_counted_exactly_and_none_is_lost(eventually, tmp_path):
    with serving(eventually, tmp_path) as server:
        (directory,) = (tmp_path / "run").iterdir()
        before = server.counts()
        paths = ["/jm-api/whoami"] * 60 + ["/scheduler/jobs"] * 40 + ["/livez"] * 30
        with ThreadPoolExecutor(8) as pool:
            statuses = [status for status, _ in pool.map(server.get, paths)]
        assert {*statuses} == {200, 401}
        # Who asks is counted when it has its answer: of `before`, and not yet this time.
        expected = {
            "native": before["native"] + 60 + 1,
            "scheduler": before["scheduler"] + 40,
            "other": before["other"] + 30,
        }
        after = server.counts()
        assert {name: after[name] for name in expected} == expected
        # One is of the process that started them.
        assert len([*directory.glob("histogram_*.db")]) >= 3, "several were to take part"
        # A worker that ends or is killed takes nothing with it, and leaves no file.
        for how in (signal.SIGTERM, signal.SIGKILL):
            victim = server.workers()[0]
            os.kill(victim.pid, how)
            eventually(lambda pid=victim.pid: pid not in {one.pid for one in server.workers()})
            left = directory / f"histogram_{victim.pid}.db"
            eventually(lambda left=left: not left.exists())
            eventually(lambda: len(server.workers()) == 3)
            eventually(server.answers)
        told = server.counts()
        assert told["scheduler"] == expected["scheduler"]
        assert told["native"] == expected["native"] + 1
    assert not directory.exists()


def test_whichever_worker_is_asked_tells_the_same(eventually, tmp_path):
    with serving(eventually, tmp_path) as server:
        for _ in range(20):
            server.get("/scheduler/jobs")
        assert {server.counts()["scheduler"] for _ in range(12)} == {20}


def test_a_cluster_that_hangs_is_down_and_is_waited_for_once(eventually, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clusters = worker_environment()["YARDMASTER_CLUSTERS"]
        hung = f"hung=postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=10"
        gone = "gone=postgresql://x@127.0.0.1:1/x"
        clusters = f"{clusters},{hung},{gone}"
        with serving(eventually, tmp_path, 1, YARDMASTER_CLUSTERS=clusters) as server:

            def scrape() -> tuple[float, Scraped]:
                began = time.monotonic()
                status, body = server.get("/jm-api/metrics", **{"x-api-key": server.key})
                assert status == 200
                return time.monotonic() - began, Scraped(body)

            seconds, told = scrape()
            assert seconds < 9
            for cluster, up in (("alpha", 1), ("beta", 1), ("hung", 0), ("gone", 0)):
                assert told("cluster_up", cluster=cluster) == up
            assert told.all("nodes", cluster="alpha")
            assert not told.all("nodes", cluster="hung")
            # Known to be dead, it costs nothing any more.
            time.sleep(12)
            took = []
            for _ in range(3):
                seconds, told = scrape()
                took.append(seconds)
                assert told("cluster_up", cluster="hung") == 0
                time.sleep(1.5)
            # A busy machine slows one or the other.
            assert min(took) < 0.9
