"""The sweep of a host: whose a process or a directory is, and which are nobody's any more."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine import sweep
from jobs.executors import host_label
from jobs.executors.host_label import VARIABLE, installation_part, living, node_part
from jobs.executors.shell_processes import IS_SUPPORTED, look

pytestmark = pytest.mark.skipif(not IS_SUPPORTED, reason="needs /proc")


@pytest.fixture(autouse=True)
def label(monkeypatch, tmp_path) -> Iterator[str]:
    """The label of this process as a node of an installation that only this test knows."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(host_label, "_label", "")
    yield host_label.wear(str(tmp_path))


def of_the_dead(label: str) -> str:
    """The label of a node of the same installation that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    text = label[:8] + node_part(look(gone.pid))
    assert text[8:] in living()
    gone.kill()
    gone.communicate()
    return text


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()


def test_only_programs_of_nodes_that_are_gone_are_ended(label, programs):
    other = installation_part("another") + of_the_dead(label)[8:]
    labels = [of_the_dead(label), label, other, "nonsense", label[:8]]
    for one in labels:
        environment = {**os.environ, VARIABLE: one}
        programs.append(subprocess.Popen(["sleep", "97"], env=environment))
    assert sweep.sweep_host(label) == 1
    assert programs[0].wait(30) == -9
    assert [one.poll() for one in programs[1:]] == [None] * 4


def test_what_such_a_program_has_started_goes_with_it(label, programs, tmp_path):
    pid = tmp_path / "pid"
    script = f"env -i sleep 97 & echo $! > {pid}; wait"
    environment = {**os.environ, VARIABLE: of_the_dead(label)}
    programs.append(subprocess.Popen(["/bin/sh", "-c", script], env=environment))
    while not (pid.exists() and pid.read_text()):
        pass
    assert sweep.sweep_host(label) == 2
    seen = look(int(pid.read_text()))
    assert seen is None or not seen.is_alive


def test_forked_processes_are_known_by_their_name(label, programs):
    name = f"name_process({of_the_dead(label)!r})"
    code = f"from clusters.processes import name_process; {name}; print(); input()"
    one = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    programs.append(one)
    assert one.stdout is not None
    one.stdout.readline()
    assert sweep.sweep_host(label) == 1
    one.communicate()
    assert one.returncode == -9


def test_only_directories_of_nodes_that_are_gone_are_removed(label, tmp_path):
    gone = tmp_path / f"yardmaster-shell-{of_the_dead(label)}-job-1-x"
    others = [
        tmp_path / f"yardmaster-shell-{label}-job-1-x",
        tmp_path / f"yardmaster-shell-{installation_part('another')}aaaaaaa-job-1-x",
        tmp_path / "yardmaster-shell-job-1-x",
    ]
    for path in (gone, *others):
        (path / "work" / "deep" / "er").mkdir(parents=True)
        (path / "work" / "deep" / "file").write_text("x")
        (path / "script").write_text("x")
        (path / "work" / "link").symlink_to(others[0])
    assert sweep.sweep_host(label) == 1
    assert not gone.exists()
    assert all((path / "work" / "deep" / "file").exists() for path in others)


def test_a_host_without_leftovers_is_left_as_it_is(label):
    assert sweep.sweep_host(label) == 0
    assert Path(tempfile.gettempdir()).exists()
