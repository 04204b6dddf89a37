"""Credentials that were refused, in the audit of access.

One row for all tries of one identity from one address within a minute, which counts them: the one thing
that may change in the audit. Whoever is blocked for too many tries is not counted further, see
``authn.tries``. So that no flood fills the disk, a process starts a hundred rows and then one every ten
seconds; what comes beside them is counted in one row a minute, which names nobody.

Nothing that was sent is kept but the name of a user or a key that exists; of other names a hash.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DatabaseError, models, transaction
from django.db.models import F
from django.utils import timezone

from authn import tries
from authn.addresses import origin_of
from authn.keys import parse_key
from authn.models import REFUSED, AccessAuditEntry, ApiKey
from authn.presented import API_KEY, PASSWORD, Presented
from clusters.routers import CONTROL

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 100
SECONDS_A_ROW = 10.0
OTHERS = "others"


class _Budget:
    """Which rows of the running minute this process has begun, and how many more it may begin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left, self._since = float(ROWS_AT_ONCE), time.monotonic()
        self._minute, self._begun = 0, set[uuid.UUID]()

    def has_room(self, minute: int, row: uuid.UUID) -> bool:
        with self._lock:
            if minute != self._minute:
                self._minute, self._begun = minute, set()
            if row in self._begun:
                return True
            now = time.monotonic()
            self._left = min(ROWS_AT_ONCE, self._left + (now - self._since) / SECONDS_A_ROW)
            self._since = now
            if self._left < 1:
                return False
            self._left -= 1
            self._begun.add(row)
            return True

    def renew(self) -> None:
        self.__init__()  # type: ignore[misc]


budget = _Budget()


def tell(request: Any, credential: Presented, surface: str) -> None:
    """Count a refused credential of this request; nobody is answered differently if that fails."""
    try:
        _tell(request, credential, surface)
    except DatabaseError:
        logger.warning("a refused credential was not told", exc_info=True)


def _tell(request: Any, credential: Presented, surface: str) -> None:
    now = timezone.now()
    minute = int(now.timestamp() // 60)
    target_type, target_id = _whose(credential)
    address = origin_of(str(request.META.get("REMOTE_ADDR", "")))
    told = (credential.mechanism, surface, address, target_type, target_id)
    key = _key(minute, *told)
    if not budget.has_room(minute, key):
        told = ("", "", "", "credential", OTHERS)
        key = _key(minute, *told)
    row = AccessAuditEntry(
        id=key,
        at=now,
        actor="unknown",
        credential=told[0],
        surface=told[1],
        address=told[2][:45],
        verb=REFUSED,
        target_type=told[3],
        target_id=told[4][:200],
        request_id=getattr(request, "request_id", None) or "" if told[2] else "",
        count=0,
    )
    # Not by the manager of the audit, which changes nothing.
    rows: models.QuerySet[AccessAuditEntry] = models.QuerySet(AccessAuditEntry, using=CONTROL)
    with transaction.atomic(using=CONTROL):
        rows.bulk_create([row], ignore_conflicts=True)
        rows.filter(pk=key).update(count=F("count") + 1)


def _key(minute: int, *told: str) -> uuid.UUID:
    """The same for the same identity, address and minute in all processes."""
    text = "\0".join((str(minute), *told))
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return uuid.UUID(bytes=digest[:16])


def _whose(credential: Presented) -> tuple[str, str]:
    if credential.mechanism == PASSWORD:
        model, name = get_user_model(), credential.user
        is_known = (
            "\0" not in name
            and model._default_manager.filter(**{model.USERNAME_FIELD: name}).exists()
        )
        # Somebody may have typed his password there.
        return "user", name if is_known else tries.subjects_of("", user=name)[0]
    parts = parse_key(credential.text) if credential.mechanism == API_KEY else None
    if parts is not None:
        found = ApiKey.objects.filter(public_id=parts[0]).values_list("name", flat=True).first()
        return "api_key", found or parts[0]
    return "credential", ""
