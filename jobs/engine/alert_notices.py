"""Telling people of alerts: deliveries are jobs of kind ``webhook``, made in the transaction of the news.

They are kept, signed, tried again and guarded like all such jobs, in a queue of their own: an alert about
a long or a paused queue must not wait in it. Of many at once one delivery tells, not one each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connections, transaction

from clusters.binding import current_cluster
from jobs.engine.clock import database_now
from jobs.engine.enqueue import enqueue_many
from jobs.engine.new_job import NewJob
from jobs.engine.webhook_bodies import moment
from jobs.engine.webhooks import KIND, MAX_ATTEMPTS, RETRY, TIMEOUT_SECONDS
from jobs.errors import JobError, QueueFull
from jobs.models import AlertEvent, AlertHappened, AlertRule, AlertState, Queue
from jobs.models.queue import ALERT_QUEUE

logger = logging.getLogger(__name__)

FIRING, RECOVERED, SUMMARY, TEST = (
    *("alert.firing", "alert.recovered", "alert.summary", "alert.test"),
)
# More than so many for one address at once are told in one delivery, which names so many.
SUMMARY_FROM, MOST_NAMED = 5, 50
HIGHEST_PRIORITY = -100
BY = "alerts"


def tell(using: str, rules: Sequence[AlertRule]) -> int:
    """Tell whoever wants to know of these rules what is news; returns how many deliveries."""
    now = database_now(connections[using])
    by_address: dict[str, list[AlertRule]] = {}
    for rule in rules:
        if rule.is_to_be_told(now):
            by_address.setdefault(rule.webhook_url, []).append(rule)
    return sum(_tell_address(using, url, due, now) for url, due in by_address.items())


def _tell_address(using: str, url: str, due: Sequence[AlertRule], now: datetime) -> int:
    try:
        with transaction.atomic(using=using):
            rows = AlertRule.objects.using(using).all()
            news = [r for r in due if rows.take_turn(r, told_state=r.state, told_at=now)]
            if not news or not url:
                return 0
            bodies: list[tuple[Sequence[AlertRule], dict[str, Any]]]
            if len(news) > SUMMARY_FROM:
                bodies = [(news, _summary(news, now))]
            else:
                bodies = [([rule], body_of(rule, now)) for rule in news]
            return _deliver(using, url, bodies)
    except QueueFull as error:
        # Nothing was kept; the next round tells.
        logger.warning("alerts wait: %s", error)
        return 0


def _deliver(
    using: str, url: str, bodies: Sequence[tuple[Sequence[AlertRule], dict[str, Any]]]
) -> int:
    told = 0
    for rules, body in bodies:
        job_id, error = _enqueue(using, url, body)
        told += error is None
        AlertEvent.objects.using(using).bulk_create(
            AlertEvent(
                rule=rule,
                what=AlertHappened.TOLD if error is None else AlertHappened.UNTOLD,
                sentence=error or body["event"],
                job_id=job_id,
            )
            for rule in rules
        )
    return told


def _enqueue(using: str, url: str, body: Mapping[str, Any]) -> tuple[UUID | None, str | None]:
    """The delivery's id, or why nobody could deliver it."""
    try:
        with transaction.atomic(using=using):
            made = _put(using, url, body, by=BY)
    except QueueFull:
        raise
    except JobError as error:
        logger.warning("an alert cannot be told: %s", error)
        return None, str(error)[:500]
    return made, None


def send_test(rule: AlertRule, now: datetime, *, by: str) -> AlertEvent:
    """A delivery that says it is a test, in the running transaction."""
    using = rule._state.db or AlertRule.objects.all().db
    job_id = _put(using, rule.webhook_url, body_of(rule, now, is_test=True), by=by)
    events = AlertEvent.objects.using(using)
    return events.create(rule=rule, what=AlertHappened.TESTED, by=by[:200], job_id=job_id)


def _put(using: str, url: str, body: Mapping[str, Any], *, by: str) -> UUID:
    Queue.objects.using(using).bulk_create([Queue(name=ALERT_QUEUE)], ignore_conflicts=True)
    (made,) = enqueue_many([_delivery(url, body)], by=by)
    return UUID(made.job_id)


def _delivery(url: str, body: Mapping[str, Any]) -> NewJob:
    return NewJob(
        kind=KIND,
        queue=ALERT_QUEUE,
        priority=HIGHEST_PRIORITY,
        payload={"url": url, "headers": {}, "event": body["event"], "body": dict(body)},
        max_attempts=MAX_ATTEMPTS,
        timeout_seconds=TIMEOUT_SECONDS,
        is_of_engine=True,
        metadata={"event": body["event"]},
        **RETRY,
    )


# -- What is said ----------------------------------------------------------------------------------


def link_to(page: str) -> str:
    """The address of a page of the bound cluster; without a public address only its path."""
    return f"{settings.PUBLIC_URL}/admin/{current_cluster().id}/{page}"


def body_of(rule: AlertRule, now: datetime, *, is_test: bool = False) -> dict[str, Any]:
    is_firing = rule.state == AlertState.FIRING
    event = TEST if is_test else FIRING if is_firing else RECOVERED
    told = _told_of(rule)
    words = {TEST: "TEST of", FIRING: "FIRING", RECOVERED: "RECOVERED"}[event]
    return {
        "event": event,
        "is_test": is_test,
        "at": moment(now),
        "cluster": _cluster(),
        "alert": told,
        # Chat systems show this field of whatever they are sent.
        "text": f"[{current_cluster().id}] {words} {rule.name}: {told['message']} {told['link']}",
    }


def _summary(rules: Sequence[AlertRule], now: datetime) -> dict[str, Any]:
    firing = sum(rule.state == AlertState.FIRING for rule in rules)
    told = f"{firing} alerts fire, {len(rules) - firing} have recovered"
    link = link_to("alerts/")
    return {
        "event": SUMMARY,
        "is_test": False,
        "at": moment(now),
        "cluster": _cluster(),
        "firing": firing,
        "recovered": len(rules) - firing,
        "link": link,
        "alerts": [_told_of(rule) for rule in rules[:MOST_NAMED]],
        "text": f"[{current_cluster().id}] {told}. {link}",
    }


def _cluster() -> dict[str, str]:
    cluster = current_cluster()
    return {"id": cluster.id, "title": cluster.title, "environment": cluster.environment}


def _told_of(rule: AlertRule) -> dict[str, Any]:
    return {
        "id": str(rule.pk),
        "name": rule.name,
        "kind": rule.kind,
        "severity": rule.severity,
        "state": rule.state,
        "since": moment(rule.state_since),
        "message": rule.sentence or "Not looked at yet.",
        "link": link_to(rule.page or f"alerts/{rule.pk}/"),
        "alert_link": link_to(f"alerts/{rule.pk}/"),
    }
