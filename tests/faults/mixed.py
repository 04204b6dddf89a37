"""Callers of two clusters at once, in one process: what each asks, and what he may not be told."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory

from clusters.binding import bound_cluster_id
from tests.matrix.things import NOBODYS

CLUSTERS = ("alpha", "beta")
BASE = settings.BASE_PATH


def mark(cluster: str) -> str:
    """What every row of a cluster bears, and no row of the other."""
    return f"row-of-{cluster}"


def other(cluster: str) -> str:
    return CLUSTERS[1 - CLUSTERS.index(cluster)]


@dataclass(frozen=True)
class Question:
    cluster: str
    method: str
    path: str
    expected: tuple[int, ...]
    body: Any = None
    is_signed: bool = True
    # The client goes away after the first piece of the answer.
    is_cut: bool = False


@dataclass
class Found:
    """What came out of it, over all callers."""

    statuses: Counter[int] = field(default_factory=Counter)
    mixed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)

    def take(self, question: Question, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        about = f"{question.method} {question.path}: {status}"
        if mark(other(question.cluster)).encode() in body:
            self.mixed.append(about)
        if status not in question.expected:
            self.wrong.append(f"{about} {body[:200]!r}")
        if (bound := bound_cluster_id()) is not None:
            self.mixed.append(f"{about}: {bound} is still bound")
        if status == 201 and question.method == "POST":
            self.made[question.cluster] += 1


class Questions:
    """A caller's questions, in an order that its seed decides."""

    def __init__(self, ids: dict[str, list[str]], seed: int) -> None:
        self._ids = ids
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[Question]:
        kinds: list[Callable[[str], Question]] = [
            *[self._read] * 8,
            *[self._dialect] * 5,
            *[self._enqueue] * 2,
            *[self._cancel] * 2,
            *[self._stream] * 2,
            *[self._mistake] * 3,
            self._screen,
        ]
        while True:
            yield self._random.choice(kinds)(self._random.choice(CLUSTERS))

    def _id(self, cluster: str) -> str:
        return self._random.choice(self._ids[cluster])

    def _read(self, cluster: str) -> Question:
        job = self._id(cluster)
        path = self._random.choice(
            [
                *("jobs?limit=20", f"jobs?type={mark(cluster)}", "jobs/count", f"jobs/{job}"),
                *(f"jobs/{job}/attempts", f"jobs/{job}/logs", f"jobs/{job}/why", "queues"),
                *(f"queues/{mark(cluster)}", "schedules", "nodes", "failures", "stats"),
            ]
        )
        return Question(cluster, "GET", f"{BASE}/{cluster}/{path}", (200,))

    def _dialect(self, cluster: str) -> Question:
        base = f"/clusters/{cluster}"
        job = self._id(cluster)
        method, path, body = self._random.choice(
            [
                ("GET", f"{base}/asyncjobs/v1/tasks", None),
                ("GET", f"{base}/asyncjobs/v1/tasks/{job}", None),
                ("GET", f"{base}/tork/queues", None),
                ("GET", f"{base}/scheduler/api/v1/scheduler/jobs", None),
                ("GET", f"{base}/forge/queue/overview", None),
                ("POST", f"{base}/forge/jobs/list", {"filter": {}, "limit": 20, "offset": 0}),
            ]
        )
        return Question(cluster, method, path, (200,), body)

    def _enqueue(self, cluster: str) -> Question:
        name = mark(cluster)
        body = {"type": name, "queue": name, "payload": {"of": name}, "tags": [name]}
        return Question(cluster, "POST", f"{BASE}/{cluster}/jobs", (201,), body)

    def _cancel(self, cluster: str) -> Question:
        path = f"{BASE}/{cluster}/jobs/{self._id(cluster)}/cancel"
        return Question(cluster, "POST", path, (200, 409))

    def _stream(self, cluster: str) -> Question:
        """Of a job that has ended, so that the stream ends as well."""
        path = f"{BASE}/{cluster}/jobs/{self._ids[cluster][0]}/logs/stream"
        return Question(cluster, "GET", path, (200,), is_cut=self._random.random() < 0.5)

    def _mistake(self, cluster: str) -> Question:
        base = f"{BASE}/{cluster}/jobs"
        return self._random.choice(
            [
                Question(cluster, "GET", f"{base}?nonsense=1", (400,)),
                Question(cluster, "POST", base, (400,), {"type": 5}),
                Question(cluster, "GET", f"{base}/{NOBODYS}", (404,)),
                Question(cluster, "GET", f"{base}/{self._id(other(cluster))}", (404,)),
                Question(cluster, "POST", f"{base}/{self._id(other(cluster))}/cancel", (404,)),
                Question(cluster, "GET", base, (401,), is_signed=False),
                Question(cluster, "PUT", base, (405,), {}),
            ]
        )

    def _screen(self, cluster: str) -> Question:
        # Nobody has signed in: to the login, with nothing shown.
        return Question(cluster, "GET", f"/admin/{cluster}/jobs/", (302,), is_signed=False)


class Threaded:
    """The WSGI application, asked from whichever thread calls."""

    def __init__(self, key: str) -> None:
        self._application = get_wsgi_application()
        self._factory = RequestFactory()
        self._key = key

    def ask(self, question: Question) -> tuple[int, bytes]:
        environ = _request(self._factory, question, self._key).environ
        begun: list[str] = []
        answer = self._application(environ, lambda status, headers: begun.append(status))
        try:
            pieces = iter(answer)
            body = next(pieces, b"") if question.is_cut else b"".join(pieces)
        finally:
            answer.close()
        return int(begun[0].split()[0]), body


class Asynchronous:
    """The ASGI application, asked many times at once from one loop."""

    def __init__(self, key: str) -> None:
        self._application = get_asgi_application()
        self._factory = RequestFactory()
        self._key = key

    async def ask(self, question: Question) -> tuple[int, bytes]:
        request = _request(self._factory, question, self._key)
        path, _, query = question.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": question.method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode()) for name, value in request.headers.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
        }
        left = [{"type": "http.request", "body": request.body, "more_body": False}]
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if left:
                return left.pop()
            await asyncio.sleep(3600)  # the client stays on the line
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await self._application(scope, receive, send)
        return said[0]["status"], b"".join(one.get("body", b"") for one in said[1:])


def _request(factory: RequestFactory, question: Question, key: str) -> Any:
    content = b"" if question.body is None else json.dumps(question.body).encode()
    headers = {"x-api-key": key} if question.is_signed else {}
    return factory.generic(
        question.method, question.path, content, "application/json", headers=headers
    )
