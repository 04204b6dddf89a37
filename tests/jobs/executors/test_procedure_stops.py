"""Kind `procedure`: calls that are stopped, run out of time or lose their connection."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psycopg
import pytest

from jobs.executors.doubt import StoppedInDoubt
from tests.jobs.executors.attempts import Recorder, in_loop
from tests.jobs.executors.procedures import call, started, until

SLOW = {"what": "slow", "seconds": 30}
STEPS = {"what": "step", "seconds": 30}


async def is_running(procedures, words: str) -> None:
    await until(lambda: any(s.startswith("active") and words in s for s in procedures.sessions()))


def test_a_cancelled_call_is_undone_and_runs_nowhere(procedures):
    async def story():
        grace = {"grace_seconds": 60.0}
        async with started("work.slow", parameters=SLOW, assignment=grace) as task:
            await is_running(procedures, "slow")
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as stopped:
                await task
            assert not isinstance(stopped.value, StoppedInDoubt)
            assert procedures.sessions() == []
            assert time.monotonic() - began < 20

    in_loop(story())
    assert procedures.done() == []


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 3, 5, 8, 13, 21, 34])
def test_a_call_cancelled_at_any_moment_is_undone_or_done(procedures, milliseconds):
    """From before there is a connection up to after the COMMIT."""

    async def story():
        async with started("work.slow", parameters={"what": "x", "seconds": 0.01}) as task:
            await asyncio.sleep(milliseconds / 1000)
            task.cancel()
            try:
                return (await task).ok
            except StoppedInDoubt:
                raise
            except asyncio.CancelledError:
                return False

    has_worked = in_loop(story())
    assert procedures.done() == (["x"] if has_worked else [])
    assert procedures.sessions() == []


def test_a_call_cancelled_in_its_commit_is_told_as_it_ended(procedures):
    async def story():
        async with started("work.note_checked", parameters={"what": "x"}) as task:
            await is_running(procedures, "COMMIT")
            task.cancel()
            return await task

    assert in_loop(story()).ok
    assert procedures.ask("SELECT what FROM work.checked") == ["x"]


def test_a_procedure_that_commits_is_in_doubt_when_it_is_cancelled(procedures):
    async def story():
        async with started("work.in_steps", parameters=STEPS) as task:
            await is_running(procedures, "in_steps")
            await until(lambda: procedures.done() == ["step 1"])
            task.cancel()
            with pytest.raises(StoppedInDoubt):
                await task

    in_loop(story())
    assert (procedures.done(), procedures.sessions()) == (["step 1"], [])


def test_one_that_catches_the_request_is_ended_all_the_same(procedures):
    """Halfway through the grace, long before its connection is broken off."""

    async def story():
        parameters = {"what": "stubborn"}
        grace = {"grace_seconds": 8.0}
        async with started("work.stubborn", parameters=parameters, assignment=grace) as task:
            await is_running(procedures, "stubborn")
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 7.5
            await until(lambda: procedures.sessions() == [], 30)

    in_loop(story())
    assert procedures.done() == []


def test_cancelling_once_more_cuts_the_grace_short(procedures):
    async def story():
        parameters = {"what": "stubborn"}
        grace = {"grace_seconds": 60.0}
        async with started("work.stubborn", parameters=parameters, assignment=grace) as task:
            await is_running(procedures, "stubborn")
            task.cancel()
            await asyncio.sleep(0.2)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 20
            # The server notices by itself that nobody listens.
            await until(lambda: procedures.sessions() == [], 30)

    in_loop(story())
    assert procedures.done() == []


# -- Out of time -----------------------------------------------------------------------------------


def test_the_server_gives_up_in_time_by_itself(procedures):
    outcome = in_loop(call("work.slow", parameters=SLOW, timeout_seconds=0.5))
    assert (outcome.ok, outcome.error_type, outcome.effect_unknown) == (False, "Timeout", False)
    assert outcome.is_permanent is False
    assert (procedures.done(), procedures.sessions()) == ([], [])


def test_the_limit_of_the_job_is_the_servers_too(procedures):
    """A second later than the node's, which says more on the attempt."""
    began = time.monotonic()
    outcome = in_loop(call("work.slow", parameters=SLOW, assignment={"timeout_seconds": 0.5}))
    assert 1.3 < time.monotonic() - began < 20
    assert outcome.error_type == "Timeout"


def test_a_procedure_that_commits_is_in_doubt_when_it_is_out_of_time(procedures):
    outcome = in_loop(call("work.in_steps", parameters=STEPS, timeout_seconds=2.0))
    assert (outcome.error_type, outcome.effect_unknown) == ("Timeout", True)
    assert procedures.done() == ["step 1"]


def test_a_call_waits_for_a_lock_no_longer_than_it_may(procedures):
    with psycopg.connect(procedures.url()) as other:
        other.execute("LOCK TABLE work.done")
        began = time.monotonic()
        parameters = {"what": "waits"}
        outcome = in_loop(call("work.note", parameters=parameters, timeout_seconds=0.5))
        assert time.monotonic() - began < 9  # ten seconds is what it may without one
    assert (outcome.ok, outcome.is_permanent) == (False, False)
    assert procedures.done() == []


# -- Lost connections ------------------------------------------------------------------------------


async def end_session(procedures, words: str) -> None:
    await is_running(procedures, words)
    await asyncio.to_thread(
        procedures.ask,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'yardmaster-%%' AND datname = current_database()",
    )


def ended_by_somebody(procedures, name, words, parameters):
    async def story():
        async with started(name, parameters=parameters) as task:
            await end_session(procedures, words)
            return await task

    return in_loop(story())


def test_a_transaction_whose_session_was_ended_is_undone_without_doubt(procedures):
    outcome = ended_by_somebody(procedures, "work.slow", "slow", SLOW)
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, False)
    assert procedures.done() == []


def test_a_procedure_that_commits_is_in_doubt_when_its_session_was_ended(procedures):
    outcome = ended_by_somebody(procedures, "work.in_steps", "in_steps", STEPS)
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, True)


def test_a_connection_lost_in_the_commit_is_in_doubt(procedures):
    outcome = ended_by_somebody(procedures, "work.note_checked", "COMMIT", {"what": "x"})
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, True)


def test_a_wire_that_was_cut_is_told_as_such(procedures, monkeypatch):
    from jobs.executors.procedure import _Attempt

    attempts: list[_Attempt] = []
    real = _Attempt.run
    monkeypatch.setattr(_Attempt, "run", lambda self: attempts.append(self) or real(self))

    async def story(name, parameters):
        async with started(name, parameters=parameters) as task:
            await is_running(procedures, name.partition(".")[2])
            attempts[-1]._cut()
            return await task

    outcome = in_loop(story("work.slow", SLOW))
    assert (outcome.error_type, outcome.effect_unknown) == ("ConnectionError", False)
    assert outcome.error == "the connection to main was lost"
    outcome = in_loop(story("work.in_steps", STEPS))
    assert (outcome.error_type, outcome.effect_unknown) == ("ConnectionError", True)
    deadline = time.monotonic() + 30
    while procedures.sessions() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert procedures.sessions() == []


def test_a_session_that_says_nothing_more_is_undone(procedures):
    """What the server does for us when this process stands still between call and COMMIT."""
    with psycopg.connect(procedures.url()) as silent:
        silent.execute("SET idle_in_transaction_session_timeout = '200ms'")
        silent.execute("INSERT INTO work.done (what) VALUES ('silent')")
        time.sleep(0.5)
        with contextlib.suppress(psycopg.Error):
            silent.commit()
    assert procedures.done() == []


def test_what_was_said_before_the_stop_is_in_the_log(procedures):
    recorder = Recorder()

    async def story():
        parameters = {"what": "slow", "seconds": 30}
        async with started("work.slow", recorder=recorder, parameters=parameters) as task:
            await is_running(procedures, "slow")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    in_loop(story())
    assert recorder.written[-1][2] == "warning"
    assert recorder.text("log").startswith("work.slow on main failed in ")
