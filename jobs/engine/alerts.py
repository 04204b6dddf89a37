"""Alerts are looked at: every few seconds, by one node, from roll-ups.

A rule is judged, moves on by a guarded UPDATE, and what is news is told by ``alert_notices``. What is
wrong for a moment only does not fire, what is right for a moment does not recover, and after each notice
there is a pause: whoever is told is told how things stand by then.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction

from clusters.policy import ClusterPolicy
from jobs.engine import alert_notices
from jobs.engine.alert_rules import MAX_RULES
from jobs.engine.alert_sight import Sight
from jobs.engine.clock import database_now
from jobs.engine.trouble import is_outage
from jobs.models import AlertEvent, AlertHappened, AlertRule, AlertState, Failure
from jobs.verdicts import Verdict

logger = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
EVENTS_KEPT = timedelta(days=90)
DELETE_EVENTS = 1000


def watch(using: str, policy: ClusterPolicy) -> int:
    """Look at all rules once, and tell what is news; a duty of upkeep, bounded by how many there are."""
    Failure.objects.using(using).all().end_mutes()
    rules = [*AlertRule.objects.using(using).filter(is_enabled=True).order_by("pk")[:MAX_RULES]]
    if not rules:
        return 0
    sight = Sight(using, policy)
    moved = [rule for rule in rules if _look_or_leave(using, rule, sight)]
    alert_notices.tell(using, moved)
    return 0


def _look_or_leave(using: str, rule: AlertRule, sight: Sight) -> bool:
    """One rule that cannot be judged keeps back no other."""
    try:
        return _look(using, rule, sight)
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("alert %s cannot be judged", rule.pk)
        return False


def _look(using: str, rule: AlertRule, sight: Sight) -> bool:
    """Judge a rule and move it on; False where another node was faster."""
    columns = _next(rule, sight.verdict(rule), sight.now)
    if not columns:
        return True
    with transaction.atomic(using=using):
        if not AlertRule.objects.using(using).all().take_turn(rule, **columns):
            return False
        if "state" in columns:
            is_firing = rule.state == AlertState.FIRING
            AlertEvent.objects.using(using).create(
                rule=rule,
                at=sight.now,
                what=AlertHappened.FIRED if is_firing else AlertHappened.RECOVERED,
                sentence=rule.sentence,
            )
    return True


def _next(rule: AlertRule, verdict: Verdict, now: datetime) -> dict[str, Any]:
    """The columns that change."""
    wrong = (rule.wrong_since or now) if verdict.is_wrong else None
    right = None if verdict.is_wrong else (rule.right_since or now)
    wanted: dict[str, Any] = {"wrong_since": wrong, "right_since": right}
    is_firing = rule.state == AlertState.FIRING
    if wrong is not None and not is_firing and _for(now - wrong, rule.for_seconds):
        wanted |= {"state": AlertState.FIRING.value, "state_since": now}
        is_firing = True
    elif right is not None and is_firing and _for(now - right, rule.clear_after_seconds):
        wanted |= {"state": AlertState.OK.value, "state_since": now}
        wanted |= {"acknowledged_at": None, "acknowledged_by": "", "acknowledge_reason": ""}
    if verdict.is_wrong or "state" in wanted:
        # Of one that fires and is right for a moment it still says why it fired.
        wanted |= {"sentence": verdict.sentence, "page": verdict.page or rule.page}
    return {name: value for name, value in wanted.items() if getattr(rule, name) != value}


def _for(length: timedelta, seconds: float) -> bool:
    return length >= timedelta(seconds=seconds)


def forget(using: str, policy: ClusterPolicy) -> int:
    """Delete some of the history that is kept no longer."""
    now = database_now(connections[using])
    old = AlertEvent.objects.using(using).filter(at__lt=now - EVENTS_KEPT)
    if not old.exists():
        return 0
    keys = [*old.order_by("at").values_list("pk", flat=True)[:DELETE_EVENTS]]
    return AlertEvent.objects.using(using).filter(pk__in=keys)._raw_delete(using) or 0
