"""The job that an address names."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404

from jobs.models import Job


def find_job(job_id: UUID) -> Job:
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise Http404
    return job
