"""Deeds that are refused, in the audit: one row each, bounded, and nothing to be learnt from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.models import QuerySet
from django.test import Client

from authn.models import AccessAuditEntry
from clusters import refusals
from clusters.health import watch
from clusters.models import REFUSED, AuditEntry
from jobs.models import Job
from tests.api.conftest import Api, make_key  # noqa: F401  fixtures
from tests.deeds.test_grants import SHELL
from tests.factories import make_job, make_queue
from tests.refusals import access_refused, everywhere, refused, the_refusal
from tests.ui.conftest import _forget_health, sign_in  # noqa: F401  fixtures

pytestmark = pytest.mark.usefixtures("alpha")
Keys = Callable[..., str]
SHELL_JOB = {"kind": "shell", "type": "x", "payload": SHELL}


@pytest.fixture
def viewer(make_key: Keys) -> Api:  # noqa: F811
    return Api(make_key("viewer", name="looker"))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until it is moved."""
    clock = [1000.0]
    monkeypatch.setattr(refusals.time, "monotonic", lambda: clock[0])
    return clock


def pause(caller: Api, **headers: str) -> Any:
    answer = caller.post("alpha/queues/mail/pause", {"reason": "x"}, **headers)
    assert answer.status_code == 403
    return answer


# -- What is told ----------------------------------------------------------------------------------


def test_a_refusal_says_who_wanted_what_of_which_thing(viewer: Api) -> None:
    make_queue("mail")
    row = the_refusal(pause(viewer), "queues.pause", "key:looker")
    assert (row.target_type, row.target_id) == ("queue", "mail")
    assert (row.surface, row.credential) == ("native", "api_key")


@pytest.mark.parametrize(
    ("method", "path", "verb", "target"),
    [
        ("POST", "alpha/jobs/{job}/retry", "jobs.retry", ("job", "{job}")),
        ("DELETE", "alpha/jobs/{job}", "jobs.delete", ("job", "{job}")),
        ("PATCH", "alpha/queues/mail", "queues.change", ("queue", "mail")),
        ("PUT", "alpha/calendars/x", "calendars.change", None),
        ("POST", "alpha/jobs", "jobs.enqueue", ("address", "/jm-api/alpha/jobs")),
        ("POST", "keys/ci/revoke", "keys.revoke", ("api_key", "ci")),
    ],
)
def test_every_method_that_changes_something_is_told(
    viewer: Api, method: str, path: str, verb: str, target: tuple[str, str] | None
) -> None:
    job = str(make_job("failed").pk)
    address = f"/jm-api/{path.format(job=job)}"
    answer: Any = viewer.client.generic(
        method, address, b"{}", "application/json", headers=viewer.headers
    )
    if target is None:
        # There is no such address.
        assert answer.status_code == 405 and not everywhere()
        return
    assert answer.status_code == 403
    row = the_refusal(answer, verb, "key:looker", of_access=path.startswith("keys"))
    assert (row.target_type, row.target_id) == (target[0], target[1].format(job=job))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_to_look_where_one_may_not_is_told_nowhere(
    viewer: Api,
    sign_in: Callable[..., Client],  # noqa: F811
    method: str,
) -> None:
    for address in ("/jm-api/alpha/audit", "/jm-api/keys"):
        assert viewer.client.generic(method, address, headers=viewer.headers).status_code == 403
    page = sign_in("viewer", "alpha")
    for address in ("/admin/alpha/governance/secrets/", "/admin/alpha/jobs/queue/add/"):
        assert page.generic(method, address).status_code == 403
    assert not everywhere()


def test_a_right_that_is_asked_for_later_is_told_as_well(make_key: Keys) -> None:  # noqa: F811
    """The role covers the address, and not what the body or the query asks for there."""
    operator = Api(make_key("operator", name="op"))
    asked = {"action": "delete", "filter": {"all": True}, "reason": "x"}
    answer = operator.post("alpha/bulk-operations", asked)
    assert answer.status_code == 403
    the_refusal(answer, "bulk_operations.delete", "key:op")


def test_a_kind_that_is_not_granted_is_named(make_key: Keys) -> None:  # noqa: F811
    answer = Api(make_key("admin", name="ci")).post("alpha/jobs", SHELL_JOB)
    assert answer.status_code == 403, answer.content
    the_refusal(answer, "jobs.enqueue", "key:ci", kind="shell")


# -- The screen, where it has no page of refusals but a form ---------------------------------------


def test_a_retry_of_a_program_without_the_grant_is_told(sign_in: Any) -> None:  # noqa: F811
    job = make_job("failed", kind="shell", type="shell")
    answer = sign_in("admin", "alpha").post(f"/admin/alpha/jobs/{job.pk}/retry/")
    assert answer.status_code == 403
    row = the_refusal(answer, "jobs.retry", "user:admin-1", kind="shell")
    assert (row.target_type, row.target_id) == ("job", str(job.pk))


def test_a_gift_that_is_more_than_one_has_is_told(sign_in: Any) -> None:  # noqa: F811
    form = {"name": "ci", "role": "viewer", "clusters": ["alpha"], "granted_kinds": ["shell"]}
    answer = sign_in("admin", "alpha").post("/admin/governance/keys/new/", form)
    assert answer.status_code == 400
    the_refusal(answer, "keys.create", "user:admin-1", kind="shell", of_access=True)


# -- What nobody learns ----------------------------------------------------------------------------


def test_a_foreign_cluster_is_told_of_no_more_than_one_that_is_not_there(
    viewer: Api,
    sign_in: Any,  # noqa: F811
) -> None:
    page = sign_in("viewer", "alpha")
    answers = [
        [
            viewer.post(f"{name}/queues/mail/pause", {"reason": "x"}, X_Request_ID="r"),
            page.post(f"/admin/{name}/queues/mail/pause/", headers={"X-Request-ID": "r"}),
        ]
        for name in ("beta", "zeta")
    ]
    for foreign, missing in zip(*answers, strict=True):
        assert foreign.status_code == missing.status_code == 404
        assert [*foreign.headers.items()] == [*missing.headers.items()]
        assert foreign.content.replace(b"beta", b"zeta") == missing.content
    assert not everywhere()


def test_nobody_who_is_unknown_is_told_of_here() -> None:
    assert Api(None).post("alpha/queues/mail/pause").status_code == 401
    assert not everywhere()


# -- What is left out ------------------------------------------------------------------------------


def test_a_flood_is_one_row_a_minute_that_counts(viewer: Api, now: list[float]) -> None:
    for _ in range(30):
        pause(viewer)
    assert [row.count for row in refused()] == [1]
    now[0] += refusals.SECONDS_A_ROW
    pause(viewer)
    pause(viewer)
    assert [row.count for row in refused()] == [1, 30]
    now[0] += refusals.SECONDS_A_ROW
    pause(viewer)
    assert [row.count for row in refused()] == [1, 30, 2]


def test_each_caller_verb_and_address_has_a_row_of_its_own(
    viewer: Api,
    make_key: Keys,  # noqa: F811
    now: list[float],
) -> None:
    pause(viewer)
    pause(Api(make_key("viewer", name="other")))
    assert viewer.post("alpha/queues/mail/resume").status_code == 403
    viewer.client.post(
        "/jm-api/alpha/queues/mail/pause", headers=viewer.headers, REMOTE_ADDR="192.0.2.1"
    )
    told = {(row.actor, row.after["verb"], row.address) for row in refused()}
    assert told == {
        ("key:looker", "queues.pause", "127.0.0.1"),
        ("key:other", "queues.pause", "127.0.0.1"),
        ("key:looker", "queues.resume", "127.0.0.1"),
        ("key:looker", "queues.pause", "192.0.2.1"),
    }


def ask_from(viewer: Api, address: str) -> None:
    viewer.client.post(
        "/jm-api/alpha/queues/mail/pause", headers=viewer.headers, REMOTE_ADDR=address
    )


def test_a_network_of_ipv6_is_one_address(viewer: Api, now: list[float]) -> None:
    for number in range(1, 9):
        ask_from(viewer, f"2001:db8::{number}")
    ask_from(viewer, "2001:db8:0:1::1")
    assert len(refused()) == 2


def test_what_one_caller_is_told_of_is_bounded(
    viewer: Api,
    make_key: Keys,  # noqa: F811
    now: list[float],
) -> None:
    for number in range(100):
        ask_from(viewer, f"192.0.2.{number}")
    *rows, others = refused()
    assert len(rows) == refusals.ROWS_AT_ONCE and {row.count for row in rows} == {1}
    assert (others.target_id, others.count, others.after) == (refusals.OTHERS, 1, None)
    # Another caller is told of all the same.
    pause(Api(make_key("viewer", name="other")))
    assert refused()[-1].actor == "key:other"
    # A minute later there is room for one more, and after ten for what there was none for.
    now[0] += refusals.SECONDS_A_ROW
    ask_from(viewer, "192.0.2.200")
    ask_from(viewer, "192.0.2.201")
    assert [row.address for row in refused()][-1] == "192.0.2.200"
    now[0] += refusals.SECONDS_OF_OTHERS
    for number in range(50):
        ask_from(viewer, f"198.51.100.{number}")
    assert refused()[-1].target_id == refusals.OTHERS
    # All but the first of them: the 79 and the one of a minute later, and now one.
    assert sum(row.count for row in refused() if row.target_id == refusals.OTHERS) == 1 + 79 + 1 + 1


def test_what_is_kept_in_mind_is_bounded(
    viewer: Api,
    make_key: Keys,  # noqa: F811
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for step in range(300):
        now[0] += refusals.SECONDS_A_ROW
        ask_from(viewer, f"198.51.{step // 200}.{step % 200}")
    [caller] = refusals.told._callers.values()
    assert len(caller._sorts) <= 2 * refusals.ROWS_AT_ONCE
    monkeypatch.setattr(refusals, "MOST_CALLERS", 2)
    for name in ("a", "b", "c"):
        pause(Api(make_key("viewer", name=name)))
    assert len(refusals.told) == 2


# -- What goes wrong -------------------------------------------------------------------------------


def test_an_audit_that_cannot_be_written_changes_no_answer(
    viewer: Api,
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual = pause(viewer, X_Request_ID="r")
    refusals.told.forget()

    def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(QuerySet, "create", fail)
        answer = pause(viewer, X_Request_ID="r")
    assert (answer.content, [*answer.headers.items()]) == (usual.content, [*usual.headers.items()])
    assert "was not told" in caplog.text and len(refused()) == 1
    now[0] += refusals.SECONDS_A_ROW
    pause(viewer)
    # With the one that was not written.
    assert refused()[-1].count == 2


def test_a_cluster_that_is_down_is_not_waited_for(
    viewer: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_down", lambda alias: alias == "cluster-alpha")
    monkeypatch.setattr(connections["cluster-alpha"], "cursor", pytest.fail)
    pause(viewer)
    monkeypatch.undo()
    assert not refused()


def test_a_name_that_no_database_holds_is_told_without_it(viewer: Api) -> None:
    answer = viewer.post("alpha/queues/ma%00il/pause", {"reason": "x"})
    assert answer.status_code == 403
    assert the_refusal(answer, "queues.pause", "key:looker").target_id == "mail"


@pytest.mark.django_db(transaction=True)
def test_the_row_is_there_when_what_was_refused_is_rolled_back(make_key: Keys) -> None:  # noqa: F811
    """On real transactions: the refusal comes from within that of the deed."""
    make_queue("mail")
    asked = {"jobs": [{"type": "a"}, SHELL_JOB]}
    answer = Api(make_key("admin", name="ci")).post("alpha/jobs/bulk", asked)
    assert answer.status_code == 403, answer.content
    the_refusal(answer, "jobs.enqueue", "key:ci", kind="shell")
    assert not Job.objects.exists()


# -- How it reads ----------------------------------------------------------------------------------


def test_it_is_read_like_every_other_row(viewer: Api, sign_in: Any, make_key: Keys) -> None:  # noqa: F811
    make_queue("mail")
    pause(viewer)
    boss = Api(make_key("admin"))
    [item] = boss.get(f"alpha/audit?verb={REFUSED}&target_id=mail").json()["items"]
    assert (item["verb"], item["after"], item["count"]) == (REFUSED, {"verb": "queues.pause"}, 1)
    exported = boss.get("alpha/audit/export").getvalue().decode()
    assert REFUSED in exported and "queues.pause" in exported
    page = sign_in("admin", "alpha")
    listed = page.get(f"/admin/alpha/governance/?verb={REFUSED}").content.decode()
    assert "key:looker" in listed and "<ins>queues.pause</ins>" in listed
    assert ">at least once</span>" in listed and "1 changed" not in listed
    # What people did to a thing is told there, and not what they would have.
    assert REFUSED not in page.get("/admin/alpha/queues/mail/").content.decode()


def test_what_was_refused_is_in_the_audit_of_access_where_no_cluster_is_meant(viewer: Api) -> None:
    assert viewer.post("roles", {}).status_code == 403
    [row] = access_refused()
    assert row == AccessAuditEntry.objects.get() and not AuditEntry.objects.exists()
