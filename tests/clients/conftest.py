from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authn.keys import create_key
from jobs.models import Job
from jobs.states import State
from tests.processes import free_port, started, worker_environment


@pytest.fixture
def server(transactional_db: None, eventually: Callable[..., None]) -> Iterator[tuple[str, str]]:
    """A server of the tests' clusters: its address, and the key of an admin."""
    port = free_port()
    key = create_key("client", "admin", ["*"])[1]
    flags = ("serve", "--bind", f"127.0.0.1:{port}", "--workers", "2")
    # Requests with bad credentials are among those that are tried.
    environment = worker_environment(YARDMASTER_TRIES_PER_MINUTE="1000000")
    with started(*flags, env=environment) as process:
        eventually(lambda: process.poll() is not None or _answers(port), seconds=30)
        assert process.poll() is None, process.stdout and process.stdout.read()
        yield f"http://127.0.0.1:{port}", key


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def fetch_document(server: tuple[str, str], path: str) -> dict[str, Any]:
    """A document as the server gives it out."""
    base, key = server
    request = urllib.request.Request(base + path, headers={"x-api-key": key})
    with urllib.request.urlopen(request, timeout=30) as response:
        document: dict[str, Any] = json.load(response)
    return document


def run(*command: Any, cwd: Path, seconds: float = 300) -> str:
    """Run a program to its end and return what it said; its complaint is the test's."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_script(text: str, *arguments: str, cwd: Path) -> str:
    """Run a Python program beside the client it imports."""
    script = cwd / "story.py"
    script.write_text(text)
    return run(sys.executable, "-W", "error::DeprecationWarning:story", script, *arguments, cwd=cwd)


def check_native_story(story: str, server: tuple[str, str], folder: Path) -> None:
    made = run_script(story, *server, cwd=folder).strip()
    job = Job.objects.using("cluster-alpha").get(pk=made)
    assert (job.queue, job.state, job.attempts) == ("mail", State.READY, 0)


def check_asyncjobs_story(story: str, server: tuple[str, str], folder: Path) -> None:
    made = run_script(story, *server, cwd=folder).strip()
    job = Job.objects.using("cluster-alpha").get()
    assert (str(job.pk), job.type, job.queue, job.max_attempts) == (made, "email:new", "mail", 3)
