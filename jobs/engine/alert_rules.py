"""What people do with alerts: make, change and delete rules, acknowledge and mute them, and try them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, router
from django.db.models import F

from clusters.deeds import deed, differences
from clusters.models import current_policy
from jobs.engine import alert_notices
from jobs.engine.alert_sight import MOST_LOOKED_AT, Sight
from jobs.engine.clock import database_now
from jobs.errors import (
    AlertNotFiring,
    AlertNotFound,
    DuplicateAlert,
    InvalidAlert,
    InvalidJob,
    OutdatedAlert,
)
from jobs.executors import webhook
from jobs.models import AlertEvent, AlertHappened, AlertKind, AlertRule, AlertSeverity, AlertState
from jobs.models.alert import MAX_NAME_LENGTH, MAX_URL_LENGTH
from jobs.models.failure import LONGEST_MUTE
from jobs.models.queue_policies import text_problem
from jobs.verdicts import Verdict

TARGET = "alert"
MAX_RULES = 100
MAX_REASON_LENGTH = 500
DAY = 86400


@dataclass(frozen=True, slots=True)
class Limit:
    """What a number of a rule may be; ``default`` None: it must be said."""

    low: float
    high: float
    default: float | None = None
    is_whole: bool = False


# What is watched, by kind: the words a rule of it has, beside those that all have.
_COUNT = Limit(1, 1_000_000, 10, is_whole=True)
_AGE = Limit(1, 400 * DAY, 300)
FIELDS: Mapping[str, Mapping[str, Limit | None]] = {
    AlertKind.FAILURE_RATE: {
        "queue": None,
        "type": None,
        "ratio": Limit(0, 1, 0.1),
        "at_least": _COUNT,
        "window_seconds": Limit(60, DAY, 900, is_whole=True),
    },
    AlertKind.OLDEST_READY: {"queue": None, "limit_seconds": _AGE},
    AlertKind.DEAD_NODES: {
        "at_least": Limit(1, MOST_LOOKED_AT, 1, is_whole=True),
        "window_seconds": Limit(60, DAY, 900, is_whole=True),
    },
    AlertKind.LATE_SCHEDULES: {"limit_seconds": _AGE},
    AlertKind.HEARTBEAT: {
        "queue": None,
        "type": None,
        "schedule_id": None,
        "limit_seconds": Limit(60, 400 * DAY),
    },
}
WATCHED = (
    *("queue", "type", "schedule_id", "ratio", "at_least", "window_seconds", "limit_seconds"),
)
_OF_ALL = {
    "for_seconds": Limit(0, DAY),
    "clear_after_seconds": Limit(0, DAY),
    "quiet_seconds": Limit(0, 7 * DAY),
}
SAID = ("name", "kind", "severity", "is_enabled", *WATCHED, *_OF_ALL, "webhook_url")
_STANDS = ("state", "wrong_since", "right_since", "told_state", "acknowledged_at")


def create(values: Mapping[str, Any], *, by: str) -> AlertRule:
    """Make a rule; it is looked at within seconds."""
    using = router.db_for_write(AlertRule)
    rule = AlertRule(created_by=by[:200], updated_by=by[:200])
    _set(rule, values, is_new=True)
    if AlertRule.objects.using(using).count() >= MAX_RULES:
        raise InvalidAlert(f"a cluster has at most {MAX_RULES} alerts", field="name")
    with _named(rule.name), deed("alerts.create", TARGET, rule.pk, using=using) as trace:
        rule.save(using=using, force_insert=True)
        trace.after = _told_of(rule)
    rule.refresh_from_db(using=using)
    return rule


def change(
    rule_id: UUID, values: Mapping[str, Any], *, by: str, versions: Collection[int] | None = None
) -> AlertRule:
    """Change a rule. One that watches something else begins anew, and has fired for nothing."""
    with _held("alerts.change", rule_id, versions) as (rule, trace):
        before = _told_of(rule)
        _set(rule, values, is_new=False)
        columns = {name: getattr(rule, name) for name in SAID}
        if any(before[name] != columns[name] for name in ("kind", "is_enabled", *WATCHED)):
            columns |= _anew(rule)
        columns |= {"updated_by": by[:200], "updated_at": database_now(_connection(rule))}
        rows = AlertRule.objects.using(rule._state.db).filter(pk=rule.pk)
        with _named(rule.name):
            rows.update(**columns, version=F("version") + 1, turn=F("turn") + 1)
        trace.before, trace.after = differences(before, _told_of(rule))
    return get(rule_id)


def delete(rule_id: UUID, *, versions: Collection[int] | None = None, reason: str = "") -> None:
    """Forget a rule with its history; whoever was told of it is told nothing more."""
    with _held("alerts.delete", rule_id, versions, reason) as (rule, trace):
        trace.before = _told_of(rule)
        rule.delete()


def acknowledge(rule_id: UUID, *, by: str, reason: str = "") -> AlertRule:
    """Somebody has it: it stays so until it recovers."""
    _check_reason(reason)
    with _held("alerts.acknowledge", rule_id, None, reason) as (rule, trace):
        if rule.state != AlertState.FIRING:
            raise AlertNotFiring
        now = database_now(_connection(rule))
        said = {"acknowledged_by": by[:200], "acknowledged_at": now, "acknowledge_reason": reason}
        _say(rule, AlertHappened.ACKNOWLEDGED, by, reason, **said)
        trace.after = {"sentence": rule.sentence}
    return get(rule_id)


def mute(
    rule_id: UUID,
    *,
    by: str,
    until: datetime | None = None,
    seconds: float | None = None,
    reason: str = "",
) -> AlertRule:
    """Tell nobody until then. What has changed by then is told then."""
    _check_reason(reason)
    if (until is None) is (seconds is None):
        raise InvalidAlert("say until when, or for how long", field="until")
    with _held("alerts.mute", rule_id, None, reason) as (rule, trace):
        now = database_now(_connection(rule))
        if until is None:
            until = now + timedelta(seconds=_number("seconds", seconds, _MUTE))
        if not timedelta() < until - now < LONGEST_MUTE:
            raise InvalidAlert("must lie ahead, at most ten years", field="until")
        said = {"muted_by": by[:200], "muted_until": until, "mute_reason": reason}
        _say(rule, AlertHappened.MUTED, by, reason, **said)
        trace.after = {"muted_until": until}
    return get(rule_id)


def unmute(rule_id: UUID, *, by: str) -> AlertRule:
    """Tell people again."""
    with _held("alerts.mute", rule_id, None) as (rule, trace):
        trace.before = {"muted_until": rule.muted_until}
        trace.after = {"muted_until": None}
        said = {"muted_by": "", "muted_until": None, "mute_reason": ""}
        _say(rule, AlertHappened.UNMUTED, by, "", **said)
    return get(rule_id)


def test(rule_id: UUID, *, by: str) -> AlertEvent:
    """Send a delivery that says it is a test; its answer is on the job that is named."""
    with _held("alerts.test", rule_id, None) as (rule, trace):
        if not rule.webhook_url:
            raise InvalidAlert("there is nobody to tell: it has no webhook", field="webhook_url")
        event = alert_notices.send_test(rule, database_now(_connection(rule)), by=by)
        trace.after = {"job_id": event.job_id}
    return event


def preview(values: Mapping[str, Any]) -> Verdict:
    """Whether such a rule would be wrong at this moment, and why; nothing is kept."""
    rule = AlertRule()
    _set(rule, {"name": "preview", **values}, is_new=True)
    return Sight(AlertRule.objects.all().db, current_policy()).verdict(rule)


def get(rule_id: UUID) -> AlertRule:
    """The rule of the bound cluster with this id."""
    found = AlertRule.objects.filter(pk=rule_id).first()
    if found is None:
        raise AlertNotFound
    return found


# -- The row ---------------------------------------------------------------------------------------

_MUTE = Limit(1, LONGEST_MUTE.total_seconds() - 1)


@contextmanager
def _held(
    verb: str, rule_id: UUID, versions: Collection[int] | None, reason: str = ""
) -> Iterator[tuple[AlertRule, Any]]:
    using = router.db_for_write(AlertRule)
    with deed(verb, TARGET, rule_id, using=using, reason=reason) as trace:
        rows = AlertRule.objects.using(using).filter(pk=rule_id)
        rule = rows.select_for_update(no_key=True).first()
        if rule is None:
            raise AlertNotFound
        if versions is not None and rule.version not in versions:
            raise OutdatedAlert
        yield rule, trace


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        if "name" not in str(error).lower():
            raise
        raise DuplicateAlert(f"there is an alert named {name!r}", field="name") from None


def _say(rule: AlertRule, what: AlertHappened, by: str, sentence: str, **columns: Any) -> None:
    using = rule._state.db
    AlertRule.objects.using(using).filter(pk=rule.pk).update(**columns, turn=F("turn") + 1)
    AlertEvent.objects.using(using).create(rule=rule, what=what, by=by[:200], sentence=sentence)


def _anew(rule: AlertRule) -> dict[str, Any]:
    """As if nothing had been looked at yet."""
    fresh = {"state": AlertState.OK, "told_state": AlertState.OK, "sentence": "", "page": ""}
    nothing = dict.fromkeys(("wrong_since", "right_since", "acknowledged_at", "told_at"))
    return {**fresh, **nothing, "state_since": database_now(_connection(rule))}


def _connection(rule: AlertRule) -> Any:
    return connections[rule._state.db or AlertRule.objects.all().db]


def _told_of(rule: AlertRule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in SAID}


# -- What may be said ------------------------------------------------------------------------------


def _set(rule: AlertRule, values: Mapping[str, Any], *, is_new: bool) -> None:
    kind = values.get("kind", rule.kind)
    if kind not in FIELDS:
        raise InvalidAlert(f"must be one of {', '.join(FIELDS)}", field="kind")
    is_other = kind != rule.kind
    rule.kind = kind
    fields = FIELDS[kind]
    for name, value in values.items():
        if name in WATCHED and name not in fields and value is not None:
            raise InvalidAlert(f"an alert of kind {kind} has no such word", field=name)
    for name in WATCHED:
        given = values.get(name, None if is_other else getattr(rule, name))
        setattr(rule, name, _watched(name, given, fields) if name in fields else None)
    for name, limit in _OF_ALL.items():
        if values.get(name) is not None:
            setattr(rule, name, _number(name, values[name], limit))
    _set_rest(rule, values)
    if kind == AlertKind.HEARTBEAT:
        _check_heartbeat(rule)
    if is_new and not rule.name:
        raise InvalidAlert("must not be empty", field="name")


def _set_rest(rule: AlertRule, values: Mapping[str, Any]) -> None:
    if "name" in values:
        rule.name = _text("name", values["name"], MAX_NAME_LENGTH)
        if not rule.name.strip():
            raise InvalidAlert("must not be empty", field="name")
    if "severity" in values:
        if values["severity"] not in AlertSeverity.values:
            words = ", ".join(AlertSeverity.values)
            raise InvalidAlert(f"must be one of {words}", field="severity")
        rule.severity = values["severity"]
    if "is_enabled" in values:
        rule.is_enabled = bool(values["is_enabled"])
    if "webhook_url" in values:
        rule.webhook_url = _text("webhook_url", values["webhook_url"] or "", MAX_URL_LENGTH)
        _check_address(rule.webhook_url)


def _watched(name: str, value: Any, fields: Mapping[str, Limit | None]) -> Any:
    limit = fields[name]
    if limit is not None:
        return _number(name, limit.default if value is None else value, limit)
    if value in (None, ""):
        return None
    return value if name == "schedule_id" else _text(name, value, 100 if name == "queue" else 200)


def _number(name: str, value: Any, limit: Limit) -> Any:
    if value is None:
        raise InvalidAlert("must be said", field=name)
    is_number = type(value) is int or (type(value) is float and math.isfinite(value))
    if not is_number or (limit.is_whole and int(value) != value):
        raise InvalidAlert(f"must be a {'whole ' if limit.is_whole else ''}number", field=name)
    if not limit.low <= value <= limit.high:
        raise InvalidAlert(f"must be between {limit.low:g} and {limit.high:g}", field=name)
    return int(value) if limit.is_whole else float(value)


def _text(name: str, value: Any, longest: int) -> str:
    if problem := text_problem(value, longest):
        raise InvalidAlert(problem, field=name)
    return str(value)


def _check_reason(reason: str) -> None:
    _text("reason", reason, MAX_REASON_LENGTH)


def _check_heartbeat(rule: AlertRule) -> None:
    if (rule.type is None) is (rule.schedule_id is None):
        raise InvalidAlert("watches a type of jobs or a schedule, and one of them", field="type")
    if rule.schedule_id is not None and rule.queue is not None:
        raise InvalidAlert("goes with a type, and not with a schedule", field="queue")


def _check_address(url: str) -> None:
    """Refuse what nobody could deliver to; where it leads is checked by the guard at each delivery."""
    if not url:
        return
    try:
        webhook.validate({"url": url, "headers": {}, "event": "alert.test", "body": {}})
    except InvalidJob as error:
        raise InvalidAlert(str(error), field="webhook_url") from None
