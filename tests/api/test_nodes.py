"""{cluster}/nodes"""

from __future__ import annotations

import pytest

from clusters.api.serializers import NodeItem
from clusters.models import Node, NodeStatus
from tests.api.conftest import Api, check_problem, fields
from tests.factories import make_node


def test_nodes_are_listed_counted_and_shown(alpha: object, viewer: Api) -> None:
    live = make_node(queues=["a"])
    make_node(NodeStatus.DEAD)
    items = viewer.get("alpha/nodes").json()["items"]
    assert len(items) == 2
    assert list(items[0]) == list(NodeItem().fields)
    listed = viewer.get("alpha/nodes?status=live").json()["items"]
    assert [item["id"] for item in listed] == [str(live.pk)]
    assert viewer.get("alpha/nodes/count?status=dead").json() == {"count": 1, "is_exact": True}
    assert viewer.get(f"alpha/nodes/{live.pk}").json() == listed[0]
    assert listed[0]["queues"] == ["a"]


def test_an_unknown_status_is_400(alpha: object, viewer: Api) -> None:
    assert fields(viewer.get("alpha/nodes?status=asleep")) == ["status"]
    assert fields(viewer.get("alpha/nodes?status=live&status=dead")) == ["status"]


@pytest.mark.parametrize("status", NodeStatus)
def test_a_node_that_lives_is_asked_to_drain(status: str, alpha: object, api: Api) -> None:
    node = make_node(status)
    response = api.post(f"alpha/nodes/{node.pk}/drain")
    if status in (NodeStatus.LIVE, NodeStatus.DRAINING):
        assert response.json()["drain_requested_at"] is not None
        again = api.post(f"alpha/nodes/{node.pk}/drain")
        assert again.json() == response.json()
    else:
        check_problem(response, 409, "invalid_transition")
        assert Node.objects.get().drain_requested_at is None


@pytest.mark.parametrize("identifier", ["x", "0190a1b2-0000-7000-8000-000000000000", "%00"])
def test_an_unknown_node_is_404(identifier: str, alpha: object, api: Api) -> None:
    check_problem(api.get(f"alpha/nodes/{identifier}"), 404, "not_found")
    check_problem(api.post(f"alpha/nodes/{identifier}/drain"), 404, "not_found")
