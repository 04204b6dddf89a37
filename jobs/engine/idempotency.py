"""Answer a repeated request with the first reply, and let its effect happen once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import OperationalError, transaction
from django.db.models.functions import Now

from clusters.policy import ClusterPolicy
from jobs.errors import Conflict, InvalidJob
from jobs.models import IdempotencyKey, Job

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: Any
    is_repeat: bool = False


class KeyReused(InvalidJob):
    """This Idempotency-Key was used for a different request."""

    code = "idempotency_key_reused"


def once(
    principal: str,
    key: str,
    request_hash: str,
    effect: Callable[[], tuple[int, Any]],
    *,
    kept_for: timedelta = KEPT_FOR,
    scope: str = "",
    holds: Callable[[Any], bool] | None = None,
) -> Reply:
    """Run ``effect`` and keep its reply; for a repeat of the same request return the kept one.

    Keys of one ``scope`` are apart from those of all others. ``kept_for`` is at most the day that upkeep
    leaves them. Where a reply no longer ``holds`` the request is as good as new.

    Row, effect and reply are one transaction. A second request that arrives while the first still
    runs waits on the unique key, and is a conflict when that takes longer than the lock limit.
    """
    if scope:
        # No surface takes keys with a tab in them.
        key = f"{scope}\t{key}"
    using = Job.objects.all().db
    keys = IdempotencyKey.objects.using(using)
    is_first = False
    try:
        with transaction.atomic(using=using):
            keys.filter(principal=principal, key=key, created_at__lt=Now() - kept_for).delete()
            row = IdempotencyKey(principal=principal, key=key, request_hash=request_hash)
            inserted = keys.bulk_create([row], ignore_conflicts=True)
            kept = keys.select_for_update().get(principal=principal, key=key)
            if kept.status is not None:
                if holds is None or holds(kept.reply):
                    return _repeat(kept, request_hash)
                keys.filter(pk=kept.pk).update(request_hash=request_hash, created_at=Now())
            else:
                assert inserted
            is_first = True
            status, body = effect()
            keys.filter(pk=kept.pk).update(status=status, reply=body)
            return Reply(status, body)
    except OperationalError as error:
        is_locked = getattr(error.__cause__, "sqlstate", None) == "55P03" or "locked" in str(error)
        # A lock that the effect itself could not have is another matter.
        if is_locked and not is_first:
            raise Conflict(
                "the first request with this Idempotency-Key is still running; try again",
                field="Idempotency-Key",
            ) from error
        raise


def _repeat(kept: IdempotencyKey, request_hash: str) -> Reply:
    if kept.request_hash != request_hash:
        raise KeyReused(field="Idempotency-Key")
    return Reply(kept.status or 200, kept.reply, is_repeat=True)


def prune(using: str, policy: ClusterPolicy, limit: int = 500) -> int:
    """Forget some replies that nobody may ask for any more; a duty of upkeep."""
    keys = IdempotencyKey.objects.using(using)
    old = keys.filter(created_at__lt=Now() - KEPT_FOR).order_by("id").values_list("pk", flat=True)
    if not (ids := [*old[:limit]]):
        return 0
    deleted: int = keys.filter(pk__in=ids)._raw_delete(using)
    return deleted
