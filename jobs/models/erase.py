"""Erase jobs, with all that is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Model


def erase(using: str, ids: Sequence[UUID]) -> None:
    """Delete these jobs and what tells of them alone, in the caller's transaction and under its locks."""
    from jobs.models.archived import ArchivedJob
    from jobs.models.attempt import Attempt
    from jobs.models.dependency import JobDependency
    from jobs.models.job import Job
    from jobs.models.job_listing import JobMetadata, JobTag
    from jobs.models.log import LogLine
    from jobs.models.step import Step, StepsRun
    from jobs.models.steps_listing import StepsListing
    from jobs.models.webhook import WebhookEvent

    alone: tuple[type[Model], ...] = (
        *(Attempt, LogLine, JobTag, JobMetadata, Step, StepsRun, StepsListing, WebhookEvent),
        ArchivedJob,
    )
    for model in alone:
        model._default_manager.using(using).filter(job_id__any_of=ids)._raw_delete(using)
    # An edge to a parent that is gone tells its child of it for as long as that is there.
    JobDependency.objects.using(using).filter(child_id__any_of=ids)._raw_delete(using)
    Job.objects.using(using).filter(pk__any_of=ids)._raw_delete(using)
