"""Commits that never arrive, and replies that never come back: PostgreSQL behind the proxy."""

from __future__ import annotations

from uuid import UUID

import pytest

from jobs.engine.enqueue import NewJob
from tests import settings as test_settings
from tests.faults.conftest import LASTING
from tests.faults.fire_cases import assert_exact, fired, in_a_moment, judge, plan_intervals
from tests.faults.harness import new_jobs
from tests.faults.report import scaled

pytestmark = [
    pytest.mark.skipif(
        test_settings.BACKEND != "postgresql", reason="SQLite has no wire that could be cut"
    ),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def settings_of_the_cluster() -> dict[str, float]:
    return LASTING


def test_an_enqueue_whose_commit_was_lost_is_asked_again_and_makes_one_job(yard, proxy, figures):
    cuts = scaled(50, least=5)
    told_wrong = 0
    with proxy.between():
        for when in ("before", "after"):
            proxy.cut("submit", when, cuts)
        while proxy.cuts_left:
            (new,) = new_jobs(1)
            if ids := yard.submit([new]):
                continue
            # Unknown. Ask again with the same id until there is an answer.
            one = yard.unknown.pop()
            there = bool(yard.database.value("SELECT 1 FROM job WHERE id = %s", [one]))
            proxy_left, proxy.left = proxy.left, type(proxy.left)()
            ids = yard.submit([NewJob(type="fault:work", id=UUID(one))])
            proxy.left = proxy_left
            assert ids == [str(one)]
            count = yard.database.value("SELECT count(*) FROM job WHERE id = %s", [one])
            created_now = yard.database.value(
                "SELECT count(*) FROM fault_edge WHERE job = %s AND before = ''", [one]
            )
            told_wrong += (count, created_now) != (1, 1)
            figures["found_after_the_cut"] = figures.get("found_after_the_cut", 0) + there
    jobs = yard.database.value("SELECT count(*) FROM job")
    figures |= {
        "cuts": dict(proxy.cuts),
        "jobs": jobs,
        "asked": len(yard.accepted),
        "wrong": told_wrong,
    }
    assert told_wrong == 0
    assert jobs == len(set(yard.accepted))
    # Each cut after the commit left a job, each cut before it none.
    assert figures["found_after_the_cut"] == proxy.cuts["submit after"] == cuts
    yard.judge(expect_final=False).assert_sound()


def test_claims_and_completions_whose_commit_was_lost_have_each_job_begun_once(
    yard, proxy, figures
):
    """Red without: the second look at an id that did not come back, and disowning unanswered claims."""
    cuts = scaled(50, least=5)
    nodes = 4
    with proxy.between():
        for _ in range(nodes):
            yard.start(concurrency=1)
        yard.wait(lambda: all(node.is_up() for node in yard.nodes), 60)
        for kind in ("claim", "complete"):
            for when in ("before", "after"):
                proxy.cut(kind, when, cuts)
        # While cuts are made there is always work, or a lost claim would have lost nothing.
        limit = 60 + cuts * 4

        def fed() -> bool:
            if yard.open_jobs() < 100:
                yard.submit(
                    new_jobs(100, type_name="fault:keep", payload=lambda n: {"seconds": 0.02})
                )
            return proxy.cuts_left == 0

        yard.wait(fed, limit, every=0.1)
        proxy.calm()
        waited = yard.wait_until_all_ended(30)
        yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {
        "cuts": dict(proxy.cuts),
        "connections": proxy.connections,
        "seconds_to_the_end": round(waited, 2),
        "handed_back": yard.said("were handed back"),
        "superseded": yard.said("came too late"),
    }
    verdict.assert_sound()
    # The nodes lived and kept their leases, so nothing may have been lost, begun twice or thrown away.
    assert verdict.figures["states"] == {"succeeded": len(yard.accepted)}
    assert verdict.figures["outcomes"] == {"succeeded": len(yard.accepted)}
    assert verdict.figures["starts"] == len(yard.accepted)
    assert yard.said("came too late") == 0


def test_fires_whose_commit_was_lost_make_one_job_for_each_instant(yard, proxy, figures):
    """Red without: the transaction around a fire, its job and the schedule's next instant."""
    cuts = scaled(15, least=5)
    with proxy.between():
        for _ in range(2):
            yard.start(concurrency=1, env={"YARDMASTER_WORKER_KINDS": "python"})
        yard.wait(lambda: all(node.is_up() for node in yard.nodes), 60)
        # Instants enough for a cut in each of them that takes its chance, and none that is late.
        timing = {"every": 1.0, "misfire_grace_seconds": 3600.0}
        planned = plan_intervals(10, 2 * cuts, start=in_a_moment(1), **timing)

        def all_are_cut() -> bool:
            if not proxy.cuts_left:
                return True
            if fired(yard.database) >= planned.count:
                # A slow machine fires many of them at once, and commits less often.
                first = len(planned.due)
                more = plan_intervals(5, 3, start=in_a_moment(1), first=first, **timing)
                planned.due.update(more.due)
            return False

        for when in ("before", "after"):
            proxy.cut("fire", when, cuts)
        yard.wait(all_are_cut, 60 + 4 * cuts, every=0.1)
        proxy.calm()
        yard.wait(lambda: fired(yard.database) >= planned.count, 60 + 2 * cuts, every=0.2)
        yard.wait_until_all_ended(60)
        yard.stop()
    figures |= {"cuts": dict(proxy.cuts), **judge(yard, planned)}
    verdict = yard.judge()
    figures |= verdict.figures
    assert_exact(figures)
    verdict.assert_sound()
    assert proxy.cuts == {"fire before": cuts, "fire after": cuts}
