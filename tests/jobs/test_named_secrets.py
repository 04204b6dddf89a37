"""Fifty named secrets go through every executor on real nodes; none is anywhere afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from authn.keys import create_key
from clusters.binding import cluster_bound
from clusters.models import ClusterSetting
from jobs.engine.enqueue import NewJob, enqueue
from jobs.models import Attempt, Job, LogLine, Schedule, Secret
from jobs.redaction import REDACTED
from jobs.states import FINAL, Reason, State
from tests.api.conftest import Api
from tests.dialects.scheduler.conftest import Caller
from tests.engines import IMAGE
from tests.jobs.steps.test_secrets import (
    CANARIES,
    _Echo,
    everything_stored,
    leaked,
    node,
)
from tests.jobs.steps.test_secrets import echo_port as echo_port
from tests.matrix.endpoints import endpoints
from tests.matrix.test_matrix import QUERIES
from tests.matrix.things import filled, missing_things
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist({"retry_base_seconds": 0.05}, by="test")
        for name, value in CANARIES.items():
            Secret.objects.all().create_secret(name, value, by="test")
        yield


@contextmanager
def processes_watched() -> Iterator[list[str]]:
    """The canaries seen in the arguments of any process, or in what ours were started with."""
    seen: list[str] = []
    stopping = threading.Event()

    def look() -> None:
        while not stopping.wait(0.01):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    arguments = (folder / "cmdline").read_bytes()
                    seen.extend(leaked(arguments))
                    if b"manage.py" in arguments:
                        seen.extend(leaked((folder / "environ").read_bytes()))
                except OSError:
                    continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield seen
    stopping.set()
    thread.join()


def python(type_name: str, says: Any, **more: Any) -> NewJob:
    return NewJob(type=type_name, payload={"says": says, **more}, max_attempts=1)


def called(port: int, path: str, **payload: Any) -> NewJob:
    payload = {"url": f"http://127.0.0.1:{port}{path}", "method": "POST", **payload}
    return NewJob(kind="http", payload=payload, max_attempts=1)


def shell(script: str, **payload: Any) -> NewJob:
    return NewJob(kind="shell", payload={"script": script, **payload}, max_attempts=1)


def of_steps(port: int) -> NewJob:
    def step(name: str, kind: str, payload: Any, **more: Any) -> dict[str, Any]:
        return {"name": name, "kind": kind, "payload": payload, **more}

    url = f"http://127.0.0.1:{port}/steps"
    whole, inside = "{{ secrets.a }}", "Bearer {{ secrets.b }}"
    inner = {
        "name": "inner",
        "secrets": {"own": "{{ secrets.c }}"},
        "steps": [
            step("deep", "python", {"says": ["{{ secrets.own }}"]}, type="test:leak"),
        ],
    }
    definition = {
        "secrets": {"a": "secret:c35", "b": "{{Secret.c36}}", "c": "secret:c37", "d": "secret:c38"},
        "webhooks": [
            {"url": f"{url}?k={{{{Secret.c39}}}}", "headers": {"X-Key": "{{ secrets.d }}"}},
            {"url": url, "event": "task.StateChange", "headers": {"X-Key": "secret:c40"}},
        ],
        "steps": [
            step("says", "python", {"says": [whole]}, type="test:leak", var="said"),
            step("calls", "http", {"url": url, "headers": {"Authorization": inside}}),
            step("prints", "shell", {"script": 'echo "$K"', "env": {"K": inside}}),
            {"name": "sub", "subjob": inner},
            {
                "name": "many",
                "parallel": [
                    step(f"s{n}", "python", {"says": [f"secret:c{n}"]}, type="test:leak")
                    for n in range(41, 46)
                ],
            },
        ],
    }
    return NewJob(kind="steps", payload=definition)


def submitted(port: int) -> dict[str, Job]:
    """Of every executor some that end well and some that do not."""
    on_top = {f"c{n}": {"says": [f"secret:c{n}"]} for n in range(4, 10)}
    news = {
        "python": python("test:leak", ["secret:c0"]),
        "python fails": python("test:leak", ["x {{Secret.c1}}"], fails=True),
        "python dies": python("test:leak-and-die", "secret:c2"),
        "python goes on": python("test:leak-later", "secret:c3"),
        **{
            name: NewJob(type="test:leak", payload={"nested": [payload], **payload})
            for name, payload in on_top.items()
        },
        "http": called(port, "/a", headers={"Authorization": "secret:c10"}, json={"k": "secret:c11"}),
        "http url": called(port, "/a/{{Secret.c12}}?q={{Secret.c13}}", body="key={{Secret.c14}}"),
        "http fails": called(port, "/fails", headers={"X": "K {{Secret.c15}}"}, body="secret:c16"),
        "http not sent": called(port, "/a", headers={"X": "secret:c17", "Y": "secret:broken"}),
        "http unreachable": called(1, "/{{Secret.c18}}", headers={"X": "secret:c19"}),
        "shell": shell('cat; env; cat f', env={"K": "secret:c20"}, stdin="secret:c21",
                       files={"f": "k={{Secret.c22}}"}),
        "shell fails": shell('echo "$K" >&2; exit 3', env={"K": "secret:c23"}),
        "shell result": shell('printf %s "$K" > "$JOB_OUTPUT"', env={"K": "Basic {{Secret.c24}}"}),
        "shell before": shell("true", pre=[{"script": "env", "env": {"K": "secret:c25"}}]),
        "shell after": shell("true", post=[{"script": "env; sleep 1", "env": {"K": "secret:c26"}}]),
        "shell file": shell("base64 f", files={"f": "secret:c27"}),
        "steps": of_steps(port),
    }  # fmt: skip
    return {name: enqueue(new, by="test").job for name, new in news.items()}


def fired(api: Api, port: int) -> None:
    """Of a schedule of ours, and of one of the scheduler's clients."""
    headers = {"Authorization": "Bearer {{Secret.c46}}"}
    payload = {"url": f"http://127.0.0.1:{port}/ours", "headers": headers}
    body = {"name": "ours", "kind": "http", "payload": payload, "timing": "cron"}
    made = api.post("alpha/schedules", {**body, "expression": "0 0 1 1 *"})
    assert made.status_code == 201, made.content
    api.post(f"alpha/schedules/{made.json()['id']}/trigger")
    configuration = {
        "url": f"http://127.0.0.1:{port}/theirs",
        "method": "POST",
        "headers": {"X-Api-Key": "{{Secret.c47}}"},
        "body": '{"key": "{{ Secret.c48 }}"}',
    }
    caller = Caller(api.headers["x-api-key"])
    theirs = caller.make(jobType="HttpCall", jobConfiguration=configuration)
    assert caller.post(f"jobs/{theirs['id']}/trigger").status_code == 202


class Told:
    """What the other side of calls was told."""

    def __init__(self) -> None:
        self.text = ""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    heard = Told()
    answer = _Echo.do_POST

    def heard_post(self: _Echo) -> None:
        heard.text += f"{self.path} {dict(self.headers)}\n"
        answer(self)

    monkeypatch.setattr(_Echo, "do_POST", heard_post)
    monkeypatch.setattr(_Echo, "do_GET", heard_post, raising=False)
    return heard


def all_pages() -> bytes:
    """What the screen shows of all this to somebody who may see everything."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("boss", password="x"))
    jobs = [f"jobs/{pk}/" for pk in Job.objects.values_list("pk", flat=True)]
    schedules = [f"schedules/{pk}/" for pk in Schedule.objects.values_list("pk", flat=True)]
    pages = [
        client.get(f"/admin/alpha/{path}") for path in ("jobs/", "failures/", *jobs, *schedules)
    ]
    assert {page.status_code for page in pages} == {200}
    return b"".join(page.content for page in pages)


def all_replies(api: Api) -> bytes:
    paths = ["jobs?limit=200", "failures", "schedules", "secrets", "settings", "settings/changes"]
    for pk in Job.objects.values_list("pk", flat=True):
        paths += [f"jobs/{pk}{rest}" for rest in ("", "/logs", "/attempts", "/why", "/steps")]
    paths += [f"secrets/{name}" for name in CANARIES]
    paths += [f"schedules/{pk}" for pk in Schedule.objects.values_list("pk", flat=True)]
    replies = [api.get(f"alpha/{path}") for path in paths]
    assert {reply.status_code for reply in replies} == {200}
    return b"".join(reply.content for reply in replies)


def all_of_every_surface(api: Api) -> bytes:
    """What every address that can be read says of these jobs and schedules, in every language."""
    found: dict[str, bytes] = {}
    jobs = [str(pk) for pk in Job.objects.values_list("pk", flat=True)]
    schedules = [str(pk) for pk in Schedule.objects.values_list("pk", flat=True)]
    of_jobs = ("job", "execution", "step", "steps job")
    named = [dict.fromkeys(of_jobs, pk) for pk in jobs]
    named += [dict.fromkeys(("schedule", "steps schedule"), pk) for pk in schedules]
    for endpoint in endpoints():
        if endpoint.method != "GET" or endpoint.is_bare or "stream" in endpoint.path:
            continue
        address = f"{endpoint.route}?{QUERIES.get(endpoint.key, '')}".rstrip("?")
        for things in named:
            one = filled(endpoint.surface, address, "alpha", {**missing_things(), **things})
            if one not in found:
                reply: Any = api.client.get(one, headers=api.headers)
                assert reply.status_code < 500, one
                found[one] = reply.getvalue() if reply.status_code == 200 else b""
    for word in ("asyncjobs", "forge", "scheduler", "tork", "/audit/export", "/attempts"):
        assert any(word in one and text for one, text in found.items()), word
    return b"".join(found.values())


def test_no_named_secret_is_anywhere(
    echo_port: int,
    told: Told,
    is_postgresql: bool,
    eventually: Callable[..., None],
    tmp_path: Path,
) -> None:
    log = tmp_path / "node.log"
    api = Api(create_key("all", "admin", ("alpha",), ("shell",))[1])
    Secret.objects.all().create_secret("broken", "with\na line end", by="test")
    with processes_watched() as seen:
        with node(echo_port, log):
            jobs = submitted(echo_port)
            fired(api, echo_port)
            eventually(lambda: not Job.objects.exclude(state__in=FINAL).exists(), seconds=180)
        assert seen == []
    found = {name: Job.objects.get(pk=job.pk) for name, job in jobs.items()}
    _all_of_it_was_done(found, told)
    assert leaked(everything_stored(is_postgresql)) == []
    assert leaked(log.read_bytes()) == []
    assert leaked(all_replies(api)) == []
    assert leaked(all_of_every_surface(api)) == []
    assert leaked(all_pages()) == []


def _all_of_it_was_done(jobs: dict[str, Job], told: Told) -> None:
    """Nothing is easier to keep secret than what was never said."""
    states = {name: job.state for name, job in jobs.items() if job.state != State.SUCCEEDED}
    failing = ("python fails", "python dies", "http fails", "http not sent", "http unreachable")
    assert states == dict.fromkeys([*failing, "shell fails"], State.FAILED), [
        (name, job.error) for name, job in jobs.items()
    ]
    assert jobs["python"].result == {"said": [REDACTED], REDACTED: [f"<{REDACTED}>"]}
    assert REDACTED in (jobs["python fails"].error or "")
    assert jobs["http"].result["headers"]["x-said"] == REDACTED
    assert jobs["shell result"].result["output"] == f"Basic {REDACTED}"
    assert REDACTED in (jobs["shell fails"].error or "")
    lines = LogLine.objects.filter(job=jobs["shell"].pk).values_list("message", flat=True)
    assert f"K={REDACTED}" in {*lines}
    assert "".join(lines).startswith(REDACTED)
    dead = LogLine.objects.filter(job=jobs["python dies"].pk)
    assert dead.filter(message__contains=f"told {REDACTED}").exists()
    for number in (10, 12, 13, 15, 36, 38, 39, 40, 46, 47):
        assert CANARIES[f"c{number}"] in told.text, number
    assert Job.objects.filter(kind="webhook", state=State.SUCCEEDED).count() >= 4


def test_a_job_that_names_no_secret_can_never_run(eventually: Callable[..., None]) -> None:
    job = enqueue(python("test:leak", ["secret:nobody_wrote_it"]), by="test").job
    calls = enqueue(called(9, "/", headers={"X": "secret:c0", "Y": "secret:gone"}), by="test").job
    env = worker_environment(YARDMASTER_HANDLERS="tests.worker_handlers")
    with started("worker", "--cluster", "alpha", "--concurrency", "1", env=env):
        eventually(lambda: not Job.objects.exclude(state__in=FINAL).exists(), seconds=60)
    for one, name in ((job, "nobody_wrote_it"), (calls, "gone")):
        one.refresh_from_db()
        assert (one.state, one.reason, one.attempts) == (State.FAILED, Reason.BAD_DEFINITION, 1)
        assert name in (one.error or "")
    assert Attempt.objects.count() == 2


def test_an_attempt_gets_the_value_that_holds_when_it_begins(
    eventually: Callable[..., None],
) -> None:
    Secret.objects.all().create_secret("turn", "first-value", by="test")
    first = enqueue(python("test:length", "secret:turn"), by="test").job
    env = worker_environment(YARDMASTER_HANDLERS="tests.worker_handlers")
    with started("worker", "--cluster", "alpha", "--concurrency", "1", env=env):
        eventually(lambda: Job.objects.get(pk=first.pk).state in FINAL, seconds=60)
        Secret.objects.all().change("turn", value="the second value", by="test")
        second = enqueue(python("test:length", "secret:turn"), by="test").job
        eventually(lambda: Job.objects.get(pk=second.pk).state in FINAL, seconds=60)
    assert [Job.objects.get(pk=job.pk).result for job in (first, second)] == [11, 16]


def test_containers_get_them_and_tell_nobody(
    engine: Any, is_postgresql: bool, eventually: Callable[..., None], tmp_path: Path
) -> None:
    payload = {
        "image": IMAGE,
        "run": 'echo "$K"; cat f; printf %s "$K" > "$JOB_OUTPUT"; sleep 1',
        "env": {"K": "secret:c48"},
        "files": {"f": "key={{Secret.c49}}"},
        "workdir": "/yardmaster/work",
    }
    job = enqueue(NewJob(kind="container", payload=payload, max_attempts=1), by="test").job
    env = worker_environment(
        YARDMASTER_CONTAINER_ENGINE=engine.address,
        YARDMASTER_CONTAINER_IMAGES=IMAGE,
        YARDMASTER_LOG_LEVEL="DEBUG",
    )
    with (
        processes_watched() as seen,
        started("worker", "--cluster", "alpha", env=env, grace=30) as process,
    ):
        eventually(lambda: Job.objects.get(pk=job.pk).state in FINAL, seconds=120)
        process.terminate()
        output = process.communicate(timeout=60)[0]
    job.refresh_from_db()
    assert (job.state, job.error) == (State.SUCCEEDED, None)
    assert job.result["output"] == REDACTED
    lines = LogLine.objects.filter(job=job.pk).values_list("message", flat=True)
    assert {REDACTED, f"key={REDACTED}"} <= {*lines}
    assert (seen, leaked(output.encode())) == ([], [])
    assert leaked(everything_stored(is_postgresql)) == []
    api = Api(create_key("all", "admin", ("alpha",))[1])
    assert leaked(all_replies(api) + json.dumps(job.result).encode()) == []
