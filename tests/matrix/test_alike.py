"""What somebody may not see answers as what there is not: with as many bytes, and after as long."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from authn.keys import create_key
from clusters.health import watch
from tests.matrix.things import NOBODYS, Things, make_things

pytestmark = [pytest.mark.django_db]
_client = Client(raise_request_exception=False)
SAMPLES = 120
# One is told from the other where its median is that much longer, three times in a row.
RATIO = 1.25

# Addresses: the other cluster's, and one that is nobody's. Of one length, as ids are.
PAIRS = {
    "a job": ("/jm-api/alpha/jobs/{job}", f"/jm-api/alpha/jobs/{NOBODYS}"),
    "a schedule": ("/jm-api/alpha/schedules/{schedule}", f"/jm-api/alpha/schedules/{NOBODYS}"),
    "a queue": ("/jm-api/alpha/queues/of-beta", "/jm-api/alpha/queues/of-zeta"),
    "a task of asyncjobs": (
        "/clusters/alpha/asyncjobs/v1/tasks/{job}",
        f"/clusters/alpha/asyncjobs/v1/tasks/{NOBODYS}",
    ),
    "a cluster": ("/jm-api/beta/jobs/{job}", "/jm-api/zeta/jobs/{job}"),
    "a queue of a cluster": ("/jm-api/beta/queues/of-beta", "/jm-api/zeta/queues/of-beta"),
    "a cluster of a dialect": ("/clusters/beta/tork/jobs", "/clusters/zeta/tork/jobs"),
}
Ask = Callable[[str], Any]


@pytest.fixture
def of_beta(db: None) -> Things:
    watch.forget()
    make_things("alpha", 1)
    return make_things("beta", 2)


@pytest.fixture
def ask(db: None) -> Ask:
    key = create_key("asker", "admin", ["alpha"])[1]
    return lambda address: _client.get(address, headers={"x-api-key": key})


def is_told_apart(ask: Ask, one: str, other: str) -> bool:
    for _ in range(3):
        taken: tuple[list[int], list[int]] = ([], [])
        for _ in range(SAMPLES):
            for who in random.sample((0, 1), 2):
                begun = time.perf_counter_ns()
                ask((one, other)[who])
                taken[who].append(time.perf_counter_ns() - begun)
        first, second = (statistics.median(times) for times in taken)
        if max(first, second) / min(first, second) < RATIO:
            return False
    return True


@pytest.mark.parametrize("what", PAIRS)
def test_foreign_is_as_missing(what: str, of_beta: Things, ask: Ask) -> None:
    """Red without: the check of a caller's clusters before anything of theirs is looked up."""
    foreign, missing = (address.format_map(of_beta) for address in PAIRS[what])
    answers = [ask(address) for address in (foreign, missing)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert len(answers[0].content) == len(answers[1].content)
    assert len(str(answers[0].headers)) == len(str(answers[1].headers))


@pytest.mark.long
@pytest.mark.parametrize("what", PAIRS)
def test_foreign_takes_as_long_as_missing(what: str, of_beta: Things, ask: Ask) -> None:
    """Red without: the check of a caller's clusters before anything of theirs is looked up."""
    foreign, missing = (address.format_map(of_beta) for address in PAIRS[what])
    assert not is_told_apart(ask, foreign, missing)


@pytest.mark.long
def test_the_test_would_notice(of_beta: Things, ask: Ask) -> None:
    """A list of what is there takes longer than to say that there is nothing."""
    assert is_told_apart(ask, "/jm-api/alpha/jobs", "/jm-api/zeta/jobs")
