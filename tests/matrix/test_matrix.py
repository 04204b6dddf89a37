"""Every endpoint x every sort of caller x what is his, what is somebody else's, and what is nobody's.

Nobody gets through without good credentials, a role does what the table gives it and no more, and what a
caller may not see answers like what does not exist, to the letter. What was refused changed nothing,
and is told in the audit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.apps import apps
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import Client

from authn.models import ApiKey, GroupRole, RoleBinding, UserRole
from clusters.health import watch
from clusters.models import REFUSED, AuditEntry
from clusters.routers import CONTROL
from tests.matrix.callers import RANK, Caller, make_callers
from tests.matrix.endpoints import Endpoint, endpoints, roles
from tests.matrix.things import Things, filled, make_things, missing_things, names_a_thing
from tests.refusals import refused

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

ROLES = roles()
SOMEWHERE, EVERYWHERE = "somewhere:", "everywhere:"
ENDPOINTS = endpoints()
SURFACES = sorted({(one.surface, one.is_bare and one.surface != "native") for one in ENDPOINTS})
_client = Client(raise_request_exception=False)

# Bodies that mean something; all others are empty objects. Names are put in as in addresses.
BODIES: dict[str, dict[str, Any]] = {
    "native PATCH <str:cluster_id>/jobs/<str:job_id>": {"priority": 7},
    "native PATCH <str:cluster_id>/queues/<str:name>": {"description": "changed"},
    "native PATCH <str:cluster_id>/schedules/<str:schedule_id>": {"description": "changed"},
    "native PATCH <str:cluster_id>/calendars/<str:name>": {"description": "changed"},
    "native PATCH <str:cluster_id>/workflows/<str:workflow_id>": {"description": "changed"},
    "native POST <str:cluster_id>/jobs": {"type": "a"},
    "native POST <str:cluster_id>/queues": {"name": "new"},
    "native POST <str:cluster_id>/queues/<str:name>/pause": {"reason": "x"},
    "native POST <str:cluster_id>/bulk-operations": {
        "action": "cancel",
        "filter": {"all": True},
        "reason": "x",
    },
    "native POST keys": {"name": "new", "role": "viewer", "clusters": ["<cluster_id>"]},
    "native PATCH keys/<str:key_id>": {"owner": "changed"},
    "native POST roles": {
        "sort": "user",
        "name": "somebody of beta",
        "cluster": "<cluster_id>",
        "role": "viewer",
    },
    "forge POST queue/<str:name>/paused": {"paused": True},
    "forge POST queue/<str:name>/max-workers": {"max_workers": 3},
    "forge POST jobs/enqueue": {"kind": "a", "payload": {}},
    "forge POST jobs/list": {"filter": {}, "limit": 5, "offset": 0},
    "forge POST jobs/retry": {"ids": ["<job_id>"]},
    "forge POST jobs/requeue": {"ids": ["<job_id>"]},
    "forge POST jobs/delete": {"ids": ["<job_id>"]},
    "forge POST cron/<path:name>/enabled": {"enabled": False},
    "asyncjobs POST v1/tasks": {"type": "a"},
    "asyncjobs POST v1/tasks/retry": {"ids": ["<job_id>"]},
    "tork POST jobs": {"name": "a", "tasks": [{"name": "b", "run": "true"}]},
}


_SPAN = "from=2026-01-01T00:00:00Z&to=2026-01-01T00:05:00Z&bucket_secs=60"
# Parameters without which a read is refused.
QUERIES = {
    "forge GET queue/timeline": _SPAN,
    "forge GET queue/metric-series": f"queue=<queue>&{_SPAN}",
    "forge GET queue/resource-series": _SPAN,
    "forge GET queue/db-series": _SPAN,
    "forge GET jobs/failed": "limit=5",
}


@dataclass(frozen=True)
class Target:
    """Whose things the address names, and in which cluster."""

    name: str
    cluster: str
    things: Things


@pytest.fixture
def world(db: None) -> dict[str, Things]:
    watch.forget()
    return {"alpha": make_things("alpha", 1), "beta": make_things("beta", 2)}


@pytest.fixture
def callers(db: None) -> list[Caller]:
    return make_callers()


def test_every_endpoint_is_in_the_table_and_nothing_else_is() -> None:
    there = {one.role_key for one in ENDPOINTS}
    missing = sorted(there - ROLES.keys())
    assert not missing, "say in tests/corpora/roles.txt which role needs:\n" + "\n".join(missing)
    assert not sorted(ROLES.keys() - there)


def test_the_matrix_has_more_than_five_thousand_cells() -> None:
    nothing = missing_things()
    world = {"alpha": nothing, "beta": nothing}
    assert sum(10 * len(_targets(one, world)) for one in ENDPOINTS) >= 5000


@pytest.mark.parametrize(("surface", "is_bare"), SURFACES)
def test_nobody_does_what_is_not_his(
    surface: str, is_bare: bool, world: dict[str, Things], callers: list[Caller]
) -> None:
    chosen = [
        one
        for one in ENDPOINTS
        if one.surface == surface and (surface == "native" or one.is_bare == is_bare)
    ]
    before = {alias: _everything(alias) for alias in ("cluster-alpha", "cluster-beta", CONTROL)}
    violations = [wrong for one in chosen for wrong in _violations(one, world, callers)]
    assert not violations, f"{len(violations)}:\n" + "\n".join(violations[:60])
    for alias, rows in before.items():
        now = _everything(alias)
        assert [table for table in rows if now[table] != rows[table]] == []
    for name in ("alpha", "beta"):
        # Told in the audit where he has a role, and there only: the audit of a foreign cluster is silent.
        own = {f"key:{one.name}" for one in callers if one.cluster == name}
        told = refused(f"cluster-{name}")
        assert {row.actor for row in told} <= own and {row.surface for row in told} <= {surface}
        assert told if name == "alpha" or not is_bare else not told


def _violations(
    endpoint: Endpoint, world: dict[str, Things], callers: list[Caller]
) -> Iterator[str]:
    least = ROLES[endpoint.role_key]
    for caller in callers:
        answers = {}
        for target in _targets(endpoint, world):
            cell = f"{endpoint.key} | {caller.name} | {target.name}"
            response = _ask(endpoint, caller, target)
            answers[target.name] = _told(response, target)
            if wrong := _wrong(endpoint, least, caller, target, response.status_code):
                yield f"{cell}: {response.status_code}, but {wrong}: {response.content[:200]!r}"
        for name, other in (("foreign id", "missing id"), ("foreign cluster", "no cluster")):
            if least.startswith(SOMEWHERE) and caller.cluster == "beta":
                continue  # what is foreign to others is his
            if least.removeprefix(SOMEWHERE) in RANK and name in answers:
                if caller.cluster == "beta" and "cluster" in name:
                    continue
                if answers[name] != answers[other]:
                    yield (
                        f"{endpoint.key} | {caller.name}: {name} and {other} differ:"
                        f" {answers[name]} {answers[other]}"
                    )


def _wrong(
    endpoint: Endpoint, least: str, caller: Caller, target: Target, status: int
) -> str | None:
    """What should have been answered, where that was not."""
    if status >= 500:
        return "nothing may fail"
    if least == "open":
        return None if status == 200 else "this is open"
    if not caller.is_known:
        return None if status == 401 else "he has no good credentials"
    if least == "password":
        return None if status == 403 else "a key is not enough"
    if least == "any":
        return None if status == 200 else "everybody may ask"
    if least.startswith(EVERYWHERE):
        return None if status == 403 else "this takes the role on all clusters"
    if least.startswith(SOMEWHERE):
        return _wrong_somewhere(endpoint, least.removeprefix(SOMEWHERE), caller, target, status)
    if caller.cluster != target.cluster:
        return None if _is_not_found(endpoint, status) else "he sees nothing there"
    if not caller.covers(least):
        return None if status == 403 else f"this takes {least}"
    if status in (401, 403):
        return "he may"
    if target.name == "missing id" or (target.name == "foreign id"):
        return None if 400 <= status < 500 or endpoint.key in ANSWERS_ALL else "it is not there"
    if target.name == "own" and endpoint.method == "GET":
        return None if status == 200 or endpoint.key in SELDOM_THERE else "this is his to read"
    return None


def _wrong_somewhere(
    endpoint: Endpoint, least: str, caller: Caller, target: Target, status: int
) -> str | None:
    """The address names no cluster; the thing has one, or the body does."""
    if not caller.covers(least):
        return None if status == 403 else f"this takes {least} somewhere"
    is_named = names_a_thing(endpoint.path) or "clust" in json.dumps(BODIES.get(endpoint.key))
    of = {"own": "alpha", "foreign id": "beta"}.get(target.name)
    if not is_named or of == caller.cluster:
        return None if 200 <= status < 300 else "this is his"
    if names_a_thing(endpoint.path):
        return None if status == 404 else "he sees no such thing"
    return None if status == 400 else "he sees no such cluster"


def _is_not_found(endpoint: Endpoint, status: int) -> bool:
    if endpoint.surface == "scheduler" and endpoint.method != "GET":
        return status in (400, 404)
    return status == 404


# A word of another method, which as a name of a thing is nobody's.
SELDOM_THERE = {"asyncjobs GET v1/tasks/retry"}
# What is said of several is an answer and no refusal: that none of them is there.
ANSWERS_ALL = {
    "asyncjobs POST v1/tasks/retry",
    *(f"forge POST jobs/{word}" for word in ("retry", "requeue", "delete")),
}


def _targets(endpoint: Endpoint, world: dict[str, Things]) -> list[Target]:
    own, foreign, nothing = world["alpha"], world["beta"], missing_things()
    found = [Target("own", "alpha", own)]
    if any(
        names_a_thing(text)
        for text in (
            endpoint.path,
            json.dumps(BODIES.get(endpoint.key)),
            QUERIES.get(endpoint.key, ""),
        )
    ):
        found += [Target("foreign id", "alpha", foreign), Target("missing id", "alpha", nothing)]
    if not endpoint.is_bare:
        found += [
            Target("foreign cluster", "beta", foreign),
            Target("no cluster", "gamma", foreign),
        ]
    return found


def _ask(endpoint: Endpoint, caller: Caller, target: Target) -> HttpResponse:
    address = f"{endpoint.route}?{QUERIES.get(endpoint.key, '')}".rstrip("?")
    address = filled(endpoint.surface, address, target.cluster, target.things)
    content = b""
    if endpoint.method not in ("GET", "DELETE"):
        body = json.dumps(BODIES.get(endpoint.key, {}))
        content = filled(endpoint.surface, body, target.cluster, target.things).encode()
    least = ROLES[endpoint.role_key]
    may = least in RANK and caller.covers(least)
    with (
        transaction.atomic(CONTROL),
        transaction.atomic("cluster-alpha"),
        transaction.atomic("cluster-beta"),
    ):
        response: Any = _client.generic(
            endpoint.method, address, content, "application/json", headers=dict(caller.headers)
        )
        if response.streaming:
            # To its end, which is near: the job is over.
            response = HttpResponse(response.getvalue(), status=response.status_code)
        if may and caller.cluster == target.cluster:
            # What he has changed in his own cluster; any other change is seen at the end.
            transaction.set_rollback(True, using=f"cluster-{caller.cluster}")
        if least.startswith(SOMEWHERE) and response.status_code < 300:
            # What he was told that he might do.
            transaction.set_rollback(True, using=CONTROL)
    return response


def _told(response: HttpResponse, target: Target) -> tuple[Any, ...]:
    """All that an answer tells, but for the names in it and the number of the request."""
    text = response.content.decode()
    request_id = response.get("X-Request-ID", "")
    text = text.replace(request_id, "<request>") if request_id else text
    for name in sorted({*target.things.values(), target.cluster}, key=len, reverse=True):
        text = text.replace(name, "<name>").replace(name.replace("-", ""), "<name>")
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    headers = {k: v for k, v in response.headers.items() if k != "X-Request-ID"}
    headers.pop("Content-Length", None)
    return response.status_code, tuple(sorted(headers.items())), text


def _everything(alias: str) -> dict[str, list[Any]]:
    """All rows of a cluster, but those of refusals; of the control database those of keys and roles."""
    if alias == CONTROL:
        keys = ApiKey.objects.values_list("pk", "name", "owner", "digest", "revoked_at")
        roles_of = (
            model._default_manager.values_list("pk", "cluster_id", "role", "granted_kinds")
            for model in (UserRole, GroupRole, RoleBinding)
        )
        return {str(number): [*map(str, rows)] for number, rows in enumerate((keys, *roles_of))}
    with connections[alias].cursor() as cursor:
        rows = {}
        for model in apps.get_models():
            if model._meta.app_label in ("jobs", "clusters") and model._meta.managed:
                but = f" WHERE verb <> '{REFUSED}'" if model is AuditEntry else ""
                cursor.execute(f'SELECT * FROM "{model._meta.db_table}"{but}')
                rows[model._meta.db_table] = sorted(map(str, cursor.fetchall()))
    return rows
