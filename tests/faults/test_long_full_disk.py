"""Disks that are full for a while: nothing is lost, and work goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections

from tests import settings as test_settings
from tests.faults.harness import ALIAS, Yard, new_jobs
from tests.faults.report import scaled
from tests.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

IS_POSTGRES = test_settings.BACKEND == "postgresql"
DISK_MEGABYTES = 256
NO_ROOM = "No space left on device"
FAILS = "the database of alpha fails"


@pytest.mark.skipif(IS_POSTGRES, reason="PostgreSQL has a test of its own below")
def test_a_full_disk_stops_work_and_loses_nothing(yard, figures):
    """Red without: results kept in memory."""
    rounds = scaled(10, least=1)
    node = yard.start_and_wait(concurrency=2)
    resumed: list[float] = []
    for _ in range(rounds):
        yard.submit(new_jobs(60, payload=lambda n: {"seconds": 0.05}))
        # No file may grow beyond what the write-ahead log has now.
        _limit_files(node, Path(f"{yard.database.path}-wal").stat().st_size)
        time.sleep(2.0)
        _limit_files(node, None)
        freed = time.monotonic()
        done = yard.final_jobs()
        yard.submit(new_jobs(5))
        yard.wait(lambda done=done: yard.final_jobs() > done, 30)
        resumed.append(time.monotonic() - freed)
        assert node.is_running
    yard.wait_until_all_ended(60)
    sound = [row[0] for row in yard.database.rows("PRAGMA integrity_check")]
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {
        "rounds": rounds,
        "resumed_after_at_most_seconds": round(max(resumed), 2),
        "integrity": sound,
        "refused_writes": yard.said("disk"),
    }
    verdict.assert_sound()
    assert figures["refused_writes"] > 0
    assert sound == ["ok"]
    assert max(resumed) <= 10.0


def _limit_files(node, size: int | None) -> None:
    """No file of this node's process may grow beyond ``size``; the kernel says so as a full disk does."""
    limit = "unlimited" if size is None else str(max(size, 1))
    subprocess.run(
        ["prlimit", "--pid", str(node.pid), f"--fsize={limit}:unlimited"],
        check=True,
        capture_output=True,
    )


class SmallDisk:
    """A server whose data are on a small file system, which can be filled and freed."""

    def __init__(self, directory: Path) -> None:
        self.mount = directory / "disk"
        self.server = EmbeddedPostgres(directory / "server")
        self.server.data = self.mount / "data"
        self._ballast = self.mount / "ballast"
        self.restarts = 0

    def start(self) -> None:
        self.server.start()
        with self._connect() as connection:
            # Its own log shall not be what fills the disk.
            connection.execute("ALTER SYSTEM SET max_wal_size = '48MB'")
            connection.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE small")

    def _connect(self) -> psycopg.Connection:
        address = f"postgresql://postgres@/?host={self.server.socket}"
        return psycopg.connect(address, autocommit=True, connect_timeout=2)

    def fill(self) -> None:
        """Take all that is free, and whatever becomes free meanwhile."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 12))

    def free(self) -> None:
        """Make room. A server that gave up for want of it is started, as its keeper would do."""
        self._ballast.unlink()
        assert self.server.process is not None
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and self.server.process.poll() is None:
            with suppress(psycopg.Error):
                self._connect().close()
                return
            time.sleep(0.05)
        self.server.stop()
        self.server.start()
        self.restarts += 1

    def end_the_log(self) -> None:
        """Have the server ask for new pieces of its log until there is none to be had, and it panics."""
        with suppress(psycopg.Error), self._connect() as connection:
            for _ in range(20):
                connection.execute("SELECT pg_switch_wal(), txid_current()")

    def refusals(self) -> int:
        return self.server.log.read_text(errors="replace").count(NO_ROOM)

    def panics(self) -> int:
        return self.server.log.read_text(errors="replace").count("PANIC:")


@pytest.fixture
def small_disk(transactional_db: None, unknown) -> Iterator[SmallDisk]:
    """The database of `alpha` on a disk of its own; this needs the right to mount one."""
    directory = test_settings.TEST_DIR / "small"
    disk = SmallDisk(directory)
    disk.mount.mkdir(parents=True)
    test_settings.TEST_DIR.chmod(0o711)
    size = f"size={DISK_MEGABYTES}m,mode=0755"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "yardmaster-test", str(disk.mount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        unknown(f"no file system may be mounted here: {mounted.stderr.strip()[:200]}")
    connection = connections[ALIAS]
    before = connection.settings_dict
    try:
        disk.start()
        options = {**before["OPTIONS"], "host": str(disk.server.socket)}
        connection.close()
        connection.settings_dict = {**before, "NAME": "small", "OPTIONS": options}
        call_command("migrate", database=ALIAS, verbosity=0)
        yield disk
    finally:
        connection.close()
        connection.settings_dict = before
        disk.server.stop()
        subprocess.run(["umount", "--lazy", str(disk.mount)], check=False)


@pytest.mark.skipif(not IS_POSTGRES, reason="SQLite has a test of its own above")
def test_a_full_disk_under_postgresql_stops_work_and_loses_nothing(small_disk, yard, figures):
    """Red without: results kept in memory."""
    rounds = scaled(10, least=1)
    node = yard.start_and_wait(concurrency=2)
    resumed: list[float] = []
    refusals: list[int] = []
    for number in range(rounds):
        yard.submit(_talkative(60))
        before, said = small_disk.refusals(), yard.said(FAILS)
        small_disk.fill()
        # Until the node itself has been refused; clients are, too.
        yard.wait(lambda said=said: _push(yard, small_disk, said), 30, every=0.2)
        if number % 2:
            # Refused writes are the mild case; without room for its log the server falls.
            small_disk.end_the_log()
        time.sleep(2.0)
        refusals.append(small_disk.refusals() - before)
        small_disk.free()
        freed = time.monotonic()
        done = yard.final_jobs()
        with suppress(psycopg.Error):
            yard.submit(new_jobs(5))
        yard.wait(lambda done=done: yard.final_jobs() > done, 30)
        resumed.append(time.monotonic() - freed)
        assert node.is_running, yard.tails()
    yard.settle_unknown()
    yard.wait_until_all_ended(60)
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {
        "rounds": rounds,
        "resumed_after_at_most_seconds": round(max(resumed), 2),
        "refused_writes": sum(refusals),
        "panics": small_disk.panics(),
        "server_restarts": small_disk.restarts,
        "conditions_logged": yard.said(FAILS),
    }
    verdict.assert_sound()
    assert min(refusals) > 0
    assert figures["panics"] >= rounds // 2
    assert max(resumed) <= 10.0


def _talkative(count: int) -> list:
    """Jobs of which much is to be written."""
    return new_jobs(
        count,
        type_name="fault:keep",
        payload=lambda n: {"seconds": 0.05, "ballast": os.urandom(2000).hex()},
    )


def _push(yard: Yard, disk: SmallDisk, said: int) -> bool:
    """Keep the disk full and the node busy; tells whether the node has been refused."""
    disk.fill()
    yard.submit(_talkative(20))
    return yard.said(FAILS) > said
