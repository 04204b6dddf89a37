"""Rows whose every free text is what somebody chose, one of each sort for each text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from django.utils import timezone

from clusters.models import AuditEntry, SettingChange
from jobs.engine import alert_rules, calendars, workflows
from jobs.engine.workflows import NewNode
from jobs.models import (
    AlertEvent,
    AlertRule,
    BulkOperation,
    Calendar,
    Failure,
    LogLine,
    Queue,
    Schedule,
    Secret,
    Workflow,
)
from tests.api.test_failures import make_failure
from tests.factories import make_attempt, make_job, make_node, make_queue
from tests.jobs.schedule_cases import make_schedule

CORPUS = Path(__file__).parent.parent / "corpora" / "xss.txt"


def nasty_texts() -> list[str]:
    return [line for line in CORPUS.read_text().splitlines() if line and line[0] != "#"]


def make_rows(texts: Sequence[str]) -> list[str]:
    """In the bound cluster; returns the pages on which they are."""
    pages = ["jobs/", "jobs/?state=failed", "failures/", "queues/", "nodes/", "schedules/", ""]
    pages += ["governance/", "governance/settings/", "governance/secrets/"]
    pages += ["alerts/", "bulk-operations/", "workflows/", "jobs/calendar/", "jobs/queue/"]
    pages += ["schedules/new/", "schedules/load/"]
    for number, text in enumerate(texts):
        job = make_job(
            "failed",
            type=text[:100],
            tags=[text[:60]],
            metadata={"key": text},
            payload={text[:50]: text},
            result={"x": text},
            error=text,
            enqueued_by=f"key:{text}"[:200],
        )
        make_attempt(job, error=text, error_type=text[:100])
        LogLine.objects.create(job=job, fence=1, stream="log", message=text)
        AuditEntry.objects.create(
            actor=f"user:{text}"[:200],
            verb="jobs.retry",
            target_type="job",
            target_id=str(job.pk),
            reason=text,
            after={"x": text},
        )
        SettingChange.objects.create(
            name="max_crashes", before=text, after=text, by=text[:200], reason=text
        )
        Secret.objects.create(
            name=f"secret-{number}", sealed="v1.x.y", description=text, updated_by=text[:200]
        )
        queue = make_queue(
            f"queue-{number}",
            description=text,
            is_paused=True,
            pause_reason=text,
            paused_by=f"user:{text}"[:100],
        )
        make_node(host=text, types=[text])
        schedule = make_schedule()
        calendar = calendars.create(f"calendar-{number}", ["2030-01-01"], by="test")
        workflow = workflows.create(f"workflow {number}", [NewNode(schedule.pk)], by="test")
        name = f"{text}{number}"  # one of its own, in small letters too
        Schedule.objects.filter(pk=schedule.pk).update(name=name, description=text)
        Calendar.objects.filter(pk=calendar.pk).update(description=text)
        Workflow.objects.filter(pk=workflow.pk).update(name=name, description=text)
        failure = make_failure(number + 1, job_id=str(job.pk))
        Failure.objects.filter(pk=failure.pk).update(
            error_type=text[:100],
            message=text,
            frame=text[:200],
            type=text[:100],
            example=text,
            **{"owner": text[:200], "marked_by": text[:200], "mark_reason": text[:500]},
            seen_on={"types": [text], "nodes": [text], "versions": [text]},
        )
        alert = alert_rules.create(
            {"name": text[:95] + str(number), "kind": "oldest_ready", "queue": text[:100]},
            by="test",
        )
        said = {
            "acknowledged_by": text[:200],
            "acknowledge_reason": text[:500],
            "sentence": text[:500],
        }
        muted = {"muted_by": text[:200], "mute_reason": text[:500], "webhook_url": text[:500]}
        AlertRule.objects.filter(pk=alert.pk).update(
            **said, **muted, state="firing", acknowledged_at=timezone.now(), page="failures/"
        )
        AlertEvent.objects.create(rule=alert, what="fired", sentence=text[:500], by=text[:200])
        assert Queue.objects.get(pk=queue.pk).description == text
        operation = BulkOperation.objects.create(
            action="retry",
            filter={"type": text[:100], "metadata": [f"key:{text}"[:400]]},
            reason=text,
            requested_by=f"user:{text}"[:200],
            status="failed",
            error=text,
            finished_at=timezone.now(),
        )
        if number % 12 == 0:
            pages += [
                *(f"jobs/{job.pk}/", f"jobs/{job.pk}/cancel/", f"jobs/queue/{queue.pk}/change/"),
                *(f"schedules/{schedule.pk}/", f"schedules/{schedule.pk}/edit/"),
                *(
                    f"workflows/{workflow.pk}/start/",
                    f"workflows/{workflow.pk}/",
                    f"jobs/calendar/{calendar.pk}/change/",
                ),
                f"failures/{failure.fingerprint}/",
                *(f"alerts/{alert.pk}/{deed}" for deed in ("", "edit/", "mute/")),
                f"bulk-operations/{operation.pk}/",
                f"jobs/{job.pk}/copy-changed/",
                f"jobs/{job.pk}/?{urlencode({'find': text[:20]})}",
                f"jobs/?{urlencode({'type': text[:100]})}",
                f"bulk-operations/new/?{urlencode({'action': 'retry', 'type': text[:100]})}",
                f"bulk-operations/new/?{urlencode({'type': text[:100]})}",
                *(f"failures/{failure.fingerprint}/{deed}/" for deed in ("mute", "own")),
                # Its series is a part of the first of them.
                *(f"queues/{queue.name}/{page}" for page in ("", "limits/", "purge/")),
            ]
    return pages
