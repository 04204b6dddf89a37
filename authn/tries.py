"""Too many tries: failures are counted by identity and by address, in the control database, for all
processes together and for every way to sign in alike.

Ten failures within a minute block for a minute; again ten for two, then four, up to an hour. A try that
fails while its subject is blocked is not counted: nobody keeps a block alive, and none costs a write.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from rest_framework.exceptions import Throttled

from authn.addresses import origin_of
from authn.models import AccessAuditEntry, Tries
from clusters.routers import CONTROL

logger = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)
FIRST_BLOCK = timedelta(minutes=1)
LONGEST_BLOCK = timedelta(hours=1)
# So long without a failure, and the next block is a first one again.
QUIET = timedelta(hours=2)
# Of so many failures one also clears away what is long over.
_CLEAR_ONE_IN = 100


class TooManyTries(Throttled):
    """Too many tries have failed; try again later."""

    default_code = "too_many_tries"
    default_detail = "Too many tries have failed; try again later."
    extra_detail_singular = extra_detail_plural = ""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.wait = max(1, math.ceil(seconds))


def subjects_of(address: str, user: str | None = None, key: str | None = None) -> list[str]:
    """What a try counts for."""
    found = []
    if origin := origin_of(address):
        found.append(f"address:{origin}")
    if user is not None:
        found.append(f"user:{hashlib.sha256(user.encode('utf-8', 'replace')).hexdigest()[:40]}")
    if key is not None:
        found.append(f"key:{key}")
    return found


def blocked_seconds(subjects: Sequence[str]) -> float:
    """How long the longest block of these still lasts; 0 where none is blocked."""
    rows = Tries.objects.filter(pk__in=subjects, blocked_until__gt=Now())
    waits = (until - now for until, now in rows.values_list("blocked_until", Now()))
    return max((wait.total_seconds() for wait in waits), default=0)


def check(subjects: Sequence[str]) -> None:
    """Refuse a try before it costs anything."""
    if seconds := blocked_seconds(subjects):
        raise TooManyTries(seconds)


def count_failure(subjects: Sequence[str]) -> None:
    """Count a try that failed; TooManyTries where others, meanwhile, have used up what is allowed.

    Whoever fails at the same moment in another process waits here, so it is never one too many.
    """
    check(subjects)
    with transaction.atomic(using=CONTROL):
        new = [Tries(subject=subject) for subject in subjects]
        Tries.objects.bulk_create(new, ignore_conflicts=True)
        # In one order everywhere, so that no two wait for each other.
        rows = Tries.objects.select_for_update().filter(pk__in=subjects).order_by("pk")
        counted = [*rows.annotate(now=Now())]
        waits = [row.blocked_until - row.now for row in counted if row.is_blocked(row.now)]  # type: ignore[attr-defined]
        if not waits:
            for row in counted:
                _count(row, row.now)  # type: ignore[attr-defined]
                row.save(force_update=True)
                if row.is_blocked(row.now):  # type: ignore[attr-defined]
                    _tell(row, subjects)
    if waits:
        raise TooManyTries(max(waits).total_seconds())
    if secrets.randbelow(_CLEAR_ONE_IN) == 0:
        Tries.objects.all().forgotten(QUIET).delete()


def forgive(subjects: Iterable[str]) -> None:
    """Somebody has proved who he is: what was tried in his name counts no more.

    His address keeps its count, or an account of one's own would pay for tries at others.
    """
    Tries.objects.filter(pk__in=[s for s in subjects if not s.startswith("address:")]).delete()


def _count(row: Tries, now: datetime) -> None:
    if now - row.last_failed_at >= QUIET:
        row.blocks = 0
    if now - row.counted_since >= WINDOW:
        row.failures, row.counted_since = 0, now
    row.failures += 1
    row.last_failed_at = now
    if row.failures >= settings.TRIES_PER_MINUTE:
        row.blocks = min(row.blocks + 1, 32)
        wait = min(FIRST_BLOCK * 2 ** (row.blocks - 1), LONGEST_BLOCK)
        row.failures, row.blocked_until = 0, now + wait


def _tell(row: Tries, subjects: Sequence[str]) -> None:
    """Leave a trace of a block, not of each try: whoever fills the audit hides in it."""
    logger.warning("too many tries of %s have failed, refused until %s", row, row.blocked_until)
    origin = next((s for s in subjects if s.startswith("address:")), "")
    AccessAuditEntry.objects.create(
        actor="unknown",
        address=origin.removeprefix("address:")[:45],
        verb="tries.block",
        target_type="tries",
        target_id=row.subject,
        after={"blocked_until": str(row.blocked_until), "blocks": row.blocks},
    )
