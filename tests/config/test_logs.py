"""The program's own log: one line each, and nothing in it that a terminal obeys."""

from __future__ import annotations

import codecs
import io
import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from config.logs import escape_controls, escaped
from config.server import OneLog
from config.settings import LOGGING

pytestmark = pytest.mark.once

LINES = Path("tests/corpora/log_injections.txt").read_text().splitlines()
EVIL = [codecs.decode(line, "unicode_escape") for line in LINES if not line.startswith("#")]


def is_quiet(text: str) -> bool:
    return not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.fixture(params=["json", "terminal"])
def told(request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """What a logger writes with the formatter of the settings, to a file and to a terminal."""
    formatter: Any = dict(LOGGING["formatters"]["lines"])
    formatter.pop("()")
    *processors, last = formatter["processors"]
    if request.param == "terminal":
        last = structlog.dev.ConsoleRenderer(colors=False)
    formatter["processors"] = [*processors, last]
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(**formatter))
    logger = logging.getLogger("tests.lines")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel("INFO")

    def say(act: Callable[[logging.Logger], None]) -> str:
        stream.seek(0)
        stream.truncate()
        act(logger)
        return stream.getvalue()

    say.is_json = request.param == "json"
    yield say
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_what_is_logged_stays_one_line_and_commands_nothing(evil: str, told: Any) -> None:
    for act in (
        lambda log: log.warning(evil),
        lambda log: log.warning("refused %s", evil),
        lambda log: log.warning({"path": evil, "deep": [{evil: (evil,)}]}),
    ):
        line = told(act)
        assert line.count("\n") == 1, line
        assert is_quiet(line[:-1]), line
        if told.is_json:
            assert is_quiet(
                json.loads(line)["event"]
                if isinstance(json.loads(line)["event"], str)
                else json.dumps(json.loads(line)["event"], ensure_ascii=False)
            )


def test_context_is_escaped_too(told: Any) -> None:
    for evil in EVIL:
        with structlog.contextvars.bound_contextvars(request_id=evil):
            line = told(lambda log: log.warning("hello"))
        assert is_quiet(line[:-1])
        assert line.count("\n") == 1


def test_a_trace_keeps_its_lines_on_a_terminal_only(told: Any) -> None:
    def fail(log: logging.Logger) -> None:
        try:
            raise ValueError("one\x1b[31m\ntwo")
        except ValueError:
            log.exception("it failed")

    said = told(fail)
    assert "\x1b" not in said
    if told.is_json:
        assert said.count("\n") == 1
        assert "Traceback" in json.loads(said)["exception"]
    else:
        assert "Traceback" in said


def test_values_that_are_no_text_stay_what_they_are() -> None:
    event = {"event": "x", "count": 3, "ratio": 0.5, "is_up": True, "nothing": None}
    assert escape_controls(None, "info", dict(event)) == event
    nested = {"event": "x", "a": {"b": [1, "c"]}}
    assert escape_controls(None, "info", dict(nested)) == nested


def test_what_is_written_out_can_be_told_apart() -> None:
    assert escaped("a\x1b\u202e\n") == "a\\x1b\\u202e\\x0a"


def test_the_line_of_a_request_is_one_json_object_without_its_query() -> None:
    said = io.StringIO()
    log = OneLog.__new__(OneLog)
    log._access_log_enabled = True
    log.access_log = logging.getLogger("tests.access")
    log.access_log.propagate = False
    log.access_log.setLevel("INFO")
    handler = logging.StreamHandler(said)
    log.access_log.addHandler(handler)
    response = SimpleNamespace(status="200 OK", sent=7, headers=[("X-Request-ID", "abc")])
    try:
        for evil in EVIL:
            environ = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": f"/jm-api/{evil}",
                "QUERY_STRING": "token=hush",
                "RAW_URI": "/jm-api/?token=hush",
                "REMOTE_ADDR": "127.0.0.1",
                "HTTP_USER_AGENT": evil,
                "HTTP_X_API_KEY": "hush",
            }
            log.access(response, None, environ, timedelta(seconds=0.25))
    finally:
        log.access_log.removeHandler(handler)
    lines = said.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(EVIL)
    for line in lines:
        told = json.loads(line)
        assert is_quiet(told["path"] + told["agent"])
        assert (told["status"], told["seconds"], told["bytes"]) == (200, 0.25, 7)
        assert told["request_id"] == "abc"
        assert "hush" not in line
