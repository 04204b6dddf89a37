"""Run a command in this process: fast, and inside the test's own transaction."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import CommandError, call_command


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(db, monkeypatch):
    """Run ``manage.py`` with these words and say how it ended."""
    monkeypatch.setenv("YARDMASTER_CLUSTER", "alpha")

    def run_command(*words: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        code = 0
        try:
            call_command(*words, stdout=out, stderr=err)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        except CommandError as error:  # what argparse refuses; on a command line it exits with 2
            code = 2
            err.write(str(error))
        return Done(code, out.getvalue(), err.getvalue())

    return run_command
