"""`manage.py up`: everything in one terminal, and nothing left when it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests import settings as test_settings
from tests.processes import ROOT, free_port

pytestmark = pytest.mark.skipif(
    test_settings.BACKEND != "sqlite",
    reason="`up` makes SQLite files of its own: tested once, in the run on SQLite",
)


class Up:
    """A running `manage.py up` with what it has printed so far."""

    def __init__(self, home: Path, port: int, **env: str) -> None:
        self.home, self.port, self.printed = home, port, ""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("YARDMASTER_")}
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--bind", f"127.0.0.1:{port}"],
            cwd=ROOT,
            env={
                **inherited,
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "PYTHONUNBUFFERED": "1",
                "YARDMASTER_HOME": str(home),
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.printed += line

    def wait_for(self, text: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.printed:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, how: signal.Signals) -> int:
        family = self.family()
        self.process.send_signal(how)
        code = self.process.wait(120)
        self.reader.join(10)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
        return code

    @property
    def credentials(self) -> dict[str, str]:
        return json.loads((self.home / "dev-credentials.json").read_text())

    def get(self, path: str, key: str) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"x-api-key": key})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body)


@contextmanager
def up(home: Path, port: int | None = None, **env: str) -> Iterator[Up]:
    running = Up(home, port or free_port(), **env)
    try:
        yield running
    finally:
        family = running.family() if running.process.poll() is None else []
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        running.reader.join(10)
        assert running.process.stdout
        running.process.stdout.close()


def jobs_of(running: Up, cluster: str) -> list[dict]:
    status, body = running.get(f"/jm-api/{cluster}/jobs", running.credentials["api_key"])
    assert status == 200, body
    return body["items"]


def test_the_life_of_an_installation(tmp_path, eventually):
    home = tmp_path / "home"

    with up(home) as first:
        first.wait_for("Ctrl-C stops everything")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for name in ("dev-credentials.json", "secret-key", "clusters.toml", "control.sqlite3"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
        kept = first.credentials
        assert kept.keys() == {"url", "api_key", "admin_user", "admin_password"}
        # Shown once, with what the key may do.
        assert kept["api_key"] in first.printed
        assert kept["admin_password"] in first.printed
        assert "shell" in first.printed
        assert f", from {home}/clusters.toml\n" in first.printed
        found: list[dict] = []

        def all_have_ended() -> bool:
            found[:] = jobs_of(first, "payroll") + jobs_of(first, "notifications")
            return all(job["state"] in ("succeeded", "failed") for job in found)

        eventually(all_have_ended, seconds=40)
        assert {(job["kind"], job["state"]) for job in found} == {
            ("python", "succeeded"),
            ("http", "succeeded"),
            ("shell", "succeeded"),
        }
        assert sorted(job["attempts"] for job in found) == [1, 1, 1, 3]
        assert first.end(signal.SIGINT) == 0
    secret_key = (home / "secret-key").read_text()

    with up(home) as second:
        second.wait_for("Ctrl-C stops everything")
        assert {**second.credentials, "url": ""} == {**kept, "url": ""}
        assert (home / "secret-key").read_text() == secret_key
        assert kept["api_key"] not in second.printed
        # Nothing is submitted twice, and what was there is there.
        assert len(jobs_of(second, "payroll") + jobs_of(second, "notifications")) == 4
        assert second.end(signal.SIGTERM) == 0

    (home / "dev-credentials.json").unlink()
    with up(home) as third:
        third.wait_for("Ctrl-C stops everything")
        anew = third.credentials
        assert anew["api_key"] != kept["api_key"]
        assert anew["admin_password"] is None
        assert len(jobs_of(third, "payroll") + jobs_of(third, "notifications")) == 4
        # Nothing else was reset: the old key still works.
        assert third.get("/jm-api/payroll/jobs", kept["api_key"])[0] == 200

        assert third.end(signal.SIGTERM) == 0


def test_a_killed_node_is_replaced_and_its_job_goes_on(tmp_path, eventually):
    with up(tmp_path / "home") as running:
        running.wait_for("Ctrl-C stops everything")
        time.sleep(3.5)  # one that ends sooner is taken to be broken
        key = running.credentials["api_key"]
        body = json.dumps({"type": "demo:sleep", "payload": {"seconds": 3}})
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        headers = {"x-api-key": key, "content-type": "application/json"}
        connection.request("POST", "/jm-api/payroll/jobs", body, headers)
        job = json.loads(connection.getresponse().read())
        connection.close()
        path = f"/jm-api/payroll/jobs/{job['id']}"
        eventually(lambda: running.get(path, key)[1]["state"] == "running")
        node = next(one for one in running.family() if "payroll" in one.cmdline())
        node.kill()
        running.wait_for("starting another")
        eventually(lambda: running.get(path, key)[1]["state"] == "succeeded", seconds=40)
        attempts = running.get(f"{path}/attempts", key)[1]["items"]
        assert [attempt["outcome"] for attempt in attempts] == ["lost", "succeeded"]
        assert running.end(signal.SIGINT) == 0


def test_a_node_that_cannot_start_stops_everything_and_says_why(tmp_path):
    with up(tmp_path / "home", YARDMASTER_HANDLERS="no_such_module") as running:
        assert running.process.wait(120) == 1
        running.reader.join(10)
        assert "No module named 'no_such_module'" in running.printed
        assert "has ended" in running.printed


def test_its_own_clusters_and_a_second_start_on_the_same_files(tmp_path):
    home = tmp_path / "home"
    cluster = f"mine=sqlite:///{tmp_path}/mine.sqlite3"
    config = tmp_path / "other.toml"
    config.write_text(f'[clusters.other]\ndatabase_url = "sqlite:///{tmp_path}/other.sqlite3"\n')
    with up(home, YARDMASTER_CLUSTERS=cluster, YARDMASTER_CONFIG=str(config)) as running:
        running.wait_for("Ctrl-C stops everything")
        # What the environment names counts, whatever the home is, and the screen says so.
        told = f"mine, other, from YARDMASTER_CLUSTERS and {config} (YARDMASTER_CONFIG)"
        assert told in running.printed
        assert not (home / "clusters.toml").exists()
        assert (tmp_path / "mine.sqlite3").exists()
        with up(home) as other:
            assert other.process.wait(120) == 1
            other.reader.join(10)
            assert "another `manage.py up`" in other.printed
        with up(tmp_path / "elsewhere", port=running.port) as other:
            assert other.process.wait(120) == 1
            other.reader.join(10)
            assert "is in use" in other.printed
            assert not (tmp_path / "elsewhere").exists()
        assert running.end(signal.SIGTERM) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_children_do_not_outlive_a_killed_parent(tmp_path):
    with up(tmp_path / "home") as running:
        running.wait_for("Ctrl-C stops everything")
        family = running.family()
        running.process.kill()
        running.process.wait(60)
        assert psutil.wait_procs(family, timeout=60)[1] == []
