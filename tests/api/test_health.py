"""/livez, and /readyz below the base path"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import connections

from clusters import health
from clusters.health import Watch
from config import health as views


def test_livez_asks_no_database(client: Any) -> None:
    body = client.get("/livez").json()
    assert set(body) == {"status", "time"}
    assert body["status"] == "up"


def test_readyz_says_up_or_down_and_the_time(client: Any, db: None) -> None:
    for path in ("/jm-api/readyz", "/jm-api/readyz/"):
        response = client.get(path, headers={"x-api-key": "not even read"})
        assert response.status_code == 200
        body = response.json()
        del body["time"]
        assert body == {
            "status": "up",
            "checks": {"control_database": "up"},
            "clusters": {"up": 2, "down": 0},
        }


@pytest.mark.parametrize(
    ("dead", "status", "clusters"),
    [
        ({"cluster-beta"}, 200, {"up": 1, "down": 1}),
        ({"cluster-alpha", "cluster-beta"}, 200, {"up": 0, "down": 2}),
        ({"default"}, 503, {"up": 2, "down": 0}),
    ],
)
def test_only_the_control_database_decides(
    dead: set[str], status: int, clusters: Any, client: Any, db: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(health, "_answers", lambda alias: alias not in dead)
    response = client.get("/jm-api/readyz")
    assert response.status_code == status
    assert response.json()["clusters"] == clusters
    text = response.content.decode()
    assert not [word for word in ("alpha", "beta", "sqlite", "postgres", "host") if word in text]


def test_a_cluster_that_hangs_is_down_after_the_wait(
    client: Any, db: None, monkeypatch: Any
) -> None:
    release = threading.Event()
    monkeypatch.setattr(
        health, "_answers", lambda alias: alias != "cluster-beta" or release.wait(60)
    )
    monkeypatch.setattr(views, "WAIT_SECONDS", 1.0)
    try:
        began = time.monotonic()
        response = client.get("/jm-api/readyz")
        assert time.monotonic() - began < 20
        assert response.status_code == 200
        assert response.json()["clusters"] == {"up": 1, "down": 1}
    finally:
        release.set()


def test_a_database_is_asked_once_at_a_time_and_not_again_while_fresh(monkeypatch: Any) -> None:
    asked = []
    release = threading.Event()

    def answers(alias: str) -> bool:
        asked.append(alias)
        return release.wait(60)

    monkeypatch.setattr(health, "_answers", answers)
    watch = Watch(max_age_seconds=60)
    assert watch.ask(["x"], 0.05) == {"x": None}
    assert watch.ask(["x"], 0.05) == {"x": None}
    assert watch.overdue(["x", "y"]) == {"x"}
    release.set()
    assert watch.ask(["x"], 30) == {"x": True}
    assert watch.ask(["x"], 30) == {"x": True}
    assert asked == ["x"]


def test_health_takes_no_posts(client: Any, db: None) -> None:
    assert client.post("/jm-api/readyz").status_code == 405
    assert client.head("/livez").status_code == 200


def test_a_probe_leaves_no_connection_behind(db: None) -> None:
    before = connections["cluster-alpha"]
    assert Watch().ask(["cluster-alpha"], 30) == {"cluster-alpha": True}
    assert connections["cluster-alpha"] is before


def test_a_watch_knows_since_when_a_database_is_down(monkeypatch: Any) -> None:
    watch = Watch(max_age_seconds=0)
    answers = [False, False, True]
    monkeypatch.setattr(health, "_answers", lambda alias: bool(answers) and answers.pop(0))
    assert watch.down_since("cluster-alpha") is None
    assert watch.ask(["cluster-alpha"], 30) == {"cluster-alpha": False}
    since = watch.down_since("cluster-alpha")
    assert since is not None
    assert watch.ask(["cluster-alpha"], 30) == {"cluster-alpha": False}
    assert watch.down_since("cluster-alpha") == since
    assert watch.ask(["cluster-alpha"], 30) == {"cluster-alpha": True}
    assert watch.down_since("cluster-alpha") is None
    watch.report_down("cluster-alpha")
    assert watch.down_since("cluster-alpha") is not None
