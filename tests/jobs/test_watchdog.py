"""A node with a loop that hangs, and what a node says of its health. Real processes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from clusters.models import ClusterSetting, Node
from clusters.policy import ClusterPolicy
from jobs.engine.clock import countdown
from jobs.engine.health import Vitals
from jobs.engine.heartbeat import Heartbeat
from jobs.engine.trouble import Trouble
from jobs.engine.upkeep import Upkeep
from jobs.engine.watchdog import EXIT_STUCK, PERIOD_SECONDS, STUCK_PERIODS, Watchdog
from jobs.models import Job
from jobs.states import State
from tests.jobs.stuck_node import PERIOD_SECONDS as SHORT_PERIOD
from tests.jobs.test_worker import add, cluster, worker  # noqa: F401  the fixture is used
from tests.processes import ROOT, free_port, manage, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


def ask(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, json.load(error)
    except OSError:
        return 0, None


# -- Loops that hang -------------------------------------------------------------------------------


@contextmanager
def stuck_node(loop: str, file: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.stuck_node", loop, str(file), *flags],
        cwd=ROOT,
        env=worker_environment(YARDMASTER_HANDLERS="tests.worker_handlers"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        print(process.communicate(timeout=60)[0])


@pytest.mark.parametrize("loop", ["turns", "heartbeat", "upkeep"])
def test_a_node_with_a_loop_that_hangs_says_so_ends_and_takes_its_work_along(
    loop, tmp_path, eventually
):
    if loop == "heartbeat":
        # So that its lease, which it loses too, does not end it first.
        ClusterSetting.objects.all().persist({"lease_seconds": 60.0}, by="test")
    file, port = tmp_path / "hang", free_port()
    job = add("test:sleep", {"seconds": 60})
    flags = ("--cluster=alpha", "--concurrency=1", f"--health=127.0.0.1:{port}")
    with stuck_node(loop, file, *flags) as process:
        eventually(lambda: Job.objects.get(pk=job.pk).state == State.RUNNING, seconds=30)
        time.sleep(SHORT_PERIOD * STUCK_PERIODS)  # all is well for longer than it takes to be stuck
        assert ask(port, "/livez")[0] == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        begun = time.monotonic()
        file.touch()
        eventually(lambda: ask(port, "/livez")[0] == 503, every=0.05)
        assert process.wait(60) == EXIT_STUCK
        assert time.monotonic() - begun < SHORT_PERIOD * STUCK_PERIODS + 20
        _, living = psutil.wait_procs(children, timeout=30)
        assert [one for one in living if one.status() != psutil.STATUS_ZOMBIE] == []
        output = process.communicate(timeout=60)[0]
    assert f"the loop '{loop}' of cluster alpha makes no progress" in output
    assert "stuck_node.py" in output  # where it hangs


def test_a_loop_without_a_sign_of_life_for_three_periods_is_stuck(monkeypatch):
    now = countdown()
    monkeypatch.setattr("jobs.engine.watchdog.countdown", lambda: now)
    watchdog = Watchdog("test")
    calm, busy = watchdog.watch("calm"), watchdog.watch("busy")
    tick = PERIOD_SECONDS / 10
    for _ in range(10 * STUCK_PERIODS):
        now += tick
        busy.beat()
        assert watchdog.look() == []
    assert calm.is_late and not busy.is_late
    for _ in range(3):
        now += tick
        busy.beat()
        stuck = watchdog.look()
    assert stuck == [calm]
    calm.beat()
    now += tick
    assert watchdog.look() == []
    assert not calm.is_late
    watchdog.forget(busy)
    assert watchdog.pulses() == [calm]


def test_a_process_that_was_stopped_for_hours_has_not_hung(monkeypatch):
    """After a SIGCONT or a lid that was opened, the watchdog may be the first thread to run."""
    now = countdown()
    monkeypatch.setattr("jobs.engine.watchdog.countdown", lambda: now)
    watchdog = Watchdog("test")
    pulse = watchdog.watch("turns")
    watchdog.look()
    now += 5 * 3600
    assert watchdog.look() == []
    assert not pulse.is_late


def test_the_end_of_a_former_loop_does_not_end_the_watch_over_its_successor():
    watchdog = Watchdog("test")
    former = watchdog.watch("heartbeat")
    successor = watchdog.watch("heartbeat")
    watchdog.forget(former)
    assert watchdog.pulses() == [successor]


def test_loops_are_watched_before_they_run():
    """A node calls itself ready as soon as it has them, and one that never begins hangs too."""
    watchdog = Watchdog("test")
    Heartbeat("alpha", "a", ClusterPolicy(), lambda: {"io": 0}, lambda: None, watchdog)
    Upkeep("alpha", "a", watchdog, lambda: None)
    assert [pulse.name for pulse in watchdog.pulses()] == ["heartbeat", "upkeep"]


# -- Health ----------------------------------------------------------------------------------------


def test_a_node_tells_its_health_to_its_own_host(eventually):
    port = free_port()
    with worker(f"--health=127.0.0.1:{port}"):
        eventually(lambda: ask(port, "/readyz")[0] == 200, seconds=60)
        _, live = ask(port, "/livez")
        assert live["status"] == "up"
        assert live["node"] == str(Node.objects.get().pk)
        assert set(live["loops"]) == {"turns", "heartbeat", "upkeep", "conductor"}
        assert all(not loop["is_late"] for loop in live["loops"].values())
        _, ready = ask(port, "/readyz")
        assert (ready["database"], ready["is_draining"], ready["failing_duties"]) == (
            "up",
            False,
            {},
        )
        assert ask(port, "/metrics")[0] == 404
        Node.objects.all().order_drain()
        eventually(lambda: ask(port, "/readyz")[0] == 503)
        assert ask(port, "/readyz")[1]["is_draining"]
        assert ask(port, "/livez")[0] == 200


def test_a_node_tells_its_health_on_a_unix_socket_in_place_of_a_dead_ones(tmp_path, eventually):
    path = tmp_path / "node"
    with closing(socket.socket(socket.AF_UNIX)) as leftover:
        leftover.bind(str(path))
    with worker(f"--health=unix:{path}"):
        eventually(lambda: _ask_unix(path).startswith("HTTP/1.0 200"), seconds=60)
        second = manage("worker", "--cluster=alpha", f"--health=unix:{path}")
        assert (second.returncode, "cannot listen on" in second.stderr) == (2, True)
    assert not path.exists()


def _ask_unix(path: Path) -> str:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        try:
            client.connect(str(path))
        except OSError:
            return ""
        client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return client.recv(100).decode()


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("0.0.0.0:8081", "only an address of this host itself"),
        ("example.org:8081", "only an address of this host itself"),
        ("8081", "no address"),
        ("unix:relative", "absolute path"),
    ],
)
def test_health_is_not_told_to_others(where, complaint):
    done = manage("worker", "--cluster=alpha", f"--health={where}")
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_port_that_is_taken_stops_the_start():
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        done = manage("worker", "--cluster=alpha", f"--health=127.0.0.1:{port}")
    assert done.returncode == 2
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_without_its_database_lives_and_is_not_ready():
    vitals = Vitals("alpha", Watchdog("test"), Trouble("the database"))
    assert vitals.livez().is_well  # it waits to become a node
    assert not vitals.readyz().is_well
    assert vitals.readyz().details["database"] == "down"
