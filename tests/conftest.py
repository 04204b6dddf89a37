"""Databases, clusters and defaults shared by all tests; see settings.py for what can be chosen."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import connections
from django.db.models.signals import post_migrate

from clusters.binding import cluster_bound
from clusters.models import forget_policies
from clusters.refusals import told
from clusters.registry import Cluster
from tests import settings as test_settings
from tests.jobs import schedule_cases
from tests.postgres import EmbeddedPostgres

ALL_DATABASES = ("default", "cluster-alpha", "cluster-beta")
DATABASE_FIXTURES = {"db", "transactional_db", "alpha", "beta"}

_server: EmbeddedPostgres | None = None


# -- One database server for the whole run ---------------------------------------------------------


def _is_controller() -> bool:
    return "PYTEST_XDIST_WORKER" not in os.environ


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write out what no encoding has: pytest-xdist cannot send it, and its worker would end."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start PostgreSQL before pytest-xdist starts its workers, which find it by its directory."""
    global _server
    if _is_controller():
        _remove_leftovers()
    wanted = test_settings.BACKEND == "postgresql"
    is_given = bool(os.environ.get("YARDMASTER_TEST_POSTGRES_URL"))
    if wanted and not is_given and _is_controller() and not session.config.option.collectonly:
        _server = EmbeddedPostgres(
            test_settings.EMBEDDED_POSTGRES_DIR, fsync=test_settings.KEEPS_FSYNC
        )
        _server.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    global _server
    if _server is not None:
        _server.stop()
        _server = None
    test_settings.remove_test_dir()


def _remove_leftovers() -> None:
    """Directories of runs that were killed."""
    for path in Path(tempfile.gettempdir()).glob("yardmaster-tests-*-*"):
        owner = path.name.split("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> str:
    fsync = "on" if test_settings.KEEPS_FSYNC else "off"
    return f"database: {test_settings.BACKEND}, fsync {fsync}, files in {test_settings.TEST_DIR}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays until the end: looking for garbage in it took half of the time to
    collect, and an eighth of the time of the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that uses a database uses all three, unless it names them itself."""
    if test_settings.RUNS_AGAIN:
        again = [item for item in items if _depends_on_the_database(item)]
        left_out = [item for item in items if not _depends_on_the_database(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = again
    for item in items:
        marker = item.get_closest_marker("django_db")
        if marker is None:
            if DATABASE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
                continue
            item.add_marker(pytest.mark.django_db(databases=ALL_DATABASES))
        elif "databases" not in marker.kwargs and len(marker.args) < 3:
            everything = {**marker.kwargs, "databases": ALL_DATABASES}
            item.add_marker(pytest.mark.django_db(*marker.args, **everything), append=False)


def _depends_on_the_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("once") is not None:
        return False
    asks = {*DATABASE_FIXTURES, "is_postgresql"}
    return bool(item.get_closest_marker("django_db")) or not asks.isdisjoint(
        getattr(item, "fixturenames", ())
    )


def _default_queue(sender: Any, using: str, **kwargs: Any) -> None:
    """Put back what a test on real transactions empties at its end, with all other tables."""
    from jobs.models import Queue

    if sender.label == "jobs" and using.startswith("cluster-"):
        Queue.objects.using(using).get_or_create(name="default")


@pytest.fixture(scope="session", autouse=True)
def _keep_default_queues() -> Iterator[None]:
    post_migrate.connect(_default_queue)
    yield
    post_migrate.disconnect(_default_queue)


@pytest.fixture(autouse=True)
def _away_from_the_turn_of_the_hour() -> None:
    schedule_cases.keep_away_from_the_turn()


# Looks that end after a moment, with what they have found until then.
_MOMENTS = (
    "clusters.api.views.REACHABILITY_WAIT_SECONDS",
    "jobs.engine.bulk.EXPECT_SECONDS",
    "jobs.engine.bulk_asking.DRY_RUN_SECONDS",
    "jobs.engine.bulk_asking.GLANCE_SECONDS",
    "jobs.engine.bulk_asking.WALK_SECONDS",
    "jobs.job_search.SECONDS",
    "jobs.payload_search.SECONDS",
    "jobs.schedule_load.BUDGET_SECONDS",
    "jobs.step_logs.SEEK_SECONDS",
)


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a moment is over before anything was found; tests of moments set their own."""
    for name in _MOMENTS:
        monkeypatch.setattr(name, 20.0)


@pytest.fixture(autouse=True)
def _no_refusals_told() -> None:
    """Else the second test that is refused the same within a minute finds no row."""
    told.forget()


# -- Clusters --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _fresh_policies() -> Iterator[None]:
    forget_policies()
    yield
    forget_policies()


@pytest.fixture
def alpha(db: None) -> Iterator[Cluster]:
    """The cluster `alpha`, bound for the test."""
    with cluster_bound("alpha") as cluster:
        yield cluster


@pytest.fixture
def beta(db: None) -> Iterator[Cluster]:
    """The cluster `beta`, bound for the test."""
    with cluster_bound("beta") as cluster:
        yield cluster


@pytest.fixture
def is_postgresql() -> bool:
    return test_settings.BACKEND == "postgresql"


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition holds; fail with what it last said."""

    def wait(condition: Callable[[], Any], *, seconds: float = 30.0, every: float = 0.02) -> None:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"still {value!r} after {seconds:g} s"
            time.sleep(every)

    return wait


@pytest.fixture
def patience(alpha: Cluster, is_postgresql: bool) -> Iterator[float]:
    """Seconds in which what waits for no lock is done on any machine; who waits needs twice as long."""
    if not is_postgresql:
        yield 20.0
        return
    with connections[alpha.alias].cursor() as cursor:
        cursor.execute("SET lock_timeout = '40s'; SET statement_timeout = '60s'")
        yield 20.0
        cursor.execute("RESET lock_timeout; RESET statement_timeout")


@pytest.fixture
def authority(tmp_path: Path) -> tuple[str, str]:
    """A certificate for this host, signed by itself; also the authority of client certificates."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return str(certificate), str(key)


@pytest.fixture(scope="session")
def container_engine() -> Iterator[Any]:
    """Podman on a socket of its own. Where none can run, what needs it is skipped."""
    from tests.engines import podman

    with podman() as engine:
        yield engine


@pytest.fixture
def engine(container_engine: Any, settings: Any, monkeypatch: Any) -> Iterator[Any]:
    """The engine, from which the executor runs the image of the tests; nothing is left in it."""
    from jobs.executors import container
    from tests.engines import IMAGE, NOTHING, forget_clients, one_at_a_time

    monkeypatch.setattr(container, "_swept", None)
    settings.CONTAINER_ENGINE = container_engine.address
    settings.CONTAINER_IMAGES = [IMAGE]
    settings.CONTAINER_BIND_MOUNTS = []
    with one_at_a_time():
        yield container_engine
        forget_clients()
        left = container_engine.made()
        container_engine.clear()
        assert left == NOTHING
