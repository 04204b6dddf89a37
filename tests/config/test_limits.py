"""Limits of callers, as they are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.limits import Limits, read_limits

pytestmark = pytest.mark.once


def read(tmp_path: Path, text: str) -> tuple[dict[str, Limits], list[str]]:
    path = tmp_path / "yardmaster.toml"
    path.write_text(text)
    problems: list[str] = []
    return read_limits(str(path), Limits(), problems), problems


def test_a_caller_has_the_defaults_but_for_what_is_said_of_it(tmp_path: Path) -> None:
    found, problems = read(
        tmp_path,
        '[callers."key:importer"]\nrequests_per_second = 2000\n'
        '[callers."anonymous:tork"]\nstreams = 0\nstatement_seconds = 0.5\n',
    )
    assert problems == []
    assert found == {
        "key:importer": Limits(requests_per_second=2000),
        "anonymous:tork": Limits(streams=0, statement_seconds=0.5),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("callers = 1\n", "'callers' must be a table"),
        ("[callers]\nx = 1\n", '[callers."x"] must be a table'),
        ("[callers.x]\nspeed = 1\n", "unknown limit 'speed'"),
        ("[callers.x]\nstreams = 1.5\n", "streams must be a number from 0 to 40"),
        ("[callers.x]\nstreams = true\n", "streams must be a number"),
        ("[callers.x]\nrequests_per_second = nan\n", "requests_per_second must be a number"),
        ("[callers.x]\nrequests_per_second = -1\n", "requests_per_second must be a number"),
        ("[callers.x]\nmax_body_bytes = 10\n", "max_body_bytes must be a number from 1024"),
        ("[callers.x]\nstatement_seconds = '5'\n", "statement_seconds must be a number"),
    ],
)
def test_a_mistake_is_told(text: str, problem: str, tmp_path: Path) -> None:
    found, problems = read(tmp_path, text)
    assert found == {}
    assert len(problems) == 1
    assert problem in problems[0]
