"""The two threads of a process child."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from unittest.mock import Mock

import pytest

from jobs.engine.capture import JobLog, Pipes
from jobs.engine.execute import ProcessChild
from jobs.engine.marks import Marks, shared_file


class Begun(Exception):
    """Where the test ends."""


def test_a_job_that_comes_while_the_last_results_are_sent_finds_a_child_that_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its second thread would wait for the next frame, and the job's log and progress with it."""
    for place, name in (
        (signal, "signal"),
        (os, "register_at_fork"),
        (threading, "Thread"),
        (JobLog, "install"),
    ):
        monkeypatch.setattr(place, name, Mock())
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    row = [0, "id", 1, "python", "demo:noop", "default", 1, 3, 30.0, 5.0, None]
    ours, theirs = socket.socketpair()
    marks = Marks(shared_file())
    with ours, theirs:
        child = ProcessChild(theirs, marks, 1000, Pipes([]), 2)
        child.reporter.flush = lambda **_: child._handle({"run": [row]})  # type: ignore[method-assign]
        child._run_handler = Mock(side_effect=Begun)  # type: ignore[method-assign]
        assert child._is_idle
        with pytest.raises(Begun):
            child.run()
        assert not child._is_idle
    marks.close()


def test_the_name_of_a_level_may_be_anything():
    """What the node cannot store would end the child and all that it holds."""
    written = []

    class Kept:
        def write(self, stream, text, level=None):
            written.append((stream, text, level))
            return True

    record = logging.LogRecord("a", 35, "p", 1, "hot", None, None)
    record.levelname = "W\ud800\x00"
    JobLog(Kept(), []).emit(record)
    assert written == [("log", "a: hot", "w\\xd800\\"[:8])]
