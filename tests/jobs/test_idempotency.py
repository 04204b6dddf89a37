"""A repeated request gets the first reply, and its effect happens once."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.policy import ClusterPolicy
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.idempotency import KEPT_FOR, KeyReused, once, prune
from jobs.errors import InvalidJob
from jobs.models import IdempotencyKey, Job


def make_one() -> tuple[int, dict[str, str]]:
    return 201, {"id": str(enqueue(NewJob("demo:noop"), by="test").job.pk)}


def test_a_repeat_gets_the_first_reply_and_makes_nothing(alpha):
    first = once("ann", "key-1", "hash", make_one)
    second = once("ann", "key-1", "hash", make_one)
    assert (first.status, first.is_repeat) == (201, False)
    assert (second.status, second.body, second.is_repeat) == (201, first.body, True)
    assert Job.objects.count() == 1


def test_the_same_key_for_another_request_is_refused(alpha):
    once("ann", "key-1", "hash", make_one)
    with pytest.raises(KeyReused):
        once("ann", "key-1", "other", make_one)
    assert Job.objects.count() == 1


def test_keys_belong_to_whoever_uses_them(alpha):
    once("ann", "key-1", "hash", make_one)
    assert not once("bob", "key-1", "hash", make_one).is_repeat
    assert Job.objects.count() == 2


def test_keys_of_one_cluster_are_not_those_of_the_other(db):
    for name in ("alpha", "beta"):
        with cluster_bound(name):
            assert not once("ann", "key-1", "hash", make_one).is_repeat


def test_a_refused_request_leaves_no_key(alpha):
    def refuse() -> tuple[int, None]:
        enqueue(NewJob("demo:noop"), by="test")
        raise InvalidJob("no")

    with pytest.raises(InvalidJob):
        once("ann", "key-1", "hash", refuse)
    assert IdempotencyKey.objects.count() == Job.objects.count() == 0
    assert not once("ann", "key-1", "hash", make_one).is_repeat


def test_a_key_is_free_again_after_its_time(alpha):
    once("ann", "key-1", "hash", make_one)
    old = timezone.now() - KEPT_FOR - timedelta(minutes=1)
    IdempotencyKey.objects.update(created_at=old)
    assert not once("ann", "key-1", "other", make_one).is_repeat
    assert Job.objects.count() == 2


def test_old_keys_are_pruned_and_fresh_ones_stay(alpha):
    for number in range(5):
        once("ann", f"key-{number}", "hash", make_one)
    old = timezone.now() - KEPT_FOR - timedelta(minutes=1)
    IdempotencyKey.objects.filter(key__in=["key-0", "key-1", "key-2"]).update(created_at=old)
    assert [prune("cluster-alpha", ClusterPolicy(), limit=2) for _ in range(3)] == [2, 1, 0]
    assert set(IdempotencyKey.objects.values_list("key", flat=True)) == {"key-3", "key-4"}


# -- At once ---------------------------------------------------------------------------------------


def at_once(how_many: int, work) -> tuple[list, list[BaseException]]:
    """Run ``work`` in threads of their own, each with its own connection, all let go together."""
    results, errors = [], []
    gate = threading.Barrier(how_many)

    def run() -> None:
        try:
            with cluster_bound("alpha"):
                gate.wait(60)
                results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(how_many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results, errors


def test_many_with_one_key_at_once_make_one_job(transactional_db):
    replies, errors = at_once(8, lambda: once("ann", "key-1", "hash", make_one))
    assert errors == []
    assert len({reply.body["id"] for reply in replies}) == 1
    assert sorted(reply.is_repeat for reply in replies) == [False] + [True] * 7
    with cluster_bound("alpha"):
        assert Job.objects.count() == 1


def test_two_at_once_of_which_the_first_fails_make_one_job(transactional_db):
    entered = threading.Event()
    failed: list[int] = []

    def fail_first() -> tuple[int, dict[str, str]]:
        if not entered.is_set():
            entered.set()
            failed.append(1)
            enqueue(NewJob("demo:noop"), by="test")
            raise InvalidJob("the first one fails after its insert")
        return make_one()

    replies, errors = at_once(2, lambda: once("ann", "key-1", "hash", fail_first))
    assert [type(error) for error in errors] == [InvalidJob]
    assert [reply.is_repeat for reply in replies] == [False]
    with cluster_bound("alpha"):
        assert Job.objects.count() == 1


def test_many_with_one_id_at_once_make_one_job(transactional_db):
    new = NewJob("demo:noop", payload={"a": 1}, id=uuid.uuid4())
    answers, errors = at_once(8, lambda: enqueue(new, by="test"))
    assert errors == []
    assert sorted(answer.created for answer in answers) == [False] * 7 + [True]
    assert {answer.job.pk for answer in answers} == {new.id}
    with cluster_bound("alpha"):
        assert Job.objects.count() == 1


def test_a_lock_that_the_effect_could_not_have_is_not_blamed_on_another_request(alpha):
    def effect() -> tuple[int, Any]:
        raise OperationalError("database table is locked")

    with pytest.raises(OperationalError):
        once("key:ci", "locked", "hash", effect)
