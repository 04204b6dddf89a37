"""Jobs of one cluster: list, get, enqueue, and the moves a person may make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db import connections
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import check_object, format_time, parse_uuid, refuse
from clusters.api.paging import NEWEST_FIRST, Turning
from clusters.api.schema import BODY, IDEMPOTENCY_KEY, IF_MATCH, JOB_ID, answers
from clusters.registry import alias_of
from config.problems import MAX_ERRORS, FieldError, InvalidInput
from jobs import job_search, listing
from jobs.api import job_forms as forms
from jobs.api import job_wire as wire
from jobs.api.examples import ENQUEUE_EXAMPLES
from jobs.api.filters import JobLine, JobListQuery, check_countable, spelled_out
from jobs.api.grants import refuse_words_of_dialects
from jobs.api.items import LISTED_ERROR_LENGTH, item_sql, key_of
from jobs.api.once import answer_once
from jobs.api.words import in_words_of_the_body
from jobs.engine.edit import edit, version_of
from jobs.engine.enqueue import enqueue, enqueue_many
from jobs.engine.new_job import NewJob
from jobs.engine.requeue import requeue
from jobs.errors import JobError, JobNotFound
from jobs.filters import SEARCHED
from jobs.models import Attempt, Job
from jobs.models.job_queryset import JobQuerySet
from jobs.secrets import meant_payload
from jobs.states import UNSTARTED, State


class JobViewSet(NativeViewSet):
    verbs = {
        "list": "jobs.read",
        "count": "jobs.read",
        "retrieve": "jobs.read",
        "attempts": "jobs.read",
        "create": "jobs.enqueue",
        "bulk": "jobs.enqueue",
        "cancel": "jobs.cancel",
        "retry": "jobs.retry",
        "run_now": "jobs.run_now",
        "close": "jobs.close",
        "requeue": "jobs.requeue",
        "partial_update": "jobs.change",
        "destroy": "jobs.delete",
    }

    @extend_schema(
        operation_id="jobs_list",
        summary="List jobs, newest first",
        description="Items leave out `payload`, `payload_base64` and `result`, and hold the first "
        f"{LISTED_ERROR_LENGTH} characters of `error`; the job itself has all of them.",
        parameters=[JobListQuery],
        responses=answers({200: wire.JobPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = spelled_out(self.query(JobListQuery))
        if "count" in asked:
            check_countable(asked)
        using = alias_of(cluster_id)
        turning = Turning(request, NEWEST_FIRST, asked)
        found, reached = job_search.find(
            using,
            asked,
            item_sql(connections[using].vendor),
            turning.limit + 1,
            beyond=listing.Position(*turning.position) if turning.position else None,
            is_backwards=turning.is_backwards,
        )
        page = turning.page([item for (item,) in found], key_of, reached=reached)
        rest: dict[str, Any] = {"next": page.next, "previous": page.previous}
        if SEARCHED & asked.keys():
            rest["searched_to"] = format_time(reached and reached.created_at)
        if "count" in asked:
            rest |= (listing.count if asked["count"] == "exact" else listing.estimate)(using, asked)
        body = f'{{"items":[{",".join(page.rows)}],{json.dumps(rest)[1:]}'
        return HttpResponse(body.encode(), content_type="application/json")

    @extend_schema(
        operation_id="jobs_count",
        summary="Count jobs",
        parameters=[JobLine],
        responses=answers({200: wire.Count}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = spelled_out(self.query(JobLine))
        check_countable(asked)
        return reply(listing.count(alias_of(cluster_id), asked))

    @extend_schema(
        operation_id="jobs_get",
        summary="Get a job",
        parameters=[JOB_ID],
        responses=answers({200: wire.JobDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        self.query()
        return _detail(_job(job_id))

    @extend_schema(
        operation_id="jobs_enqueue",
        summary="Enqueue a job",
        description="With an `id` of the caller's the request may be repeated: the same job again is "
        "200 and `created: false`, a different one under that id is 409. So is a job whose `unique_key` "
        "another has that has not ended: 200, `created: false` and that job. A queue that is full and "
        "drops nothing answers 429.",
        parameters=[IDEMPOTENCY_KEY],
        request=forms.NewJobInput,
        responses=answers({201: wire.EnqueuedJob, 200: wire.EnqueuedJob}, 409, 422, 429, *BODY),
        examples=ENQUEUE_EXAMPLES,
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        new = forms.new_job(self.body(forms.NewJobInput))
        self._check_words([new], is_bulk=False)

        def effect() -> tuple[int, Any]:
            done = enqueue(new, by=self.principal.actor)
            body = {**wire.job_detail_to_json(done.job), "created": done.created}
            return (201 if done.created else 200), body

        response, body = self._once(effect)
        response.headers["Location"] = f"{request.path.rstrip('/')}/{body['id']}"
        return response

    @extend_schema(
        operation_id="jobs_enqueue_bulk",
        summary="Enqueue many jobs",
        description=f"Up to {forms.MAX_BULK_JOBS} jobs and {settings.MAX_BULK_BODY_BYTES >> 20} MiB; "
        "all of them are accepted or none.",
        parameters=[IDEMPOTENCY_KEY],
        request=forms.NewJobsInput,
        responses=answers({201: wire.EnqueuedJobs}, 409, 422, 429, *BODY),
    )
    def bulk(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        news = _new_jobs(request.data)
        self._check_words(news, is_bulk=True)

        def effect() -> tuple[int, Any]:
            done = enqueue_many(news, by=self.principal.actor)
            items = [{"id": one.job_id, "created": one.created} for one in done]
            return 201, {"items": items, "count": len(items)}

        return self._once(effect)[0]

    @extend_schema(
        operation_id="jobs_delete",
        summary="Delete a finished job",
        parameters=[JOB_ID],
        responses=answers({204: None}, 409),
    )
    def destroy(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        self._check_empty()
        _job(job_id).delete_final()
        return HttpResponse(status=204)

    @extend_schema(
        operation_id="jobs_cancel",
        summary="Cancel a job",
        description="What has not started is cancelled at once; a running job is asked to stop.",
        parameters=[JOB_ID],
        request=None,
        responses=answers({200: wire.JobDetail}, 409),
    )
    def cancel(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        return self._move(job_id, Job.cancel)

    @extend_schema(
        operation_id="jobs_retry",
        summary="Retry a failed, cancelled or skipped job",
        parameters=[JOB_ID],
        request=None,
        responses=answers({200: wire.JobDetail}, 409),
    )
    def retry(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        return self._move(job_id, Job.retry)

    @extend_schema(
        operation_id="jobs_run_now",
        summary="Run a scheduled job without waiting for its time",
        parameters=[JOB_ID],
        request=None,
        responses=answers({200: wire.JobDetail}, 409),
    )
    def run_now(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        return self._move(job_id, Job.run_now)

    @extend_schema(
        operation_id="jobs_close",
        summary="Decide that a held job stays failed",
        description="Only one that `is_held`: its node was lost, and whether its work was done is for "
        "a person to say. To run it again, retry it.",
        parameters=[JOB_ID],
        request=None,
        responses=answers({200: wire.JobDetail}, 409),
    )
    def close(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        return self._move(job_id, Job.close)

    @extend_schema(
        operation_id="jobs_requeue",
        summary="Enqueue a copy of a job",
        description="The copy is due now, has all its attempts, and names its original in `copy_of`. "
        "Times and dependencies of the original are not copied.",
        parameters=[JOB_ID, IDEMPOTENCY_KEY],
        request=None,
        responses=answers({201: wire.JobDetail}, 409, 422),
    )
    def requeue(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        self._check_empty()
        job = _job(job_id)

        def effect() -> tuple[int, Any]:
            return 201, wire.job_detail_to_json(requeue(job, by=self.principal.actor))

        response, body = self._once(effect)
        jobs = request.path.rstrip("/").removesuffix(f"/{job_id}/requeue")
        response.headers["Location"] = f"{jobs}/{body['id']}"
        return response

    @extend_schema(
        operation_id="jobs_change",
        summary="Change a job that has not started",
        description="Without `If-Match` the last one to write wins. The ETag of a job that has not "
        "started names what may be changed here, and nothing else.",
        parameters=[JOB_ID, IF_MATCH],
        request=forms.JobChangeInput,
        responses=answers({200: wire.JobDetail}, 409, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        self.query()
        job = _job(job_id)
        values = self.body(forms.JobChangeInput)
        if not values:
            refuse("body", "Names nothing to change.", "required")
        if {"payload", "payload_base64"} <= values.keys():
            refuse("payload_base64", "Give a payload or its bytes, not both.")
        with in_words_of_the_body():
            if "payload" in values:
                values["payload"] = meant_payload(job.kind, values["payload"], job.payload)
                if job.dialect_notes is None:
                    refuse_words_of_dialects(job.kind, values["payload"])
            versions = _versions(request.headers.get("If-Match"))
            edit(job, forms.job_changes(values), versions=versions)
        return _detail(job)

    @extend_schema(
        operation_id="jobs_attempts",
        summary="List the attempts of a job, oldest first",
        parameters=[JOB_ID, forms.AttemptQuery],
        responses=answers({200: wire.AttemptList}),
    )
    def attempts(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        asked = {"after": -1, "limit": 50, **self.query(forms.AttemptQuery)}
        job = _job(job_id, "state", "attempts", "fence", "node_id", "started_at")
        rows = Attempt.objects.all().of_job(job.pk).filter(fence__gt=asked["after"])
        found = list(rows[: asked["limit"] + 1])
        items = [wire.attempt_to_json(row) for row in found[: asked["limit"]]]
        if len(found) > asked["limit"]:
            return reply({"items": items, "next": _next(request, asked, items[-1]["fence"])})
        # Between the two reads the running try may have ended and got its row.
        last = items[-1]["fence"] if items else asked["after"]
        if job.state == State.RUNNING and job.fence > last:
            items.append(wire.running_attempt_to_json(job))
        return reply({"items": items, "next": None})

    def _move(self, job_id: str, verb: Callable[[Job], None]) -> HttpResponse:
        self._check_empty()
        job = _job(job_id)
        verb(job)
        return reply(wire.job_detail_to_json(job))

    def _check_empty(self) -> None:
        """These requests say all with their address."""
        self.query()
        self.body()

    def _check_words(self, news: Sequence[NewJob], *, is_bulk: bool) -> None:
        for index, new in enumerate(news):
            try:
                refuse_words_of_dialects(new.kind, new.payload)
            except JobError as error:
                error.index = index if is_bulk else None
                raise

    def _once(self, effect: Callable[[], tuple[int, Any]]) -> tuple[HttpResponse, Any]:
        """Run the effect, or give the reply it had under the same Idempotency-Key."""
        with in_words_of_the_body():
            return answer_once(self.request, self.principal.actor, effect)


def _jobs() -> JobQuerySet:
    jobs: JobQuerySet = Job.objects.all()
    return jobs


def _job(job_id: str, *columns: str) -> Job:
    """One job of the bound cluster; what is no UUID is as missing as an unknown one."""
    key = parse_uuid(job_id)
    rows = _jobs().only(*columns) if columns else _jobs()
    job = rows.filter(pk=key).first() if key else None
    if job is None:
        raise JobNotFound
    return job


def _detail(job: Job) -> HttpResponse:
    etag = {"ETag": f'"{version_of(job)}"'} if job.state in UNSTARTED else None
    return reply(wire.job_detail_to_json(job), headers=etag)


def _versions(if_match: str | None) -> list[str] | None:
    """The versions under which a change is wanted; None is any."""
    if if_match is None or if_match.strip() == "*":
        return None
    return [part.strip().strip('"') for part in if_match.split(",")[:10]]


def _new_jobs(data: Any) -> list[NewJob]:
    if not isinstance(data, dict) or not isinstance(data.get("jobs"), list):
        refuse("jobs", "Must be a list of jobs.", "required")
    for name in data.keys() - {"jobs"}:
        refuse(name[:100], "There is no such field.", "unknown_field")
    listed = data["jobs"]
    if not 1 <= len(listed) <= forms.MAX_BULK_JOBS:
        refuse("jobs", f"Must hold 1 to {forms.MAX_BULK_JOBS} jobs.")
    news: list[NewJob] = []
    errors: list[FieldError] = []
    for index, item in enumerate(listed):
        values, wrong = check_object(forms.NewJobInput, item, f"jobs[{index}]")
        errors += wrong
        if len(errors) >= MAX_ERRORS:
            break
        if not errors:
            news.append(forms.new_job(values))
    if errors:
        raise InvalidInput(errors)
    return news


def _next(request: Request, asked: dict[str, Any], last: int) -> str:
    return f"{request.path}?{urlencode({'after': last, 'limit': asked['limit']})}"
