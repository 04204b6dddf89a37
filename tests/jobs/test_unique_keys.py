"""Unique keys: of all jobs that have not ended only one has it."""

from __future__ import annotations

import random
import threading
import uuid

import pytest
from django.db import connections, transaction

from clusters.binding import cluster_bound
from jobs.engine import enqueue as module
from jobs.engine.enqueue import COPY_FROM, NewJob, enqueue, enqueue_many
from jobs.errors import Conflict, DuplicateJob
from jobs.models import Job, Tally
from jobs.states import FINAL, State
from tests.factories import make_job

OPEN = sorted(set(State) - set(FINAL))


def new(**asked) -> NewJob:
    return NewJob("demo:noop", **{"unique_key": "nightly", **asked})


@pytest.mark.parametrize("state", OPEN)
def test_a_job_that_has_not_ended_is_the_answer(alpha, state):
    old = make_job(state, unique_key="nightly")
    answer = enqueue(new(payload={"other": 1}), by="test")
    assert (answer.created, answer.job_id, answer.job.pk) == (False, str(old.pk), old.pk)
    assert Job.objects.count() == 1
    assert not Tally.objects.exists()


@pytest.mark.parametrize("state", FINAL)
def test_a_job_that_has_ended_is_in_nobodys_way(alpha, state):
    make_job(state, unique_key="nightly")
    assert enqueue(new(), by="test").created
    assert not enqueue(new(), by="test").created
    assert Job.objects.count() == 2


def test_an_own_id_and_a_unique_key_are_looked_at_in_this_order(alpha):
    asked = new(id=uuid.uuid4())
    assert enqueue(asked, by="test").created
    assert not enqueue(asked, by="test").created
    other = enqueue(new(id=uuid.uuid4()), by="test")
    assert (other.created, other.job_id) == (False, str(asked.id))
    with pytest.raises(DuplicateJob):
        enqueue(new(id=asked.id, payload=1), by="test")


@pytest.mark.parametrize("how_many", [4, COPY_FROM + 4])
def test_the_first_of_a_call_is_the_answer_to_those_after_it(alpha, how_many):
    old = make_job(unique_key="old")
    news = [NewJob("demo:noop") for _ in range(how_many)]
    news[1], news[2], news[3] = new(payload=1), new(payload=2), new(unique_key="old")
    answers = enqueue_many(news, by="test")
    assert [answer.created for answer in answers[:4]] == [True, True, False, False]
    assert answers[2].job_id == answers[1].job_id
    assert answers[1].job.payload == 1
    assert answers[3].job.pk == old.pk
    assert Job.objects.count() == how_many - 2 + 1
    counted = Tally.objects.filter(event="enqueued").values_list("count", flat=True)
    assert sum(counted) == how_many - 2


def test_a_job_that_ends_between_insert_and_look_makes_room(alpha, monkeypatch):
    """The one in the way is gone when we look for it: then ours is inserted after all."""
    old = make_job(unique_key="nightly")
    find, looks = module._Call._find, []

    def end_it_first(self, rows):
        looks.append(1)
        if len(looks) == 1:
            old.cancel()
        return find(self, rows)

    monkeypatch.setattr(module._Call, "_find", end_it_first)
    answer = enqueue(new(), by="test")
    assert (answer.created, looks) == (True, [1])
    assert answer.job.state == State.READY


def test_jobs_that_come_and_go_for_ever_end_in_a_conflict(alpha, monkeypatch):
    make_job(unique_key="nightly")
    monkeypatch.setattr(module._Call, "_find", lambda self, rows: {})
    with pytest.raises(Conflict):
        enqueue(new(), by="test")
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_at_once_and_a_third_rolled_back_and_never_no_job():
    """Whoever is told that the job exists finds it, although inserters before him were rolled back."""
    rounds, threads_count = 25, 8
    errors: list[BaseException] = []
    broken: list[str] = []
    gate = threading.Barrier(threads_count)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            with cluster_bound("alpha") as cluster:
                for number in range(rounds):
                    key = f"round-{number}"
                    gate.wait(30)
                    try:
                        with transaction.atomic(using=cluster.alias):
                            answer = enqueue(new(unique_key=key), by="test")
                            if chance.random() < 0.3:
                                raise ZeroDivisionError
                    except ZeroDivisionError:
                        continue
                    if not Job.objects.filter(pk=answer.job_id, unique_key=key).exists():
                        broken.append(key)
        except BaseException as error:
            errors.append(error)
            gate.abort()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert broken == []
    with cluster_bound("alpha"):
        keys = [*Job.objects.values_list("unique_key", flat=True)]
        assert len(keys) == len(set(keys))
        # All eight of a round were rolled back: one time in fifteen thousand.
        assert len(keys) == rounds
        assert sum(Tally.objects.values_list("count", flat=True)) == rounds


@pytest.mark.django_db(transaction=True)
def test_calls_with_the_same_keys_in_another_order_do_not_wait_for_each_other_for_ever():
    keys = [f"key-{number}" for number in range(40)]
    errors: list[BaseException] = []
    created: list[int] = []
    gate = threading.Barrier(6)

    def work(seed: int) -> None:
        mine = random.Random(seed).sample(keys, len(keys))
        try:
            with cluster_bound("alpha"):
                gate.wait(60)
                answers = enqueue_many([new(unique_key=key) for key in mine], by="test")
                created.append(sum(answer.created for answer in answers))
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert sum(created) == len(keys)
    with cluster_bound("alpha"):
        assert Job.objects.count() == len(keys)
