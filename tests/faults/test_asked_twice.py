"""Clients that ask again, at the same time or because the reply was lost: one effect, never none."""

from __future__ import annotations

import random
import threading
import uuid

from django.db import OperationalError, transaction

from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.idempotency import once
from jobs.errors import Conflict
from jobs.models import Job
from tests.faults import report
from tests.faults.harness import ALIAS
from tests.faults.report import scaled
from tests.faults.test_claims import at_once

CLIENTS = 20


def test_clients_that_share_a_key_make_one_job_and_hear_the_same_id(yard, figures):
    """Red without: the unique index of the keys."""
    asks = scaled(200, least=CLIENTS)
    heard: list[str] = []
    conflicts: list[int] = []
    dropped = threading.Semaphore(0)

    def work(number: int) -> None:
        dice = random.Random(f"{report.seed()} {number}")
        for _ in range(asks // CLIENTS):
            while True:
                try:
                    reply = once("alice", "order-7", "same", _effect)
                except Conflict:
                    conflicts.append(number)
                    continue
                if dice.random() < 0.2:
                    dropped.release()  # the reply never arrives: the client asks again
                    continue
                heard.append(reply.body["id"])
                break

    at_once(CLIENTS, work)
    jobs = Job.objects.count()
    figures |= {"asks": asks, "jobs": jobs, "ids": len(set(heard)), "conflicts": len(conflicts)}
    assert jobs == 1
    assert set(heard) == {str(Job.objects.get().pk)}
    assert len(heard) == asks // CLIENTS * CLIENTS


def _effect() -> tuple[int, dict[str, str]]:
    job = enqueue(NewJob(type="fault:work"), by="alice").job
    return 201, {"id": str(job.pk)}


def test_of_clients_that_insert_the_same_job_one_wins_and_the_others_hear_of_it(yard, figures):
    """Three of ten transactions are rolled back; a `created: false` is never about one of those."""
    count = scaled(1000, least=50)
    ids = [uuid.uuid4() for _ in range(count)]
    told: dict[uuid.UUID, int] = dict.fromkeys(ids, 0)
    created: dict[uuid.UUID, int] = dict.fromkeys(ids, 0)
    lock = threading.Lock()

    class RolledBack(Exception):
        pass

    def work(number: int) -> None:
        dice = random.Random(f"{report.seed()} {number}")
        mine = ids[number % 4 :: 4] + ids[(number + 1) % 4 :: 4]
        dice.shuffle(mine)
        for one in mine:
            is_kept = dice.random() >= 0.3
            try:
                with transaction.atomic(using=ALIAS):
                    found = enqueue(NewJob(type="fault:work", id=one), by="alice")
                    if not is_kept:
                        raise RolledBack
            except RolledBack:
                continue
            except OperationalError:
                continue  # SQLite's one writer was somebody else for too long
            with lock:
                told[one] += 1
                created[one] += found.created

    at_once(4, work)
    there = {job.pk for job in Job.objects.all()}
    missing = [one for one, times in told.items() if times and one not in there]
    twice = [one for one, times in created.items() if times > 1]
    unmade = [one for one, times in told.items() if times and created[one] != 1]
    figures |= {
        "ids": count,
        "jobs": len(there),
        "told_but_missing": len(missing),
        "created_twice": len(twice),
    }
    assert not missing
    assert not twice
    assert not unmade
    assert len(there) == sum(bool(times) for times in told.values())
