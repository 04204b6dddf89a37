"""A yard for every fault test, and a line of JSON after it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from clusters.binding import cluster_bound
from clusters.models import ClusterSetting
from tests import conftest as root_conftest
from tests.faults import edges, report
from tests.faults.harness import Yard
from tests.faults.proxy import Proxy
from tests.postgres import EmbeddedPostgres

FAST = {
    "lease_seconds": 3.0,
    "heartbeat_seconds": 0.5,
    "retry_base_seconds": 0.05,
    "retry_cap_seconds": 1.0,
    "cancel_grace_seconds": 2.0,
    "drain_grace_seconds": 10.0,
}


# Where no node may be lost: a busy machine may stop a process for longer than a short lease.
LASTING = {**FAST, "lease_seconds": 20.0}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("django_db"):
            item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome = yield
    setattr(item, f"outcome_{outcome.when}", outcome)
    return outcome


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the test measured; printed as a line of JSON whatever becomes of it."""
    found: dict[str, Any] = {}
    begun = time.monotonic()
    yield found
    outcome = getattr(request.node, "outcome_call", None)
    verdict = "ok" if outcome is not None and outcome.passed else "failed"
    if outcome is not None and outcome.skipped:
        verdict = "unknown"
    report.write(request.node.name, verdict, time.monotonic() - begun, found)


@pytest.fixture
def unknown(figures: dict[str, Any]) -> Callable[[str], NoReturn]:
    """Say that this host cannot run the test; that is never a success."""

    def say(why: str) -> NoReturn:
        figures["why"] = why
        pytest.skip(why)

    return say


# As an installation has them, but for waits between attempts.
SLOW = {"retry_base_seconds": 0.05, "retry_cap_seconds": 1.0}


@pytest.fixture
def settings_of_the_cluster(request: pytest.FixtureRequest) -> dict[str, float]:
    """Short leases for small runs and trials; the defaults for the long ones that do not ask for them."""
    if request.node.get_closest_marker("short_leases"):
        return FAST
    is_long = request.node.get_closest_marker("long") is not None
    return SLOW if is_long and report.scale() >= 0.5 else FAST


@pytest.fixture
def lease(settings_of_the_cluster: dict[str, float]) -> float:
    return settings_of_the_cluster.get("lease_seconds", 30.0)


@pytest.fixture
def server(unknown: Callable[[str], NoReturn]) -> EmbeddedPostgres:
    """The PostgreSQL of this run, to be stopped and started; nobody else may be using it."""
    if os.environ.get("PYTEST_XDIST_WORKER") or root_conftest._server is None:
        unknown("the server is not this process's own")
    return root_conftest._server


@pytest.fixture
def yard(
    transactional_db: None,
    tmp_path: Path,
    settings_of_the_cluster: dict[str, float],
    figures: dict[str, Any],
) -> Iterator[Yard]:
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist(settings_of_the_cluster, by="test")
        one = Yard(tmp_path, report.seed())
        edges.install(one.database)
        try:
            yield one
        finally:
            one.stop()
            edges.remove(one.database)


@pytest.fixture
def proxy(yard: Yard) -> Iterator[Proxy]:
    with Proxy(yard.database.address, report.seed()).running() as one:
        yield one
