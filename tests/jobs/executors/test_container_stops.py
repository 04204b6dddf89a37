"""Kind `container`, stopped: by a cancel, at its deadline, with its process. Nothing survives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from jobs.executors import container, container_engine, container_remains
from jobs.executors.host_label import installation_of
from tests.engines import IMAGE, NOTHING
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.container_work import SECONDS, once, running, until
from tests.jobs.executors.programs import living

pytestmark = once


async def ended(task: asyncio.Task[Any]) -> float:
    """Cancel, wait for the end and return how long it took."""
    began_at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began_at


# -- Cancels ---------------------------------------------------------------------------------------


def test_a_cancel_asks_first(engine):
    async def story() -> None:
        recorder = Recorder()
        run = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        async with running(recorder, run=run, grace_seconds=60) as (task, _):
            assert await ended(task) < 50
        assert recorder.text("stdout") == "ready\nasked\n"

    in_loop(story(), SECONDS)


def test_what_does_not_listen_is_killed_after_the_grace(engine, marker):
    async def story() -> None:
        recorder = Recorder()
        run = f"trap '' TERM; echo ready; while :; do sleep {marker}; done"
        async with running(recorder, run=run, grace_seconds=1.0) as (task, _):
            assert await ended(task) >= 1.0
        assert living(marker) == []
        assert engine.made() == NOTHING

    in_loop(story(), SECONDS)


def test_a_second_cancel_cuts_the_grace_short(engine):
    async def story() -> None:
        run = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
        recorder = Recorder()
        async with running(recorder, run=run, grace_seconds=3600) as (task, _):
            task.cancel()
            await until(lambda: "asked" in recorder.text("stdout"))
            await ended(task)
        assert engine.made() == NOTHING

    in_loop(story(), SECONDS)


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.long)])
def test_of_twenty_cancelled_attempts_nothing_survives(engine, marker, rounds):
    """At any moment: while an image is looked for, a container made, started, running or removed."""

    async def story() -> None:
        payload = {
            "image": IMAGE,
            "run": f"trap '' TERM; sleep {marker} & sleep {marker}",
            "mounts": [{"type": "volume", "target": "/v"}],
        }
        tasks = []
        for number in range(20):
            assignment = make_assignment(payload, grace_seconds=0.2)
            tasks.append(asyncio.create_task(container.run(assignment, Recorder())))
            await asyncio.sleep(0.05)
            if number % 5 == 4:
                await asyncio.sleep(1.0)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in outcomes} == {asyncio.CancelledError}
        assert living(marker) == []
        assert engine.made() == NOTHING

    for _ in range(rounds):
        in_loop(story(), SECONDS)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.4, 0.8, 1.6, 2.4])
def test_sidecars_and_networks_go_with_a_cancelled_attempt(engine, marker, after):
    async def story() -> None:
        sidecar = {"name": "a", "image": IMAGE, "run": f"sleep {marker}"}
        payload = {"image": IMAGE, "run": f"sleep {marker}", "sidecars": [sidecar]}
        assignment = make_assignment(payload, grace_seconds=0)
        task = asyncio.create_task(container.run(assignment, Recorder()))
        await asyncio.sleep(after)
        await ended(task)
        assert living(marker) == []
        assert engine.made() == NOTHING

    in_loop(story(), SECONDS)


# -- Labels and leftovers --------------------------------------------------------------------------


def test_all_that_an_attempt_makes_carries_its_labels(engine):
    async def story() -> None:
        recorder = Recorder()
        sidecar = {"name": "a", "image": IMAGE, "run": "sleep 300"}
        mounts = [{"type": "volume", "target": "/v"}]
        fields = {"run": "echo ready; sleep 300", "sidecars": [sidecar], "mounts": mounts}
        async with running(recorder, grace_seconds=0, **fields) as (task, assignment):
            expected = container_remains.labels(assignment)
            assert expected["yardmaster.job"] == assignment.id
            assert expected["yardmaster.fence"] == "7"
            made = [one["Labels"] for one in engine.containers()]
            assert {one.pop("yardmaster.role") for one in made} == {"main", "sidecar"}
            made += [one["Labels"] for one in engine.api.volumes()["Volumes"]]
            made += [
                one["Labels"]
                for one in engine.api.networks()
                if one["Name"].startswith("yardmaster-")
            ]
            assert made == [expected] * 4
            await ended(task)

    in_loop(story(), SECONDS)


def test_an_attempt_removes_nothing_of_another(engine, marker):
    """Not even of the one before at the same job, which its node has yet to stop."""

    async def story() -> None:
        sidecar = {"name": "a", "image": IMAGE, "run": "sleep 300"}
        mounts = [{"type": "volume", "target": "/v"}]
        fields = {"run": f"echo ready; sleep {marker}", "sidecars": [sidecar], "mounts": mounts}
        async with running(Recorder(), grace_seconds=0, **fields) as (task, assignment):
            # In use by nobody yet.
            marks = container_remains.labels(assignment._replace(fence=9))
            engine.api.create_volume("yardmaster-of-another", labels=marks)
            before = engine.made()
            assert [len(names) for names in before.values()] == [2, 2, 1]
            payload = {"image": IMAGE, "run": "true", "mounts": mounts}
            later = assignment._replace(fence=8, payload=payload)
            assert (await container.run(later, Recorder())).ok
            assert engine.made() == before
            assert not task.done()
            await ended(task)
            engine.api.remove_volume("yardmaster-of-another")

    in_loop(story(), SECONDS)


RUN_ONE = """
import asyncio, os, sys, django
django.setup()
from django.conf import settings
settings.CONTAINER_ENGINE, settings.CONTAINER_IMAGES = sys.argv[1], ["*"]
from jobs.executors import container
from tests.jobs.executors.attempts import Recorder, make_assignment
class Loud(Recorder):
    def write(self, stream, text, level=None):
        print(text, flush=True)
payload = {
    "image": sys.argv[2], "run": "echo ready; sleep " + sys.argv[3],
    "mounts": [{"type": "volume", "target": "/v"}],
    "sidecars": [{"name": "a", "image": sys.argv[2], "run": "sleep " + sys.argv[3]}],
}
assignment = make_assignment(payload, id="of-the-dead", fence=3)
asyncio.run(container.run(assignment, Loud()))
"""


@pytest.fixture
def killed(engine, marker):
    """Run an attempt in a process that is killed; what it made is left."""

    def run_and_kill(meanwhile=lambda: None) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", RUN_ONE, engine.address, IMAGE, marker],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            while "ready" not in (line := process.stdout.readline()):
                assert line
            meanwhile()
            process.kill()

    return run_and_kill


def test_what_a_killed_process_left_is_removed_by_the_next(engine, marker, killed):
    def sweep_of_a_living_one() -> None:
        # Not its own: the process that looks after it lives.
        assert container_remains.sweep_containers(installation_of()) == 0

    stranger = engine.api.create_container(IMAGE, ["true"], labels={"yardmaster.job": "x"})
    other = engine.api.create_container(
        IMAGE, ["true"], labels={"yardmaster.installation": "ymother1", "yardmaster.process": "x"}
    )
    killed(sweep_of_a_living_one)
    try:
        assert len(engine.containers()) == 4
        assert len(living(marker)) == 2
        assert container_remains.sweep_containers(installation_of()) == 2
        assert living(marker) == []
        assert {one["Id"] for one in engine.containers()} == {stranger["Id"], other["Id"]}
        assert container_remains.sweep_containers(installation_of()) == 0
    finally:
        for one in (stranger, other):
            engine.api.remove_container(one["Id"], force=True)


def test_the_first_container_of_a_process_sweeps_too(engine, marker, killed):
    killed()
    outcome = in_loop(
        container.run(make_assignment({"image": IMAGE, "run": "true"}), Recorder()), SECONDS
    )
    assert outcome.ok
    assert living(marker) == []


def test_attempts_of_a_dead_child_are_removed_by_their_node(engine, marker, killed, eventually):
    killed()
    container_remains.remove_attempts([("of-the-dead", 2), ("another", 3)])
    assert len(living(marker)) == 2
    container_remains.remove_attempts([("of-the-dead", 3)])
    eventually(lambda: not living(marker) and engine.made() == NOTHING, seconds=30)


def test_without_an_engine_nothing_is_asked_or_loaded(settings):
    settings.CONTAINER_ENGINE = ""
    assert container_remains.sweep_containers("ymxxxxxx") == 0
    container_remains.remove_attempts([("a", 1)])
    code = (
        "import django, sys; django.setup();"
        "from jobs.executors.container_remains import *;"
        "assert sweep_containers('x') == 0; remove_attempts([('a', 1)]);"
        "import threading; assert threading.active_count() == 1;"
        "sys.exit('docker' in sys.modules or 'requests' in sys.modules)"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_an_engine_that_is_away_holds_up_no_start(settings, tmp_path, caplog):
    settings.CONTAINER_ENGINE = f"unix://{tmp_path}/nobody.sock"
    assert container_remains.sweep_containers("ymxxxxxx") == 0
    assert "cannot be looked for" in caplog.text


def test_an_engine_that_is_gone_at_the_end_is_told_of(engine, monkeypatch):
    """What could not be removed is said in the job's log, and found by the next sweep."""

    def gone(*_: object, **__: object) -> list[str]:
        raise OSError("the engine went away")

    recorder = Recorder()
    monkeypatch.setattr(container, "remove_attempt", gone)
    assignment = make_assignment({"image": IMAGE, "run": "true"})
    assert in_loop(container.run(assignment, recorder), SECONDS).ok
    assert "left behind in the engine: the engine went away" in recorder.text("log")
    monkeypatch.setattr(container_remains, "living", set)
    assert container_remains.sweep_containers(installation_of()) == 1


def test_a_call_that_is_cancelled_is_waited_for():
    async def story() -> list[str]:
        done: list[str] = []

        def slow() -> None:
            time.sleep(0.3)
            done.append("made")

        task = asyncio.create_task(container_engine.threaded(slow))
        await asyncio.sleep(0.05)
        await ended(task)
        return done

    assert in_loop(story()) == ["made"]
