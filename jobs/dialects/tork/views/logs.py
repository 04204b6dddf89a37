"""What tasks print, page by page, the newest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from jobs.dialects.tork.views.base import Page
from jobs.dialects.tork.wire.ids import try_id
from jobs.dialects.tork.wire.tasks import is_own_row
from jobs.dialects.tork.wire.times import moment_to_wire
from jobs.models import Attempt, Job, LogLine
from jobs.steps_search import MOST, read_query

PAGE_SIZE, MAX_PAGE_SIZE = 25, 100


class Found(NamedTuple):
    parts: list[dict[str, Any]]
    # Counted up to a limit, and whatever was looked for, as the original does.
    total: int


def of_job(using: str, job_id: UUID, page: Page, query: str) -> Found:
    """The log of all tasks of a job: by the place of the task, its making, and the number of the part."""
    lines = LogLine.objects.using(using).filter(job__step__root_id=job_id)
    ordered = lines.order_by("-job__step__position", "-job_id", "-id")
    return _page(using, lines, ordered, page, query)


def of_task(using: str, job: Job, attempt: Attempt | None, page: Page, query: str) -> Found:
    """The log of one try of a task."""
    lines = LogLine.objects.using(using).filter(job_id=job.pk)
    lines = lines.filter(fence=job.fence if attempt is None else attempt.fence)
    return _page(using, lines, lines.order_by("-id"), page, query)


def _page(
    using: str, lines: QuerySet[LogLine], ordered: QuerySet[LogLine], page: Page, query: str
) -> Found:
    total = lines.order_by()[:MOST].count()
    for word in read_query(query)[0]:
        ordered = ordered.filter(message__icontains=word)
    last = min(page.offset + page.size, MOST)
    if page.offset >= total or page.offset >= last:
        return Found([], total)
    # How many parts of the same try come before it.
    same = LogLine.objects.using(using).filter(
        job_id=OuterRef("job_id"), fence=OuterRef("fence"), id__lte=OuterRef("id")
    )
    counted = same.order_by().values("job_id").annotate(n=Count("id")).values("n")
    numbered = ordered.annotate(number=Coalesce(Subquery(counted, IntegerField()), 1))
    columns = (
        "id",
        "job_id",
        "fence",
        "message",
        "logged_at",
        "number",
        "job__fence",
        "job__state",
    )
    rows = list(numbered[page.offset : last].values_list(*columns, named=True))
    tries = _tries(using, {row.job_id for row in rows})
    return Found([_part(row, tries) for row in rows], total)


def _tries(using: str, jobs: Iterable[UUID]) -> Mapping[tuple[UUID, int], Attempt]:
    """The finished tries of these tasks."""
    attempts = Attempt.objects.using(using).filter(job_id__any_of=[*jobs])
    return {(one.job_id, one.fence): one for one in attempts}


def _part(row: Any, tries: Mapping[tuple[UUID, int], Attempt]) -> dict[str, Any]:
    attempt, task_id = tries.get((row.job_id, row.fence)), row.job_id
    if attempt is not None and is_own_row(attempt, row.job__fence, row.job__state):
        task_id = try_id(row.job_id, attempt.number)
    return {
        "id": f"{row.id:032x}",
        "number": row.number,
        "taskId": task_id.hex,
        # Lines are kept without their ends; whoever shows a page puts its parts end to end.
        "contents": row.message.removesuffix("\n") + "\n",
        "createdAt": moment_to_wire(row.logged_at),
    }
