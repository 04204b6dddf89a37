"""Rows whose every free text is what somebody chose, one of each sort for each text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clusters.models import AuditEntry
from jobs.engine import calendars, workflows
from jobs.engine.workflows import NewNode
from jobs.models import Calendar, Failure, LogLine, Queue, Schedule, Workflow
from tests.api.test_failures import make_failure
from tests.factories import make_attempt, make_job, make_node, make_queue
from tests.jobs.schedule_cases import make_schedule

CORPUS = Path(__file__).parent.parent / "corpora" / "xss.txt"


def nasty_texts() -> list[str]:
    return [line for line in CORPUS.read_text().splitlines() if line and line[0] != "#"]


def make_rows(texts: Sequence[str]) -> list[str]:
    """In the bound cluster; returns the pages on which they are."""
    pages = ["jobs/", "jobs/?state=failed", "failures/", "queues/", "nodes/", "schedules/", ""]
    pages += ["workflows/", "jobs/calendar/", "jobs/queue/", "jobs/schedule/"]
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
            error_type=text[:100], message=text, frame=text[:200], type=text[:100], example=text
        )
        assert Queue.objects.get(pk=queue.pk).description == text
        if number % 12 == 0:
            pages += [
                *(f"jobs/{job.pk}/", f"jobs/{job.pk}/cancel/", f"jobs/queue/{queue.pk}/change/"),
                *(f"schedules/{schedule.pk}/", f"jobs/schedule/{schedule.pk}/change/"),
                *(f"workflows/{workflow.pk}/", f"jobs/calendar/{calendar.pk}/change/"),
                f"failures/{failure.fingerprint}/",
            ]
    return pages
