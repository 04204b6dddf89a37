"""Two clusters, many callers at once: no answer and no row of the one is ever seen in the other."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.core.signals import request_finished
from django.db import connections

from authn.keys import create_key
from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.models import Job, Queue
from tests.factories import make_attempt, make_job, make_queue
from tests.faults import report
from tests.faults.mixed import CLUSTERS, Asynchronous, Found, Questions, Threaded, mark
from tests.faults.report import scaled
from tests.jobs.schedule_cases import make_schedule

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # Of streams in a loop: they are read in a thread, as we want it.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous"),
]
THREADS = 16
AT_ONCE = 8


@pytest.fixture
def ids(transactional_db: None) -> dict[str, list[str]]:
    """Jobs of each cluster; the first of them has ended. Every row bears the mark of its cluster."""
    made = {}
    for cluster in CLUSTERS:
        with cluster_bound(cluster):
            name = mark(cluster)
            make_queue(name, description=name)
            ended = make_job("failed", type=name, queue=name, error=name, tags=[name])
            make_attempt(ended, error=name)
            waiting = [
                make_job("scheduled", type=name, queue=name, payload={"of": name}, tags=[name])
                for _ in range(50)
            ]
            make_schedule(name=name, queue=name)
            made[cluster] = [str(job.pk) for job in (ended, *waiting)]
    return made


@pytest.fixture
def key(transactional_db: None) -> str:
    """Of somebody who may ask both, so that nothing but the binding keeps them apart."""
    return create_key("mixed", "admin", ["*"])[1]


@pytest.fixture
def _no_connections_left(transactional_db: None) -> Any:
    """Threads that the loop starts for a request end with it, and so do their connections."""

    def close(**kwargs: Any) -> None:
        if not threading.current_thread().name.startswith("mixed"):
            connections.close_all()

    request_finished.connect(close)
    yield
    request_finished.disconnect(close)


def test_hundreds_of_requests_of_two_clusters_never_mix(ids, key, figures, _no_connections_left):
    """Red without: the binding of each request."""
    _ask_all(scaled(600, least=200), ids, key, figures)


@pytest.mark.long
def test_fifty_thousand_requests_of_two_clusters_never_mix(ids, key, figures, _no_connections_left):
    """Red without: the binding of each request."""
    _ask_all(scaled(50_000, least=1000), ids, key, figures)


def _ask_all(count: int, ids: dict[str, list[str]], key: str, figures: dict[str, Any]) -> None:
    before = {cluster: _rows(cluster) for cluster in CLUSTERS}
    found, lock = Found(), threading.Lock()
    threaded, asynchronous = Threaded(key), Asynchronous(key)
    # One in ten through the loop.
    size = -(-count * 9 // 10 // THREADS)
    seeds = itertools.count(report.seed() * 1000)

    def take(question: Any, status: int, body: bytes) -> None:
        with lock:
            found.take(question, status, body)

    def of_a_thread(seed: int) -> None:
        try:
            for question in itertools.islice(Questions(ids, seed), size):
                take(question, *threaded.ask(question))
        finally:
            connections.close_all()

    async def of_the_loop(seed: int, most: int) -> None:
        for question in itertools.islice(Questions(ids, seed), most):
            take(question, *await asynchronous.ask(question))

    async def loop() -> None:
        most = -(-count // 10 // AT_ONCE)
        await asyncio.gather(*(of_the_loop(next(seeds), most) for _ in range(AT_ONCE)))

    with ThreadPoolExecutor(THREADS + 1, thread_name_prefix="mixed") as pool:
        work: list[Callable[[], Any]] = [lambda: asyncio.run(loop())]
        work += [partial(of_a_thread, next(seeds)) for _ in range(THREADS)]
        for done in [pool.submit(one) for one in work]:
            done.result()
    asked = found.statuses.total()
    figures |= {
        "requests": asked,
        "statuses": dict(found.statuses),
        "made": dict(found.made),
        "mixed": len(found.mixed),
    }
    assert not found.mixed, found.mixed[:20]
    assert not found.wrong, found.wrong[:20]
    assert asked >= count
    for cluster in CLUSTERS:
        # As many as callers were told, and all of them bear the mark.
        assert _rows(cluster) == before[cluster] + found.made[cluster]
        assert found.made[cluster] > 0


def _rows(cluster: str) -> int:
    """How many jobs there are; nothing in the cluster may be of another."""
    with cluster_bound(cluster):
        assert set(Job.objects.values_list("type", flat=True)) == {mark(cluster)}
        assert set(Queue.objects.values_list("name", flat=True)) == {"default", mark(cluster)}
        targets = {str(one) for one in AuditEntry.objects.values_list("target_id", flat=True)}
        ours = {str(pk) for pk in Job.objects.values_list("pk", flat=True)}
        assert not {one for one in targets if len(one) == 36} - ours
        return Job.objects.count()
