"""Live parts that many watch are worked out once, and only for those who may see the same."""

from __future__ import annotations

import re
import threading

import pytest

from clusters.binding import cluster_bound
from jobs.models import Queue
from tests.factories import make_node, make_queue
from ui.fragments import shared
from ui.shared import MOST, Shared

QUEUES = "/admin/{}/queues/"
FRAGMENT = {"HX-Request": "true", "UI-Version": ""}


@pytest.fixture
def _kept(monkeypatch):
    monkeypatch.setattr(shared, "seconds", 3600.0)


def fragment(client, cluster: str = "alpha", page: str = "queues/") -> str:
    response = client.get(f"/admin/{cluster}/{page}", headers=FRAGMENT)
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.usefixtures("_kept")
def test_two_who_watch_the_same_ask_its_database_once(sign_in, alpha, queries):
    first, second = sign_in("viewer"), sign_in("viewer")
    text = fragment(first)
    with queries() as asked:
        assert fragment(second) == text
    assert not [sql for sql in asked if '"queue"' in sql or "FROM job" in sql]


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("page", ["", "queues/", "queues/mail/", "nodes/", "card/"])
def test_what_is_kept_is_of_one_cluster(viewer, page):
    for cluster in ("alpha", "beta"):
        with cluster_bound(cluster):
            make_queue("mail", description=f"of {cluster}")
            make_node(host=f"host-of-{cluster}")
    for cluster, other in (("alpha", "beta"), ("beta", "alpha")):
        html = fragment(viewer, cluster, page)
        assert f"of {other}" not in html
        assert f"host-of-{other}" not in html
        assert f"/admin/{other}/" not in html


@pytest.mark.usefixtures("_kept")
def test_what_is_kept_is_for_those_with_the_same_rights(sign_in, alpha):
    make_node()
    make_queue("mail", is_paused=True)
    admin, viewer = sign_in("admin"), sign_in("viewer")
    for page in ("queues/", "queues/mail/", "nodes/"):
        for client, is_there in ((admin, True), (viewer, False), (admin, True)):
            found = re.search(r'class="ui-button[ "]', fragment(client, page=page))
            assert (found is not None) is is_there, page


@pytest.mark.usefixtures("_kept")
def test_everybody_gets_a_token_of_his_own(sign_in, alpha):
    make_queue("mail", is_paused=True)
    tokens = set()
    for client in (sign_in("operator"), sign_in("operator")):
        html = fragment(client)
        token = html.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        assert len(token) == 64
        tokens.add(token)
        assert client.post(f"{QUEUES.format('alpha')}mail/resume/").status_code == 302
    assert len(tokens) == 2


@pytest.mark.usefixtures("_kept")
def test_a_page_that_is_loaded_is_never_old_and_others_get_it_too(viewer, alpha):
    fragment(viewer)
    Queue.objects.filter(name="default").update(description="changed")
    assert "changed" not in fragment(viewer)
    assert "changed" in viewer.get(QUEUES.format("alpha")).content.decode()
    assert "changed" in fragment(viewer)


@pytest.mark.usefixtures("_kept")
def test_a_role_that_is_taken_away_is_gone_at_once(sign_in, alpha):
    from authn.models import UserRole

    client = sign_in("viewer", "alpha")
    fragment(client)
    UserRole.objects.all().delete()
    assert client.get(QUEUES.format("alpha"), headers=FRAGMENT).status_code == 404


def test_no_more_is_kept_than_was_meant():
    kept: Shared[int] = Shared()
    for number in range(3 * MOST):
        assert kept.get(number, lambda number=number: number) == number
    assert len(kept) == MOST


def test_it_is_kept_so_long_and_no_longer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ui.shared.time.monotonic", lambda: now[0])
    kept: Shared[float] = Shared(seconds=2.0)
    assert kept.get("a", lambda: now[0]) == 100.0
    now[0] = 102.0
    assert kept.get("a", lambda: now[0]) == 100.0
    now[0] = 102.1
    assert kept.get("a", lambda: now[0], times=2) == 100.0
    assert kept.get("a", lambda: now[0]) == 102.1


def test_who_asks_while_it_is_made_waits_for_it():
    kept: Shared[int] = Shared(seconds=3600.0)
    made, may_go, begun = [], threading.Event(), threading.Event()

    def make() -> int:
        begun.set()
        may_go.wait(30)
        made.append(1)
        return len(made)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(kept.get("a", make))) for _ in range(5)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    may_go.set()
    for thread in threads:
        thread.join(30)
    assert found == [1] * 5


def test_what_could_not_be_made_is_tried_again():
    kept: Shared[int] = Shared(seconds=3600.0)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)
    assert kept.get("a", lambda: 7) == 7
