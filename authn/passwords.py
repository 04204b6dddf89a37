"""Users who say who they are with a name and a password.

Refused before anything is hashed where too many tries have failed. A success is remembered for a minute,
under an HMAC of name, password and the hash that is stored: whoever sends his password with each request
costs one hash a minute and process, and a changed password or a barred user is noticed at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import (
    PBKDF2PasswordHasher,
    check_password,
    get_hasher,
    make_password,
)

from authn import providers, tries
from authn.hashing import Busy, gate
from authn.principal import Principal
from authn.users import principal_of

REMEMBERED_SECONDS = 60.0
# From then on the first of several requests proves it again, while the others go on.
RENEWED_AFTER_SECONDS = 45.0
MAX_REMEMBERED = 10_000
MAX_NAME, MAX_PASSWORD = 150, 1024
BUSY_SECONDS = 1.0

Claim = tuple[str, Callable[[str], bool], Callable[[], Principal | None]]


class _Proofs:
    """Which proofs were good, and when; the oldest give way."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._at: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, *parts: str) -> bytes:
        # Lengths first: no two triples are written alike.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)

    def age(self, proof: bytes) -> float:
        with self._lock:
            at = self._at.get(proof)
        return float("inf") if at is None else time.monotonic() - at

    def remember(self, proof: bytes) -> None:
        with self._lock:
            self._at[proof] = time.monotonic()
            self._at.move_to_end(proof)
            while len(self._at) > MAX_REMEMBERED:
                self._at.popitem(last=False)

    def forget(self) -> None:
        with self._lock:
            self._at.clear()


proofs = _Proofs()


def find_principal(name: str, password: str, address: str) -> Principal | None:
    """The caller whose name and password these are; None for every pair that is not good."""
    subjects = tries.subjects_of(address, user=name)
    stored, verify, who = _claim_of(name)
    proof = proofs.of(name, password, stored)
    age = proofs.age(proof)
    if age < RENEWED_AFTER_SECONDS:
        return who()
    is_remembered = age < REMEMBERED_SECONDS
    if not is_remembered:
        tries.check(subjects)
    try:
        with gate.passed():
            # Whoever was here a moment ago may have had the same.
            if proofs.age(proof) < RENEWED_AFTER_SECONDS:
                return who()
            if not is_remembered:
                tries.check(subjects)
            is_good = _is_sayable(name, password) and verify(password)
    except Busy:
        if is_remembered:
            return who()
        raise tries.TooManyTries(BUSY_SECONDS) from None
    if not is_good:
        gate.saw_failure()
        tries.count_failure(subjects)
        return None
    proofs.remember(proof)
    tries.forgive(subjects)
    return who()


def _claim_of(name: str) -> Claim:
    """What is stored of somebody's password, what checks it, and who he is; the same for nobody."""
    provided = providers.user_named(name)
    if provided is not None:
        stored, verify, principal = provided
        return stored, verify, lambda: principal
    user = _user_named(name)
    if user is None or not user.is_active or not user.has_usable_password():
        stored = nobodys_password()
        return stored, lambda password: check_password(password, stored) and False, lambda: None
    return str(user.password), user.check_password, lambda: principal_of(user)


def _user_named(name: str) -> Any:
    if not _is_sayable(name, ""):
        return None
    model = get_user_model()
    return model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()


def _is_sayable(name: str, password: str) -> bool:
    """A name and a password that could be anybody's."""
    return 0 < len(name) <= MAX_NAME and len(password) <= MAX_PASSWORD and "\0" not in name


@lru_cache(maxsize=1)
def nobodys_password() -> str:
    """A stored password that nobody knows, so that an unknown name takes as long as a known one."""
    hasher = get_hasher()
    if isinstance(hasher, PBKDF2PasswordHasher):
        # Of no password at all, and made without the time that a hash takes.
        nothing = base64.b64encode(secrets.token_bytes(hasher.digest().digest_size)).decode()
        return f"{hasher.algorithm}${hasher.iterations}${hasher.salt()}${nothing}"
    return make_password(secrets.token_urlsafe(32))
