"""The API as real servers give it: streams that go on, and keys that hold over several processes."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

from authn.keys import create_key
from clusters.binding import cluster_bound
from jobs.models import Job, Queue
from tests.commands.test_serve import answers
from tests.processes import free_port, manage, started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key() -> str:
    return create_key("test", "admin", ["*"])[1]


@contextmanager
def serving(
    eventually: Any, *flags: str, workers: int = 2, **env: str
) -> Iterator[tuple[Any, int]]:
    port = free_port()
    arguments = ("serve", "--bind", f"127.0.0.1:{port}", "--workers", str(workers), *flags)
    with started(*arguments, env=worker_environment(**env)) as process:
        eventually(lambda: process.poll() is not None or answers(port), seconds=60)
        assert process.poll() is None, process.stdout.read()
        yield process, port


def ask(
    port: int, method: str, path: str, key: str, body: Any = None, **headers: str
) -> tuple[http.client.HTTPResponse, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = None if body is None else json.dumps(body)
    given = {"x-api-key": key, **{name.replace("_", "-"): v for name, v in headers.items()}}
    connection.request(method, path, content, given)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response, json.loads(raw) if raw else None


def test_two_hundred_at_once_with_one_key_make_one_task(
    key: str, eventually: Callable[..., None]
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(200) as pool:
        ports = [stack.enter_context(serving(eventually))[1] for _ in range(2)]

        def post(number: int) -> tuple[int, str, str | None]:
            body = {"type": "email:new", "payload": {"to": "x@y"}}
            response, task = ask(
                ports[number % 2], "POST", "/v1/tasks", key, body, Idempotency_Key="same"
            )
            return response.status, task.get("id", str(task)), response.headers["Location"]

        answers_ = list(pool.map(post, range(200)))
    assert Counter(status for status, _, _ in answers_) == {201: 1, 200: 199}, answers_
    ((task_id, location),) = {(task_id, location) for _, task_id, location in answers_}
    assert location == f"/v1/tasks/{task_id}"
    with cluster_bound("alpha"):
        assert [str(pk) for pk in Job.objects.values_list("pk", flat=True)] == [task_id]


def lines_of(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := response.readline():
        yield json.loads(line)


def test_a_stream_goes_on_while_the_server_answers_others(
    key: str, eventually: Callable[..., None]
) -> None:
    with serving(eventually, workers=1) as (process, port):
        _, old = ask(port, "POST", "/v1/tasks", key, {"type": "a"})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/asyncjobs/v1/tasks?stream=ndjson", headers={"x-api-key": key})
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/x-ndjson"
        lines = lines_of(response)
        assert next(lines)["id"] == old["id"]
        # The one worker answers on while the stream is open, and what it does is in the stream.
        began = time.monotonic()
        _, new = ask(port, "POST", "/v1/tasks", key, {"type": "b"})
        found = next(lines)
        assert (found["id"], found["state"], found["type"]) == (new["id"], "new", "b")
        assert time.monotonic() - began < 30
        assert ask(port, "POST", "/v1/queues/default/purge", key)[0].status == 202
        with cluster_bound("alpha"):
            Job.objects.filter(pk=old["id"]).cancel()
        found = next(lines)
        assert (found["id"], found["state"]) == (old["id"], "terminated")
        # Come again, it is all there.
        again = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        again.request("GET", "/v1/tasks?stream=ndjson&limit=2", headers={"x-api-key": key})
        states = [task["state"] for task in lines_of(again.getresponse())]
        again.close()
        assert states == ["terminated", "new"]
        # Its process ends when nobody reads it any more.
        eventually(lambda: len(senders_of(process)) == 1)
        response.close()
        connection.close()
        eventually(lambda: not senders_of(process), seconds=60)


def senders_of(server: Any) -> list[psutil.Process]:
    """Processes of a server with one worker that send a long answer."""
    (worker,) = psutil.Process(server.pid).children()
    return [one for one in worker.children() if one.status() != psutil.STATUS_ZOMBIE]


def test_one_stream_too_many_is_told_to_come_again(
    key: str, eventually: Callable[..., None]
) -> None:
    with serving(eventually, workers=1) as (_, port), ExitStack() as stack:
        open_ = []
        for _ in range(21):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            stack.callback(connection.close)
            connection.request("GET", "/v1/tasks?stream=ndjson", headers={"x-api-key": key})
            # An open stream says nothing while there is nothing: only the head has come.
            open_.append(connection.getresponse())
        assert [response.status for response in open_] == [200] * 20 + [429]
        response = open_.pop()
        assert int(response.headers["Retry-After"]) > 0
        error = json.loads(response.read())["error"]
        assert (error["code"], error["details"]["reason"]) == ("rate_limited", "list_in_progress")
        assert ask(port, "GET", "/v1/tasks", key)[1] == {"tasks": [], "count": 0}


def test_the_queue_of_a_server_must_be_there(eventually: Callable[..., None], key: str) -> None:
    done = manage("serve", "--queue", "gone", env=worker_environment())
    assert done.returncode == 1 and "gone" in done.stderr and "Traceback" not in done.stderr
    with serving(eventually, "--allow-create-default", workers=1) as (_, port):
        _, task = ask(port, "POST", "/v1/tasks", key, {"type": "a"})
        assert task["queue"] == "DEFAULT"
        assert ask(port, "POST", "/v1/queues", key, {"name": "DEFAULT"})[0].status == 409
    with cluster_bound("alpha"):
        assert Queue.objects.get(name="DEFAULT").default_max_attempts == 100
        Queue.objects.create(name="mail")
    with serving(eventually, "--queue", "mail", workers=1) as (_, port):
        _, task = ask(port, "POST", "/v1/tasks", key, {"type": "a"})
        assert task["queue"] == "mail"
        assert ask(port, "POST", "/v1/queues", key, {"name": "DEFAULT"})[0].status == 400


def test_a_body_over_the_limit_of_a_server_is_413(
    key: str, eventually: Callable[..., None]
) -> None:
    with serving(eventually, "--max-body", "2048", workers=1) as (_, port):
        for size, status in ((3000, 413), (1000, 201)):
            body = {"type": "a", "payload": "x" * size}
            assert ask(port, "POST", "/v1/tasks", key, body)[0].status == status


def test_a_node_runs_tasks_of_this_api(key: str, eventually: Callable[..., None]) -> None:
    env = worker_environment(YARDMASTER_HANDLERS="tests.worker_handlers")
    with (
        serving(eventually, workers=1) as (_, port),
        started("worker", "--cluster", "alpha", env=env),
    ):
        good, bad, final = (
            ask(port, "POST", "/v1/tasks", key, {"type": name, "payload": payload})[1]
            for name, payload in (
                ("test:result", {"which": "fine"}),
                ("test:result", {"which": "none"}),
                ("test:permanent", None),
            )
        )

        def now(task: Any) -> Any:
            return ask(port, "GET", f"/v1/tasks/{task['id']}", key)[1]

        for task, state in ((good, "complete"), (bad, "retry"), (final, "terminated")):
            eventually(lambda task=task, state=state: now(task)["state"] == state, seconds=30)
            assert now(task)["tries"] == 1 and now(task)["tried"]
        assert now(good)["result"]["payload"] == {"a": [1, None, "ü"]}
        assert "none" in now(bad)["last_err"]
        assert "no attempt can help" in now(final)["last_err"]
        with cluster_bound("alpha"):
            job = Job.objects.get(pk=bad["id"])
        # The second of the intervals, from 0.9 to 1.9 times, since it was tried.
        assert job.started_at is not None
        wait = (job.run_at - job.started_at).total_seconds()
        assert 0.9 * 70.8 <= wait < 1.9 * 70.8 + 5
