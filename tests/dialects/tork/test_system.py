"""Nodes, queues, figures and users."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from authn.models import AccessAuditEntry, UserRole
from jobs.dialects.tork.wire.ids import node_id
from jobs.models import Job, Queue
from tests.dialects.tork.conftest import TIME, Caller, check_message, checked, task
from tests.dialects.tork.work import node
from tests.factories import make_job, make_node, make_queue


def test_nodes_that_were_heard_of(viewer: Caller) -> None:
    now = timezone.now()
    there = make_node(host="a", cpu_percent=12.25, running_jobs=2, version="0.1")
    silent = make_node(host="b", heartbeat_at=now - timedelta(seconds=90))
    make_node(host="c", heartbeat_at=now - timedelta(minutes=6))
    gone = make_node("closed", host="d")
    shown = viewer.read("nodes")
    assert [one["hostname"] for one in shown] == ["a", "b", "d"]
    assert [one["status"] for one in shown] == ["UP", "OFFLINE", "OFFLINE"]
    first = shown[0]
    assert TIME.match(first["startedAt"])
    assert TIME.match(first["lastHeartbeatAt"])
    assert first | {"startedAt": "", "lastHeartbeatAt": ""} == {
        "id": node_id(there.pk),
        "name": f"a:{there.pid}",
        "startedAt": "",
        "cpuPercent": 12.25,
        "lastHeartbeatAt": "",
        "queue": f"x-{node_id(there.pk)}",
        "status": "UP",
        "hostname": "a",
        "taskCount": 2,
        "version": "0.1",
    }
    ids = {one["id"] for one in shown}
    assert ids == {node_id(one.pk) for one in (there, silent, gone)}
    assert "taskCount" not in shown[1]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "2" * 22), (1, "2" * 21 + "3"), (57, "2" * 20 + "32"), (2**128 - 1, None)],
)
def test_the_short_form_of_an_id(number: int, shown: str | None) -> None:
    told = node_id(UUID(int=number))
    assert len(told) == 22
    assert shown is None or told == shown


def test_queues_are_told_with_what_is_in_them(viewer: Caller) -> None:
    make_queue("other")
    make_node(queues=["other"])
    worker = make_node()
    make_job("ready")
    make_job("running", node=worker)
    make_job("ready", queue="other")
    make_job("succeeded", queue="other", node=worker)
    assert viewer.read("queues") == [
        {"name": "default", "size": 1, "subscribers": 1, "unacked": 1},
        {"name": "other", "size": 1, "subscribers": 2, "unacked": 0},
    ]
    assert viewer.read("queues/other")["size"] == 1
    for name in ("nosuch", "a b", "%00"):
        message = check_message(viewer.get(f"queues/{name}"), 404)
        assert message.startswith("queue ")
        assert message.endswith(" not found")


def test_a_queue_is_deleted_with_what_waits_in_it(admin: Caller) -> None:
    job = make_job("ready", queue="old")
    response = admin.delete("queues/old")
    assert (response.status_code, response.content) == (200, b"")
    assert "Content-Type" not in response
    assert not Queue.objects.filter(name="old").exists()
    assert Job.objects.get(pk=job.pk).state == "cancelled"
    check_message(admin.delete("queues/old"), 404, "queue old not found")
    for name in ("jobs", "logs", "x-abc"):
        check_message(admin.delete(f"queues/{name}"), 400, f"queue {name} is not a task queue")
    assert admin.delete("queues/default").status_code == 409
    make_job("running", queue="busy")
    assert admin.delete("queues/busy").status_code == 409
    assert Queue.objects.filter(name="busy").exists()


def test_figures(api: Caller) -> None:
    assert api.read("tork/metrics") == {
        "jobs": {"running": 0},
        "tasks": {"running": 0},
        "nodes": {"online": 0, "cpuPercent": 0},
    }
    api.submit(tasks=[task()])
    worker = node()
    worker.turn()
    worker.claim()
    make_node(cpu_percent=50.0)
    figures = api.read("tork/metrics")
    assert figures["jobs"] == figures["tasks"] == {"running": 1}
    assert figures["nodes"] == {"online": 2, "cpuPercent": 25.0}


def test_a_user_is_made_and_has_no_role(admin: Caller) -> None:
    body = {"name": "Ann Example", "username": " ann ", "password": "s3cr3t"}
    told = checked(admin.post("tork/users", body))
    assert set(told) == {"id", "name", "username", "createdAt"}
    assert (told["username"], told["name"]) == ("ann", "Ann Example")
    user = get_user_model().objects.get(username="ann")
    assert user.check_password("s3cr3t")
    assert not (user.is_staff or user.is_superuser)
    row = AccessAuditEntry.objects.get(verb="users.create")
    assert (row.target_id, row.after["username"]) == ("ann", "ann")
    check_message(admin.post("tork/users", body), 400, "user already exists")


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "must provide username"),
        ({"username": "  ", "password": "x"}, "must provide username"),
        ({"username": "a"}, "must provide password"),
        ({"username": "a", "password": " "}, "must provide password"),
        ({"username": "a", "password": "x" * 73}, "invalid password"),
        ({"username": "a b!", "password": "x"}, "invalid username"),
        ({"username": "a", "password": "x", "name": "n" * 151}, "invalid name"),
        ({"x": 1}, 'json: unknown field "x"'),
    ],
)
def test_users_that_cannot_be(body: Any, message: str, admin: Caller) -> None:
    check_message(admin.post("tork/users", body), 400, message)
    assert not get_user_model().objects.exists()


def test_a_user_made_here_signs_in_with_basic(admin: Caller) -> None:
    body = {"username": "dora", "password": "correct horse"}
    checked(admin.post("tork/users", body))
    pair = base64.b64encode(b"dora:correct horse").decode()
    dora = {"authorization": f"Basic {pair}"}
    # He is known, and sees nothing before somebody gives him a role.
    assert Caller(None).get("jobs", **dora).status_code == 404
    user = get_user_model().objects.get(username="dora")
    UserRole.objects.create(
        user=user, cluster_id="alpha", role="operator", granted_kinds=["shell", "container"]
    )
    for path in ("jobs", "tork/jobs", "/clusters/alpha/tork/jobs"):
        checked(Caller(None).get(path.removeprefix("/"), **dora))
    tasks = [{"name": "t", "run": "true"}]
    made = checked(Caller(None).post("jobs", {"name": "one", "tasks": tasks}, **dora))
    assert made["createdBy"]["username"].endswith("dora")
    for bad in (f"{pair[:-4]}xxxx", "%%%", ""):
        refused = Caller(None).get("jobs", authorization=f"Basic {bad}")
        check_message(refused, 401, "Unauthorized")
        assert refused["WWW-Authenticate"] == "basic realm=Restricted"
