"""`{base}/metrics`: who sees which clusters, and a dead one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections

from authn.models import Role
from authn.permissions import ANY_CALLER, LEAST_ROLE
from clusters.health import watch
from clusters.registry import RESERVED_IDS
from jobs.prometheus import exposition
from tests.api.conftest import Api
from tests.factories import make_job
from tests.jobs.prometheus.scraped import Scraped


def scraped(api: Api) -> Scraped:
    response = api.get("metrics")
    assert response.status_code == 200, response.content
    return Scraped(response.content)


def clusters_in(told: Scraped) -> set[str]:
    return {dict(labels)["cluster"] for _, labels in told.samples if "cluster" in dict(labels)}


def test_it_is_text_as_prometheus_reads_it(viewer: Api, alpha: object) -> None:
    make_job(queue="mail")
    response = viewer.get("metrics")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    told = Scraped(response.content)
    assert told("cluster_up", cluster="alpha") == 1
    assert told("queue_depth", cluster="alpha", queue="mail", state="ready") == 1
    assert len(told.all("build_info")) == 1


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("given", "seen"), [(["alpha"], {"alpha"}), (["beta"], {"beta"}), (["*"], {"alpha", "beta"})]
)
def test_a_caller_sees_his_clusters_and_no_others(
    make_key: Callable[..., str], role: Role, given: list[str], seen: set[str]
) -> None:
    assert clusters_in(scraped(Api(make_key(role, *given)))) == seen


def test_of_each_cluster_it_takes_a_viewer() -> None:
    assert LEAST_ROLE["metrics.read"] == Role.VIEWER
    assert "metrics.list" in ANY_CALLER


@pytest.mark.parametrize("key", [None, "ym_wrong"])
def test_without_credentials_it_is_401_in_plain_text(db: None, key: str | None) -> None:
    response = Api(key).get("metrics")
    assert response.status_code == 401
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["WWW-Authenticate"].startswith("Bearer")
    assert b"{" not in response.content


def test_the_key_may_come_as_a_bearer_token(viewer_key: str) -> None:
    response = Api(None).get("metrics", authorization=f"Bearer {viewer_key}")
    assert response.status_code == 200


def test_what_it_does_not_take_is_refused_in_plain_text(viewer: Api) -> None:
    response = viewer.get("metrics?queue=mail")
    assert response.status_code == 400
    assert b"queue" in response.content
    assert viewer.post("metrics", {}).status_code == 405


def test_head_and_a_slash_at_the_end_do_too(viewer: Api) -> None:
    assert viewer("HEAD", "metrics").status_code == 200
    assert viewer.get("metrics/").status_code == 200


def test_no_cluster_can_be_called_so() -> None:
    assert "metrics" in RESERVED_IDS


# -- Dead clusters ---------------------------------------------------------------------------------


def test_a_dead_cluster_is_down_and_the_others_are_told_of(
    make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(alias: str) -> Any:
        raise AssertionError(alias)

    watch.report_down("cluster-beta")
    monkeypatch.setattr(watch, "is_down", lambda alias: alias == "cluster-beta")
    real = exposition.read
    monkeypatch.setattr(
        exposition, "read", lambda alias: refuse(alias) if alias == "cluster-beta" else real(alias)
    )
    told = scraped(Api(make_key("viewer", "*")))
    assert told("cluster_up", cluster="beta") == 0
    assert told("cluster_up", cluster="alpha") == 1
    beta = [name for name, labels in told.samples if dict(labels).get("cluster") == "beta"]
    assert beta == ["yardmaster_cluster_up"]
    assert told.all("nodes", cluster="alpha")


def test_a_cluster_that_dies_in_between_is_down(
    make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(alias: str) -> Any:
        raise OperationalError("the server closed the connection")

    reported: list[str] = []
    monkeypatch.setattr(exposition, "read", broken)
    monkeypatch.setattr(watch, "report_down", reported.append)
    told = scraped(Api(make_key("viewer", "alpha")))
    assert told("cluster_up", cluster="alpha") == 0
    assert reported == ["cluster-alpha"]


def test_a_cluster_whose_statements_take_long_is_left_out_and_not_called_dead(
    make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, is_postgresql: bool
) -> None:
    if not is_postgresql:
        pytest.skip("nothing ends a statement of SQLite")
    real = exposition.read

    def slow(alias: str) -> Any:
        if alias == "cluster-beta":
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT pg_sleep(10)")
        return real(alias)

    monkeypatch.setattr(exposition, "read", slow)
    monkeypatch.setattr(exposition, "STATEMENT_MILLISECONDS", 100)
    began = time.monotonic()
    told = scraped(Api(make_key("viewer", "*")))
    assert time.monotonic() - began < 5
    assert told("cluster_up", cluster="alpha") == 1
    assert told("cluster_up", cluster="beta") == 0
    assert not watch.is_down("cluster-beta")


def test_a_cluster_that_does_not_say_whether_it_lives_is_not_waited_for_long(
    make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(watch, "_probe", lambda alias: release.wait(60))
    api = Api(make_key("viewer", "*"))
    began = time.monotonic()
    told = scraped(api)
    assert time.monotonic() - began < 20
    release.set()
    assert told("cluster_up", cluster="alpha") == 0
    watch._asked.clear()
