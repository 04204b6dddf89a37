"""Tasks: create, list, follow, get, delete and retry."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from config.streams import LongAnswer
from jobs import listing
from jobs.dialects.asyncjobs.errors import Refused, envelope, refuse
from jobs.dialects.asyncjobs.start import task_queue
from jobs.dialects.asyncjobs.views.base import AsyncjobsView, empty, reply, reply_raw
from jobs.dialects.asyncjobs.views.feed import Feed
from jobs.dialects.asyncjobs.views.slices import fitting, task_slices
from jobs.dialects.asyncjobs.wire.payloads import canonical_json
from jobs.dialects.asyncjobs.wire.reading import Query
from jobs.dialects.asyncjobs.wire.states import SORTS, sorts_of
from jobs.dialects.asyncjobs.wire.tasks import (
    COLUMNS,
    FIELDS,
    new_task,
    parse_id,
    tasks_to_wire,
)
from jobs.dialects.asyncjobs.wire.times import parse_moment_or_day
from jobs.engine.enqueue import enqueue
from jobs.engine.idempotency import once
from jobs.engine.new_job import NewJob
from jobs.engine.started_kinds import barred_kinds, jobs_that_start, not_granted
from jobs.errors import JobNotFound
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet, Restart
from jobs.raw import read_id
from jobs.states import State

DEFAULT_LIMIT, MAX_LIMIT = 200, 1000
MAX_IDS = 100
KEY_HEADER = "Idempotency-Key"
KEY_KEPT_FOR = timedelta(minutes=10)
_KEY = re.compile(r"[\x20-\x7e\x80-\xff]{0,128}\Z")
NDJSON = "application/x-ndjson"
# When a stream may be tried again: the oldest of those that run has ended by then.
RETRY_AFTER_SECONDS = 5

# Why a job that was asked to run may not.
REFUSALS = {
    State.RUNNING: ("task_already_active", "the task is active"),
    State.WAITING: ("task_already_active", "the task is active"),
    State.SUCCEEDED: ("task_already_in_state", "the task is complete"),
    State.BLOCKED: ("task_cannot_enqueue", "the task waits for others"),
}
KEY_TAKEN = ("unique_key_taken", "another task with its unique key has not ended")


class TaskView(AsyncjobsView):
    noun = "task"
    verbs = {
        "create": "jobs.enqueue",
        "list": "jobs.read",
        "retrieve": "jobs.read",
        "destroy": "jobs.delete",
        "retry": "jobs.retry",
        "retry_many": "jobs.retry",
    }

    def create(self, request: Request, **_: Any) -> HttpResponse:
        body = self.body(FIELDS)
        new = new_task(body, task_queue())
        key = request.headers.get(KEY_HEADER)
        if key is None:
            done = enqueue(new, by=self.principal.actor)
            job, is_new = done.job, done.created
        else:
            job, is_new = self._once(key, new, canonical_json(dict(body.values)))
        location = f"{request.path.rstrip('/')}/{job.pk}"
        (task,) = tasks_to_wire(self.using, [job], are_made_here=True)
        return reply(task, 201 if is_new else 200, {"Location": location})

    def _once(self, key: str, new: NewJob, text: str) -> tuple[Job, bool]:
        """The job of a request, made at most once under its key; if it is gone, it is made again."""
        if not _KEY.match(key):
            reason = "idempotency_key_invalid"
            refuse(reason, "a key has up to 128 printable characters", KEY_HEADER)
        found: list[Job] = []

        def effect() -> tuple[int, Any]:
            done = enqueue(new, by=self.principal.actor)
            found.append(done.job)
            return (201 if done.created else 200), {"id": done.job_id}

        def holds(kept: Any) -> bool:
            found.extend(Job.objects.filter(pk=kept["id"]).only(*COLUMNS))
            return bool(found)

        done = once(
            self.principal.actor,
            key,
            hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
            effect,
            kept_for=KEY_KEPT_FOR,
            scope="asyncjobs",
            holds=holds,
        )
        return found[0], done.status == 201 and not done.is_repeat

    def list(self, request: Request, **_: Any) -> HttpResponseBase:
        query = self.query()
        asked, limit = asked_of(query), query.integer("limit")
        is_stream = _is_stream(query)
        if limit is not None and (limit < 1 or (limit > MAX_LIMIT and not is_stream)):
            refuse("limit_invalid", f"limit must be between 1 and {MAX_LIMIT}", "limit")
        if is_stream:
            return self._follow(asked, limit)
        rows = listing.newest(self.using, asked, "j.id", limit or DEFAULT_LIMIT)
        texts = fitting(task_slices(_jobs(), [read_id(pk) for (pk,) in rows]))
        return reply_raw(b'{"tasks":[%b],"count":%d}' % (b",".join(texts), len(texts)))

    def _follow(self, asked: dict[str, Any], limit: int | None) -> LongAnswer:
        full = envelope(
            429,
            "rate_limited",
            "too many lists are being streamed",
            "list_in_progress",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
        feed = Feed(self.using, asked, limit)
        return LongAnswer(
            feed,
            content_type=NDJSON,
            when_full=full,
            caller=self.principal.actor,
            of_a_caller=self.limits.streams,
        )

    def retrieve(self, request: Request, task_id: str, **_: Any) -> HttpResponse:
        return self._reply(task_id)

    def destroy(self, request: Request, task_id: str, **_: Any) -> HttpResponse:
        with self.deed("job", task_id) as trace:
            job = _one(task_id).only("id", "state", "type", "queue").first()
            if job is None:
                raise JobNotFound
            trace.before = {"type": job.type, "queue": job.queue, "state": job.state}
            done = _one(task_id).discard()
            if done.outcomes.get("has_dependants"):
                message = "tasks that have not ended depend on it"
                raise Refused(409, "conflict", message, "task_has_dependants")
            if not done and _one(task_id).exists():
                reason, message = REFUSALS[State.RUNNING]
                raise Refused(409, "conflict", message, reason)
        return empty(204)

    def retry(self, request: Request, task_id: str, **_: Any) -> HttpResponse:
        job = _one(task_id).only("id", "kind").first()
        if job is None:
            raise JobNotFound
        with self.deed("job", task_id):
            found = _one(task_id).restart().get(job.pk)
            if found is None:
                raise JobNotFound
            if not found.is_due:
                reason, message = _why_not(found)
                raise Refused(409, "conflict", message, reason)
        return self._reply(task_id)

    def retry_many(self, request: Request, **_: Any) -> HttpResponse:
        ids = self.body({"ids"}).texts("ids")
        if not ids:
            refuse("ids_required", "ids must name at least one task", "ids")
        if len(ids) > MAX_IDS:
            refuse("ids_too_many", f"ids may name at most {MAX_IDS} tasks", "ids")
        keys = {text: parse_id(text) for text in ids}
        known = [key for key in set(keys.values()) if key is not None]
        barred = barred_kinds(self.using)
        kinds = dict(_jobs().filter(pk__any_of=known).values_list("pk", "kind"))
        left_out = jobs_that_start(self.using, kinds, barred)
        may = kinds.keys() - left_out.keys()
        with self.deed("job") as trace:
            restarts = _jobs().filter(pk__any_of=may).restart()
            due = [str(pk) for pk, found in restarts.items() if found.is_due]
            trace.after, trace.is_done = {"ids": due}, bool(due)
        if left_out:
            self.tell_refusal(not_granted(min(left_out.values())))
        results = []
        for text in ids:
            key = keys[text]
            outcome: dict[str, str] = {"id": text}
            if key is None or key not in kinds:
                outcome |= {"status": "not_found", "error": "task not found"}
            elif key not in may:
                outcome |= {"status": "failed", "error": "its kind needs a grant of its own"}
            elif key not in restarts:
                outcome |= {"status": "not_found", "error": "task not found"}
            elif restarts[key].is_due:
                outcome |= {"status": "ok"}
            else:
                outcome |= {"status": "failed", "error": _why_not(restarts[key])[1]}
            results.append(outcome)
        return reply({"results": results})

    def _reply(self, task_id: str) -> HttpResponse:
        job = _one(task_id).only(*COLUMNS).first()
        if job is None:
            raise JobNotFound
        return reply(tasks_to_wire(self.using, [job])[0])


def asked_of(query: Query) -> dict[str, Any]:
    """The filters of a list in our words."""
    asked: dict[str, Any] = {}
    words = query.texts("state")
    for word in words:
        if word not in SORTS:
            refuse("state_invalid", f"state must be one of {', '.join(SORTS)}", "state")
    if words:
        asked["sorts"] = sorts_of(words)
    for name in ("queue", "type"):
        if text := (query.text(name) or "").strip():
            asked[name] = text
    since = query.text("created_since")
    if since is not None:
        moment = parse_moment_or_day(since)
        if moment is None:
            refuse(None, "query parameter created_since must be a time")
        asked["created_after"] = moment
    return asked


def _is_stream(query: Query) -> bool:
    word = query.text("stream")
    if word not in (None, "", "ndjson"):
        refuse("stream_invalid", "stream must be ndjson", "stream")
    return word == "ndjson"


def _jobs() -> JobQuerySet:
    jobs: JobQuerySet = Job.objects.all()
    return jobs


def _one(task_id: str) -> JobQuerySet:
    """The job with this id; what is no id is as missing as an unknown one."""
    key = parse_id(task_id)
    return _jobs().none() if key is None else _jobs().filter(pk=key)


def _why_not(found: Restart) -> tuple[str, str]:
    return REFUSALS.get(found.was, KEY_TAKEN)
