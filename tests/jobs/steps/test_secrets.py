"""Fifty secrets go through steps of many kinds on a real node; none is anywhere afterwards."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connections

from authn.keys import create_key
from clusters.binding import cluster_bound
from clusters.models import ClusterSetting
from jobs.errors import InvalidJob
from jobs.models import Job, LogLine, Step
from jobs.redaction import REDACTED
from jobs.sealing import is_sealed
from jobs.states import FINAL, State
from tests.api.conftest import Api
from tests.jobs.steps.cases import TestNode, do, run, submit
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

CANARIES = {f"c{number}": f"Canary{number:02}qZ{number * 7919:06}xK" for number in range(50)}
SAYS = ["{{ secrets.c0 }}"]


class _Echo(BaseHTTPRequestHandler):
    """Answers with all that it was sent; `/fails` with an error."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = json.dumps(
            {"path": self.path, "headers": dict(self.headers), "body": body.decode()}
        ).encode()
        self.send_response(400 if "fails" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Said", self.headers.get("Authorization", ""))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def echo_port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@contextmanager
def node(port: int, log: Path) -> Iterator[None]:
    env = worker_environment(
        YARDMASTER_HANDLERS="tests.worker_handlers",
        YARDMASTER_HTTP_ALLOW=f"127.0.0.1:{port}",
        YARDMASTER_LOG_LEVEL="DEBUG",
    )
    arguments = ("worker", "--cluster", "alpha", "--concurrency", "2", "--enable-shell")
    with started(*arguments, env=env) as process:
        try:
            yield
        finally:
            process.terminate()
            log.write_text(process.communicate(timeout=30)[0])


def leak(name: str, secret: str, **more: Any) -> dict[str, Any]:
    says = [f"{{{{ secrets.{secret} }}}}"]
    payload = {"says": says, **more.pop("payload", {})}
    return {"name": name, "kind": "python", "type": "test:leak", "payload": payload, **more}


def definition(port: int) -> dict[str, Any]:
    def call(name: str, path: str, secret: str, **more: Any) -> dict[str, Any]:
        payload = {
            "url": f"http://127.0.0.1:{port}{path}?q={{{{ secrets.{secret} }}}}",
            "method": "POST",
            "headers": {"Authorization": f"Bearer {{{{ secrets.{secret} }}}}"},
            "json": {"key": f"{{{{ secrets.{secret} }}}}"},
        }
        return {"name": name, "kind": "http", "payload": payload, **more}

    def shell(name: str, command: str, secret: str, **more: Any) -> dict[str, Any]:
        payload = {
            "argv": ["/bin/sh", "-c", command, "sh", f"{{{{ secrets.{secret} }}}}"],
            "env": {"TOKEN": f"{{{{ secrets.{secret} }}}}"},
        }
        return {"name": name, "kind": "shell", "payload": payload, **more}

    inner = {
        "name": "inner with {{ secrets.c10 }}",
        "inputs": {"given": "{{ secrets.c11 }}"},
        "secrets": {"own": "{{ secrets.c12 }}"},
        "output": "{{ inputs.given }}",
        "steps": [
            leak("of the sub-job {{ inputs.given }}", "own", var="own"),
            {**leak("x", "own"), "payload": {"says": ["{{ inputs.given }}"]}},
        ],
    }
    each_list = "{{ inputs.list }}"
    ok = {"continue_on_error": True, "max_attempts": 1}
    return {
        "name": "with Canary in the name of c1: " + CANARIES["c1"],
        "description": "and in the description: " + CANARIES["c2"],
        "secrets": CANARIES,
        "inputs": {"list": [CANARIES["c3"], CANARIES["c4"]], "plain": "Plain-Text-Stays"},
        "output": "{{ secrets.c5 }} and {{ inputs.plain }}",
        "steps": [
            leak("says {{ secrets.c6 }}", "c6", var="told"),
            leak("fails", "c7", payload={"fails": True}, **ok),
            call("calls", "/here", "c8", var="answer"),
            call("is refused", "/fails", "c9", **ok),
            {"name": "a sub-job", "subjob": inner, "var": "sub"},
            {"name": "apart", "subjob": {**inner, "detached": True}},
            shell("prints", 'echo "$TOKEN"; echo "$1" >&2; env', "c13"),
            shell("prints and fails", 'printf "$TOKEN"; exit 3', "c14", **ok),
            {
                "name": "each",
                "each": {"list": each_list, "step": {**leak("i", "c15"), "var": "v"}},
            },
            {
                "name": "each of them",
                "each": {
                    "list": each_list,
                    "step": {
                        **leak("got {{ item.value }}", "c15"),
                        "payload": {"says": ["{{ item.value }}"]},
                    },
                },
            },
            {
                "name": "all of the others",
                "parallel": [leak(f"number {n}", f"c{n}") for n in range(16, 50)],
            },
            leak("no such", "c0", **ok, **{"if": "{{ secrets.c0 != 'x' }}"}),
        ],
        "finally": [leak("at last", "c0")],
    }


def everything_stored(is_postgresql: bool) -> bytes:
    """All rows of all tables of both databases, and of SQLite the files with all that was freed."""
    found = []
    for alias in ("default", "cluster-alpha"):
        connection = connections[alias]
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names(cursor):
                if is_postgresql:
                    cursor.execute(f'SELECT t::text FROM "{table}" AS t')
                else:
                    cursor.execute(f'SELECT * FROM "{table}"')
                found += [repr(row).encode() for row in cursor.fetchall()]
        if not is_postgresql:
            path = Path(connection.settings_dict["NAME"])
            found += [file.read_bytes() for file in path.parent.glob(path.name + "*")]
    return b"\n".join(found)


def forms(canary: str) -> list[bytes]:
    return [
        canary.encode(),
        quote(canary).encode(),
        base64.b64encode(canary.encode()).rstrip(b"=")[:-1],
        base64.b64encode(f"user:{canary}".encode())[7:-4],
    ]


def leaked(data: bytes) -> list[str]:
    return [name for name, value in CANARIES.items() if any(form in data for form in forms(value))]


def test_no_secret_is_anywhere(
    echo_port: int,
    is_postgresql: bool,
    eventually: Callable[..., None],
    tmp_path: Path,
) -> None:
    log = tmp_path / "node.log"
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist({"retry_base_seconds": 0.05}, by="test")
        payload = definition(echo_port)
        api = Api(create_key("all", "operator", ("alpha",), ("shell",))[1])
        body = {"kind": "steps", "payload": payload}
        made = api.post("alpha/jobs", body, Idempotency_Key="once")
        assert made.status_code == 201, made.content
        job = Job.objects.get(pk=made.json()["id"])
        with node(echo_port, log):
            eventually(lambda: Job.objects.get(pk=job.pk).state in FINAL, seconds=120)
            eventually(lambda: not Job.objects.exclude(state__in=FINAL).exists(), seconds=60)
        job.refresh_from_db()
        assert (job.state, job.error) == (State.SUCCEEDED, None), log.read_text()[-3000:]
        assert job.result == f"{REDACTED} and Plain-Text-Stays"
        _all_of_it_was_done(job)
        assert leaked(everything_stored(is_postgresql)) == []
        assert leaked(log.read_bytes()) == []
        again = api.post("alpha/jobs", body, Idempotency_Key="once")
        assert again.json() == made.json()
        replies = [made.content, again.content, api.get("alpha/jobs?limit=200").content]
        for pk in Job.objects.values_list("pk", flat=True):
            for path in ("", "/logs", "/attempts"):
                reply = api.get(f"alpha/jobs/{pk}{path}")
                assert reply.status_code == 200, (path, reply.content)
                replies.append(reply.content)
        assert leaked(b"".join(replies)) == []
        assert b"Plain-Text-Stays" in b"".join(replies)


@pytest.mark.parametrize(
    "expression", ["fromJSON(secrets.c0)", "split(secrets.c0)", "secrets.c0()"]
)
def test_an_expression_that_fails_does_not_tell_what_it_worked_on(expression: str) -> None:
    with cluster_bound("alpha"):
        try:
            job = run(do("a", f"{{{{ {expression} }}}}"), secrets=CANARIES)
        except InvalidJob as error:
            assert leaked(str(error).encode()) == []
            return
        assert job.state == State.FAILED
        assert leaked((job.error or "").encode()) == []


def test_a_job_whose_key_is_gone_fails_and_others_do_not(settings: Any) -> None:
    with cluster_bound("alpha"):
        job, other = submit(do("a"), secrets={"a": "Canary-of-old"}), submit(do("a"))
        settings.SECRETS_KEYS = ["another-" + "0a1b2c3d4e5f6g7h8i9j" * 2]
        TestNode().run()
        job.refresh_from_db()
        other.refresh_from_db()
        assert (job.state, other.state) == (State.FAILED, State.SUCCEEDED)
        assert "does not have" in (job.error or "")


def _all_of_it_was_done(job: Job) -> None:
    """Nothing is easier to keep secret than what was never said."""
    steps = Step.objects.select_related("job")
    assert steps.count() == 55
    # The place of a sub-job that runs apart holds nothing.
    assert all(is_sealed(job.payload) for job in Job.objects.exclude(payload={"parallel": []}))
    by_name = {step.name: step.job for step in steps}
    assert by_name[f"says {REDACTED}"].result == {"said": [REDACTED], REDACTED: [f"<{REDACTED}>"]}
    assert REDACTED in (by_name["fails"].error or "")
    assert by_name["calls"].result["headers"]["x-said"] == f"Bearer {REDACTED}"
    assert by_name["prints and fails"].state == State.FAILED
    said = LogLine.objects.filter(job=by_name[f"says {REDACTED}"])
    assert {REDACTED} <= {*said.values_list("message", flat=True)}
    assert {
        (line.stream, line.message) for line in LogLine.objects.filter(job=by_name["prints"])
    } >= {
        ("stdout", REDACTED),
        ("stderr", REDACTED),
        ("stdout", f"TOKEN={REDACTED}"),
    }
