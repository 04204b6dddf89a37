"""Kind `shell`: all processes of a job end with it, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.executors import Outcome, shell, shell_processes
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.programs import (
    attempt,
    cancelled,
    folders,
    living,
    running,
    until,
)

# From Python 3.12 on a fork beside threads is warned of; look-ups of other tests may have left some.
pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the end of the block, also where that ends by an error."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_cancelling_asks_first_and_what_was_said_last_is_heard():
    recorder = Recorder()

    async def work() -> float:
        script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
        async with running(script, recorder, grace_seconds=60) as (task, assignment):
            assert shell.survivors(assignment)
            seconds = await cancelled(task)
            assert shell.survivors(assignment) == []
            return seconds

    assert in_loop(work()) < 20
    assert recorder.text("stdout") == "ready\nbye\n"


def test_what_does_not_listen_is_killed_after_the_grace(marker):
    async def work() -> float:
        script = f"trap '' TERM; sleep {marker} & echo ready; wait; sleep {marker}"
        async with running(script, grace_seconds=0.3) as (task, assignment):
            await until(lambda: living(marker))
            seconds = await cancelled(task)
            assert shell.survivors(assignment) == []
            return seconds

    assert 0.3 <= in_loop(work()) < 4.5
    assert living(marker) == []


def test_the_grace_is_for_the_whole_group():
    """The shell dies at once; what it started may still put its things in order."""
    recorder = Recorder()

    async def work() -> float:
        child = "trap 'sleep 0.2; echo tidied; exit' TERM; echo ready; while :; do sleep 0.02; done"
        script = f'sh -c "{child}"; echo after'
        async with running(script, recorder, grace_seconds=60) as (task, _):
            return await cancelled(task)

    assert 0.2 <= in_loop(work()) < 20
    assert "tidied" in recorder.text("stdout")


def test_a_second_cancel_cuts_the_grace_short(marker):
    async def work() -> float:
        script = f"trap '' TERM; echo ready; sleep {marker}; sleep {marker}"
        async with running(script, grace_seconds=60) as (task, _):
            task.cancel()
            await asyncio.sleep(0.1)
            return await cancelled(task)

    assert in_loop(work()) < 20
    assert living(marker) == []


def test_a_stopped_program_is_ended_too(marker):
    async def work() -> float:
        async with running(f"echo ready; kill -STOP $$; sleep {marker}", grace_seconds=60) as (
            task,
            _,
        ):
            await asyncio.sleep(0.05)
            return await cancelled(task)

    assert in_loop(work()) < 20
    assert living(marker) == []


ESCAPES = {
    "background": "sleep {0} &",
    "ignoring": "(trap '' TERM HUP; sleep {0}) &",
    "another session": "setsid sleep {0} &",
    "orphan": "(setsid sleep {0} &) &",
    "without environment": "setsid env -i sleep {0} &",
    "orphan without environment": "(setsid env -i setsid sleep {0} &) &",
    "child of an orphan": "(setsid env -i sh -c 'setsid sh -c \"sleep {0}; :\"; :' &) &",
    "stopped": "setsid sh -c 'kill -STOP $$; exec sleep {0}' x {0} &",
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("end", ["exit", "cancel"])
def test_whatever_a_job_started_ends_with_it(marker, escape, end):
    async def work() -> None:
        script = escape.format(marker) + "\nsleep 0.15; echo ready;"
        if end == "exit":
            assignment = make_assignment({"script": script})
            assert (await shell.run(assignment, Recorder())).ok
        else:
            async with running(script + f"sleep {marker}", grace_seconds=0.1) as (task, assignment):
                await until(lambda: len(living(marker)) >= 2)
                await cancelled(task)
        assert shell.survivors(assignment) == []

    in_loop(work())
    assert living(marker) == []


def test_processes_of_other_jobs_are_left_alone(marker):
    """Also those that cannot be told apart; they go when the last job goes that may have made them."""

    async def work() -> None:
        markers = marker, marker + "1"

        def counts() -> tuple[int, int]:
            return len(living(markers[0])), len(living(markers[1]))

        hidden = "(setsid env -i setsid sleep {0} &) & setsid sleep {0} & echo ready; sleep {0}"
        async with (
            running(hidden.format(markers[0])) as (first, _),
            running(hidden.format(markers[1])) as (second, _),
        ):
            await until(lambda: counts() == (3, 3))
            assert (await attempt(script="exit 0")).ok
            assert counts() == (3, 3)
            await cancelled(second)
            # The hidden one may have been started by the first as well.
            assert counts() == (3, 1)
            await cancelled(first)
            assert counts() == (0, 0)

    in_loop(work())


def test_processes_of_nobody_are_left_alone(marker):
    with ended(subprocess.Popen(["sleep", marker], start_new_session=True)) as older:
        time.sleep(0.03)  # the system tells the age of processes in hundredths
        assert in_loop(attempt(script="exit 0")).ok
        assert older.poll() is None
    code = f"import subprocess; subprocess.Popen(['sleep', '{marker}']).wait()"

    async def work() -> None:
        async with running("echo ready; sleep 97") as (task, _):
            with ended(subprocess.Popen([sys.executable, "-c", code])) as younger:
                await until(lambda: living(marker))
                await cancelled(task)
                assert younger.poll() is None
                assert len(living(marker)) == 1
                os.kill(living(marker)[0], signal.SIGKILL)

    in_loop(work())


HIDDEN = {
    "by its parent": "setsid env -i sleep {0} &",
    "by its session": "setsid env -i sh -c 'trap : TERM; sleep {0}; sleep {0}' &",
    "by its environment": "(setsid sleep {0} &) &",
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_what_is_known_to_be_ours_goes_at_once_beside_other_jobs(marker, hidden):
    async def work() -> None:
        async with running("echo ready; sleep 97") as (other, _):
            await asyncio.sleep(0.03)  # the other is older, and might have started it
            script = hidden.format(marker) + " echo ready; sleep 97"
            async with running(script, grace_seconds=0.1) as (task, _):
                await until(lambda: living(marker))
                await cancelled(task)
            assert living(marker) == []
            await cancelled(other)

    in_loop(work())


def test_what_left_the_group_is_asked_to_end_as_well():
    recorder = Recorder()

    async def work() -> None:
        child = "trap 'echo tidied; exit' TERM; echo ready; while :; do sleep 0.02; done"
        async with running(f'setsid sh -c "{child}" & wait', recorder) as (task, _):
            await cancelled(task)

    in_loop(work())
    assert "tidied" in recorder.text("stdout")


def test_a_process_that_was_being_started_during_a_look_is_found_by_another(monkeypatch, marker):
    looks: list[int] = []
    real = shell_processes.scan

    def scan() -> list[shell_processes.Seen]:
        found = real()
        looks.append(len(found))
        return found if len(looks) > 1 else []

    monkeypatch.setattr(shell_processes, "scan", scan)
    # Something has been started during the first look, nothing during the second.
    monkeypatch.setattr(shell_processes, "_newest_pid", lambda: str(min(len(looks), 1)))
    assert in_loop(attempt(script=f"setsid env -i sleep {marker} & sleep 0.05; exit 0")).ok
    assert living(marker) == []


def test_a_number_that_belongs_to_somebody_else_by_now_is_spared(marker):
    with ended(subprocess.Popen(["sleep", marker])) as sleeping:
        [seen] = [one for one in shell_processes.scan() if one.pid == sleeping.pid]
        earlier = dataclasses.replace(seen, started=seen.started - 1)
        shell_processes.send(earlier, signal.SIGKILL)
        with pytest.raises(subprocess.TimeoutExpired):
            sleeping.wait(0.1)
        shell_processes.send(seen, signal.SIGKILL)
        assert sleeping.wait(30) == -signal.SIGKILL


def test_a_cancel_in_the_moment_of_the_exit_comes_too_late(monkeypatch):
    tasks: list[asyncio.Task[Outcome]] = []
    real = shell._Job._note_exit

    def note_exit(self: shell._Job) -> None:
        real(self)
        tasks[0].cancel()

    monkeypatch.setattr(shell._Job, "_note_exit", note_exit)

    async def work() -> Outcome:
        tasks.append(asyncio.create_task(attempt(argv=["true"])))
        return await tasks[0]

    assert in_loop(work()).ok


def test_a_cancel_while_cleaning_up_changes_nothing(marker):
    """The program has ended by itself; that it is asked to end as well comes too late."""

    async def work() -> Outcome:
        task = asyncio.create_task(
            attempt(script=f"setsid sleep {marker} & seq 5000 | xargs touch")
        )
        while not living(marker):
            await asyncio.sleep(0.001)
        while living(marker):
            await asyncio.sleep(0)
        for _ in range(20):
            task.cancel()
            await asyncio.sleep(0)
        return await task

    assert in_loop(work()).ok


def test_a_cancel_at_the_very_start_leaves_nothing(marker):
    async def work() -> None:
        task = asyncio.create_task(attempt(argv=["sleep", marker]))
        await asyncio.sleep(0)
        await cancelled(task)

    in_loop(work())
    assert living(marker) == []


def test_what_outlives_the_kill_is_reported_and_waited_for(monkeypatch):
    monkeypatch.setattr(shell, "REPORT_SECONDS", 0.05)
    real = shell.Family.kill
    until = time.monotonic() + 0.4

    def kill(self: shell.Family) -> list[Any]:
        immortal = [self.members(), [_Fake()]][time.monotonic() < until]
        return real(self) or (immortal if time.monotonic() < until else [])

    class _Fake:
        pid = 4711

    monkeypatch.setattr(shell.Family, "kill", kill)
    recorder = Recorder()
    assert in_loop(attempt(recorder, argv=["true"])).ok
    assert time.monotonic() >= until
    assert recorder.written == [("log", "still alive after SIGKILL: 4711", "error")]


def test_a_program_dies_with_its_node(marker, eventually):
    code = f"""
import asyncio, os, django
django.setup()
from jobs.executors import shell
from tests.jobs.executors.attempts import Recorder, make_assignment
asyncio.run(shell.run(make_assignment({{"argv": ["sleep", "{marker}"]}}), Recorder()))
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    environment["TMPDIR"] = tempfile.gettempdir()
    with ended(subprocess.Popen([sys.executable, "-c", code], env=environment)) as node:
        eventually(lambda: node.poll() is not None or set(living(marker)) - {node.pid}, seconds=60)
        assert node.poll() is None
    eventually(lambda: not living(marker))
    # Nobody was left to remove it.
    [left] = folders()
    shutil.rmtree(left)


def test_no_thread_is_started_and_orphans_are_not_adopted_for_longer_than_needed():
    before = threading.active_count()

    async def work() -> int:
        jobs = [attempt(script="sleep 0.05; exit 0") for _ in range(20)]
        outcomes = asyncio.gather(*jobs)
        await asyncio.sleep(0.01)
        during = threading.active_count()
        assert all(outcome.ok for outcome in await outcomes)
        return during

    assert in_loop(work()) == before
    # A new orphan goes to whoever took them before.
    with subprocess.Popen(["sh", "-c", "sleep 0.2 & echo $!"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.wait()
        assert Path(f"/proc/{orphan}/stat").read_text().split()[3] != str(os.getpid())
