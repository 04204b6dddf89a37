"""Definitions: both formats, every rule of the language, and what is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.dialects.tork.wire.definition import LENIENT, to_native
from jobs.dialects.tork.wire.documents import definition_to_wire
from jobs.dialects.tork.wire.from_json import read_json
from jobs.dialects.tork.wire.from_yaml import read_yaml
from jobs.dialects.tork.wire.rules import People, check
from jobs.dialects.tork.wire.structs import JOB
from jobs.dialects.tork.wire.times import duration_to_wire, parse_duration
from jobs.executors import KINDS
from jobs.models import Job, Queue
from tests.dialects.tork.conftest import Caller, check_message, checked, task

NOBODY = People(lambda name: name == "bob", lambda name: name == "public")

MOST_OF_IT = """\
name: nightly pack
description: packs
tags: [etl, nightly]
inputs: {region: eu, items: '["a","b"]', n: 1}
secrets: {token: s3cr3t-token}
defaults: {queue: highcpu, retry: {limit: 2}, timeout: 10m, priority: 3, limits: {cpus: .5, memory: 200m}}
output: "{{ tasks.report }}"
webhooks:
  - url: "http://hooks/x"
    event: job.StateChange
    if: "{{ job.State == 'FAILED' }}"
    headers: {auth: "{{ secrets.token }}"}
permissions: [{role: public}]
autoDelete: {after: 24h}
tasks:
  - name: fetch
    var: raw
    image: alpine
    env: {R: "{{ inputs.region }}", EMPTY: ""}
    files: {data.txt: hello}
    registry: {username: u, password: p}
    pre: [{name: prepare, image: alpine, run: echo pre, timeout: 5s}]
    post: [{name: after, image: alpine, run: echo post}]
    sidecars: [{name: db, image: postgres, env: {A: b}, probe: {path: /up, port: 80, timeout: 30s}}]
    mounts: [{type: volume, target: /data}, {type: bind, source: /srv/in, target: /in}]
    networks: [one]
    limits: {cpus: "1", memory: 10m}
    retry: {limit: 3}
    timeout: 90s
    gpus: all
    workdir: /work
    queue: other
    priority: 9
    tags: [x]
    run: 'echo -n $R > $TORK_OUTPUT'
  - {name: entry, image: alpine, entrypoint: [/bin/sh, -c], cmd: [echo hi]}
  - name: fan out
    each:
      list: "{{ fromJSON(inputs.items) }}"
      var: thing
      concurrency: 2
      task: {name: "do {{ thing.value }}", var: "part{{ thing.index }}", run: echo x}
  - {name: maybe, if: "{{ tasks.raw == 'eu' }}", run: echo eu}
  - name: both
    parallel: {tasks: [{name: p, run: echo p}, {name: q, run: echo q}]}
  - name: child
    var: report
    subjob:
      name: report
      inputs: {raw: "{{ tasks.raw }}"}
      secrets: {key: "{{ secrets.token }}"}
      output: "{{ tasks.r }}"
      tasks: [{name: r, var: r, run: echo -n ok > $TORK_OUTPUT}]
  - {name: apart, subjob: {name: detached, detached: true, tasks: [{name: d, run: echo d}]}}
"""


def test_most_of_the_language_is_accepted_and_can_be_submitted_again(api: Caller) -> None:
    first = checked(api.yaml(MOST_OF_IT))
    shown = api.job(first["id"])
    assert shown["tasks"][0]["env"] == {"R": "{{ inputs.region }}", "EMPTY": ""}
    assert shown["inputs"]["n"] == "1"
    assert shown["defaults"]["limits"] == {"cpus": ".5", "memory": "200m"}
    parts = (
        "name",
        "description",
        "tags",
        "inputs",
        "defaults",
        "output",
        "webhooks",
        "autoDelete",
    )
    again = json.loads(json.dumps({key: shown[key] for key in (*parts, "tasks")}))
    again |= {"secrets": {"token": "s3cr3t-token"}, "permissions": [{"role": "public"}]}
    again["tasks"][0]["registry"] = {"username": "u", "password": "p"}
    second = checked(api.post("jobs", again))
    one, two = (Job.objects.get(pk=told["id"]) for told in (first, second))
    assert one.payload == two.payload
    other = api.job(second["id"])
    assert [other[key] for key in (*parts, "tasks")] == [shown[key] for key in (*parts, "tasks")]


def test_json_and_yaml_mean_the_same(api: Caller) -> None:
    document = {
        "name": "one",
        "tasks": [{"name": "a", "run": "echo a\necho b\n", "env": {"K": "v"}, "priority": 2}],
    }
    text = "name: one\ntasks:\n- name: a\n  run: |\n    echo a\n    echo b\n  env: {K: v}\n  priority: 2\n"  # noqa: E501
    ids = [
        checked(api.post("jobs", document))["id"],
        checked(api.yaml(text))["id"],
        checked(api.post("jobs", raw=text.encode(), content_type="application/x-yaml"))["id"],
    ]
    payloads = [Job.objects.get(pk=pk).payload for pk in ids]
    assert payloads[0] == payloads[1] == payloads[2]


def test_a_definition_becomes_a_native_one() -> None:
    document = read_yaml(MOST_OF_IT.encode(), JOB)
    check(document, NOBODY)
    native = to_native(document)
    KINDS["steps"].validate(native)
    fetch, entry, fan, maybe, both, child, apart = native["steps"]
    assert (fetch["kind"], fetch["queue"], fetch["priority"]) == ("container", "other", -9)
    assert (fetch["max_attempts"], fetch["retry_base_seconds"]) == (4, 0)
    assert fetch["timeout_seconds"] == 90
    assert fetch["payload"]["limits"] == {"cpus": "1", "memory": "10m"}
    assert fetch["payload"]["pre"] == [
        {"name": "prepare", "image": "alpine", "run": "echo pre", "timeout_seconds": 5}
    ]
    assert fetch["payload"]["aliases"] == {
        "TORK_OUTPUT": "JOB_OUTPUT",
        "TORK_PROGRESS": "JOB_PROGRESS",
    }
    # What a task leaves open the defaults say.
    assert entry["payload"]["limits"] == {"cpus": ".5", "memory": "200m"}
    assert (entry["queue"], entry["max_attempts"], entry["timeout_seconds"]) == ("highcpu", 3, 600)
    assert (entry["priority"], maybe["if"]) == (-3, "{{ tasks.raw == 'eu' }}")
    assert fan["each"]["step"]["kind"] == "shell"
    assert fan["each"]["step"]["payload"]["script"] == f"{LENIENT}echo x"
    assert (fan["max_attempts"], both["max_attempts"], child["max_attempts"]) == (1, 1, 1)
    # A sub-job has none of the defaults.
    inner = child["subjob"]["steps"][0]
    assert (inner["queue"], inner["max_attempts"]) == ("default", 1)
    assert apart["subjob"]["detached"] is True
    assert native["webhooks"][0]["format"] == "tork"


def test_what_is_shown_of_a_native_definition_means_the_same() -> None:
    document = read_yaml(MOST_OF_IT.encode(), JOB)
    native = to_native(document)
    shown = definition_to_wire(native)
    check(shown, NOBODY)
    again = to_native(shown)
    assert again["steps"] == native["steps"]


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("", "missing content type"),
        ("text/plain", "unknown content type: text/plain"),
        (
            "application/json; charset=utf-8",
            "unknown content type: application/json; charset=utf-8",
        ),
        ("TEXT/YAML", "unknown content type: TEXT/YAML"),
    ],
)
def test_content_types_are_compared_as_they_are(
    content_type: str, message: str, api: Caller
) -> None:
    check_message(api.post("jobs", raw=b"{}", content_type=content_type), 400, message)
    if content_type:
        check_message(
            api.post("scheduled-jobs", raw=b"{}", content_type=content_type), 400, message
        )


JSON_REFUSALS = [
    ("", "EOF"),
    ("   ", "EOF"),
    ('{"nosuch": 1}', 'json: unknown field "nosuch"'),
    ('{"tasks":[{"nosuch": 1}]}', 'json: unknown field "nosuch"'),
    ('{"tasks":[{"each":{"task":{"pre":[{"x":1}]}}}]}', 'json: unknown field "x"'),
    ('{"schedule":{"cron":"@hourly"}}', 'json: unknown field "schedule"'),
    (
        '{"inputs":{"a":1}}',
        "json: cannot unmarshal number into Go struct field Job.inputs of type string",
    ),
    (
        '{"tasks":[{"name":true}]}',
        "json: cannot unmarshal bool into Go struct field Task.tasks.name of type string",
    ),
    (
        '{"tasks":{}}',
        "json: cannot unmarshal object into Go struct field Job.tasks of type []input.Task",
    ),
    (
        '{"defaults":"x"}',
        "json: cannot unmarshal string into Go struct field Job.defaults of type input.Defaults",
    ),
    (
        '{"defaults":{"priority":1.5}}',
        "json: cannot unmarshal number 1.5 into Go struct field Defaults.defaults.priority of type int",
    ),
    ("[1]", "json: cannot unmarshal array into Go value of type input.Job"),
    ('{"name":"x"', "unexpected EOF"),
    ('{"name":"x",}', "invalid character '}' looking for beginning of object key string"),
    ('{"name" "x"}', "invalid character '\"' after object key"),
    ("{name: x}", "invalid character 'n' looking for beginning of object key string"),
    ('{"name": NaN}', "invalid character 'N' looking for beginning of value"),
    ('{"name":"a\\u0000"}', "json: a string holds a NUL or half a surrogate pair"),
]


@pytest.mark.once
@pytest.mark.parametrize(("text", "message"), JSON_REFUSALS)
def test_json_is_refused_in_the_words_of_the_original(text: str, message: str, api: Caller) -> None:
    check_message(api.post("jobs", raw=text.encode()), 400, message)
    assert not Job.objects.exists()


YAML_REFUSALS = [
    ("", "EOF"),
    ("# nothing", "EOF"),
    (
        "name: x\ntasks:\n  - nosuch: 1",
        "yaml: unmarshal errors:\n  line 3: field nosuch not found in type input.Task",
    ),
    (
        "nosuch: 1\nname: [x]\ntags: x",
        "yaml: unmarshal errors:\n  line 1: field nosuch not found in type input.Job"
        "\n  line 2: cannot unmarshal !!seq into string"
        "\n  line 3: cannot unmarshal !!str `x` into []string",
    ),
    (
        "name: x\nname: y",
        'yaml: unmarshal errors:\n  line 2: mapping key "name" already defined at line 1',
    ),
    (
        "tasks: [{name: x, priority: high}]",
        "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `high` into int",
    ),
    ("name: [x", "yaml: line 2: did not find expected ',' or ']'"),
    ("a: &a [x]\nb: *a", "yaml: line 1: anchors and aliases are not supported"),
    ("name: !!python/object x", "yaml: line 1: tags are not supported"),
    ("- x", "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!seq into input.Job"),
]


@pytest.mark.once
@pytest.mark.parametrize(("text", "message"), YAML_REFUSALS)
def test_yaml_is_refused_in_the_words_of_the_original(text: str, message: str, api: Caller) -> None:
    check_message(api.yaml(text), 400, message)
    assert not Job.objects.exists()


def test_yaml_takes_numbers_and_booleans_where_texts_are_wanted() -> None:
    text = "name: 5\ninputs: {a: 1, b: true, c: .5, d: ~, e: 2001-01-01, f: no, 7: x}"
    assert read_yaml(text.encode(), JOB) == {
        "name": "5",
        "inputs": {
            **{"a": "1", "b": "true", "c": ".5", "d": "", "e": "2001-01-01", "f": "no", "7": "x"}
        },
    }
    # Only the first document is read.
    assert read_yaml(b"name: x\n---\nnosuch: 1", JOB) == {"name": "x"}
    assert read_json(b'{"NAME": "x"} trailing', JOB) == {"name": "x"}


@pytest.mark.once
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"mounts": [{"type": "volume", "target": "/x"}]},
            "mounts are not supported on shell runtime",
        ),
        ({"entrypoint": ["x"]}, "entrypoint is not supported on shell runtime"),
        ({"limits": {"cpus": "1"}}, "limits are not supported on shell runtime"),
        ({"networks": ["n"]}, "networks are not supported on shell runtime"),
        ({"registry": {"username": "u"}}, "registry is not supported on shell runtime"),
        ({"cmd": ["x"]}, "cmd is not supported on shell runtime"),
        ({"sidecars": [{"name": "s"}]}, "sidecars are not supported on shell runtime"),
        ({"pre": [{"name": "p", "image": "i"}]}, "image is not supported on shell runtime"),
    ],
)
def test_without_an_image_some_things_cannot_be_had(
    more: dict[str, Any], message: str, api: Caller
) -> None:
    check_message(api.post("jobs", {"name": "x", "tasks": [task(**more)]}), 400, message)
    assert not Job.objects.exists()


def test_without_an_image_a_program_may_be_given_instead_of_a_script() -> None:
    (step,) = to_native({"name": "x", "tasks": [{"name": "t", "cmd": ["/bin/echo", "x"]}]})["steps"]
    assert step["payload"]["argv"] == ["/bin/echo", "x"]


def test_a_queue_is_made_when_a_task_names_it(api: Caller) -> None:
    from tests.dialects.tork.work import node

    told = api.submit(tasks=[task(queue="fresh")])
    node().run()
    assert Queue.objects.filter(name="fresh").exists()
    assert api.job(told["id"])["execution"][0]["queue"] == "fresh"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("500ms", 0.5), (".5s", 0.5), ("0", 0), ("1us", 1e-6), ("-1m", -60)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    if seconds >= 1:
        assert duration_to_wire(seconds) == text


@pytest.mark.parametrize("text", ["", "1", "1d", "1 s", "s", "1h 2m", "9" * 101 + "s", "99999999h"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None
