"""Every rule of a definition, told as the original tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.dialects.tork.errors import Refused
from jobs.dialects.tork.wire.from_json import read_json
from jobs.dialects.tork.wire.rules import People, check
from jobs.dialects.tork.wire.structs import JOB, SCHEDULED_JOB

NOBODY = People(lambda name: name == "bob", lambda name: name == "public")


def _one(**more: Any) -> dict[str, Any]:
    return {"name": "x", "tasks": [{"name": "t", **more}]}


def _key(path: str, name: str, tag: str) -> str:
    return f"Key: '{path}' Error:Field validation for '{name}' failed on the '{tag}' tag"


_T = "Job.Tasks[0]"
_SHAPES = {"parallel": {"tasks": [{"name": "p"}]}, "each": {"list": "[1]", "task": {"name": "e"}}}
_SHAPES["subjob"] = {"name": "s", "tasks": [{"name": "s"}]}
RULES: list[tuple[dict[str, Any], list[str]]] = [
    (
        {},
        [_key("Job.Name", "Name", "required"), _key("Job.Tasks", "Tasks", "required")],
    ),
    ({"name": "x", "tasks": []}, [_key("Job.Tasks", "Tasks", "min")]),
    ({"name": "x" * 257, "tasks": [{"name": "t"}]}, [_key("Job.Name", "Name", "max")]),
    (
        {"name": "x", "tasks": [{}, {"name": "a"}, {}]},
        [_key(f"Job.Tasks[{n}].Name", "Name", "required") for n in (0, 2)],
    ),
    (_one(timeout="x"), [_key(f"{_T}.Timeout", "Timeout", "duration")]),
    (_one(queue="x-1"), [_key(f"{_T}.Queue", "Queue", "queue")]),
    (_one(queue="jobs"), [_key(f"{_T}.Queue", "Queue", "queue")]),
    (_one(retry={}), [_key(f"{_T}.Retry.Limit", "Limit", "required")]),
    (_one(retry={"limit": 11}), [_key(f"{_T}.Retry.Limit", "Limit", "max")]),
    (_one(retry={"limit": -1}), [_key(f"{_T}.Retry.Limit", "Limit", "min")]),
    (_one(priority=10), [_key(f"{_T}.Priority", "Priority", "max")]),
    (_one(priority=-1), [_key(f"{_T}.Priority", "Priority", "min")]),
    (_one(var="v" * 65), [_key(f"{_T}.Var", "Var", "max")]),
    (_one(workdir="/" * 257), [_key(f"{_T}.Workdir", "Workdir", "max")]),
    (_one(**{"if": "{{ 1 + }}"}), [_key(f"{_T}.If", "If", "expr")]),
    ({**_one(), "output": "plain prose"}, [_key("Job.Output", "Output", "expr")]),
    (_one(pre=[{}]), [_key(f"{_T}.Pre[0].Name", "Name", "required")]),
    (_one(post=[{}]), [_key(f"{_T}.Post[0].Name", "Name", "required")]),
    (
        _one(sidecars=[{"name": "s", "probe": {}}]),
        [
            _key(f"{_T}.Sidecars[0].Probe.Path", "Path", "required"),
            _key(f"{_T}.Sidecars[0].Probe.Port", "Port", "required"),
        ],
    ),
    (
        _one(sidecars=[{"name": "s", "probe": {"path": "/" * 257, "port": 70000}}]),
        [
            _key(f"{_T}.Sidecars[0].Probe.Path", "Path", "max"),
            _key(f"{_T}.Sidecars[0].Probe.Port", "Port", "max"),
        ],
    ),
    (_one(parallel={}), [_key(f"{_T}.Parallel.Tasks", "Tasks", "required")]),
    (
        _one(each={}),
        [
            _key(f"{_T}.Each.List", "List", "required"),
            _key(f"{_T}.Each.Task", "Task", "required"),
        ],
    ),
    (
        _one(each={"list": "[1]", "task": {"name": "e"}, "concurrency": 100000}),
        [_key(f"{_T}.Each.Concurrency", "Concurrency", "max")],
    ),
    (
        _one(subjob={}),
        [
            _key(f"{_T}.SubJob.Name", "Name", "required"),
            _key(f"{_T}.SubJob.Tasks", "Tasks", "required"),
        ],
    ),
    (
        _one(subjob={"name": "s", "tasks": [{}]}),
        [_key(f"{_T}.SubJob.Tasks[0].Name", "Name", "required")],
    ),
    (
        _one(parallel=_SHAPES["parallel"], each=_SHAPES["each"]),
        [
            _key(f"{_T}.each", "each", "paralleloreach"),
            _key(f"{_T}.parallel", "parallel", "paralleloreach"),
        ],
    ),
    (
        _one(parallel=_SHAPES["parallel"], subjob=_SHAPES["subjob"]),
        [
            _key(f"{_T}.subjob", "subjob", "parallelorsubjob"),
            _key(f"{_T}.parallel", "parallel", "parallelorsubjob"),
        ],
    ),
    (
        _one(each=_SHAPES["each"], subjob=_SHAPES["subjob"]),
        [
            _key(f"{_T}.subjob", "subjob", "eachorsubjob"),
            _key(f"{_T}.each", "each", "eachorsubjob"),
        ],
    ),
    *(
        (
            _one(parallel=_SHAPES["parallel"], **{key: value}),
            [_key(f"{_T}.{key}", key, "invalidcompositetask")],
        )
        for key, value in {
            **{"image": "i", "cmd": ["c"], "entrypoint": ["e"], "run": "r", "env": {"A": "b"}},
            **{"queue": "q", "pre": [{"name": "p"}], "post": [{"name": "p"}]},
            **{"mounts": [{"type": "tmpfs", "target": "/x"}], "retry": {"limit": 1}},
            **{"limits": {"cpus": "1"}, "timeout": "1s"},
        }.items()
    ),
    *(
        (_one(mounts=[mount]), [_key(f"{_T}.Mounts[0].mount", "mount", tag)])
        for mount, tag in (
            ({}, "typerequired"),
            ({"type": "volume", "source": "s"}, "sourcenotempty"),
            ({"type": "volume"}, "targetrequired"),
            ({"type": "bind", "target": "/t"}, "sourcerequired"),
            ({"type": "bind", "source": "a;b", "target": "/t"}, "invalidsource"),
            ({"type": "volume", "target": "a;b"}, "invalidtarget"),
            ({"type": "volume", "target": "/tork"}, "invalidtarget"),
        )
    ),
    (
        {**_one(), "defaults": {"timeout": "1 h"}},
        [_key("Job.Defaults.Timeout", "Timeout", "duration")],
    ),
    ({**_one(), "defaults": {"queue": "logs"}}, [_key("Job.Defaults.Queue", "Queue", "queue")]),
    ({**_one(), "defaults": {"priority": 10}}, [_key("Job.Defaults.Priority", "Priority", "max")]),
    ({**_one(), "webhooks": [{}]}, [_key("Job.Webhooks[0].URL", "URL", "required")]),
    (
        {**_one(), "webhooks": [{"url": "u", "if": "{{ ( }}"}]},
        [_key("Job.Webhooks[0].If", "If", "expr")],
    ),
    *(
        ({**_one(), "permissions": [one]}, [_key("Job.Permissions[0].perm", "perm", tag)])
        for one, tag in (
            ({}, "roleoruser"),
            ({"user": "bob", "role": "public"}, "roleoruser"),
            ({"user": "eve"}, "invalidusername"),
            ({"role": "kings"}, "invalidrole"),
        )
    ),
    (
        {**_one(), "autoDelete": {"after": "1d"}},
        [_key("Job.AutoDelete.After", "After", "duration")],
    ),
]


@pytest.mark.parametrize(("document", "told"), RULES)
def test_what_breaks_a_rule_is_told_as_the_original_does(
    document: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(Refused) as refusal:
        check(read_json(json.dumps(document).encode(), JOB), NOBODY)
    assert refusal.value.message == "\n".join(told)
    assert refusal.value.status == 400


def test_schedules_have_rules_of_their_own() -> None:
    for schedule, told in (
        (None, _key("ScheduledJob.Schedule", "Schedule", "required")),
        ({}, _key("ScheduledJob.Schedule.Cron", "Cron", "required")),
        ({"cron": "61 * * * *"}, _key("ScheduledJob.Schedule.Cron", "Cron", "cron")),
        ({"cron": "0 0 30 2 *"}, _key("ScheduledJob.Schedule.Cron", "Cron", "cron")),
    ):
        document = _one() | ({} if schedule is None else {"schedule": schedule})
        with pytest.raises(Refused) as refusal:
            check(document, NOBODY, SCHEDULED_JOB)
        assert refusal.value.message.startswith(told.partition(".")[0])
        if schedule:
            assert refusal.value.message == told
    long = {**_one(), "name": "x" * 65, "schedule": {"cron": "@hourly"}}
    with pytest.raises(Refused, match="'max'"):
        check(long, NOBODY, SCHEDULED_JOB)
