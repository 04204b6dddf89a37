"""What Tork's web UI asks for, page by page, and what it reads of the answers.

It has one address for all of its requests, has no credentials, and reads without a look whether
anything is there: a time that is missing or a list that is none ends its page with an error. A name
with a question mark may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import override_settings
from django.utils import timezone

from clusters.models import current_policy
from jobs.engine.fires import fire_due
from jobs.models import Job, LogLine, Schedule, Step
from tests.dialects.tork.conftest import ID, TIME, Caller, check_message, checked, task
from tests.dialects.tork.work import Retried, node
from tests.factories import make_job, make_node

Need = Any


def text(value: Any) -> bool:
    return isinstance(value, str)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def moment(value: Any) -> bool:
    return isinstance(value, str) and TIME.match(value) is not None


def identity(value: Any) -> bool:
    return isinstance(value, str) and ID.match(value) is not None


def one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


TIMES = {"createdAt": moment, "startedAt?": moment, "completedAt?": moment, "failedAt?": moment}
JOB_STATE = one_of("PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
TASK_STATE = one_of(
    *("CREATED", "PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED")
)
# Looked at for the work that goes on in it: what may be pressed, and what counts up.
ROW = {
    **{"id": identity, "name": text, "state": JOB_STATE, **TIMES},
    **{"position": number, "taskCount": number, "parentId?": identity, "schedule?": {"id": text}},
}
TASK = {"id": identity, "name": text, "state": TASK_STATE, **TIMES, "error?": text, "result?": text}
JOB = {"id": identity, "name": text, "description?": text, "state": JOB_STATE, **TIMES}
DEFINITION = {
    **{"name": text, "description?": text, "tags?": [text], "inputs?": {}, "secrets?": {}},
    **{"output?": text, "tasks": [{"name": text}], "defaults?": {}, "webhooks?": [{"url": text}]},
}
SCHEDULED = {
    **{"id": identity, "name": text, "createdAt": moment, "cron": text},
    "state": one_of("ACTIVE", "PAUSED"),
}
# An idle one says nothing of its load, as in the original.
NODE = {
    **{"id": text, "name": text, "hostname": text, "version": text, "startedAt": moment},
    **{"lastHeartbeatAt": moment, "cpuPercent?": number, "taskCount?": number},
    "status": one_of("UP", "DOWN", "OFFLINE"),
}
QUEUE = {"name": text, "size": number, "subscribers": number, "unacked": number}
METRICS = {
    **{"jobs": {"running": number}, "tasks": {"running": number}},
    "nodes": {"online": number, "cpuPercent": number},
}


def page_of(item: Need) -> Need:
    counts = dict.fromkeys(("number", "size", "totalPages", "totalItems"), number)
    return {"items": [item], **counts}


# What is read is asked anew for each id that an earlier answer named.
PAGES: Mapping[str, tuple[tuple[str, Need], ...]] = {
    "jobs": (
        ("jobs?page=1&q=", page_of(ROW)),
        ("jobs?page=2&q=", page_of(ROW)),
        ("jobs?page=1&q=failed", page_of(ROW)),
        ("metrics", METRICS),
    ),
    "job": (
        ("jobs/{job}", {**JOB, "execution": [TASK]}),
        ("jobs/{job}/log?page=1&size=50", page_of({"contents": text})),
        ("tasks/{task}/log?page=1&size=50", page_of({"contents": text})),
    ),
    "duplicate": (("jobs/{job}", DEFINITION),),
    "scheduled": (("scheduled-jobs", page_of(SCHEDULED)),),
    "queues": (("queues", [QUEUE]),),
    "nodes": (("nodes", [NODE]),),
}


def check(value: Any, need: Need, where: str) -> None:
    """Assert that a value is as it is needed, at every depth."""
    if isinstance(need, list):
        assert isinstance(value, list), where
        for item in value:
            check(item, need[0], f"{where}[]")
    elif isinstance(need, dict):
        assert isinstance(value, dict), where
        for name, below in need.items():
            key = name.removesuffix("?")
            assert key in value or key != name, f"{where}.{key} is missing in {value}"
            if key in value:
                check(value[key], below, f"{where}.{key}")
    else:
        assert need(value), f"{where} is {value!r}"


class WebUi:
    """Sends what the server of the web UI does."""

    def __init__(self, api: Caller, base: str = "/tork") -> None:
        self.api, self.base = api, base

    def __call__(self, method: str, path: str, yaml: str | None = None) -> HttpResponse:
        headers = {**self.api.headers, "Accept": "*/*", "User-Agent": "node"}
        return self.api.client.generic(
            method,
            f"{self.base}/{path}",
            (yaml or "").encode(),
            "" if yaml is None else "text/yaml",
            headers=headers,
        )

    def read(self, path: str) -> Any:
        return checked(self("GET", path))

    def create(self, definition: str) -> Any:
        """What has `cron` in it, wherever, is sent as a scheduled job."""
        return checked(
            self("POST", "scheduled-jobs" if "cron" in definition else "jobs", definition)
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        number, last = 1, 1
        while number <= last:
            page = self.read(f"jobs?page={number}&q=")
            yield from page["items"]
            number, last = page["number"] + 1, page["totalPages"]

    def log(self, path: str) -> str:
        """As it is shown: the last line first, all parts end to end."""
        parts = self.read(f"{path}/log?page=1&size=50")["items"]
        return "".join("\n".join(reversed(part["contents"].split("\n"))) for part in parts).strip()


@pytest.fixture
def web(api: Caller) -> WebUi:
    return WebUi(api)


ALL = {
    **{"name": "all", "description": "of each shape", "tags": ["a", "b"], "inputs": {"x": "1"}},
    **{"secrets": {"token": "s3cr3t value"}, "output": "{{ tasks.first }}"},
    "defaults": {"retry": {"limit": 1}, "timeout": "90s", "priority": 2},
    "webhooks": [{"url": "http://hooks.example/x", "event": "job.StateChange", "headers": {"a": "b"}}],
    "tasks": [
        task("first", var="first", env={"X": "{{ inputs.x }}"}),
        {"name": "both", "parallel": {"tasks": [task("left"), task("right")]}},
        {"name": "items", "each": {"list": "1..3", "concurrency": 2, "task": task("item")}},
        {"name": "child", "subjob": {"name": "inner", "tasks": [task("i")]}},
        task("never", **{"if": "{{ inputs.x == '2' }}"}),
    ],
}  # fmt: skip


@pytest.fixture
def world(api: Caller, alpha: Any) -> None:
    """Work of each shape, in each state that there is."""
    worker = node()
    api.submit(name="cancelled", tasks=[task()])
    worker.turn()
    api.put(f"jobs/{api.read('jobs')['items'][0]['id']}/cancel")
    api.submit(**ALL)
    api.submit(name="failed", tasks=[task("f", run="echo fail")])
    for name in ("active", "paused"):
        told = checked(
            api.post(
                "scheduled-jobs",
                {"name": name, "tasks": [task()], "schedule": {"cron": "0 3 * * *"}},
            )
        )
    checked(api.put(f"scheduled-jobs/{told['id']}/pause"))
    due = timezone.now() - timedelta(seconds=5)
    Schedule.objects.filter(name="active").update(next_due_at=due, next_run_at=due)
    fire_due(alpha.alias, current_policy())
    worker.run()
    for step in Step.objects.filter(job__kind="shell"):
        LogLine.objects.create(job_id=step.pk, fence=1, stream="stdout", message="said")
    api.submit(name="running", tasks=[task()])
    worker.turn()
    worker.claim()
    api.submit(name="tried", tasks=[task(retry={"limit": 1})])
    tried = Retried(1)
    tried.turn()
    tried.turn()
    for number_ in range(4):
        api.submit(name=f"pending {number_}", tasks=[task()])
    make_node(host="idle", cpu_percent=None)
    make_job("ready", queue="other")


@pytest.mark.parametrize("page", PAGES)
def test_each_page_finds_what_it_reads(page: str, world: None, web: WebUi) -> None:
    jobs = [row["id"] for row in web.rows()]
    tasks = [row["id"] for one in jobs for row in web.read(f"jobs/{one}")["execution"]]
    assert len(jobs) > 10
    assert len(tasks) > 10
    for path, need in PAGES[page]:
        for found in jobs if "{job}" in path else tasks if "{task}" in path else [""]:
            asked = path.format(job=found, task=found)
            check(web.read(asked), need, asked)


def test_the_world_has_all_states_and_shapes(world: None, web: WebUi) -> None:
    rows = [*web.rows()]
    assert {row["state"] for row in rows} == {
        "PENDING",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    }
    tasks = [task for row in rows for task in web.read(f"jobs/{row['id']}")["execution"]]
    assert {"RUNNING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"} <= {t["state"] for t in tasks}
    assert {"PENDING", "SCHEDULED"} & {task["state"] for task in tasks}
    assert {row["name"] for row in rows if "parentId" in row} == {"inner"}
    assert {row["name"] for row in rows if "schedule" in row} == {"active"}
    # They are rows of tables, which are known by these.
    for shown in (rows, tasks):
        assert len({one["id"] for one in shown}) == len(shown)


def test_whatever_has_ended_says_when_and_nothing_counts_up_that_stands_still(
    world: None, web: WebUi
) -> None:
    for row in web.rows():
        job = web.read(f"jobs/{row['id']}")
        for shown in (row, job, *job["execution"]):
            ends = {"COMPLETED": "completedAt", "SKIPPED": "completedAt", "FAILED": "failedAt"}
            end = ends.get(shown["state"])
            assert {"completedAt", "failedAt"} & set(shown) == ({end} if end else set())
            if shown["state"] in ("CREATED", "PENDING"):
                assert "startedAt" not in shown
        for one in job["execution"]:
            assert one["state"] != "SCHEDULED" or "startedAt" not in one


def test_how_far_a_job_is_can_be_worked_out(world: None, web: WebUi) -> None:
    percent = {
        row["name"]: round((row["position"] - 1) / row["taskCount"] * 100) if row["position"] else 0
        for row in web.rows()
    }
    assert (percent["all"], percent["inner"], percent["active"]) == (100, 100, 100)
    assert (percent["failed"], percent["running"], percent["pending 0"]) == (0, 0, 0)


def test_tables_of_ten_say_where_they_are(world: None, web: WebUi) -> None:
    first, second = (web.read(f"jobs?page={number}&q=") for number in (1, 2))
    assert (first["number"], first["size"], first["totalPages"]) == (1, 10, 2)
    assert (second["number"], second["totalItems"]) == (2, first["totalItems"])
    assert 10 + second["size"] == second["totalItems"]
    created = [row["createdAt"] for row in web.rows()]
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize(
    "words",
    ["100%", "a+b", "tag:", "tags:a,b", "%3Cx%3E", "it's", "%22x%22", "%C3%A9", "{{", "a&b"],
)
def test_words_to_look_for_are_sent_as_they_are(words: str, web: WebUi) -> None:
    check(web.read(f"jobs?page=1&q={words}"), page_of(ROW), words)


def test_logs_are_shown_line_by_line_the_last_one_first(api: Caller, web: WebUi) -> None:
    told = api.submit(tasks=[task("a"), task("b")])
    node().run()
    for name in ("a", "b"):
        step = Step.objects.get(root_id=told["id"], name=name)
        for line in ("one", "", "two"):
            message = line and f"{name} {line}"
            LogLine.objects.create(job_id=step.pk, fence=1, stream="stdout", message=message)
    first, second = api.job(told["id"])["execution"]
    assert web.log(f"tasks/{first['id']}") == "a two\n\na one"
    assert web.log(f"tasks/{second['id']}") == "b two\n\nb one"
    assert web.log(f"jobs/{told['id']}") == "b two\n\nb one\na two\n\na one"


def test_a_job_is_submitted_again_from_what_is_shown_of_it(world: None, web: WebUi) -> None:
    keys = [name.removesuffix("?") for name in DEFINITION]
    # All of them first: pages move with each job that is made.
    for row in [*web.rows()]:
        shown = web.read(f"jobs/{row['id']}")
        definition = {key: shown[key] for key in keys if key in shown}
        # JSON is YAML.
        again = web.read(f"jobs/{web.create(json.dumps(definition))['id']}")
        assert {key: again[key] for key in keys if key in again} == definition


AS_WRITTEN = """\
name: texts
inputs:
  a: yes
  b: 12:30
  c: 2020-01-01
  d: 1_000
  e: "010"
  f: 0o17
  g: =
  h: <<
  i: >-
    a long line
    folded
  j: |+
    two

  ? "k: odd"
  : é😀
  l: ""
  m: '"x"'
tasks:
  - name: t
    run: |
      echo "a: b" # c
        indented
    env:
      ON: on
    retry:
      limit: 1
"""


def test_texts_are_as_its_writer_of_yaml_leaves_them(web: WebUi) -> None:
    """It writes YAML 1.2, where much is a text that YAML 1.1 takes for something else."""
    shown = web.read(f"jobs/{web.create(AS_WRITTEN)['id']}")
    assert shown["inputs"] == {
        **{"a": "yes", "b": "12:30", "c": "2020-01-01", "d": "1_000", "e": "010", "f": "0o17"},
        **{"g": "=", "h": "<<", "i": "a long line folded", "j": "two\n\n", "k: odd": "é😀"},
        **{"l": "", "m": '"x"'},
    }
    (one,) = shown["tasks"]
    assert (one["run"], one["env"]) == ('echo "a: b" # c\n  indented\n', {"ON": "on"})


SIMPLE = "name: n\ntasks:\n  - name: t\n    run: echo t\n"


def test_what_is_made_says_which_page_is_next(web: WebUi) -> None:
    job = web.create(SIMPLE)
    assert web.read(f"jobs/{job['id']}")["state"] == "PENDING"
    scheduled = web.create(f"{SIMPLE}schedule:\n  cron: '@hourly'\n")
    assert scheduled["cron"] == "@hourly"
    for told in (job, scheduled):
        assert "message" not in told
    # Shown as it is.
    assert check_message(web("POST", "jobs", "name: n\n"), 400)
    assert check_message(web("POST", "scheduled-jobs", f"{SIMPLE}# cron\n"), 400)


def test_buttons_send_nothing_and_get_json(admin: Caller) -> None:
    web, ok = WebUi(admin), {"status": "OK"}
    job = f"jobs/{web.create(SIMPLE)['id']}"
    worker = node()
    worker.turn()
    assert web.read(job)["state"] == "RUNNING"
    assert checked(web("PUT", f"{job}/cancel")) == ok
    worker.run()
    assert web.read(job)["state"] == "CANCELLED"
    assert checked(web("PUT", f"{job}/restart")) == ok
    worker.run()
    assert web.read(job)["state"] == "COMPLETED"
    check_message(web("PUT", f"{job}/cancel"), 400)
    check_message(web("PUT", f"{job}/restart"), 400)
    schedule = f"scheduled-jobs/{web.create(f'{SIMPLE}schedule: {{cron: 1 * * * *}}')['id']}"
    assert checked(web("PUT", f"{schedule}/pause")) == ok
    assert [one["state"] for one in web.read("scheduled-jobs")["items"]] == ["PAUSED"]
    assert checked(web("PUT", f"{schedule}/resume")) == ok
    assert checked(web("DELETE", schedule)) == ok
    assert web.read("scheduled-jobs")["items"] == []
    check_message(web("DELETE", schedule), 404)


@pytest.mark.parametrize("base", ["/tork", "/clusters/alpha/tork"])
def test_one_address_is_enough_for_all_pages(base: str, api: Caller) -> None:
    web = WebUi(api, base)
    job = web.create(SIMPLE)["id"]
    for path, need in (
        asked for page in PAGES.values() for asked in page if "{task}" not in asked[0]
    ):
        check(web.read(path.format(job=job)), need, path)


def test_it_reads_and_cancels_without_credentials_where_that_is_open(
    api: Caller, anonymous: Caller
) -> None:
    job = WebUi(api).create(SIMPLE)["id"]
    web = WebUi(anonymous)
    with override_settings(ANONYMOUS_ROLES={"tork": "operator"}):
        for path, need in (asked for page in PAGES.values() for asked in page):
            if "{task}" not in path:
                check(web.read(path.format(job=job)), need, path)
        assert checked(web("PUT", f"jobs/{job}/cancel")) == {"status": "OK"}
        check_message(web("POST", "jobs", SIMPLE), 403)
    check_message(web("GET", "jobs?page=1&q="), 401, "Unauthorized")
    assert Job.objects.filter(kind="steps").count() == 1
