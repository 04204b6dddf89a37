"""Names and passwords: hashed slowly, but not with every request, and never many at a time."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password

from authn import hashers, passwords
from authn.hashers import PatientPBKDF2PasswordHasher
from authn.hashing import Busy, Gate, gate
from authn.models import UserRole
from authn.passwords import find_principal, nobodys_password, proofs
from authn.tries import TooManyTries
from config import settings as own_settings
from tests.api.conftest import Api, check_problem
from tests.processes import ROOT

pytestmark = pytest.mark.django_db
HERE = "192.0.2.1"


@pytest.fixture
def ann(django_user_model: Any) -> Any:
    user = django_user_model.objects.create_user("ann", password="secret")
    UserRole.objects.create(user=user, cluster_id="alpha", role="operator")
    return user


@pytest.fixture(autouse=True)
def _calm() -> None:
    gate._suspicious_until = 0.0


@pytest.fixture
def hashed(monkeypatch: Any) -> list[str]:
    """What was hashed, in order."""
    seen: list[str] = []
    original = passwords.check_password

    def check(password: str, *args: Any, **kwargs: Any) -> bool:
        seen.append(password)
        return original(password, *args, **kwargs)

    monkeypatch.setattr(passwords, "check_password", check)
    monkeypatch.setattr("django.contrib.auth.base_user.check_password", check)
    return seen


def test_passwords_are_stored_as_pbkdf2_with_enough_rounds() -> None:
    assert own_settings.PASSWORD_HASHERS == ["authn.hashers.PatientPBKDF2PasswordHasher"]
    assert PatientPBKDF2PasswordHasher.iterations >= 100_000
    assert PatientPBKDF2PasswordHasher.algorithm == "pbkdf2_sha256"


def test_a_password_that_was_stored_by_django_is_one_of_ours() -> None:
    stored = PBKDF2PasswordHasher().encode("secret", "salt" * 6)
    ours = PatientPBKDF2PasswordHasher()
    assert ours.encode("secret", "salt" * 6) == stored
    assert ours.verify("secret", stored) and not ours.verify("Secret", stored)


@pytest.mark.skipif(sys.platform != "linux", reason="only there threads have a priority each")
def test_a_hash_makes_way_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def niceness() -> str:
        return str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    own = niceness()
    made_way = str(min(int(own) + hashers.NICENESS, 19))
    assert hashers._after_others(niceness) == made_way
    assert niceness() == own
    # While somebody guesses, and at no other time: beside busy cores it would take seconds.
    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", lambda *_: niceness())
    monkeypatch.setattr(hashers, "gate", Gate(1))
    assert PatientPBKDF2PasswordHasher().encode("x", "y") == own
    hashers.gate.saw_failure()
    assert PatientPBKDF2PasswordHasher().encode("x", "y") == made_way


def test_nobodys_password_is_of_the_same_sort(settings: Any) -> None:
    settings.PASSWORD_HASHERS = own_settings.PASSWORD_HASHERS
    nobodys_password.cache_clear()
    shape = re.compile(r"pbkdf2_sha256\$(\d+)\$[^$]{16,}\$[A-Za-z0-9+/=]{44}\Z")
    found, real = (shape.match(text) for text in (nobodys_password(), make_password("x")))
    assert found and real and found[1] == real[1]
    nobodys_password.cache_clear()


def test_a_password_says_who_somebody_is(ann: Any) -> None:
    caller = find_principal("ann", "secret", HERE)
    assert caller is not None
    assert (caller.actor, caller.role_on("alpha")) == ("user:ann", "operator")
    for name, password in (("ann", "Secret"), ("ann", ""), ("Ann", "secret"), ("", "secret")):
        assert find_principal(name, password, HERE) is None


@pytest.mark.parametrize(
    ("name", "password"), [("ann\0", "secret"), ("a" * 151, "x"), ("ann", "x" * 1025)]
)
def test_what_nobody_can_have_is_not_hashed(
    name: str, password: str, ann: Any, hashed: list[str]
) -> None:
    assert find_principal(name, password, HERE) is None
    assert hashed == []


def test_a_good_password_is_hashed_once_a_minute(
    ann: Any, hashed: list[str], monkeypatch: Any
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(passwords.time, "monotonic", lambda: clock[0])
    for _ in range(5):
        assert find_principal("ann", "secret", HERE) is not None
    assert hashed == ["secret"]
    clock[0] += 44
    assert find_principal("ann", "secret", HERE) is not None
    assert hashed == ["secret"]
    clock[0] += 17
    assert find_principal("ann", "secret", HERE) is not None
    assert hashed == ["secret"] * 2


def test_a_wrong_password_is_never_remembered(ann: Any, hashed: list[str]) -> None:
    for _ in range(3):
        assert find_principal("ann", "wrong", HERE) is None
    assert hashed == ["wrong"] * 3


def test_what_is_remembered_is_no_password(ann: Any) -> None:
    find_principal("ann", "secret", HERE)
    kept = b"".join(proofs._at)
    assert len(kept) == 32
    assert b"secret" not in kept
    assert proofs.of("a", "bc", "x") != proofs.of("ab", "c", "x")


@pytest.mark.parametrize("change", ["password", "barred", "deleted"])
def test_what_is_remembered_ends_with_the_password_and_the_user(change: str, ann: Any) -> None:
    assert find_principal("ann", "secret", HERE) is not None
    if change == "password":
        ann.set_password("another")
        ann.save()
    elif change == "barred":
        ann.is_active = False
        ann.save()
    else:
        ann.delete()
    assert find_principal("ann", "secret", HERE) is None


def test_an_unknown_name_is_hashed_as_a_known_one_is(
    ann: Any, hashed: list[str], django_user_model: Any
) -> None:
    django_user_model.objects.create_user("barred", password="secret", is_active=False)
    django_user_model.objects.create_user("without")
    for name in ("bob", "barred", "without"):
        assert find_principal(name, "secret", HERE) is None
    assert hashed == ["secret"] * 3


# -- One at a time ---------------------------------------------------------------------------------


def test_while_one_is_hashed_another_is_asked_to_come_again(ann: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("authn.hashing.PATIENCE_SECONDS", 0.05)
    with gate.passed(), pytest.raises(TooManyTries) as refused:
        find_principal("ann", "secret", HERE)
    assert refused.value.wait == 1
    assert find_principal("ann", "secret", HERE) is not None


def test_who_is_remembered_waits_for_nobody(ann: Any, monkeypatch: Any) -> None:
    clock = [1000.0]
    monkeypatch.setattr(passwords.time, "monotonic", lambda: clock[0])
    assert find_principal("ann", "secret", HERE) is not None
    clock[0] += 50
    # His proof is old enough to be renewed, and good enough while that is not possible.
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with gate._thread:
            held.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    gate._suspicious_until = float("inf")
    try:
        assert find_principal("ann", "secret", HERE) is not None
    finally:
        gate._suspicious_until = 0.0
        let_go.set()
        holder.join()


def test_the_gate_holds_over_processes() -> None:
    script = """
import os, signal
from authn.hashing import Busy, Gate
gate = Gate(1)
told, ready = os.pipe()
child = os.fork()
if not child:
    with gate.passed():
        os.write(ready, b"x")
        signal.pause()
    os._exit(0)
os.read(told, 1)
try:
    with gate.passed():
        print("both")
except Busy:
    print("busy")
os.kill(child, 9)
os.waitpid(child, 0)
with gate.passed():
    print("free")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["busy", "free"]


def test_after_a_wrong_one_nobody_waits(monkeypatch: Any) -> None:
    monkeypatch.setattr("authn.hashing.PATIENCE_SECONDS", 60.0)
    one = Gate(1)
    one.saw_failure()
    refused = threading.Event()

    def ask() -> None:
        try:
            with one.passed():
                pass
        except Busy:
            refused.set()

    with one.passed():
        other = threading.Thread(target=ask)
        other.start()
        other.join(30)
    assert refused.is_set()


# -- Over HTTP -------------------------------------------------------------------------------------


def test_headers_and_basic_carry_a_password(ann: Any) -> None:
    api = Api(None)
    pair = base64.b64encode(b"ann:secret").decode()
    for headers in (
        {"X-User-Name": "ann", "X-Password": "secret"},
        {"authorization": f"Basic {pair}"},
        {"authorization": f"bAsIc {pair}"},
    ):
        assert api.get("alpha/jobs", **headers).status_code == 200
        check_problem(api.get("beta/jobs", **headers), 404, "not_found")
    wrong = {"X-User-Name": "ann", "X-Password": "wrong"}
    check_problem(api.get("alpha/jobs", **wrong), 401, "invalid_credentials")


def test_a_password_may_hold_a_colon(ann: Any) -> None:
    ann.set_password("a:b:c")
    ann.save()
    pair = base64.b64encode(b"ann:a:b:c").decode()
    assert Api(None).get("whoami", authorization=f"Basic {pair}").status_code == 200
