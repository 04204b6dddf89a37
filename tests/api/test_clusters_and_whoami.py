"""GET clusters, clusters/{id}, clusters/count and whoami"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusters import health
from clusters.binding import cluster_bound
from clusters.models import ClusterSetting
from tests.api.conftest import Api, check_problem


def test_the_clusters_of_a_caller_are_listed(make_key: Callable[..., str]) -> None:
    body = Api(make_key("admin", "beta")).get("clusters").json()
    assert [item["id"] for item in body["items"]] == ["beta"]
    assert body["items"][0]["role"] == "admin"
    assert body["items"][0]["is_reachable"] is True
    everywhere = Api(make_key("viewer", "*"))
    assert [c["id"] for c in everywhere.get("clusters").json()["items"]] == ["alpha", "beta"]
    assert everywhere.get("clusters/count").json() == {"count": 2, "is_exact": True}
    assert everywhere.get("clusters/beta").json()["id"] == "beta"


def test_a_cluster_that_is_not_visible_is_404(viewer: Api) -> None:
    check_problem(viewer.get("clusters/beta"), 404, "not_found")
    check_problem(viewer.get("clusters/gamma"), 404, "not_found")


def test_a_dead_cluster_is_shown_as_such_and_delays_nobody(
    viewer: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_answers", lambda alias: False)
    assert viewer.get("clusters").json()["items"][0]["is_reachable"] is False


@pytest.mark.django_db(transaction=True)
def test_a_restored_cluster_is_shown_to_wait_for_a_person(viewer: Api) -> None:
    health.watch.forget()
    assert viewer.get("clusters/alpha").json()["awaits_confirmation"] is False
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().mark_restored(by="test")
    health.watch.forget()
    assert viewer.get("clusters/alpha").json()["awaits_confirmation"] is True


def test_whoami_tells_roles_and_grants(make_key: Callable[..., str]) -> None:
    api = Api(make_key("operator", "alpha", grants=("shell",), name="ci"))
    assert api.get("whoami").json() == {
        "name": "ci",
        "actor": "key:ci",
        "roles": [{"cluster": "alpha", "role": "operator", "granted_kinds": ["shell"]}],
    }


def test_a_role_for_all_clusters_is_told_cluster_by_cluster(make_key: Callable[..., str]) -> None:
    roles = Api(make_key("viewer", "*")).get("whoami").json()["roles"]
    assert [(role["cluster"], role["role"]) for role in roles] == [
        ("alpha", "viewer"),
        ("beta", "viewer"),
    ]
