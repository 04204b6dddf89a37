"""`manage.py token`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from authn.tokens import find_principal


@pytest.fixture
def ann(db, django_user_model):
    return django_user_model.objects.create_user("ann", password="x")


def test_it_prints_a_token_and_nothing_else(run, ann):
    done = run("token", "ann")
    assert done.code == 0, done.err
    caller = find_principal(done.out.strip())
    assert caller is not None
    assert caller.actor == "user:ann"


def test_it_lives_as_long_as_asked(run, ann):
    done = run("token", "ann", "--lifetime", "8h", "-o", "json")
    left = datetime.fromisoformat(done.json["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=7, minutes=50) < left <= timedelta(hours=8)
    assert find_principal(done.json["access_token"]) is not None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("bob",), 3),
        (("ann", "--lifetime", "25h"), 2),
        (("ann", "--lifetime", "0s"), 2),
        (("ann", "--lifetime", "long"), 2),
        ((), 2),
    ],
)
def test_bad_input_prints_none(run, ann, words, code):
    done = run("token", *words)
    assert (done.code, done.out) == (code, "")


def test_who_may_not_sign_in_gets_none(run, ann):
    ann.is_active = False
    ann.save()
    assert run("token", "ann").code == 4
