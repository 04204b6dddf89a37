"""Requests are counted by the API that they spoke; for several processes see test_serve_metrics."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client
from django.urls import resolve
from prometheus_client.mmap_dict import MmapedDict

from authn.keys import create_key
from clusters import health
from config import metrics_directory, request_metrics
from config.request_metrics import SURFACES, surface_of
from tests.jobs.prometheus.scraped import Scraped


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        ("/jm-api/whoami", "native"),
        ("/jm-api/alpha/jobs", "native"),
        ("/jm-api/metrics", "native"),
        ("/jm-api/nothing/of/the/kind/here", "native"),
        ("/api/v1/scheduler/jobs", "scheduler"),
        ("/scheduler/jobs", "scheduler"),
        ("/clusters/alpha/scheduler/jobs", "scheduler"),
        ("/v1/tasks", "asyncjobs"),
        ("/clusters/alpha/asyncjobs/v1/tasks", "asyncjobs"),
        ("/queue/overview", "forge"),
        ("/forge/queue/overview", "forge"),
        ("/metrics", "forge"),
        ("/jobs", "tork"),
        ("/jobs/list", "forge"),
        ("/clusters/alpha/tork/nodes", "tork"),
        ("/health", "tork"),
        ("/admin/", "admin"),
        ("/admin/alpha/jobs/", "admin"),
        ("/livez", "other"),
        ("/", "other"),
    ],
)
def test_the_surface_is_that_of_the_route(path: str, surface: str) -> None:
    assert surface_of(resolve(path)) == surface
    assert surface in SURFACES


def counts() -> dict[str, float]:
    """Requests so far, by surface."""
    told = Scraped(request_metrics.expose())
    found = told.all("http_request_seconds_count")
    return {dict(rest)["surface"]: value for rest, value in found.items()}


def test_each_request_is_counted_once_whatever_its_path(client: Client, db: None) -> None:
    before = counts()
    assert set(before) == set(SURFACES)
    for path in (
        "/jm-api/whoami",
        "/jm-api/alpha/jobs/anything?x=1",
        "/scheduler/jobs",
        "/livez",
        "/no-such-path",
        "/no-such-path-either",
    ):
        client.get(path)
    after = counts()
    more = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert more == {"native": 2, "scheduler": 1, "other": 3}


def test_a_request_that_fails_is_counted_too(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("as the test wanted")

    _, key = create_key("caller", "viewer", ["alpha"])
    monkeypatch.setattr(health.watch, "ask", broken)
    before = counts()
    client = Client(raise_request_exception=False)
    assert client.get("/jm-api/clusters", headers={"x-api-key": key}).status_code == 500
    assert counts()["native"] == before["native"] + 1


# -- The directory in which processes count together -----------------------------------------------


def test_the_directory_lasts_as_long_as_the_server(tmp_path: Path) -> None:
    with metrics_directory.made(tmp_path) as directory:
        assert directory.is_dir()
        assert metrics_directory.current() == directory
        assert directory.is_relative_to(tmp_path)
    assert not directory.exists()
    assert metrics_directory.current() is None


def test_two_servers_of_one_home_have_a_directory_each(tmp_path: Path) -> None:
    with metrics_directory.made(tmp_path) as one, metrics_directory.made(tmp_path) as other:
        assert one != other
        assert one.is_dir()


def test_what_a_killed_server_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; from config import metrics_directory as m\n"
        f"with m.made(pathlib.Path({str(tmp_path)!r})) as d: print(d, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(done.stdout.strip())
    assert left.is_dir()
    stranger = left.parent / "yardmaster-metrics-of-somebody"
    stranger.mkdir()
    with metrics_directory.made(tmp_path) as directory:
        assert not left.exists()
        assert directory.is_dir()
        assert stranger.is_dir()


def test_a_home_that_is_a_file_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    with metrics_directory.made(home) as directory:
        assert not directory.is_relative_to(tmp_path)


def write(path: Path, **values: float) -> None:
    kept = MmapedDict(str(path))
    for key, value in values.items():
        kept.write_value(key, value, 0.0)
    kept.close()


def read(path: Path) -> dict[str, float]:
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}


def test_what_dead_processes_counted_is_kept_in_one_file(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive = (tmp_path / f"histogram_{pid}.db" for pid in (gone.pid, os.getpid()))
    ended = tmp_path / "histogram_ended.db"
    write(alive, a=1.0)
    for number in (1, 2):
        write(dead, a=3.0, b=4.0)
        metrics_directory.keep_what_the_dead_counted(tmp_path)
        assert read(ended) == {"a": 3.0 * number, "b": 4.0 * number}
        assert not dead.exists()
    assert read(alive) == {"a": 1.0}


def test_files_are_not_taken_from_under_a_reader(tmp_path: Path) -> None:
    with metrics_directory.locked(tmp_path, is_reader=True):
        with metrics_directory.locked(tmp_path, is_reader=True):
            pass
        with (tmp_path / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
