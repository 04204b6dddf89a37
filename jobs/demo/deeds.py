"""What people did in the day: pauses, drains, settings, bulk operations, and the audit of it all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clusters.models import AuditEntry, ClusterSetting, SettingChange
from jobs.demo.stage import Stage
from jobs.models import BulkAction, BulkOperation, BulkStatus, Failure, Queue, Schedule, Secret
from jobs.sealing import first_key

ONCALL, LEAD, CI = "user:oncall", "user:lead", "key:ci"


def write(stage: Stage) -> None:
    entries = [*_pauses(stage), *_drains(stage), *_settings(stage), *_bulk(stage), *_rest(stage)]
    entries += _secrets(stage)
    entries.sort(key=lambda entry: entry.at)
    AuditEntry.objects.using(stage.using).bulk_create(entries)


def _told(
    stage: Stage,
    at: datetime,
    actor: str,
    verb: str,
    target_type: str,
    target: Any = "",
    **more: Any,
) -> AuditEntry:
    is_key = actor.startswith("key:")
    return AuditEntry(
        id=stage.id_at(at),
        at=at,
        actor=actor,
        credential="api_key" if is_key else "session",
        surface="native" if is_key else "admin",
        address="192.0.2.17" if is_key else "192.0.2.40",
        verb=verb,
        target_type=target_type,
        target_id=str(target),
        request_id=f"demo-{stage.random.getrandbits(48):012x}",
        **more,
    )


def _pauses(stage: Stage) -> list[AuditEntry]:
    entries = []
    for queue in Queue.objects.using(stage.using).filter(is_paused=True):
        assert queue.paused_at is not None
        after = {
            "is_paused": True,
            "paused_by": queue.paused_by,
            "pause_reason": queue.pause_reason,
            "resume_at": None if queue.resume_at is None else queue.resume_at.isoformat(),
        }
        before = dict.fromkeys(after) | {"is_paused": False}
        more = {"reason": queue.pause_reason, "before": before, "after": after}
        entries.append(
            _told(stage, queue.paused_at, ONCALL, "queues.pause", "queue", queue.name, **more)
        )
    for schedule in Schedule.objects.using(stage.using).filter(is_paused=True):
        at = stage.ago(hours=2, minutes=50)
        Schedule.objects.using(stage.using).filter(pk=schedule.pk).update(paused_at=at)
        entries.append(
            _told(
                stage,
                at,
                ONCALL,
                "schedules.pause",
                "schedule",
                schedule.pk,
                reason=schedule.pause_reason or "",
            )
        )
    line = stage.play.queues[0].name
    begun, over = stage.ago(minutes=88), stage.ago(minutes=84)
    reason = "The mail server refuses connections"
    return [
        *entries,
        _told(stage, begun, ONCALL, "queues.pause", "queue", line, reason=reason),
        _told(stage, over, ONCALL, "queues.resume", "queue", line),
    ]


def _drains(stage: Stage) -> list[AuditEntry]:
    return [
        _told(
            stage,
            stage.ago(minutes=11),
            ONCALL,
            "nodes.drain",
            "node",
            actor.pk,
            reason="New memory for this host",
            before={"drain_requested_at": None},
            after={"drain_requested_at": stage.ago(minutes=11).isoformat()},
        )
        for actor in stage.living
        if actor.drains
    ]


def _settings(stage: Stage) -> list[AuditEntry]:
    changes = (
        (1380.0, "retain_failed_seconds", None, 45 * 86400, LEAD, "The auditors ask for 45 days"),
        (415.0, "default_max_attempts", None, 4, ONCALL, "Partners are flaky today"),
        (200.0, "default_max_attempts", 4, 3, ONCALL, "They are well again"),
    )
    entries = []
    for minutes, name, before, after, by, reason in changes:
        at = stage.ago(minutes=minutes)
        SettingChange.objects.using(stage.using).create(
            id=stage.id_at(at), at=at, name=name, before=before, after=after, by=by, reason=reason
        )
        ClusterSetting.objects.using(stage.using).update_or_create(
            name=name, defaults={"value": after, "updated_by": by}
        )
        ClusterSetting.objects.using(stage.using).filter(name=name).update(updated_at=at)
        told = {"before": {name: before}, "after": {name: after}, "reason": reason}
        entries.append(
            _told(
                stage, at, by, "settings.change", "cluster", stage.using[len("cluster-") :], **told
            )
        )
    return entries


def _bulk(stage: Stage) -> list[AuditEntry]:
    """Operations over many jobs: done, stopped, and one that could not go on."""
    first = stage.play.works[0].type
    largest = Failure.objects.using(stage.using).order_by("-count").first()
    plans: list[tuple[float, str, str, dict[str, Any], dict[str, int], str]] = [
        (
            250.0,
            "cancel",
            ONCALL,
            {"type": [first], "state": ["ready"]},
            {"cancelled": stage.some(118)},
            "They were enqueued twice",
        ),
        (
            196.0,
            "retry",
            ONCALL,
            {"state": ["failed"], "type": [stage.play.works[1].type]},
            {"retried": stage.some(52), "unchanged": 3},
            "The certificate is new",
        ),
        (
            610.0,
            "set_priority",
            LEAD,
            {"queue": [stage.play.queues[2].name]},
            {"changed": stage.some(240)},
            "The campaign goes first",
        ),
    ]
    if largest is not None:
        plans.append(
            (
                24.0,
                "retry",
                ONCALL,
                {"failure": [largest.fingerprint], "state": ["failed"]},
                {"retried": 10},
                "Ten first, to see whether the server is back",
            )
        )
    rows, entries = [], []
    for minutes, action, by, words, outcomes, reason in plans:
        at = stage.ago(minutes=minutes)
        pk = stage.id_at(at)
        seen = sum(outcomes.values())
        is_stopped = action == "set_priority"
        arguments = {"priority": -20} if action == "set_priority" else {}
        rows.append(
            BulkOperation(
                id=pk,
                action=BulkAction(action),
                filter=words,
                arguments=arguments,
                reason=reason,
                requested_by=by,
                status=BulkStatus.CANCELLED if is_stopped else BulkStatus.FINISHED,
                covers_until=at,
                expected=seen * 2 if is_stopped else seen,
                seen=seen,
                outcomes=outcomes,
                created_at=at,
                started_at=at + timedelta(seconds=1),
                finished_at=at + timedelta(seconds=5),
                cancel_requested_at=at + timedelta(seconds=5) if is_stopped else None,
                cancelled_by=by if is_stopped else None,
            )
        )
        entries.append(
            _told(
                stage,
                at,
                by,
                "bulk_operations.request",
                "bulk_operation",
                pk,
                filter=words,
                reason=reason,
                after={"action": action, **arguments},
            )
        )
        if is_stopped:
            at += timedelta(seconds=5)
            entries.append(_told(stage, at, by, "bulk_operations.stop", "bulk_operation", pk))
    BulkOperation.objects.using(stage.using).bulk_create(rows)
    return entries


def _rest(stage: Stage) -> list[AuditEntry]:
    """A deploy by a key, single retries, an edited schedule."""
    schedules = [*Schedule.objects.using(stage.using).order_by("name")[:3]]
    entries = [
        _told(
            stage,
            stage.ago(minutes=372 - 3 * number),
            CI,
            "nodes.drain",
            "node",
            actor.pk,
            reason=f"Roll-out, {actor.host}",
        )
        for number, actor in enumerate(
            one for one in stage.actors if one.ended_at and not one.is_dead
        )
    ]
    for number, schedule in enumerate(schedules):
        at = stage.ago(minutes=500 - 60 * number)
        change = {"before": {"overlap": "allow"}, "after": {"overlap": schedule.overlap}}
        entries.append(
            _told(stage, at, LEAD, "schedules.change", "schedule", schedule.pk, **change)
        )
    for number in range(stage.some(24)):
        at = stage.between(stage.ago(hours=20), stage.ago(minutes=40))
        job: UUID = stage.id_at(at - timedelta(minutes=number + 5))
        verb = ("jobs.retry", "jobs.cancel", "jobs.run_now")[number % 3]
        reason = "No longer wanted" if verb == "jobs.cancel" else ""
        entries.append(_told(stage, at, ONCALL, verb, "job", job, count=1, reason=reason))
    return entries


def _secrets(stage: Stage) -> list[AuditEntry]:
    """Names of secrets, whose values nobody ever knew."""
    if first_key() is None:
        return []
    entries = []
    for number, name in enumerate(("smtp_password", "sms_gateway_token", "partner_signing_key")):
        at = stage.ago(minutes=900 - 110 * number)
        value = f"{stage.random.getrandbits(160):040x}"
        rows: Any = Secret.objects.using(stage.using).all()
        if rows.filter(name=name).exists():
            continue
        rows.create_secret(name, value, by=LEAD, description="For the demo; opens nothing")
        rows.filter(name=name).update(created_at=at, updated_at=at)
        entries.append(_told(stage, at, LEAD, "secrets.write", "secret", name))
    return entries
