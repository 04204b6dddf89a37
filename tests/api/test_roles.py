"""The role a caller needs, address by address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from authn.models import Role
from jobs.models import Job, Queue
from tests.api.conftest import Api, check_problem
from tests.api.routes import MISSING_ID as ID
from tests.factories import make_job, make_step_beside_a_program

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

# Every way to change something, and the least role that may.
CHANGES = [
    ("POST", "alpha/jobs", Role.OPERATOR),
    ("POST", "alpha/jobs/bulk", Role.OPERATOR),
    ("POST", f"alpha/jobs/{ID}/cancel", Role.OPERATOR),
    ("POST", f"alpha/jobs/{ID}/retry", Role.OPERATOR),
    ("POST", f"alpha/jobs/{ID}/run-now", Role.OPERATOR),
    ("POST", f"alpha/jobs/{ID}/requeue", Role.OPERATOR),
    ("PATCH", f"alpha/jobs/{ID}", Role.OPERATOR),
    ("DELETE", f"alpha/jobs/{ID}", Role.ADMIN),
    ("POST", "alpha/queues", Role.ADMIN),
    ("PATCH", "alpha/queues/q", Role.ADMIN),
    ("DELETE", "alpha/queues/q", Role.ADMIN),
    ("POST", "alpha/queues/q/pause", Role.OPERATOR),
    ("POST", "alpha/queues/q/resume", Role.OPERATOR),
    ("POST", "alpha/queues/q/purge", Role.ADMIN),
    ("POST", "alpha/schedules", Role.OPERATOR),
    ("PATCH", f"alpha/schedules/{ID}", Role.OPERATOR),
    ("DELETE", f"alpha/schedules/{ID}", Role.OPERATOR),
    ("DELETE", f"alpha/schedules/{ID}?hard=true", Role.ADMIN),
    ("POST", f"alpha/schedules/{ID}/reschedule", Role.OPERATOR),
    ("POST", f"alpha/schedules/{ID}/restore", Role.OPERATOR),
    ("POST", f"alpha/schedules/{ID}/pause", Role.OPERATOR),
    ("POST", f"alpha/schedules/{ID}/resume", Role.OPERATOR),
    ("POST", f"alpha/schedules/{ID}/trigger", Role.OPERATOR),
    ("PUT", f"alpha/schedules/{ID}/exclusions", Role.OPERATOR),
    ("POST", f"alpha/schedules/{ID}/exclusions", Role.OPERATOR),
    ("DELETE", f"alpha/schedules/{ID}/exclusions", Role.OPERATOR),
    ("PUT", f"alpha/schedules/{ID}/dependencies", Role.OPERATOR),
    ("DELETE", f"alpha/schedules/{ID}/dependencies", Role.OPERATOR),
    ("POST", "alpha/schedules/pause-all", Role.ADMIN),
    ("POST", "alpha/schedules/resume-all", Role.ADMIN),
    ("POST", "alpha/calendars", Role.OPERATOR),
    ("PATCH", "alpha/calendars/c", Role.OPERATOR),
    ("DELETE", "alpha/calendars/c", Role.OPERATOR),
    ("POST", "alpha/workflows", Role.OPERATOR),
    ("PATCH", f"alpha/workflows/{ID}", Role.OPERATOR),
    ("DELETE", f"alpha/workflows/{ID}", Role.OPERATOR),
    ("POST", f"alpha/workflows/{ID}/trigger", Role.OPERATOR),
    ("POST", f"alpha/workflows/{ID}/runs/{ID}/cancel", Role.OPERATOR),
    ("POST", f"alpha/workflows/{ID}/runs/{ID}/rerun", Role.OPERATOR),
    ("POST", f"alpha/workflows/{ID}/runs/{ID}/nodes/{ID}/skip", Role.OPERATOR),
    ("POST", f"alpha/nodes/{ID}/drain", Role.OPERATOR),
    ("PATCH", "alpha/settings", Role.ADMIN),
    ("GET", "alpha/secrets", Role.OPERATOR),
    ("GET", "alpha/secrets/count", Role.OPERATOR),
    ("GET", "alpha/secrets/s", Role.OPERATOR),
    ("POST", "alpha/secrets", Role.ADMIN),
    ("PATCH", "alpha/secrets/s", Role.ADMIN),
    ("DELETE", "alpha/secrets/s", Role.ADMIN),
    ("POST", "alpha/bulk-operations", Role.OPERATOR),
    ("POST", f"alpha/bulk-operations/{ID}/cancel", Role.OPERATOR),
]
READS = [
    "alpha/jobs",
    "alpha/jobs/count",
    f"alpha/jobs/{ID}",
    f"alpha/jobs/{ID}/attempts",
    f"alpha/jobs/{ID}/logs",
    f"alpha/jobs/{ID}/why",
    f"alpha/jobs/{ID}/dependencies",
    "alpha/queues",
    "alpha/queues/count",
    "alpha/queues/default",
    "alpha/schedules",
    "alpha/schedules/count",
    f"alpha/schedules/{ID}",
    f"alpha/schedules/{ID}/next-runs",
    f"alpha/schedules/{ID}/exclusions",
    f"alpha/schedules/{ID}/dependencies",
    f"alpha/schedules/{ID}/fires",
    f"alpha/schedules/{ID}/fires/count",
    "alpha/calendars",
    "alpha/calendars/count",
    "alpha/calendars/c",
    "alpha/workflows",
    "alpha/workflows/count",
    f"alpha/workflows/{ID}",
    f"alpha/workflows/{ID}/runs",
    f"alpha/workflows/{ID}/runs/count",
    f"alpha/workflows/{ID}/runs/{ID}",
    "alpha/nodes",
    "alpha/nodes/count",
    f"alpha/nodes/{ID}",
    "alpha/settings",
    "alpha/settings/changes",
    "alpha/settings/changes/count",
    "alpha/stats",
    "alpha/timeline",
    "alpha/failures",
    "alpha/failures/count",
    "alpha/failures/0123456789abcdef",
    "alpha/bulk-operations",
    "alpha/bulk-operations/count",
    f"alpha/bulk-operations/{ID}",
    "clusters",
    "clusters/alpha",
    "clusters/count",
    "whoami",
    "openapi.json",
    "metrics",
]
RANKS = list(Role)


@pytest.mark.parametrize(("method", "path", "least"), CHANGES)
@pytest.mark.parametrize("role", Role)
def test_a_change_needs_its_role(
    role: Role, method: str, path: str, least: Role, make_key: Callable[..., str], alpha: object
) -> None:
    response = Api(make_key(role))(method, path, {})
    if RANKS.index(role) >= RANKS.index(least):
        assert response.status_code in (200, 201, 400, 404)
    else:
        check_problem(response, 403, "permission_denied")
    assert not Job.objects.exists()
    assert Queue.objects.count() == 1


@pytest.mark.parametrize("path", READS)
def test_every_role_may_read(path: str, viewer: Api) -> None:
    assert viewer.get(path).status_code in (200, 404)


def test_a_caller_without_any_role_learns_only_who_he_is(db: None) -> None:
    from authn.keys import create_key

    _, plain = create_key("nobody", "viewer", [])
    api = Api(plain)
    assert api.get("whoami").json()["roles"] == []
    assert api.get("clusters").json()["items"] == []
    for path in READS:
        if path.startswith(("alpha", "clusters/alpha")):
            check_problem(api.get(path), 404, "not_found")


def test_the_role_comes_before_the_body(viewer: Api) -> None:
    check_problem(viewer.post("alpha/jobs", raw=b"["), 403, "permission_denied")


def test_a_role_is_read_at_each_request(make_key: Callable[..., str], alpha: object) -> None:
    from authn.models import RoleBinding

    api = Api(make_key("operator"))
    assert api.post("alpha/jobs", {"type": "a"}).status_code == 201
    RoleBinding.objects.update(role="viewer")
    check_problem(api.post("alpha/jobs", {"type": "a"}), 403, "permission_denied")


@pytest.mark.parametrize("grants", [(), ("container",)])
def test_a_kind_that_needs_a_grant_is_403_without_it_and_nothing_is_stored(
    grants: tuple[str, ...], make_key: Callable[..., str], alpha: object
) -> None:
    api = Api(make_key("admin", "alpha", grants=grants))
    shell = {"kind": "shell", "payload": {"argv": ["/bin/true"]}}
    problem = check_problem(api.post("alpha/jobs", shell), 403, "kind_not_granted")
    assert problem["errors"][0]["field"] == "kind"
    response = api.post("alpha/jobs/bulk", {"jobs": [{"type": "a"}, shell]})
    problem = check_problem(response, 403, "kind_not_granted")
    assert problem["errors"][0]["field"] == "jobs[1].kind"
    assert not Job.objects.exists()


@pytest.mark.parametrize(("verb", "state"), [("retry", "failed"), ("run-now", "scheduled")])
def test_starting_a_program_again_needs_the_grant_too(
    verb: str, state: str, make_key: Callable[..., str], alpha: object
) -> None:
    job = make_job(state, kind="shell", type="shell", payload={"argv": ["true"]})
    refused = Api(make_key("operator")).post(f"alpha/jobs/{job.pk}/{verb}")
    check_problem(refused, 403, "kind_not_granted")
    assert Job.objects.get(pk=job.pk).state == state
    granted = Api(make_key("operator", "alpha", grants=("shell",), name="granted"))
    assert granted.post(f"alpha/jobs/{job.pk}/{verb}").status_code == 200


@pytest.mark.parametrize(("verb", "state"), [("retry", "failed"), ("run-now", "scheduled")])
def test_starting_a_step_again_needs_the_grants_of_the_steps_beside_it(
    verb: str, state: str, make_key: Callable[..., str], alpha: object
) -> None:
    job = make_step_beside_a_program(state)
    refused = Api(make_key("operator")).post(f"alpha/jobs/{job.pk}/{verb}")
    check_problem(refused, 403, "kind_not_granted")
    assert Job.objects.get(pk=job.pk).state == state
    granted = Api(make_key("operator", "alpha", grants=("shell",), name="granted"))
    assert granted.post(f"alpha/jobs/{job.pk}/{verb}").status_code == 200
